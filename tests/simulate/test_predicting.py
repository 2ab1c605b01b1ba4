"""Predictions with all parties in one process: who is given takes part, or says why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from heterofed import DataError, PeerTimeout, TemplateError, predict_locally
from heterofed.scheduler.gathering import check_in
from heterofed.scheduler.predicting import serving
from tests.scheduler.predicting.parties import Knowing, collaborators, host_of, quick, trained_run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Lost(Knowing):
    """Cannot say whom it knows."""

    def load_local_ids(self) -> list[str]:
        raise KeyError("person-033")


class Slow(Knowing):
    """Takes longer to begin than anybody waits for those that are not given."""

    def load_local_ids(self) -> list[str]:
        time.sleep(1.2)
        return super().load_local_ids()


def test_a_given_party_that_fails_before_the_session_is_no_absent_one() -> None:
    folder, _ = trained_run(3)
    first = collaborators(folder, 3)[0]
    lost = Lost("c2", party=2, out_dir=folder / "c2", settings=quick())

    with (
        pytest.raises(TemplateError, match=r"c2.*Lost.load_local_ids\(\) raised KeyError"),
        predict_locally(host_of(folder, 3), first, lost, absent="zeros"),
    ):
        raise AssertionError


def test_one_that_fails_on_the_way_in_ends_the_wait_for_those_that_are_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = trained_run(3)

    def refused(*args: Any, **kwargs: Any) -> None:
        raise DataError("its table is gone")

    monkeypatch.setattr(serving, "check_in", refused)
    began = time.monotonic()
    with (
        pytest.raises(DataError, match="c1, while answering predictions: its table is gone"),
        predict_locally(host_of(folder, 3), collaborators(folder, 3)[0], absent="zeros", wait=30),
    ):
        raise AssertionError
    assert time.monotonic() - began < 10, "it did not wait for those that are not given"


def test_a_given_party_that_takes_its_time_is_waited_for() -> None:
    folder, _ = trained_run(3)
    slow = Slow("c1", party=1, out_dir=folder / "c1", settings=quick())

    with predict_locally(host_of(folder, 3), slow, absent="zeros", wait=1.0) as predictions:
        assert predictions.absent == ("c2",)


def test_a_given_party_that_never_checks_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = trained_run(3)

    def late(seat: Any, **kwargs: Any) -> Any:
        if seat.feature_key == "c2":
            time.sleep(1)
        return check_in(seat, **kwargs)

    monkeypatch.setattr(serving, "check_in", late)
    with (
        pytest.raises(PeerTimeout, match=r"c2.*did not check in within 0.3 s.*longer wait"),
        predict_locally(host_of(folder, 3), *collaborators(folder, 3), absent="zeros", wait=0.3),
    ):
        raise AssertionError

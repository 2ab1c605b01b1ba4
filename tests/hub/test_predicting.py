"""Predictions where a hub has the task's record: parties that launched it meet again there, by the keys of the run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from heterofed import HeterofedError
from heterofed.scheduler.manifest import read_manifest
from heterofed.tasks import PartyStatus, TaskStatus
from heterofed.tasks.client import HubClient
from heterofed.wire.keys import load_or_create
from tests.hub.running import running_hub
from tests.scheduler.predicting.parties import EVERYBODY, Knowing, Predicting, in_a_thread, quick, values_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubClient]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with running_hub(tmp_path, requests_per_minute=100_000) as running:
        monkeypatch.setenv("HETEROFED_HUB", running.url)
        monkeypatch.setenv("HETEROFED_TOKEN", running.token)
        with closing(HubClient(running.url, running.token)) as client:
            yield client
    torch.set_num_threads(before)


def test_a_completed_task_of_a_hub_is_met_again_and_stays_as_it_was(tmp_path: Path, tasks: HubClient) -> None:
    task = tasks.create("tiny", ["host", "c1"]).id
    trained = Predicting(out_dir=tmp_path / "host", settings=quick())
    with in_a_thread(lambda: Knowing(out_dir=tmp_path / "c1", settings=quick()).launch_task(task), 60.0):
        trained.launch_task(task)
    before = tasks.get(task)
    assert before.status is TaskStatus.COMPLETED
    key = load_or_create(quick().home / "keys", "host").public.decode()
    assert {read_manifest(tmp_path / each).host_key for each in ("host", "c1")} == {key}
    stop = threading.Event()
    served = Knowing(out_dir=tmp_path / "c1", settings=quick())

    with in_a_thread(lambda: served.serve_predictions(task, stop=stop)) as ends:
        with Predicting(out_dir=tmp_path / "host", settings=quick()).open_predictions(task) as predictions:
            again = values_of(predictions)
        stop.set()

    assert ends == [1]
    assert again.keys() == set(EVERYBODY)
    assert all(torch.equal(again[each], trained.concluded[each]) for each in EVERYBODY)
    after = tasks.get(task)
    assert (after.status, after.round) == (before.status, before.round)
    assert [each.status for each in after.parties] == [PartyStatus.FINISHED] * 2

    for each in (quick().home / "keys").glob("host*"):
        each.unlink()
    with (
        in_a_thread(lambda: Knowing(out_dir=tmp_path / "c1", settings=quick()).answer_predictions()) as ends,
        pytest.raises(HeterofedError),
        Predicting(out_dir=tmp_path / "host", settings=quick()).open_predictions(wait=1.0),
    ):
        raise AssertionError
    assert "another key than in the training" in str(ends[0])

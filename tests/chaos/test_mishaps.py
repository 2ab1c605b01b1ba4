"""A few mishaps, those that are over soon; `make chaos` has all of them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import mishaps, silence
from tests.chaos.mishaps import BY_CHANCE
from tests.chaos.report import Plan
from tests.chaos.stage import Trouble

pytestmark = pytest.mark.processes
TRIED = (
    "c1 killed twice before its first checkpoint",
    "host ahead by a checkpoint, host killed",
    "SIGTERM of c1 in batch",
    "host started again with its folder wiped",
)


@pytest.mark.timeout(120)
def test_mishaps_end_as_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [each for each in mishaps.mishaps() if each.name in TRIED]
    monkeypatch.setattr(mishaps, "mishaps", lambda: some)
    found = list(mishaps.cells(Plan(share=1.0, seed=7, folder=tmp_path)))
    red = [f"{each.name}: {each.note}" for each in found if not each.ok]
    assert not red, "\n".join(red)
    assert {each.name for each in found} == set(TRIED)


def test_a_name_finds_one_mishap() -> None:
    assert max(Counter(each.name for each in mishaps.mishaps()).values()) == 1


def test_a_share_has_every_kind_of_mishap(tmp_path: Path) -> None:
    whole = mishaps.mishaps()
    share = Plan(share=0.25, seed=7, folder=tmp_path).spread(whole, lambda each: each.kind)
    assert {each.kind for each in share} == {each.kind for each in whole}
    assert sum(each.kind == "chance" for each in share) == BY_CHANCE / 4


def test_a_run_that_does_not_end_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path, variant: str) -> None:
        raise Trouble("host exit 1")

    monkeypatch.setattr(mishaps, "undisturbed", fails)
    (found,) = mishaps.cells(Plan(share=1.0, seed=7, folder=tmp_path))
    assert not found.ok
    assert found.note.startswith("host exit 1")


class Speaking:
    """A stage whose parties have said something."""

    def __init__(self, **words: str) -> None:
        self.words = words.__getitem__


LINES = [("host", "the link of c1 is down"), ("c2", "c1 is away")]


def test_how_soon_a_party_was_missed_is_measured() -> None:
    stage: Any = Speaking(host="the link of c1 is down; waiting", c2="c1 is away; host waits for it")
    assert silence.noticed(stage, LINES, time.monotonic()) == "host after 0.0 s, c2 after 0.0 s"


@pytest.mark.parametrize(
    ("late_s", "c2", "why"),
    [
        (silence.NOTICED_WITHIN_S + 1, "c1 is away", "noticed too late: host after 11.0 s, c2 after 11.0 s"),
        (2 * silence.NOTICED_WITHIN_S + 1, "waiting for host", "c2 does not say 'c1 is away'"),
    ],
)
def test_a_party_that_is_missed_too_late_or_never_is_red(late_s: float, c2: str, why: str) -> None:
    stage: Any = Speaking(host="the link of c1 is down", c2=c2)
    with pytest.raises(Trouble, match=why):
        silence.noticed(stage, LINES, time.monotonic() - late_s)

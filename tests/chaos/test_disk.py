"""A few cells of the chaos run's disk section."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from tests.chaos import disk
from tests.chaos.disk import Point, cells
from tests.chaos.disk_outcome import PARTIES
from tests.chaos.report import Plan
from tests.chaos.smalldisk import FILLED, KINDS, CannotMount

SHARE = 0.02


@pytest.mark.timeout(120)
def test_a_run_whose_disk_fails_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    done = list(cells(Plan(share=SHARE, seed=5, folder=tmp_path)))

    assert [each for each in done if each.ok]
    assert not [f"{each.name}: {each.note}" for each in done if each.red]


@pytest.mark.timeout(120)
def test_what_needs_a_small_disk_is_not_run_where_there_is_none_and_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(folder: Path) -> NoReturn:
        raise CannotMount("cannot mount a tmpfs: Operation not permitted")

    points = [Point(party, kind, 30, disk.IN_LAST_ROUND) for party in PARTIES for kind in KINDS]
    monkeypatch.setattr(disk, "small_disk", cannot)
    monkeypatch.setattr(disk, "_points", lambda folder: points)
    monkeypatch.setattr(disk, "PROCESSES_FROM", 2.0)
    monkeypatch.setattr(disk, "DAMAGED", ["model"])
    done = list(cells(Plan(share=1.0, seed=5, folder=tmp_path)))

    assert not [f"{each.name}: {each.note}" for each in done if each.red]
    assert {each.name for each in done if each.ok} == {str(each) for each in points if each.kind not in FILLED}
    left = [each for each in done if not each.run]
    assert len(left) == 4 + len(PARTIES) * len(disk.DAMAGES)
    assert {each.note for each in left} == {"cannot mount a tmpfs: Operation not permitted"}

"""What a party finds of an earlier process of its own: the ids that were matched, and the points of that run only."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from heterofed.frames.messages import MOST_POINTS
from heterofed.scheduler.recovery import (
    ALIGNMENT_FILE,
    START_NAME,
    Alignment,
    Points,
    find_alignment,
    keep_alignment,
    standing_with,
)
from heterofed.scheduler.standing import Standing
from heterofed.training.checkpoint import Checkpointer

RUN, OTHER = b"\x01" * 16, b"\x02" * 16
IDS = ["person-1", "person-2", "person-3"]
KEPT = Alignment(RUN, IDS[:2])


# --- the ids ----------------------------------------------------------------------------------------------------------


def test_an_alignment_is_found_as_it_was_kept(tmp_path: Path) -> None:
    keep_alignment(tmp_path / "checkpoints", KEPT)

    assert find_alignment(tmp_path / "checkpoints", IDS) == KEPT


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_shared_ids_are_for_this_users_eyes_only(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keep_alignment(tmp_path, KEPT)
        keep_alignment(tmp_path, KEPT)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / ALIGNMENT_FILE).stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [ALIGNMENT_FILE]


def test_a_party_that_keeps_nothing_finds_nothing_and_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_alignment(tmp_path / "no such folder", IDS) is None
    assert find_alignment(tmp_path, IDS) is None
    assert caplog.messages == []


def test_ids_that_have_changed_are_matched_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_alignment(tmp_path, KEPT)

    assert find_alignment(tmp_path, IDS[1:]) is None
    assert caplog.messages == [
        "the ids of this party have changed since they were matched: they are matched again",
    ]


def test_ids_that_were_added_change_nothing(tmp_path: Path) -> None:
    """They would have to be added at every party to be shared, and then somebody begins anew."""
    keep_alignment(tmp_path, KEPT)

    assert find_alignment(tmp_path, [*IDS, "person-4"]) == KEPT


@pytest.mark.parametrize("damage", ["torn", "empty", "other", "folder"])
def test_an_alignment_that_cannot_be_read_is_made_again_and_no_id_is_told(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep_alignment(tmp_path, KEPT)
    path = tmp_path / ALIGNMENT_FILE
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"torn": whole[:-3], "empty": b"", "other": b"\xc0"}[damage])

    assert find_alignment(tmp_path, IDS) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{path} cannot be used (")
    assert "person" not in caplog.text


# --- the points -------------------------------------------------------------------------------------------------------


class Part:
    """A part of a checkpoint that holds what it is given."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


class Kept:
    """A folder of checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.trainer = Part()
        self.checkpointer = Checkpointer(folder, {"model": Part(), "trainer": self.trainer})

    def save(self, point: int, run: bytes = RUN) -> Path:
        self.trainer.state = {"iter": point, "own": {"run": run.hex()}}
        return self.checkpointer.save_iteration(point - 1) if point else self.checkpointer.save(START_NAME, tag=False)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_the_points_are_the_numbers_of_batches_done_and_the_start(kept: Kept) -> None:
    for point in (0, 3, 6):
        kept.save(point)
    points = Points(kept.checkpointer, RUN)

    assert list(points) == [0, 3, 6]
    assert [points.name(each) for each in (0, 3, 6, 9)] == [START_NAME, "model_0000002", "model_0000005", None]


def test_points_of_another_run_in_the_folder_are_no_points(kept: Kept) -> None:
    kept.save(9, OTHER)
    kept.save(3)
    kept.save(0, OTHER)

    assert list(Points(kept.checkpointer, RUN)) == [3]
    assert list(Points(kept.checkpointer, OTHER)) == [0, 9]
    assert list(Points(kept.checkpointer, b"\x03" * 16)) == []


def test_checkpoints_with_other_names_are_no_points(kept: Kept) -> None:
    kept.save(3)
    for name in ("model_best", "model_final", "mine"):
        kept.checkpointer.save(name)

    assert list(Points(kept.checkpointer, RUN)) == [3]


@pytest.mark.parametrize("part", ["model", "trainer"])
@pytest.mark.parametrize("damage", ["torn", "missing", "changed"])
def test_a_newest_checkpoint_that_cannot_be_read_is_passed_over(
    kept: Kept, part: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept.save(3)
    path = kept.save(6) / f"{part}.pt"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        at = whole.index(b"\x80\x02")  # where the pickle begins
        path.write_bytes(whole[:-50] if damage == "torn" else whole[:at] + b"\x80\x03" + whole[at + 2 :])

    assert list(Points(kept.checkpointer, RUN)) == [3]
    assert str(path) in caplog.text
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1


def test_a_checkpoint_that_was_written_by_another_program_is_passed_over(kept: Kept) -> None:
    kept.save(3)
    kept.trainer.state = {"iter": 6}
    kept.checkpointer.save_iteration(5)

    assert list(Points(kept.checkpointer, RUN)) == [3]


# --- where a party stands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False])
def test_one_that_does_not_recover_looks_at_nothing(kept: Kept, fresh: bool) -> None:
    kept.save(3)
    points = Points(kept.checkpointer, RUN)

    standing = standing_with(points, KEPT, recover=False, fresh=fresh)

    assert standing == Standing(False, b"", (0,) if fresh else ())


@pytest.mark.parametrize("fresh", [True, False])
def test_one_that_knows_no_ids_begins_anew_if_it_can(fresh: bool) -> None:
    assert standing_with(None, None, recover=True, fresh=fresh) == Standing(True, b"", (0,) if fresh else ())


@pytest.mark.parametrize("fresh", [True, False])
def test_one_that_was_killed_before_it_kept_anything_knows_the_ids_and_stands_at_the_start(
    kept: Kept, fresh: bool
) -> None:
    points = Points(kept.checkpointer, RUN)

    assert standing_with(points, KEPT, recover=True, fresh=fresh) == Standing(True, RUN, (0,) if fresh else ())


def test_one_that_has_points_does_not_stand_at_a_start_that_it_has_not_kept(kept: Kept) -> None:
    kept.save(3)
    kept.save(6)
    points = Points(kept.checkpointer, RUN)

    assert standing_with(points, KEPT, recover=True, fresh=True) == Standing(True, RUN, (3, 6))


def test_of_very_many_points_the_newest_are_offered(kept: Kept) -> None:
    for point in range(1, MOST_POINTS + 4):
        kept.save(point)

    standing = standing_with(Points(kept.checkpointer, RUN), KEPT, recover=True, fresh=False)

    assert standing.points == tuple(range(4, MOST_POINTS + 4))

"""When all parties keep a checkpoint in the middle of a round."""

from __future__ import annotations

import pytest

from heterofed.scheduler.batches.stops import StopClock


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("every", "before", "due"),
    [(None, 0, []), (1, 0, [0, 1, 2, 3]), (2, 0, [1, 3]), (2, 1, [0, 2]), (5, 3, [1]), (5, 0, [])],
)
def test_the_count_goes_by_the_batches_of_the_run_and_leaves_out_the_last_of_a_round(
    every: int | None, before: int, due: list[int]
) -> None:
    clock = StopClock(every, None)
    clock.begin_round(before, batches=5)

    assert [batch for batch in range(8) if clock.is_due(batch, another=False)] == due


def test_time_counts_from_the_last_one_and_waits_for_one_that_is_to_come() -> None:
    now = Clock()
    clock = StopClock(None, 10, now)
    clock.begin_round(0, batches=5)
    assert not clock.is_due(1, another=False)

    now.now += 10
    assert clock.is_due(1, another=False)
    assert not clock.is_due(1, another=True)
    assert not clock.is_due(4, another=False), "the last batch of the round"
    clock.kept()
    assert not clock.is_due(2, another=False)


def test_a_round_begins_the_time_anew() -> None:
    now = Clock()
    clock = StopClock(None, 10, now)
    now.now += 60
    clock.begin_round(0, batches=5)

    assert not clock.is_due(0, another=False)


def test_no_stop_is_made_in_a_round_where_a_party_chooses_its_batches() -> None:
    now = Clock()
    clock = StopClock(1, 1, now)
    clock.begin_round(0, batches=0)
    now.now += 5

    assert not any(clock.is_due(batch, another=False) for batch in range(4))

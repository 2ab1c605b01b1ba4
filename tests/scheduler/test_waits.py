"""A limit counts the time in which somebody could have answered, and no other."""

from __future__ import annotations

import math

import pytest

from heterofed.scheduler.waits import STOPPED_S, Deadline, longest


class Clock:
    """Goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_has_passed_is_what_is_not_left(clock: Clock) -> None:
    deadline = Deadline(10, clock)
    clock.now += 4

    assert (deadline.waited_s(), deadline.left_s()) == (4, 6)
    clock.now += 7
    assert (deadline.waited_s(), deadline.left_s()) == (11, -1)


def test_zero_is_no_limit(clock: Clock) -> None:
    deadline = Deadline(0, clock)
    clock.now += 1e9

    assert deadline.left_s() == math.inf
    assert deadline.waited_s() == 1e9


def test_excused_time_does_not_count_and_other_time_does(clock: Clock) -> None:
    deadline = Deadline(10, clock)
    for seconds, excused in [(1, False), (50, True), (2, False), (70, True), (3, False)]:
        clock.now += seconds
        deadline.excuse(excused)

    assert (deadline.waited_s(), deadline.left_s()) == (6, 4)


def test_only_the_time_since_the_last_look_is_excused(clock: Clock) -> None:
    deadline = Deadline(10, clock)
    clock.now += 4
    deadline.excuse(False)
    clock.now += 3
    deadline.excuse(True)

    assert deadline.waited_s() == 4


def test_the_time_between_two_waits_that_share_a_limit_counts_even_if_the_second_is_excused_at_once(
    clock: Clock,
) -> None:
    deadline = Deadline(10, clock)
    clock.now += 6  # this party computes
    deadline.resume()
    clock.now += 1
    deadline.excuse(True)

    assert deadline.waited_s() == 6


@pytest.mark.parametrize(
    ("timeouts", "most"), [((20.0, 300.0), 300.0), ((300.0, 20.0), 300.0), ((0.0, 300.0), 0.0), ((20.0, 0.0), 0.0)]
)
def test_of_some_timeouts_zero_is_the_longest(timeouts: tuple[float, float], most: float) -> None:
    assert longest(*timeouts) == most


def test_a_process_that_was_stopped_itself_does_not_count_the_time_it_slept(clock: Clock) -> None:
    """SIGSTOP, or a machine that is suspended: whoever it waits for could not have been heard."""
    deadline = Deadline(4, clock)
    for seconds in (0.5, 12, 0.5, 3600, 0.5):
        clock.now += seconds
        deadline.excuse(False)

    assert (deadline.waited_s(), deadline.left_s()) == (1.5, 2.5)


def test_a_look_that_is_only_late_counts(clock: Clock) -> None:
    deadline = Deadline(4, clock)
    clock.now += STOPPED_S - 0.5
    deadline.excuse(False)

    assert deadline.left_s() < 0

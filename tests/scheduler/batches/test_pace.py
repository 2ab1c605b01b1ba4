"""Both ends of a link count alike which batches travel together, and a pass that goes on counts as the whole one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heterofed.frames.messages import LOCK_STEP, MOST_AHEAD, Terms
from heterofed.scheduler.batches.pace import Pace


def groups(terms: Terms, stops: set[int], batches: int | None, first: int = 0, until: int = 40) -> list[list[int]]:
    """Return which batches travel together."""
    pace = Pace(terms, stops, batches)
    found: list[list[int]] = [[]]
    for batch in range(first, until if batches is None else batches):
        found[-1].append(batch)
        if pace.ends_message(batch):
            found.append([])
    assert found.pop() == []
    return found


def together(count: int) -> Terms:
    return Terms(max_staleness=count - 1, batches_per_message=count)


def test_by_default_every_batch_is_a_message_of_its_own_and_none_runs_ahead() -> None:
    assert groups(LOCK_STEP, set(), 3) == [[0], [1], [2]]
    assert Pace(LOCK_STEP, set(), 3).lets_on(0)
    assert not Pace(LOCK_STEP, set(), 3).lets_on(1)


def test_groups_end_at_stops_and_at_the_last_batch() -> None:
    assert groups(together(3), {3}, 9) == [[0, 1, 2], [3], [4, 5, 6], [7, 8]]


def test_where_the_number_of_batches_is_not_known_each_travels_alone() -> None:
    assert groups(together(3), set(), None, until=4) == [[0], [1], [2], [3]]


def test_a_whole_group_has_to_find_room() -> None:
    pace = Pace(Terms(max_staleness=4, batches_per_message=3), set(), 9)
    assert [pace.lets_on(in_flight) for in_flight in range(5)] == [True, True, True, False, False]


@given(
    count=st.integers(1, MOST_AHEAD),
    stops=st.sets(st.integers(0, 30)),
    batches=st.integers(1, 40),
)
def test_a_pass_that_goes_on_after_a_stop_has_the_groups_of_the_whole_one(
    count: int, stops: set[int], batches: int
) -> None:
    whole = groups(together(count), stops, batches)
    assert [each for group in whole for each in group] == [*range(batches)]
    assert all(len(group) <= count for group in whole)
    for stop in (each for each in stops if each + 1 < batches):
        rest = groups(together(count), stops, batches, first=stop + 1)
        assert rest == [group for group in whole if group[0] > stop]

"""A run that begins again with its first round: the coordinator counts and tells from there."""

from __future__ import annotations

import pytest

from heterofed.hub.coordinator.training import TrainingState, UncertaintyMethod
from heterofed.hub.coordinator.work import Outcome
from heterofed.tasks import TaskStatus
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course

SWAG = UncertaintyMethod.SWAG


def fail_in_round_three(course: Course, method: UncertaintyMethod | None = None) -> None:
    course.start(method)
    course.move(TaskStatus.ONGOING)
    for round in (1, 2):
        course.all_say(KINDS.ROUND_FINISHED, round)
        if method is SWAG:
            course.all_say(KINDS.SWAG_FINISHED, round)
        course.say(HOST, KINDS.TEST_FINISHED, round)
    course.move(TaskStatus.FAILED, reason="shop vanished")
    assert course.training().round == 2


@pytest.mark.parametrize("method", [None, SWAG])
@pytest.mark.parametrize("host_first", [True, False])
def test_the_rounds_of_a_run_that_begins_again_are_counted_again_whoever_says_so_first(
    course: Course, host_first: bool, method: UncertaintyMethod | None
) -> None:
    fail_in_round_three(course, method)
    course.move(TaskStatus.GATHERING, TaskStatus.ONGOING)
    already = len(course.told())

    if host_first:
        course.begin_anew(HOST)
        course.begin_anew(SHOP)
    else:
        # The shop's words about its first round are here before the host's that it begins.
        course.begin_anew(SHOP)
        course.say(SHOP, KINDS.ROUND_FINISHED, 1)
        course.begin_anew(HOST)
    assert course.training().round == 0
    assert course.told()[already:] == [("UPDATE_ROUND_START", 1)]
    for round in (1, 2, 3):
        course.all_say(KINDS.ROUND_FINISHED, round)
        if method is SWAG:
            course.all_say(KINDS.SWAG_FINISHED, round)
        course.say(HOST, KINDS.TEST_FINISHED, round)
        assert course.training().round == round

    assert course.training().state is TrainingState.COMPLETED
    told = course.told()[already:]
    assert [each for each in told if each[0] == "UPDATE_ROUND_START"] == [("UPDATE_ROUND_START", n) for n in (1, 2, 3)]
    assert [each for each in told if each[0] == "MODEL_TEST_ROUND"] == [("MODEL_TEST_ROUND", n) for n in (1, 2, 3)]
    assert told[-1] == ("TRAINING_FINISHED", 3)


def test_a_host_that_was_killed_in_the_midst_of_a_round_of_moments_and_begins_again_waits_for_none(
    course: Course,
) -> None:
    course.start(SWAG)
    course.move(TaskStatus.ONGOING)
    course.all_say(KINDS.ROUND_FINISHED, 1)
    assert course.training().state is TrainingState.SWAG_ROUND

    course.move(TaskStatus.GATHERING)
    course.begin_anew(HOST)

    assert course.training().state is TrainingState.ONGOING
    assert course.training().round == 0


def test_a_first_run_tells_nothing_twice(course: Course) -> None:
    course.start()
    before = course.told()

    course.begin_anew(HOST)

    assert course.told() == before
    assert course.training().state is TrainingState.ONGOING


def test_an_event_of_the_run_before_that_is_still_on_its_way_finds_nothing_to_do(course: Course) -> None:
    course.start()
    course.say(SHOP, KINDS.ROUND_FINISHED, 1)
    works = course.report(HOST, KINDS.ROUND_FINISHED, 1)
    assert works

    course.begin_anew(HOST)

    assert course.carry_out(works) == [Outcome.NOTHING]
    assert course.training().round == 0

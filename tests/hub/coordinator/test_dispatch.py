"""What parties report and hosts decide leads to events, each handled once, in whatever order the words come."""

from __future__ import annotations

import random

import pytest

from heterofed.errors import ConfigError, UnknownTask
from heterofed.hub.coordinator import dispatch
from heterofed.hub.coordinator.dispatch import Work
from heterofed.hub.coordinator.rows import add_event
from heterofed.hub.coordinator.training import TrainingState
from heterofed.hub.coordinator.work import Outcome
from heterofed.tasks import TaskStatus
from heterofed.tasks.database import Database
from heterofed.tasks.options import TrainerOptions
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course


def test_a_round_closes_only_with_one_report_of_every_party(database: Database) -> None:
    """Item 46. In the source, one party that sent twice counted twice."""
    course = Course(database, collaborators=(SHOP, "post"))
    course.start()
    course.say(HOST, KINDS.ROUND_FINISHED, 1)
    course.say(SHOP, KINDS.ROUND_FINISHED, 1)
    course.say(SHOP, KINDS.ROUND_FINISHED, 1)
    course.say(HOST, KINDS.ROUND_FINISHED, 1)
    assert course.training().round == 0
    assert course.events() == []

    assert course.say("post", KINDS.ROUND_FINISHED, 1) == [Outcome.DONE]

    assert course.training().round == 1


def test_whatever_is_reported_again_leads_to_nothing(course: Course) -> None:
    """Item 48: in the source, a score that came late started the next round a second time."""
    course.start()
    for _ in range(3):
        course.all_say(KINDS.ROUND_FINISHED, 1)
        course.say(HOST, KINDS.TEST_FINISHED, 1)

    assert course.told()[2:] == [("MODEL_TEST_ROUND", 1), ("UPDATE_ROUND_START", 2)]
    assert [row.state for row in course.events()] == ["DONE", "DONE"]


def test_an_event_that_was_handled_is_not_written_again(course: Course) -> None:
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)
    with course.database.transaction(write=True) as connection:
        assert add_event(connection, course.id, "TrainingRoundFinished", 1) == ()
        assert len(add_event(connection, course.id, "TrainingRoundFinished", 2)) == 1
        assert len(add_event(connection, course.id, "TrainingRoundFinished", 2)) == 1

    assert len(course.events()) == 2


def test_an_event_that_is_handed_out_again_is_handled_once(course: Course) -> None:
    course.start()
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    works = course.report(SHOP, KINDS.ROUND_FINISHED, 1)

    outcomes = course.carry_out([*works, *works]) + course.carry_out(works)

    assert outcomes == [Outcome.DONE, Outcome.NOTHING, Outcome.NOTHING]
    assert course.told()[2:] == [("MODEL_TEST_ROUND", 1)]


def test_a_test_reported_before_its_round_is_handled_after_it(course: Course) -> None:
    course.start()
    course.say(HOST, KINDS.ROUND_FINISHED, 1)
    assert course.say(HOST, KINDS.TEST_FINISHED, 1, {"scores": {"auc": 0.7}}) == [Outcome.NOT_YET]

    course.say(SHOP, KINDS.ROUND_FINISHED, 1)

    assert course.told()[2:] == [("MODEL_TEST_ROUND", 1), ("UPDATE_ROUND_START", 2)]


def test_a_host_that_is_rounds_ahead_of_the_hub_loses_nothing(course: Course) -> None:
    course.start()
    for round in (1, 2, 3):
        course.say(HOST, KINDS.ROUND_FINISHED, round)
        course.say(HOST, KINDS.TEST_FINISHED, round)
    course.move(TaskStatus.ONGOING)
    for round in (1, 2, 3):
        course.say(SHOP, KINDS.ROUND_FINISHED, round)

    assert course.training().state is TrainingState.COMPLETED
    assert course.training().round == 3
    assert course.told()[-1] == ("TRAINING_FINISHED", 3)
    assert {row.state for row in course.events()} == {"DONE"}


def test_rounds_are_counted_in_order_though_a_later_one_is_handed_out_first(course: Course) -> None:
    course.start()
    later = []
    for round in (1, 2):
        course.report(HOST, KINDS.ROUND_FINISHED, round)
        later.append(course.report(SHOP, KINDS.ROUND_FINISHED, round))

    outcomes = course.carry_out([*later[1], *later[0]])

    assert outcomes == [Outcome.NOT_YET, Outcome.DONE, Outcome.DONE]
    assert course.told()[2:] == [("MODEL_TEST_ROUND", 1), ("MODEL_TEST_ROUND", 2)]


@pytest.mark.parametrize("seed", range(6))
def test_every_order_in_which_events_are_handed_out_ends_the_same(course: Course, seed: int) -> None:
    course.start()
    works: list[Work] = []
    for round in (1, 2, 3):
        for party in (HOST, SHOP):
            works += course.report(party, KINDS.ROUND_FINISHED, round)
        works += course.report(HOST, KINDS.TEST_FINISHED, round)
    random.Random(seed).shuffle(works)

    course.carry_out(works)

    assert course.training().state is TrainingState.COMPLETED
    assert {row.state for row in course.events()} == {"DONE"}
    told = course.told()
    assert len(told) == len(set(told))
    assert [one for one in told if one[0] == "MODEL_TEST_ROUND"] == [("MODEL_TEST_ROUND", r) for r in (1, 2, 3)]
    assert told[-1] == ("TRAINING_FINISHED", 3)


def test_a_party_that_reports_after_the_end_is_still_counted(course: Course) -> None:
    course.start()
    course.say(HOST, KINDS.ROUND_FINISHED, 1)
    course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)
    assert course.told()[-1] == ("TRAINING_FINISHED", 0)

    course.say(SHOP, KINDS.ROUND_FINISHED, 1)

    assert course.training().round == 1
    assert course.told()[-1] == ("TRAINING_FINISHED", 0)


def test_a_report_of_a_task_that_nobody_launched_is_refused_and_not_kept(course: Course) -> None:
    """Item 56: a wrong state."""
    course.come_in()

    with pytest.raises(ConfigError, match=f"task {course.id} has not been launched"):
        course.report(HOST, KINDS.ROUND_FINISHED, 1)

    course.move(TaskStatus.GATHERING)
    assert course.missing(KINDS.ROUND_FINISHED, 1) == (HOST, SHOP)
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    assert course.missing(KINDS.ROUND_FINISHED, 1) == (SHOP,)


@pytest.mark.parametrize("round", [0, -1, 4])
def test_a_report_of_a_round_that_cannot_be_is_refused(course: Course, round: int) -> None:
    """Item 56: a wrong round."""
    course.start()
    with (
        pytest.raises(ConfigError, match=rf"of round {round}.* expected a round from 1 to 3"),
        course.database.transaction(write=True) as connection,
    ):
        dispatch.reported(connection, course.id, SHOP, KINDS.ROUND_FINISHED, round)


def test_a_party_that_the_task_does_not_have_cannot_be_lost(course: Course) -> None:
    course.start()
    with pytest.raises(ConfigError, match="a lost party that the task does not have"):
        course.report(HOST, KINDS.PARTY_LOST, 1, {"party": "stranger"})


def test_a_task_that_is_not_there_is_unknown(course: Course) -> None:
    with course.database.transaction(write=True) as connection, pytest.raises(UnknownTask, match="on this hub"):
        dispatch.started(connection, "nothing")


def test_parties_that_were_launched_by_hand_are_followed_too(course: Course) -> None:
    course.come_in()
    course.move(TaskStatus.GATHERING)

    course.all_say(KINDS.ROUND_FINISHED, 1)

    assert course.training().state is TrainingState.ONGOING
    assert course.told() == [("MODEL_TEST_ROUND", 1)]


def test_a_party_that_is_lost_is_waited_for(course: Course) -> None:
    course.start()

    assert course.say(HOST, KINDS.PARTY_LOST, 1, {"party": SHOP, "reason": "no sign for 2 s"}) == [Outcome.DONE]

    assert course.training().awaited == (HOST, SHOP)
    assert len(course.told()) == 2
    course.all_say(KINDS.ROUND_FINISHED, 1)
    assert course.training().round == 1


def test_a_host_that_gives_up_fails_the_task_and_everybody_hears_why(course: Course) -> None:
    course.add_user("boss", role="owner")
    course.start()

    course.say(HOST, KINDS.TASK_FAILED, 1, {"reason": "shop is gone"})

    assert course.training().state is TrainingState.ERROR
    assert course.training().cause == "shop is gone"
    assert course.store.get(course.id).status is TaskStatus.FAILED
    assert course.store.get(course.id).reason == "shop is gone"
    for party in (HOST, SHOP, None):
        assert course.told(party)[-1] == ("TASK_FAILED", 0)
    assert course.bodies()[-1] == {"round": 0, "reason": "shop is gone"}


def test_a_failure_is_told_once_though_the_host_also_moves_the_task(course: Course) -> None:
    course.start()
    course.move(TaskStatus.ONGOING)
    course.move(TaskStatus.FAILED, reason="shop is gone")
    course.say(HOST, KINDS.TASK_FAILED, 1, {"reason": "shop is gone"})

    assert [kind for kind, _ in course.told()].count("TASK_FAILED") == 1


def test_a_task_that_failed_can_be_launched_again_and_fail_again(course: Course) -> None:
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)
    course.say(HOST, KINDS.TASK_FAILED, 1, {"reason": "first"})

    course.start()
    assert course.store.get(course.id).status is TaskStatus.GATHERING
    assert course.training().state is TrainingState.ONGOING
    assert course.training().cause is None
    assert course.told()[-1] == ("UPDATE_ROUND_START", 2)
    course.say(HOST, KINDS.TASK_FAILED, 1, {"reason": "second"})

    assert course.training().cause == "second"
    assert course.training().round == 1


def test_a_host_that_comes_back_by_itself_goes_on(course: Course) -> None:
    course.start()
    course.say(HOST, KINDS.TASK_FAILED, 0, {"reason": "no power"})

    course.move(TaskStatus.GATHERING)
    course.all_say(KINDS.ROUND_FINISHED, 1)

    assert course.training().state is TrainingState.ONGOING
    assert course.told()[-1] == ("MODEL_TEST_ROUND", 1)


def test_a_cancelled_task_stays_cancelled_and_the_parties_hear_of_it(course: Course) -> None:
    course.start()

    course.move(TaskStatus.CANCELLED, reason="wrong columns")

    assert course.store.get(course.id).status is TaskStatus.CANCELLED
    assert course.bodies()[-1] == {"round": 0, "reason": "the task was cancelled: wrong columns"}
    assert course.training().state is TrainingState.ERROR


def test_options_are_kept_with_the_training(database: Database) -> None:
    options = TrainerOptions(skip_model_tests=True, delete_local_models_after_aggregation=False)
    course = Course(database, options=options)
    course.start()

    assert course.training().options == options

"""An event is handled once, whoever else tries, and whatever goes wrong on the way."""

from __future__ import annotations

import time

import pytest

from heterofed.errors import ConfigError, OutputError
from heterofed.hub.coordinator.events import ModelTestFinished, TrainingRoundFinished
from heterofed.hub.coordinator.locks import LockLost, acquire, release
from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.tables import training_table
from heterofed.hub.coordinator.training import Training, TrainingState
from heterofed.hub.coordinator.work import MAX_ATTEMPTS, Outcome, process
from heterofed.tasks import TaskStatus
from heterofed.tasks.course import ReportKind
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course


def close_round(course: Course, round: int = 1) -> Work:
    """Let every party report; return the event, unhandled."""
    works: tuple[Work, ...] = ()
    for party in course.parties:
        works = course.report(party, ReportKind.ROUND_FINISHED, round)
    (work,) = works
    return work


def test_a_lock_is_one_s_until_it_is_freed(course: Course) -> None:
    """Item 55."""
    course.start()
    with course.database.transaction(write=True) as connection:
        token = acquire(connection, course.id)
        assert token is not None
        assert acquire(connection, course.id) is None

        release(connection, course.id, token)

        assert acquire(connection, course.id) is not None


def test_only_its_holder_frees_a_lock(course: Course) -> None:
    """Item 55. In the source, whoever ended freed the lock, also one that it never had."""
    course.start()
    with course.database.transaction(write=True) as connection:
        token = acquire(connection, course.id)
        with pytest.raises(LockLost):
            release(connection, course.id, "another")
        assert acquire(connection, course.id) is None
        assert token is not None
        release(connection, course.id, token)
        with pytest.raises(LockLost):
            release(connection, course.id, token)


def test_the_lock_of_somebody_who_was_killed_runs_out(course: Course) -> None:
    course.start()
    with course.database.transaction(write=True) as connection:
        first = acquire(connection, course.id, 0.05)
        time.sleep(0.06)
        second = acquire(connection, course.id, 10.0)

        assert first is not None and second is not None
        with pytest.raises(LockLost):
            release(connection, course.id, first)


def test_a_busy_training_is_come_back_to_and_nothing_is_lost(course: Course) -> None:
    """Item 55: the source dropped the event and said nothing."""
    course.start()
    work = close_round(course)
    with course.database.transaction(write=True) as connection:
        token = acquire(connection, course.id)

    result = process(course.database, work)
    assert result.outcome is Outcome.BUSY
    assert result.again_in_s is not None and 0 < result.again_in_s < 1
    assert course.training().round == 0

    with course.database.transaction(write=True) as connection:
        assert token is not None
        release(connection, course.id, token)
    assert process(course.database, work).outcome is Outcome.DONE
    assert course.training().round == 1


def test_the_lock_is_free_after_the_work(course: Course) -> None:
    course.start()
    process(course.database, close_round(course))

    assert course.lock() == (None, None)


def test_whoever_lost_the_lock_meanwhile_changes_nothing(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Item 55: a worker that slept too long wakes up after another one took over."""
    course.start()
    work = close_round(course)
    load = Training.load

    def slowly(connection: object, task_id: str) -> object:
        training = load(connection, task_id)  # type: ignore[arg-type]  # as it is called
        assert training is not None
        stolen = {"lock_token": "another"}
        training.connection.execute(training_table.update().values(stolen))
        return training

    with monkeypatch.context() as patch:
        patch.setattr(Training, "load", slowly)
        result = process(course.database, work)

    assert result.outcome is Outcome.BUSY
    assert course.training().round == 0
    assert len(course.told()) == 2
    assert [row.state for row in course.events()] == ["PENDING"]


def test_an_exception_is_tried_again_and_leaves_nothing_half_done(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.start()
    work = close_round(course)

    def fail(event: TrainingRoundFinished) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRoundFinished, "next", fail)  # after handle has counted the round
        result = process(course.database, work)

    assert result.outcome is Outcome.AGAIN and result.again_in_s is not None
    assert course.training().round == 0
    assert course.lock() == (None, None)
    assert [(row.attempts, row.cause) for row in course.events()] == [(1, "ValueError: a bug")]
    assert process(course.database, work).outcome is Outcome.DONE
    assert course.told()[2:] == [("MODEL_TEST_ROUND", 1)]


def test_an_exception_that_stays_fails_the_task_keeps_its_cause_and_frees_the_lock(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 54. The source left the training ONGOING for ever."""
    course.add_user("boss", role="owner")
    course.start()
    work = close_round(course)

    def fail(event: TrainingRoundFinished) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(TrainingRoundFinished, "handle", fail)
    outcomes = [process(course.database, work).outcome for _ in range(MAX_ATTEMPTS + 1)]

    assert outcomes == [Outcome.AGAIN] * (MAX_ATTEMPTS - 1) + [Outcome.FAILED, Outcome.NOTHING]
    cause = "TrainingRoundFinished of round 1 could not be handled: ValueError: a bug"
    assert (course.training().state, course.training().cause) == (TrainingState.ERROR, cause)
    assert course.store.get(course.id).status is TaskStatus.FAILED
    assert course.store.get(course.id).reason == cause
    assert course.lock() == (None, None)
    assert [row.state for row in course.events()] == ["FAILED"]
    for party in (HOST, SHOP, None):
        assert course.told(party)[-1] == ("TASK_FAILED", 0)


def test_the_parties_do_not_read_the_names_of_the_hub_s_files(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.start()
    work = close_round(course)

    def fail(event: TrainingRoundFinished) -> None:
        raise OutputError("/srv/secret/hub.db is full")

    monkeypatch.setattr(TrainingRoundFinished, "handle", fail)
    for _ in range(MAX_ATTEMPTS):
        process(course.database, work)

    assert "secret" in course.events()[0].cause
    assert "secret" not in str(course.training().cause)
    assert "secret" not in str(course.bodies()[-1])


def test_a_completed_training_stays_completed_whatever_fails_later(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.start()
    course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)
    work = close_round(course)

    def fail(event: TrainingRoundFinished) -> None:
        raise ConfigError("a bug")

    monkeypatch.setattr(TrainingRoundFinished, "handle", fail)
    for _ in range(MAX_ATTEMPTS):
        process(course.database, work)

    assert course.training().state is TrainingState.COMPLETED


@pytest.mark.parametrize(
    "work",
    [
        Work("nothing", "TrainingRoundFinished", {"round": 1}),
        Work("TASK", "os.system", {"round": 1}),
        Work("TASK", "TrainingRoundFinished", {}),
        Work("TASK", "TrainingRoundFinished", {"round": "1; DROP TABLE tasks"}),
        Work("TASK", "TrainingRoundFinished", {"round": 1, "subject": 7}),
        Work("TASK", "TrainingRoundFinished", {"round": 7}),
    ],
    ids=str,
)
def test_whatever_a_broker_says_only_events_with_a_row_are_handled(course: Course, work: Work) -> None:
    course.start()

    assert process(course.database, Work(work.training_uuid.replace("TASK", course.id), *_rest(work))).outcome is (
        Outcome.NOTHING
    )
    assert course.lock() == (None, None)


def _rest(work: Work) -> tuple[str, dict[str, object]]:
    return work.event_name, dict(work.payload)


def test_events_of_a_round_that_could_not_be_counted_do_not_block_the_end(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)
    monkeypatch.setattr(ModelTestFinished, "handle", lambda self: 1 / 0)
    for _ in range(MAX_ATTEMPTS):
        course.say(HOST, KINDS.TEST_FINISHED, 1)
        process(course.database, Work(course.id, "ModelTestFinished", {"round": 1, "subject": ""}))

    assert course.training().state is TrainingState.ERROR
    assert course.training().cause == (
        "ModelTestFinished of round 1 could not be handled: ZeroDivisionError: division by zero"
    )

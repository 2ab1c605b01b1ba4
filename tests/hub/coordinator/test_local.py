"""Without a broker a thread of the hub handles events, sends notifications, and finds what an earlier hub has left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heterofed.errors import OutputError
from heterofed.hub.coordinator import local
from heterofed.hub.coordinator.local import InProcessDispatcher
from heterofed.hub.coordinator.locks import acquire, release
from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.sender import Sender
from heterofed.hub.coordinator.training import TrainingState
from heterofed.hub.coordinator.work import Outcome, Result, process
from heterofed.tasks.database import Database
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course
from tests.hub.coordinator.endpoint import endpoint


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def running(database: Database, **options: Any) -> Iterator[InProcessDispatcher]:
    dispatcher = InProcessDispatcher(database, **{"look_every_s": 0.05, "again_after_s": 0.2, **options})
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.close()
        assert not [one for one in threading.enumerate() if one.name.startswith("heterofed-hub-")]


def test_a_whole_course_is_handled_in_this_process(course: Course) -> None:
    course.start()
    with running(course.database) as dispatcher:
        for round in (1, 2, 3):
            for party in (HOST, SHOP):
                dispatcher.dispatch(course.report(party, KINDS.ROUND_FINISHED, round))
            dispatcher.dispatch(course.report(HOST, KINDS.TEST_FINISHED, round))
        until(lambda: course.training().state is TrainingState.COMPLETED)

    assert course.told()[-1] == ("TRAINING_FINISHED", 3)


def test_who_waits_for_news_is_told_after_each_event(course: Course) -> None:
    course.start()
    news = threading.Event()
    with running(course.database, on_news=news.set) as dispatcher:
        course.report(HOST, KINDS.ROUND_FINISHED, 1)
        assert not news.is_set()
        dispatcher.dispatch(course.report(SHOP, KINDS.ROUND_FINISHED, 1))

        assert news.wait(10)
        assert course.training().round == 1


def test_what_a_hub_did_not_come_to_is_done_by_the_next_one(course: Course) -> None:
    course.start()
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    course.report(SHOP, KINDS.ROUND_FINISHED, 1)  # and the hub dies between commit and dispatch

    with running(course.database):
        until(lambda: course.training().round == 1, within_s=2.0)


def test_a_busy_training_is_come_back_to(course: Course) -> None:
    """Item 55."""
    course.start()
    with course.database.transaction(write=True) as connection:
        token = acquire(connection, course.id)
    assert token is not None
    with running(course.database, look_every_s=60.0) as dispatcher:
        course.report(HOST, KINDS.ROUND_FINISHED, 1)
        dispatcher.dispatch(course.report(SHOP, KINDS.ROUND_FINISHED, 1))
        time.sleep(0.3)
        assert course.training().round == 0
        with course.database.transaction(write=True) as connection:
            release(connection, course.id, token)
        until(lambda: course.training().round == 1)
        dispatcher._to_send.set()


def test_the_lock_of_a_hub_that_was_killed_does_not_hold_the_next_one_up(course: Course) -> None:
    course.start()
    with course.database.transaction(write=True) as connection:
        assert acquire(connection, course.id, local._LOCK_S) is not None
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    course.report(SHOP, KINDS.ROUND_FINISHED, 1)

    with running(course.database):
        until(lambda: course.training().round == 1, within_s=local._LOCK_S + 3.0)


def test_a_database_that_fails_for_a_while_stops_nothing(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.start()
    calls: list[Work] = []

    def fail_once(database: Database, work: Work, *, lock_s: float) -> Result:
        calls.append(work)
        if len(calls) == 1:
            raise OutputError("the database is away")
        return process(database, work, lock_s=lock_s)

    monkeypatch.setattr(local, "process", fail_once)
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    course.report(SHOP, KINDS.ROUND_FINISHED, 1)
    with running(course.database):
        until(lambda: course.training().round == 1)

    assert len(calls) >= 2


def test_the_same_event_waits_in_the_queue_once(course: Course) -> None:
    dispatcher = InProcessDispatcher(course.database)
    work = Work(course.id, "TrainingRoundFinished", {"round": 1, "subject": ""})

    dispatcher.dispatch([work, work])
    dispatcher.dispatch([work])

    assert len(dispatcher._queue) == 1


def test_what_cannot_be_handled_is_left_alone(course: Course) -> None:
    course.start()
    handled: list[Outcome] = []
    with running(course.database, on_news=lambda: handled.append(Outcome.NOTHING)) as dispatcher:
        dispatcher.dispatch([Work(course.id, "Nonsense", {}), Work("nothing", "TaskFailed", {"round": 0})])
        until(lambda: len(handled) == 2)

    assert course.training().state is TrainingState.ONGOING


def test_parties_with_an_endpoint_are_told_by_themselves(course: Course) -> None:
    with endpoint() as shop:
        course.add_user("sam", party=SHOP, url=shop.url)
        with running(course.database, sender=Sender(course.database, backoff_s=0.01)) as dispatcher:
            course.start()
            dispatcher.dispatch()
            until(lambda: len(shop.got) == 2)
            course.report(HOST, KINDS.ROUND_FINISHED, 1)
            dispatcher.dispatch(course.report(SHOP, KINDS.ROUND_FINISHED, 1))
            until(lambda: len(shop.got) == 3)

    assert shop.types() == ["TRAINING_START", "UPDATE_ROUND_START", "MODEL_TEST_ROUND"]


def test_a_rejection_is_followed_up_by_itself(course: Course) -> None:
    """Item 52."""
    with endpoint() as shop:
        shop.answers = [403]
        course.add_user("sam", party=SHOP, url=shop.url)
        course.start()
        course.report(HOST, KINDS.ROUND_FINISHED, 1)
        with running(course.database):
            until(lambda: course.training().round == 1)

    assert course.training().awaited == (HOST,)

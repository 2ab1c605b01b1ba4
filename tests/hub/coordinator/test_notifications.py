"""Notifications are rows of the transaction that they tell of, in an order that readers can rely on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from heterofed.hub.coordinator.notifications import TrainingModelTestNotification
from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.coordinator.trainer import ModelTrainer
from heterofed.hub.coordinator.training import Training, TrainingState
from heterofed.tasks.course import NotificationType
from heterofed.tasks.database import Database
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "hub.md"


def test_a_transaction_that_is_undone_has_told_nobody(course: Course) -> None:
    course.start()
    with pytest.raises(ZeroDivisionError), course.database.transaction(write=True) as connection:
        training = Training.load(connection, course.id)
        assert training is not None
        ModelTrainer(training).finish()
        raise ZeroDivisionError

    assert len(course.told()) == 2


def test_every_party_has_a_row_of_its_own_in_the_task_s_order(course: Course) -> None:
    sam = course.add_user("sam", party=SHOP)
    course.start()

    assert [(row.party, row.user_id) for row in course.notifications()] == [(HOST, None), (SHOP, sam)] * 2


def test_a_member_who_is_neither_party_nor_owner_is_not_told(course: Course) -> None:
    course.add_user("vera", role="viewer")
    course.start()
    course.say(HOST, KINDS.TASK_FAILED, 1, {"reason": "no power"})

    assert {row.party for row in course.notifications()} == {HOST, SHOP}


def column(heading: str) -> list[str]:
    """Return the first column of the table of docs/guides/hub.md that begins with a heading."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.split("|")[1].strip(" `"))
    return cells


def test_the_types_and_states_are_those_of_the_documentation() -> None:
    assert column("notification_type") == [each.value for each in NotificationType]
    assert column("state") == [each.name for each in TrainingState]


def test_on_a_server_a_number_is_never_seen_before_a_lower_one(server_database: Database) -> None:
    """A stream goes on behind the last number that it saw: one that came in behind its back would be lost."""
    first, second = Course(server_database), Course(server_database)
    for course in (first, second):
        course.start()
    done = threading.Event()

    def tell_the_second() -> None:
        with server_database.transaction(write=True) as connection:
            training = Training.load(connection, second.id)
            assert training is not None
            TrainingModelTestNotification.from_training(training).send()
        done.set()

    with server_database.transaction(write=True) as connection:
        training = Training.load(connection, first.id)
        assert training is not None
        TrainingModelTestNotification.from_training(training).send()
        thread = threading.Thread(target=tell_the_second)
        thread.start()
        time.sleep(0.3)
        assert not done.is_set()
    thread.join(10)

    with server_database.transaction() as connection:
        query = sa.select(notification_table.c.task_id).order_by(notification_table.c.number.desc()).limit(4)
        assert connection.scalars(query).all() == [second.id] * 2 + [first.id] * 2

"""What the parties are told: `{"notification_type", "body", "training_uuid"}`.

A notification is a row for each receiver, written in the transaction of what it tells. So there is none of what did
not happen, and none is lost; agents read the rows as a stream, and `sender` carries them to message endpoints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import sqlalchemy as sa
from typing_extensions import Self

from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.coordinator.training import Training
from heterofed.hub.schema import member_table, user_table
from heterofed.tasks.course import NotificationType


class Delivery(str, Enum):
    """What became of one receiver's notification."""

    STREAM = "STREAM"
    """The receiver has no message endpoint, and reads the stream."""
    PENDING = "PENDING"
    SENT = "SENT"
    REJECTED = "REJECTED"
    """The endpoint does not want it; see `sender`."""
    FAILED = "FAILED"
    """The endpoint could not be reached, however often it was tried."""


@dataclass(frozen=True)
class Receiver:
    """Whom a notification is for."""

    party: str | None
    """None: an owner of the task."""

    user_id: int | None
    """None: nobody has taken this party's place; it is in the stream for whoever will."""

    has_endpoint: bool


@dataclass(frozen=True)
class TrainingNotification:
    """One thing to tell. Made by `from_training`, and written by `send`."""

    training: Training
    receivers: tuple[Receiver, ...]
    body: Mapping[str, Any]
    type: ClassVar[NotificationType]

    @classmethod
    def from_training(cls, training: Training) -> Self:
        """Make the notification that suits how the training stands."""
        return cls(training, receivers_of(training), {"round": training.round})

    def send(self) -> None:
        """Write it, with the transaction; it goes out when that is committed."""
        connection = self.training.connection
        if connection.dialect.name == "postgresql":
            # Readers go on behind the last number they saw. Without this, of two transactions the one with the higher
            # number may be seen first, and the other's notification never.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NUMBERS_LOCK)))
        now = time.time()
        rows = [
            {
                "task_id": self.training.task_id,
                "party": each.party,
                "user_id": each.user_id,
                "notification_type": self.type.value,
                "body": json.dumps(dict(self.body)),
                "at": now,
                "state": (Delivery.PENDING if each.has_endpoint else Delivery.STREAM).value,
                "attempts": 0,
                "due_at": now,
            }
            for each in self.receivers
        ]
        if rows:
            connection.execute(notification_table.insert(), rows)


_NUMBERS_LOCK = 0x48465F4E  # any number that nothing else of this database uses


class TrainingStartNotification(TrainingNotification):
    """A party is to be started."""

    type = NotificationType.TRAINING_START

    @classmethod
    def from_training(cls, training: Training) -> Self:
        """Say how many rounds there will be; None: the host knows."""
        body = {"round": training.round, "rounds": training.target_rounds}
        return cls(training, receivers_of(training), body)


class TrainingRoundStartNotification(TrainingNotification):
    """A round begins."""

    type = NotificationType.UPDATE_ROUND_START

    @classmethod
    def from_training(cls, training: Training) -> Self:
        """Say which round, from 1."""
        return cls(training, receivers_of(training), {"round": training.round + 1})


class SWAGRoundStartNotification(TrainingNotification):
    """The moments of a finished round are to be collected."""

    type = NotificationType.SWAG_ROUND_START


class TrainingModelTestNotification(TrainingNotification):
    """The model of a finished round is tested."""

    type = NotificationType.MODEL_TEST_ROUND


class TrainingFinishedNotification(TrainingNotification):
    """The training is over; the task's owners hear it too."""

    type = NotificationType.TRAINING_FINISHED

    @classmethod
    def from_training(cls, training: Training) -> Self:
        """Say how many rounds were finished."""
        return cls(training, receivers_of(training, owners=True), {"round": training.round})


class ClientRemovedNotification(TrainingNotification):
    """A party is not waited for any more; the others and the task's owners hear it."""

    type = NotificationType.CLIENT_REMOVED

    @classmethod
    def from_training(cls, training: Training, party: str = "", reason: str = "") -> Self:
        """Say which party, and why."""
        others = tuple(each for each in receivers_of(training, owners=True) if each.party != party)
        return cls(training, others, {"round": training.round, "party": party, "reason": reason})


class TaskFailedNotification(TrainingNotification):
    """The training cannot go on; the task's owners hear it too."""

    type = NotificationType.TASK_FAILED

    @classmethod
    def from_training(cls, training: Training, reason: str = "") -> Self:
        """Say why."""
        return cls(training, receivers_of(training, owners=True), {"round": training.round, "reason": reason})


def receivers_of(training: Training, *, owners: bool = False) -> tuple[Receiver, ...]:
    """Return the awaited parties of a training, and with `owners` those users of the task who are none of them."""
    members = (
        sa.select(member_table.c.role, member_table.c.feature_key, user_table.c.id, user_table.c.message_endpoint)
        .join(user_table, user_table.c.id == member_table.c.user_id)
        .where(member_table.c.task_id == training.task_id)
        .order_by(user_table.c.id)
    )
    rows = training.connection.execute(members).all()
    users = {row.feature_key: row for row in rows if row.feature_key is not None}
    found = []
    for party in training.awaited:
        user = users.get(party)
        found.append(
            Receiver(party, user.id, user.message_endpoint is not None) if user else Receiver(party, None, False)
        )
    if owners:
        there = {each.user_id for each in found}
        for row in rows:
            if row.role == "owner" and row.id not in there:
                there.add(row.id)
                found.append(Receiver(None, row.id, row.message_endpoint is not None))
    return tuple(found)

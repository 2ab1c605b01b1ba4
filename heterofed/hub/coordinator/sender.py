"""Carries notifications to message endpoints, by HTTP POST, in order for each receiver.

What an endpoint answers decides:

    2xx                          sent
    408, 425, 429, 5xx, nothing  tried again, each time after twice the time; then the training is given up (ERROR)
    everything else              rejected: nobody waits for this party any more, and the others are told

A redirect is not followed: it would send what we signed to an address that nobody chose. The answer's body is not
read. A notification that was sent may be sent again when a hub dies at that moment; its number tells.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx
import sqlalchemy as sa

from heterofed.hub.coordinator.notifications import ClientRemovedNotification, Delivery
from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.signing import signed_headers
from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.coordinator.trainer import ModelTrainer
from heterofed.hub.coordinator.training import Training
from heterofed.hub.schema import user_table
from heterofed.tasks.course import NotificationType
from heterofed.tasks.database import Database
from heterofed.tasks.model import TaskStatus

logger = logging.getLogger(__name__)

AT_ONCE = 32
TEMPORARY = frozenset({408, 425, 429})
_TRAINING = (TaskStatus.ALIGNING, TaskStatus.ONGOING, TaskStatus.TESTING)


class Answer(Enum):
    """What an endpoint said to a notification."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NONE = "none"
    """It could not be reached, or cannot now."""


@dataclass(frozen=True)
class _Letter:
    number: int
    task_id: str
    party: str | None
    user_id: int
    url: str
    secret: str | None
    body: bytes
    attempts: int
    """With this one."""


class Sender:
    """Sends what is due. One thread at a time calls it; several hubs may, on one database.

    Args:
        database: of the hub.
        timeout_s: how long one attempt may take, as a whole.
        attempts: how often one is tried.
        backoff_s: after the first failed attempt; it doubles from one to the next.
    """

    def __init__(
        self, database: Database, *, timeout_s: float = 10.0, attempts: int = 6, backoff_s: float = 2.0
    ) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._ssl: ssl.SSLContext | None = None

    def send_due(self) -> tuple[Work, ...]:
        """Send everything that is due now; return what became due for the coordinator, because a party rejected.

        Raises:
            OutputError: the database fails.
        """
        works: list[Work] = []
        while letters := self._claim():
            answers = asyncio.run(self._post_all(letters))
            for letter, (answer, cause) in zip(letters, answers, strict=True):
                works += self._note(letter, answer, cause)
        return tuple(works)

    def _claim(self) -> list[_Letter]:
        """Take what is due, the oldest of each receiver; for the time of an attempt nobody else takes it."""
        table, earlier = notification_table.c, notification_table.alias()
        now = time.time()
        due = (table.state == Delivery.PENDING.value) & (table.due_at <= now)
        before = sa.exists().where(
            earlier.c.task_id == table.task_id,
            earlier.c.user_id == table.user_id,
            earlier.c.state == Delivery.PENDING.value,
            earlier.c.number < table.number,
        )
        users = user_table.c
        query = (
            sa.select(notification_table, users.message_endpoint, users.endpoint_secret)
            .outerjoin(user_table, users.id == table.user_id)
            .where(due, ~before)
            .order_by(table.number)
            .limit(AT_ONCE)
        )
        with self._database.transaction() as connection:
            if connection.execute(query).first() is None:
                return []
        letters = []
        with self._database.transaction(write=True) as connection:
            for row in connection.execute(query).all():
                same = (table.number == row.number) & due & (table.attempts == row.attempts)
                if row.message_endpoint is None:  # taken away since: the stream has it
                    _set(connection, same, state=Delivery.STREAM.value)
                    continue
                until = now + 2 * self._timeout_s + 5.0
                if _set(connection, same, attempts=row.attempts + 1, due_at=until) == 1:
                    letters.append(_letter(row))
        return letters

    async def _post_all(self, letters: Sequence[_Letter]) -> list[tuple[Answer, str]]:
        if self._ssl is None:
            self._ssl = httpx.create_ssl_context()
        # No proxy and no .netrc of whoever started the hub: a letter goes where its address says, and says no more.
        async with httpx.AsyncClient(
            verify=self._ssl, follow_redirects=False, trust_env=False, timeout=self._timeout_s
        ) as client:
            return list(await asyncio.gather(*(self._post(client, letter) for letter in letters)))

    async def _post(self, client: httpx.AsyncClient, letter: _Letter) -> tuple[Answer, str]:
        headers = signed_headers(letter.secret, letter.number, letter.body)

        async def status_of_answer() -> int:
            async with client.stream("POST", letter.url, content=letter.body, headers=headers) as response:
                return response.status_code

        try:
            # httpx counts its timeouts anew with every byte; this one is for the whole attempt.
            status = await asyncio.wait_for(status_of_answer(), self._timeout_s)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            return Answer.NONE, f"its message endpoint did not answer within {self._timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Answer.NONE, f"its message endpoint cannot be reached ({type(error).__name__})"
        if 200 <= status < 300:
            return Answer.ACCEPTED, ""
        said = f"its message endpoint answered {status}"
        return (Answer.NONE if status in TEMPORARY or status >= 500 else Answer.REJECTED), said

    def _note(self, letter: _Letter, answer: Answer, cause: str) -> tuple[Work, ...]:
        this = notification_table.c.number == letter.number
        with self._database.transaction(write=True) as connection:
            if answer is Answer.ACCEPTED:
                _set(connection, this, state=Delivery.SENT.value, cause=None)
                return ()
            if answer is Answer.NONE and letter.attempts < self._attempts:
                due_at = time.time() + self._backoff_s * 2 ** (letter.attempts - 1)
                _set(connection, this, due_at=due_at, cause=cause)
                return ()
            logger.warning("task %s: %s is not told any more: %s", letter.task_id, letter.party or "an owner", cause)
            training = Training.load(connection, letter.task_id)
            state = Delivery.REJECTED if answer is Answer.REJECTED else Delivery.FAILED
            # What else waits for this receiver would fare no better.
            rest = (notification_table.c.task_id == letter.task_id) & (notification_table.c.user_id == letter.user_id)
            rest &= notification_table.c.state == Delivery.PENDING.value
            _set(connection, rest, state=state.value, cause=cause)
            if training is None or letter.party is None or not training.is_running:
                return ()
            if answer is Answer.REJECTED:
                return _remove(training, letter.party, cause)
            # Parties that train do not need what they were to be told; those that have not begun never will.
            ModelTrainer(training).fail(f"{letter.party}: {cause}", task_too=training.task_status not in _TRAINING)
            return ()


def _remove(training: Training, party: str, cause: str) -> tuple[Work, ...]:
    """Let nobody wait for a party any more; return what was only waiting for it."""
    if party not in training.awaited:
        return ()
    training.removed[party] = cause
    training.save()
    ClientRemovedNotification.from_training(training, party, cause).send()
    kind = NotificationType.CLIENT_REMOVED.value
    training.note(kind, f"{party} is not waited for any more: {cause}", {"reason": cause}, party=party)
    trainer = ModelTrainer(training)
    trainer.recheck()
    return tuple(trainer.works)


def _set(connection: sa.Connection, which: sa.ColumnElement[bool], **values: object) -> int:
    return connection.execute(notification_table.update().where(which).values(**values)).rowcount


def _letter(row: sa.Row[Any]) -> _Letter:
    body = {
        "notification_type": row.notification_type,
        "body": json.loads(row.body),
        "training_uuid": row.task_id,
    }
    return _Letter(
        row.number,
        row.task_id,
        row.party,
        row.user_id,
        row.message_endpoint,
        row.endpoint_secret,
        json.dumps(body, separators=(",", ":")).encode(),
        row.attempts + 1,
    )

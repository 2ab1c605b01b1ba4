"""Handles one event, once: what the in-process dispatcher and every Celery worker do with a `Work`.

Three steps. Take the lock, and commit that. In one transaction: handle the event and go on, write the notifications,
mark the event as done, free the lock. If that raised, a third transaction counts the attempt, and after the last one
gives the task up with its cause. Whoever is killed in between leaves a pending event and a lock that runs out.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

from heterofed.errors import HeterofedError
from heterofed.hub.coordinator.events import EVENTS
from heterofed.hub.coordinator.locks import LOCK_S, LockLost, acquire, release
from heterofed.hub.coordinator.rows import HANDED_OUT_AGAIN_AFTER_S, EventState, Work, find_event, pending
from heterofed.hub.coordinator.tables import trainer_event_table
from heterofed.hub.coordinator.trainer import ModelTrainer
from heterofed.hub.coordinator.training import Training, TrainingState
from heterofed.tasks.database import Database

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often handling an event may end in an exception."""
BUSY_FOR_S = 0.2
"""When to come back to a training that somebody else works on."""
_RETRY_S = 0.5
_LONGEST_CAUSE = 2000  # characters
_IN_ORDER = ("TrainingRoundFinished", "TaskCompleted")


class Outcome(Enum):
    """What came of an attempt to handle an event."""

    DONE = "done"
    NOTHING = "nothing"
    """It was done before, has failed for good, or there is none."""
    NOT_YET = "not yet"
    """It comes after another one, which will bring it back."""
    BUSY = "busy"
    """Somebody else works on this training."""
    AGAIN = "again"
    """It raised, and may be tried again."""
    FAILED = "failed"
    """It raised once too often; the training is given up."""


@dataclass(frozen=True)
class Result:
    """What came of it, and what is to be done next."""

    outcome: Outcome
    works: tuple[Work, ...] = ()
    """Other events that may be handled now."""

    again_in_s: float | None = None
    """When this one is to be tried again; None: never."""


def process(database: Database, work: Work, *, lock_s: float = LOCK_S) -> Result:
    """Handle an event, unless it is done or somebody is at it.

    Args:
        database: of the hub.
        work: which event.
        lock_s: after this time somebody else may take over, should this process die now.

    Raises:
        OutputError: the database fails; the event stays as it was.
    """
    if work.event_name not in EVENTS:
        logger.warning("task %s: there is no event %.60r", work.training_uuid, work.event_name)
        return Result(Outcome.NOTHING)
    with database.transaction(write=True) as connection:
        row = find_event(connection, work)
        if row is None or row.state != EventState.PENDING.value:
            return Result(Outcome.NOTHING)
        token = acquire(connection, work.training_uuid, lock_s)
    if token is None:
        return Result(Outcome.BUSY, again_in_s=BUSY_FOR_S)
    try:
        try:
            with database.transaction(write=True) as connection:
                return _handle(connection, work, token)
        except LockLost:
            raise
        except Exception as error:
            logger.exception("task %s: %s could not be handled", work.training_uuid, work.event_name)
            with database.transaction(write=True) as connection:
                return _count_failure(connection, work, token, error)
    except LockLost:
        logger.warning("task %s: %s took longer than its lock", work.training_uuid, work.event_name)
        return Result(Outcome.BUSY, again_in_s=BUSY_FOR_S)


def _handle(connection: sa.Connection, work: Work, token: str) -> Result:
    task_id = work.training_uuid
    training = Training.load(connection, task_id)
    row = find_event(connection, work)
    if training is None or row is None or row.state != EventState.PENDING.value:
        release(connection, task_id, token)
        return Result(Outcome.NOTHING)
    trainer = ModelTrainer(training)
    event = EVENTS[work.event_name](trainer, {**json.loads(row.payload), "round": row.round})
    if _comes_later(connection, row) or not event.ready():
        _set(connection, row.number, due_at=time.time() + HANDED_OUT_AGAIN_AFTER_S)
        release(connection, task_id, token)
        return Result(Outcome.NOT_YET)
    trainer.handle(event)
    _set(connection, row.number, state=EventState.DONE.value)
    release(connection, task_id, token)
    # Also those that had to wait for this one.
    return Result(Outcome.DONE, (*trainer.works, *(each for each in pending(connection, task_id))))


def _count_failure(connection: sa.Connection, work: Work, token: str, error: Exception) -> Result:
    task_id = work.training_uuid
    training = Training.load(connection, task_id)
    row = find_event(connection, work)
    release(connection, task_id, token)
    if training is None or row is None or row.state != EventState.PENDING.value:
        return Result(Outcome.NOTHING)
    attempts = row.attempts + 1
    cause = f"{type(error).__name__}: {error}"[:_LONGEST_CAUSE]
    if attempts < MAX_ATTEMPTS:
        again_in_s = _RETRY_S * 2**row.attempts
        _set(connection, row.number, attempts=attempts, cause=cause, due_at=time.time() + HANDED_OUT_AGAIN_AFTER_S)
        return Result(Outcome.AGAIN, again_in_s=again_in_s)
    _set(connection, row.number, attempts=attempts, cause=cause, state=EventState.FAILED.value)
    if training.state is not TrainingState.COMPLETED:
        # Every party reads this; what names files or servers of the hub stays in the row and in the hub's log.
        public = error.for_peers() if isinstance(error, HeterofedError) else cause
        ModelTrainer(training).fail(f"{work.event_name} of round {row.round} could not be handled: {public}")
    return Result(Outcome.FAILED)


def _comes_later(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether an earlier round is still to be counted."""
    if row.kind not in _IN_ORDER:
        return False
    table = trainer_event_table.c
    earlier = (table.task_id == row.task_id) & (table.kind == "TrainingRoundFinished")
    earlier &= table.state == EventState.PENDING.value
    if row.kind == "TrainingRoundFinished":
        earlier &= table.round < row.round
    return connection.execute(sa.select(table.number).where(earlier).limit(1)).first() is not None


def _set(connection: sa.Connection, number: int, **values: object) -> None:
    table = trainer_event_table
    connection.execute(table.update().where(table.c.number == number).values(**values))

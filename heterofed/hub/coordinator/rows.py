"""Events of trainings as rows: written once, in the transaction that leads to them, and handled from there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sqlalchemy as sa

from heterofed.hub.coordinator.tables import trainer_event_table

HANDED_OUT_AGAIN_AFTER_S = 15.0
"""An event that is still pending after this time was forgotten: by a hub, a worker or a broker that died."""
_AT_ONCE = 100
"""How many pending events are handed out together; after them come the next."""


class EventState(str, Enum):
    """Whether an event was handled."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"
    """Handling it ended in an exception as often as it may; its cause is kept."""


@dataclass(frozen=True)
class Work:
    """An event that is to be handled: the arguments of `worker.process_trainer_task`, plain JSON."""

    training_uuid: str
    """The task's id."""

    event_name: str
    """Name of a class of `events`."""

    payload: Mapping[str, Any] = field(default_factory=dict)
    """{"round", "subject"}: which of the task's events of this name. The rest is in its row."""


def add_event(
    connection: sa.Connection,
    task_id: str,
    event_name: str,
    round: int,
    payload: Mapping[str, Any] | None = None,
    subject: str = "",
) -> tuple[Work, ...]:
    """Write an event, unless it is there; the caller holds the lock of the task's row.

    Returns:
        It, if it is still to be handled; else nothing.
    """
    table = trainer_event_table
    same = (table.c.task_id == task_id) & (table.c.kind == event_name) & (table.c.round == round)
    known = connection.scalars(sa.select(table.c.state).where(same, table.c.subject == subject)).one_or_none()
    if known is None:
        now = time.time()
        new = table.insert().values(
            task_id=task_id,
            round=round,
            kind=event_name,
            subject=subject,
            payload=json.dumps(dict(payload or {})),
            state=EventState.PENDING.value,
            attempts=0,
            at=now,
            due_at=now + HANDED_OUT_AGAIN_AFTER_S,
        )
        connection.execute(new)
    elif known != EventState.PENDING.value:
        return ()
    return (Work(task_id, event_name, {"round": round, "subject": subject}),)


def find_event(connection: sa.Connection, work: Work) -> sa.Row[Any] | None:
    """Return the row of an event; None: there is none."""
    table = trainer_event_table
    round, subject = work.payload.get("round"), work.payload.get("subject", "")
    if not isinstance(round, int) or not isinstance(subject, str):
        return None
    same = (table.c.task_id == work.training_uuid) & (table.c.kind == work.event_name) & (table.c.round == round)
    return connection.execute(sa.select(table).where(same, table.c.subject == subject)).one_or_none()


def pending(connection: sa.Connection, task_id: str | None = None, *, due_at: float | None = None) -> tuple[Work, ...]:
    """Return what is still to be handled, oldest first: of one task, or what was due at a time."""
    table = trainer_event_table
    query = sa.select(table.c.task_id, table.c.kind, table.c.round, table.c.subject).limit(_AT_ONCE)
    query = query.where(table.c.state == EventState.PENDING.value).order_by(table.c.number)
    if task_id is not None:
        query = query.where(table.c.task_id == task_id)
    if due_at is not None:
        query = query.where(table.c.due_at <= due_at)
    return tuple(
        Work(row.task_id, row.kind, {"round": row.round, "subject": row.subject}) for row in connection.execute(query)
    )

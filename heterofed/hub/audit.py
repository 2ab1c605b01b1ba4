"""The audit log: who did what, when and from where. Nothing is ever changed or removed in it by the hub."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from heterofed.hub.access import Actor
from heterofed.hub.schema import audit_table
from heterofed.tasks.stored import utc


@dataclass(frozen=True)
class AuditEntry:
    """One thing that somebody did or was refused."""

    number: int
    at: datetime
    """With its time zone, UTC."""
    user: str
    action: str
    task_id: str | None
    detail: str
    address: str | None


def note(connection: sa.Connection, actor: Actor, action: str, *, task_id: str | None = None, detail: str = "") -> None:
    """Write down what an actor does, in the transaction that does it."""
    connection.execute(
        audit_table.insert().values(
            at=time.time(),
            user=actor.user,
            action=action,
            task_id=task_id,
            detail=detail[:1000],
            address=actor.address and actor.address[:64],
        )
    )


def read(connection: sa.Connection, after: int, limit: int) -> tuple[AuditEntry, ...]:
    """Return what was done after a number, oldest first."""
    query = sa.select(audit_table).where(audit_table.c.number > after).order_by(audit_table.c.number).limit(limit)
    return tuple(
        AuditEntry(
            row.number,
            utc(row.at),
            row.user,
            row.action,
            row.task_id,
            row.detail,
            row.address,
        )
        for row in connection.execute(query)
    )

"""Who works on a training: a token and a time, taken by one conditional UPDATE.

Of two that try at the same moment, one UPDATE finds the row free and the other does not, on any database. Only the
holder of the token frees it, in the transaction of its work: if the lock was lost meanwhile, the work is undone.
"""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa

from heterofed.hub.coordinator.tables import training_table

LOCK_S = 15.0
"""When the holder was killed, somebody else may go on after this time; an event takes some milliseconds.

A holder that takes longer loses its work, not the task's order."""


class LockLost(Exception):
    """Somebody else took the lock over, because this holder was too slow."""


def acquire(connection: sa.Connection, task_id: str, lasts_s: float = LOCK_S) -> str | None:
    """Take the lock of a training for a while; return the token, or None while another has it."""
    now = time.time()
    token = secrets.token_hex(16)
    free = training_table.c.lock_token.is_(None) | (training_table.c.lock_expires_at < now)
    update = training_table.update().where(training_table.c.task_id == task_id, free)
    taken = connection.execute(update.values(lock_token=token, lock_expires_at=now + lasts_s))
    return token if taken.rowcount == 1 else None


def release(connection: sa.Connection, task_id: str, token: str) -> None:
    """Free the lock.

    Raises:
        LockLost: this token does not hold it; whatever was done under it must not be committed.
    """
    mine = (training_table.c.task_id == task_id) & (training_table.c.lock_token == token)
    freed = connection.execute(training_table.update().where(mine).values(lock_token=None, lock_expires_at=None))
    if freed.rowcount != 1:
        raise LockLost(task_id)

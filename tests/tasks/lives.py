"""Tasks in each part of their life, for tests."""

from __future__ import annotations

import sqlite3
import time

from heterofed.tasks import Tasks, TaskStatus

HOST_KEY, BANK_KEY = b"h" * 40, b"b" * 40


def go_to(store: Tasks, task_id: str, status: TaskStatus, reason: str | None = None) -> None:
    """Move a task that has not begun, or failed, to this status."""
    if status is TaskStatus.COMPLETED:
        store.move(task_id, TaskStatus.GATHERING)
        store.move(task_id, TaskStatus.ONGOING)
    store.move(task_id, status, reason)


def expire(store: Tasks, task_id: str) -> None:
    """Let a task's time be over."""
    with sqlite3.connect(store.where) as connection:
        connection.execute("UPDATE tasks SET expires_at = ? WHERE id = ?", (time.time() - 60, task_id))
    connection.close()

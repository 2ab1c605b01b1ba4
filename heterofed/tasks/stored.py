"""What all parts of the task store share: its database, how a task is read, how an event is noted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from heterofed.errors import UnknownTask
from heterofed.tasks.checks import MAX_OUTPUT_BYTES, short
from heterofed.tasks.database import Database
from heterofed.tasks.forms import read_options
from heterofed.tasks.interface import Tasks
from heterofed.tasks.model import Party, PartyStatus, Task, TaskStatus
from heterofed.tasks.options import read_uncertainty
from heterofed.tasks.tables import event_table, party_table, task_table


class Stored(Tasks):
    """Tasks in a database. Every call is one short transaction, or, with `within`, a part of the caller's.

    Args:
        database: a SQLite file (it and its folder are created, for this user alone), a SQLAlchemy URL, or one that
            is open already.
        max_output_bytes: the largest file that `put_output` takes.
        advice: what somebody can do whose task is not here.

    Raises:
        ConfigError: the URL is wrong, its driver is missing, or it is a database that no other process could see.
        OutputError: the file cannot be created or is no database. Every other call raises it too, when the database
            fails or stays locked for more than 10 s.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] | Database,
        *,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        advice: str = "Look at `heterofed task list`; every party on this machine needs the same HETEROFED_HOME.",
    ) -> None:
        self.database = database if isinstance(database, Database) else Database(database)
        self._max_output_bytes = max_output_bytes
        self._advice = advice

    @property
    def where(self) -> str:
        """The file, or the URL without its password: what to call this store before people."""
        return self.database.where

    def transaction(self, *, write: bool = False) -> AbstractContextManager[sa.Connection]:
        """Open one transaction, for several calls that belong together: each takes its connection as `within`."""
        return self.database.transaction(write=write)

    @contextmanager
    def _in(self, within: sa.Connection | None, *, write: bool = False) -> Iterator[sa.Connection]:
        if within is not None:
            yield within
            return
        with self.database.transaction(write=write) as connection:
            yield connection

    def _get(self, connection: sa.Connection, task_id: object, *, lock: bool = False) -> Task:
        """Read a task; with `lock`, nobody else changes it before this transaction ends (as on SQLite nobody does)."""
        row = None
        if isinstance(task_id, str) and "\x00" not in task_id:
            query = sa.select(task_table).where(task_table.c.id == task_id.encode(errors="replace").decode())
            row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            shown = repr(task_id[:40]) if isinstance(task_id, str) else f"of type {type(task_id).__name__}"
            raise UnknownTask(f"there is no task {shown} in {self.where}", advice=self._advice)
        members = sa.select(party_table).where(party_table.c.task_id == task_id).order_by(party_table.c.position)
        return task_of(row, (party_of(each) for each in connection.execute(members)))

    def _append(
        self,
        connection: sa.Connection,
        task_id: str,
        kind: str,
        text: str,
        *,
        party: str | None = None,
        round: int | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        """Note an event; the caller holds the task's lock, so that numbers are in the order in which they appear."""
        values = {
            "task_id": task_id,
            "at": time.time(),
            "kind": kind,
            "party": party,
            "round": round,
            "text": short(text),
            "body": dict(body or {}),
        }
        connection.execute(event_table.insert().values(**values))


def utc(seconds: float) -> datetime:
    """Return a time of the database, seconds since the epoch."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def utc_or_none(seconds: float | None) -> datetime | None:
    """Return a time of the database that may be absent."""
    return None if seconds is None else utc(seconds)


def party_of(row: sa.Row[Any]) -> Party:
    """Return the party of a row."""
    return Party(
        row.feature_key,
        PartyStatus(row.status),
        row.reason,
        row.role,
        row.public_key,
        row.endpoint,
        bool(row.key_trusted),
    )


def task_of(row: sa.Row[Any], parties: Iterable[Party]) -> Task:
    """Return the task of a row, with its parties."""
    return Task(
        row.id,
        row.name,
        TaskStatus(row.status),
        utc(row.created_at),
        row.reason,
        tuple(parties),
        utc_or_none(row.expires_at),
        row.rounds,
        read_options(row.options),
        utc_or_none(row.launched_at),
        row.round or 0,
        read_uncertainty(row.uncertainty),
    )

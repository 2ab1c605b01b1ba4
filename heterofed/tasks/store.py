"""Tasks, their parties and their logs, kept in a SQLite file that needs no server, or in any database of SQLAlchemy.

Every call is one short transaction, and checks what it changes inside that transaction, so several processes and
threads may share one store.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from heterofed.errors import ConfigError, UnknownTask
from heterofed.tasks.database import LONGEST_NAME, LONGEST_VALUE, Database, log_table, party_table, task_table
from heterofed.tasks.model import Party, PartyStatus, Role, Task, TaskStatus, check_feature_keys, check_move

_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that reads like something else, nothing to escape
_ID_LENGTH = 12  # 59 bits: nobody guesses one
_LONGEST_TEXT = 4000


@dataclass(frozen=True)
class LogEntry:
    """One line of a task's log."""

    at: datetime
    """With its time zone, UTC."""

    party: str
    """Feature key of the party that said it."""

    text: str


class _Keep(Enum):
    KEEP = "keep"


KEEP: Final = _Keep.KEEP
"""The value of an argument that changes nothing (None clears)."""


class TaskStore:
    """Tasks, their parties and their logs.

    Args:
        path_or_url: a SQLite file (it and its folder are created, for this user alone), or a SQLAlchemy URL.

    Raises:
        ConfigError: the URL is wrong, its driver is missing, or it is a database that no other process could see.
        OutputError: the file cannot be created or is no database. Every other call raises it too, when the database
            fails or stays locked for more than 10 s.
    """

    def __init__(self, path_or_url: str | os.PathLike[str]) -> None:
        self._database = Database(path_or_url)
        self._transaction = self._database.transaction

    @property
    def where(self) -> str:
        """The file, or the URL without its password: what to call this store before people."""
        return self._database.where

    def create(self, name: str, parties: Iterable[str], *, lives_for: timedelta | None = None) -> Task:
        """Create a task of a new, unguessable id.

        Args:
            name: what people call it; 1 to 200 printable characters.
            parties: 2 to 9 distinct feature keys.
            lives_for: after this time nobody new comes in; None: no end.

        Raises:
            ConfigError: the name or a feature key cannot be one, or the task would have expired already.
        """
        if lives_for is not None and lives_for <= timedelta():
            raise ConfigError("a task would expire before it begins", expected="a time to live of more than nothing")
        if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise ConfigError("the name of a task is wrong", expected=f"1 to {LONGEST_NAME} printable characters")
        keys = check_feature_keys(parties)
        task_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
        now = time.time()
        with self._transaction(write=True) as connection:
            connection.execute(
                task_table.insert().values(
                    id=task_id,
                    name=name,
                    status=TaskStatus.CREATED.value,
                    created_at=now,
                    expires_at=None if lives_for is None else now + lives_for.total_seconds(),
                )
            )
            rows = [
                {"task_id": task_id, "feature_key": key, "position": i, "status": PartyStatus.INVITED.value}
                for i, key in enumerate(keys)
            ]
            connection.execute(party_table.insert(), rows)
            return self._get(connection, task_id)

    def get(self, task_id: str) -> Task:
        """Return a task as it is now.

        Raises:
            UnknownTask: there is none of this id here.
        """
        with self._transaction() as connection:
            return self._get(connection, task_id)

    def list(self) -> tuple[Task, ...]:
        """Return every task, the newest first."""
        with self._transaction() as connection:
            newest = sa.select(task_table).order_by(task_table.c.created_at.desc(), task_table.c.id)
            rows = connection.execute(newest).all()
            parties: dict[str, list[Party]] = {}
            for row in connection.execute(sa.select(party_table).order_by(party_table.c.position)):
                parties.setdefault(row.task_id, []).append(_party(row))
        return tuple(_task(row, parties[row.id]) for row in rows)

    def move(self, task_id: str, status: TaskStatus, reason: str | None = None) -> Task:
        """Move a task on. To say again what it already is changes nothing, since two parties often say the same.

        Raises:
            ConfigError: its status cannot be followed by this one (see `model.MOVES`); nothing is changed.
            UnknownTask: there is none of this id here.
        """
        with self._transaction(write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            if task.status is not status:
                check_move(task.status, status)
                values = {"status": status.value, "reason": _short(reason)}
                connection.execute(task_table.update().where(task_table.c.id == task_id).values(**values))
            return self._get(connection, task_id)

    def set_party(
        self,
        task_id: str,
        feature_key: str,
        *,
        status: PartyStatus | Literal[_Keep.KEEP] = KEEP,
        reason: str | Literal[_Keep.KEEP] | None = KEEP,
        role: Role | Literal[_Keep.KEEP] | None = KEEP,
        public_key: bytes | Literal[_Keep.KEEP] | None = KEEP,
        endpoint: str | Literal[_Keep.KEEP] | None = KEEP,
    ) -> Task:
        """Change what is given of one party, in one step, and return the task; None clears.

        Raises:
            ConfigError: the task has no such party; it has another host; this is its running host and no
                collaborator; another party has this key; it is trusted under another key only; or a value is of the
                wrong type. Nothing is changed.
            UnknownTask: there is none of this id here.
        """
        if status is not KEEP and not isinstance(status, PartyStatus):
            raise ConfigError("a party's status is wrong", expected="a PartyStatus")
        if role is not KEEP and role is not None and role not in get_args(Role):
            raise ConfigError("a party's role is wrong", expected="host, collaborator or None")
        _check_value("public_key", public_key, bytes)
        _check_value("endpoint", endpoint, str)
        changes: dict[str, object] = {
            "status": status.value if isinstance(status, PartyStatus) else KEEP,
            "reason": reason if reason is KEEP else _short(reason),
            "role": role,
            "public_key": public_key,
            "endpoint": endpoint,
        }
        changes = {name: value for name, value in changes.items() if value is not KEEP}
        with self._transaction(write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            party = task.party(feature_key)
            if role == "host":
                _check_no_other_host(task, feature_key)
            elif role == "collaborator" and party.role == "host" and party.endpoint is not None:
                raise ConfigError(
                    f"{feature_key} is the running host of task {task_id}, and cannot be a collaborator too",
                    expected="a feature_key of its own for every party",
                    advice="Give this party its own feature_key; a host that was killed has to be launched again.",
                )
            if public_key is not KEEP and public_key != party.public_key:
                if party.key_trusted:
                    raise _not_trusted(task_id, feature_key)
                if public_key is not None:
                    _check_no_other_owner(task, feature_key, public_key)
            if changes:
                mine = (party_table.c.task_id == task_id) & (party_table.c.feature_key == feature_key)
                connection.execute(party_table.update().where(mine).values(**changes))
            return self._get(connection, task_id)

    def claim_host(self, task_id: str, feature_key: str) -> Task:
        """Make one party the host of a task; the host may claim again.

        Raises:
            ConfigError: another party is its host, or it has no such party.
            UnknownTask: there is none of this id here.
        """
        return self.set_party(task_id, feature_key, role="host")

    def trust(self, task_id: str, feature_key: str, public_key: bytes) -> Task:
        """Say which public key a party has: from now on that key, and no other that it announces, is this party.

        Raises:
            ConfigError: the task has no such party, or another party of it has this key.
            UnknownTask: there is none of this id here.
        """
        _check_value("public_key", public_key, bytes)
        with self._transaction(write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            task.party(feature_key)
            _check_no_other_owner(task, feature_key, public_key)
            mine = (party_table.c.task_id == task_id) & (party_table.c.feature_key == feature_key)
            connection.execute(party_table.update().where(mine).values(public_key=public_key, key_trusted=True))
            return self._get(connection, task_id)

    def log(self, task_id: str, feature_key: str, text: str) -> None:
        """Append a line to a task's log; past 4000 characters it is cut.

        Raises:
            ConfigError: there is no text, or the task has no such party.
            UnknownTask: there is none of this id here.
        """
        if not isinstance(text, str) or not text:
            raise ConfigError("a line of the log is empty or no string", expected="some text")
        with self._transaction(write=True) as connection:
            self._get(connection, task_id).party(feature_key)
            line = {"task_id": task_id, "at": time.time(), "party": feature_key, "text": _short(text)}
            connection.execute(log_table.insert().values(**line))

    def logs(self, task_id: str, limit: int = 50) -> tuple[LogEntry, ...]:
        """Return the last `limit` lines of a task's log, oldest first.

        Raises:
            UnknownTask: there is none of this id here.
        """
        with self._transaction() as connection:
            self._get(connection, task_id)
            newest = sa.select(log_table).where(log_table.c.task_id == task_id).order_by(log_table.c.number.desc())
            rows = connection.execute(newest.limit(max(limit, 0))).all()
        return tuple(LogEntry(_utc(row.at), row.party, row.text) for row in reversed(rows))

    def _get(self, connection: sa.Connection, task_id: object, *, lock: bool = False) -> Task:
        """Read a task; with `lock`, nobody else changes it before this transaction ends (as on SQLite nobody does)."""
        row = None
        if isinstance(task_id, str):
            query = sa.select(task_table).where(task_table.c.id == task_id)
            row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            shown = repr(task_id[:40]) if isinstance(task_id, str) else f"of type {type(task_id).__name__}"
            raise UnknownTask(
                f"there is no task {shown} in {self.where}",
                advice="Look at `heterofed task list`; every party on this machine needs the same HETEROFED_HOME.",
            )
        members = sa.select(party_table).where(party_table.c.task_id == task_id).order_by(party_table.c.position)
        return _task(row, (_party(each) for each in connection.execute(members)))


def _check_no_other_host(task: Task, feature_key: str) -> None:
    for party in task.parties:
        if party.role == "host" and party.feature_key != feature_key:
            raise ConfigError(
                f"{feature_key} cannot be the host of task {task.id}: {party.feature_key} is",
                expected="one host",
                advice="Launch this party as a collaborator, or create a new task with `heterofed task create`.",
            )


def _check_no_other_owner(task: Task, feature_key: str, public_key: bytes) -> None:
    for party in task.parties:
        if party.public_key == public_key and party.feature_key != feature_key:
            raise ConfigError(
                f"{feature_key} and {party.feature_key} of task {task.id} have the same public key",
                expected="a key of its own for every party",
            )


def _not_trusted(task_id: str, feature_key: str) -> ConfigError:
    return ConfigError(
        f"{feature_key} comes with another key than the one that task {task_id} trusts",
        party=feature_key,
        expected="the key that was given to `heterofed keys trust`",
        advice=(
            f"If this is the right party with a new key, run: "
            f'heterofed keys trust {task_id} {feature_key} "$(heterofed keys show {feature_key})"'
        ),
    )


def _check_value(name: str, value: object, kind: type[bytes] | type[str]) -> None:
    if value is KEEP or value is None:
        return
    if not isinstance(value, kind) or not 1 <= len(value) <= LONGEST_VALUE:
        raise ConfigError(f"a party's {name} is wrong", expected=f"1 to {LONGEST_VALUE} {kind.__name__} or None")


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    text = text.encode(errors="replace").decode()  # what is no text cannot be stored
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def _party(row: sa.Row[Any]) -> Party:
    return Party(
        row.feature_key,
        PartyStatus(row.status),
        row.reason,
        row.role,
        row.public_key,
        row.endpoint,
        bool(row.key_trusted),
    )


def _task(row: sa.Row[Any], parties: Iterable[Party]) -> Task:
    expires_at = None if row.expires_at is None else _utc(row.expires_at)
    return Task(row.id, row.name, TaskStatus(row.status), _utc(row.created_at), row.reason, tuple(parties), expires_at)

"""Tasks, their parties and their logs, kept in a SQLite file that needs no server, or in any database of SQLAlchemy.

Every call is one short transaction, and checks what it changes inside that transaction, so several processes and
threads may share one store.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Literal

import sqlalchemy as sa

from heterofed.errors import ConfigError
from heterofed.tasks.checks import (
    ID_ALPHABET,
    ID_LENGTH,
    check_new_task,
    check_party_changes,
    check_public_key_bytes,
    check_task_id,
    short,
)
from heterofed.tasks.course import PARTY_STATUS, TASK_CREATED, TASK_STATUS, LogEntry
from heterofed.tasks.course_store import CourseStore
from heterofed.tasks.forms import options_form
from heterofed.tasks.interface import KEEP, Keep
from heterofed.tasks.model import Party, PartyStatus, Role, Task, TaskStatus, check_move
from heterofed.tasks.options import TrainerOptions, UncertaintyName
from heterofed.tasks.stored import party_of, task_of, utc
from heterofed.tasks.tables import log_table, party_table, task_table


class TaskStore(CourseStore):
    """Tasks, their parties, their logs and their course, in a database; its arguments are those of `Stored`.

    Every method takes a transaction of `transaction(write=True)` as `within`, to do several things in one.
    """

    def create(
        self,
        name: str,
        parties: Iterable[str],
        *,
        lives_for: timedelta | None = None,
        rounds: int | None = None,
        options: TrainerOptions | None = None,
        uncertainty: UncertaintyName | None = None,
        task_id: str | None = None,
        within: sa.Connection | None = None,
    ) -> Task:
        """Create a task of a new, unguessable id.

        Args:
            name: what people call it; 1 to 200 printable characters.
            parties: 2 to 9 distinct feature keys.
            lives_for: after this time nobody new comes in; None: no end.
            rounds: how many rounds the host trains; None: as many as its own code says.
            options: win over the host's own; None: the host's.
            uncertainty: "swag": every party collects the moments of its weights; None: as their own code says.
            task_id: an id that was made elsewhere; None: a new one.
            within: the transaction to do it in.

        Raises:
            ConfigError: one of them cannot be, the task would have expired already, or the id is taken.
        """
        keys = check_new_task(name, parties, lives_for, rounds, options, uncertainty)
        made_here = "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
        task_id = made_here if task_id is None else check_task_id(task_id)
        now = time.time()
        with self._in(within, write=True) as connection:
            if connection.execute(sa.select(task_table.c.id).where(task_table.c.id == task_id)).first() is not None:
                raise ConfigError(f"there is a task {task_id} already", expected="an id that is free")
            connection.execute(
                task_table.insert().values(
                    id=task_id,
                    name=name,
                    status=TaskStatus.CREATED.value,
                    created_at=now,
                    expires_at=None if lives_for is None else now + lives_for.total_seconds(),
                    rounds=rounds,
                    options=options_form(options),
                    uncertainty=uncertainty,
                )
            )
            rows = [
                {"task_id": task_id, "feature_key": key, "position": i, "status": PartyStatus.INVITED.value}
                for i, key in enumerate(keys)
            ]
            connection.execute(party_table.insert(), rows)
            self._append(connection, task_id, TASK_CREATED, f"created for {', '.join(keys)}")
            return self._get(connection, task_id)

    def get(self, task_id: str, *, within: sa.Connection | None = None) -> Task:
        """Return a task as it is now.

        Raises:
            UnknownTask: there is none of this id here.
        """
        with self._in(within) as connection:
            return self._get(connection, task_id)

    def list(self, *, ids: Collection[str] | None = None, within: sa.Connection | None = None) -> tuple[Task, ...]:
        """Return every task, or those of `ids`, the newest first."""
        newest = sa.select(task_table).order_by(task_table.c.created_at.desc(), task_table.c.id)
        members = sa.select(party_table).order_by(party_table.c.position)
        if ids is not None:
            newest = newest.where(task_table.c.id.in_(ids))
            members = members.where(party_table.c.task_id.in_(ids))
        with self._in(within) as connection:
            rows = connection.execute(newest).all()
            parties: dict[str, list[Party]] = {}
            for row in connection.execute(members):
                parties.setdefault(row.task_id, []).append(party_of(row))
        return tuple(task_of(row, parties.get(row.id, ())) for row in rows)

    def move(
        self,
        task_id: str,
        status: TaskStatus,
        reason: str | None = None,
        *,
        within: sa.Connection | None = None,
    ) -> Task:
        """Move a task on. To say again what it already is changes nothing, since two parties often say the same.

        Raises:
            ConfigError: its status cannot be followed by this one (see `model.MOVES`); nothing is changed.
            UnknownTask: there is none of this id here.
        """
        if not isinstance(status, TaskStatus):
            raise ConfigError("the status of a task is wrong", expected="a TaskStatus")
        with self._in(within, write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            if task.status is not status:
                check_move(task.status, status)
                values = {"status": status.value, "reason": short(reason)}
                connection.execute(task_table.update().where(task_table.c.id == task_id).values(**values))
                text = f"the task is {status.value}" + (f": {reason}" if reason else "")
                self._append(connection, task_id, TASK_STATUS, text, body=values)
            return self._get(connection, task_id)

    def set_party(
        self,
        task_id: str,
        feature_key: str,
        *,
        status: PartyStatus | Literal[Keep.KEEP] = KEEP,
        reason: str | Literal[Keep.KEEP] | None = KEEP,
        role: Role | Literal[Keep.KEEP] | None = KEEP,
        public_key: bytes | Literal[Keep.KEEP] | None = KEEP,
        endpoint: str | Literal[Keep.KEEP] | None = KEEP,
        within: sa.Connection | None = None,
    ) -> Task:
        """Change what is given of one party, in one step, and return the task; None clears.

        Raises:
            ConfigError: the task has no such party; it has another host; this is its running host and no
                collaborator; another party has this key; it is trusted under another key only; or a value is of the
                wrong type. Nothing is changed.
            UnknownTask: there is none of this id here.
        """
        changes = check_party_changes(status, reason, role, public_key, endpoint)
        if isinstance(status, PartyStatus):
            changes["status"] = status.value
        with self._in(within, write=True) as connection:
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
            if isinstance(status, PartyStatus) and status is not party.status:
                why = changes.get("reason", party.reason)
                text = f"{feature_key} is {status.value}" + (f": {why}" if why else "")
                body = {"status": status.value, "reason": why}
                self._append(connection, task_id, PARTY_STATUS, text, party=feature_key, body=body)
            return self._get(connection, task_id)

    def verify(
        self,
        task_id: str,
        feature_key: str,
        verified: bool,
        reason: str | None = None,
        *,
        within: sa.Connection | None = None,
    ) -> Task:
        """Note the outcome of a party's data check; the task is VERIFIED when every party is.

        Raises:
            ConfigError: the task has no such party.
            UnknownTask: there is none of this id here.
        """
        status = PartyStatus.VERIFIED if verified else PartyStatus.REJECTED
        with self._in(within, write=True) as connection:
            why = None if verified else reason
            task = self.set_party(task_id, feature_key, status=status, reason=why, within=connection)
            if task.status in (TaskStatus.CREATED, TaskStatus.VERIFYING, TaskStatus.VERIFIED):
                task = self.move(task_id, TaskStatus.VERIFYING, within=connection)
                if all(party.status is PartyStatus.VERIFIED for party in task.parties):
                    task = self.move(task_id, TaskStatus.VERIFIED, within=connection)
            return task

    def trust(self, task_id: str, feature_key: str, public_key: bytes, *, within: sa.Connection | None = None) -> Task:
        """Say which public key a party has: from now on that key, and no other that it announces, is this party.

        Raises:
            ConfigError: the task has no such party, or another party of it has this key.
            UnknownTask: there is none of this id here.
        """
        check_public_key_bytes(public_key)
        with self._in(within, write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            task.party(feature_key)
            _check_no_other_owner(task, feature_key, public_key)
            mine = (party_table.c.task_id == task_id) & (party_table.c.feature_key == feature_key)
            connection.execute(party_table.update().where(mine).values(public_key=public_key, key_trusted=True))
            return self._get(connection, task_id)

    def log(self, task_id: str, feature_key: str, text: str, *, within: sa.Connection | None = None) -> None:
        """Append a line to a task's log; past 4000 characters it is cut.

        Raises:
            ConfigError: there is no text, or the task has no such party.
            UnknownTask: there is none of this id here.
        """
        if not isinstance(text, str) or not text:
            raise ConfigError("a line of the log is empty or no string", expected="some text")
        with self._in(within, write=True) as connection:
            self._get(connection, task_id).party(feature_key)
            line = {"task_id": task_id, "at": time.time(), "party": feature_key, "text": short(text)}
            connection.execute(log_table.insert().values(**line))

    def logs(self, task_id: str, limit: int = 50, *, within: sa.Connection | None = None) -> tuple[LogEntry, ...]:
        """Return the last `limit` lines of a task's log, oldest first.

        Raises:
            UnknownTask: there is none of this id here.
        """
        with self._in(within) as connection:
            self._get(connection, task_id)
            newest = sa.select(log_table).where(log_table.c.task_id == task_id).order_by(log_table.c.number.desc())
            rows = connection.execute(newest.limit(max(limit, 0))).all()
        return tuple(LogEntry(utc(row.at), row.party, row.text) for row in reversed(rows))


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

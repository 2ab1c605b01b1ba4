"""Everything that can be done with a hub, by whom it may be done: what the page and the REST interface call."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub import audit
from heterofed.hub.access import Actor, allowed, check
from heterofed.hub.audit import AuditEntry
from heterofed.hub.coordinator import dispatch
from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.people import People
from heterofed.hub.schema import member_table
from heterofed.tasks.course import Event, LogEntry, Measured, Measurement, Notification, Output, ReportKind
from heterofed.tasks.interface import KEEP, Keep
from heterofed.tasks.model import PartyStatus, Role, Task, TaskStatus
from heterofed.tasks.options import TrainerOptions, UncertaintyName
from heterofed.tasks.stored import utc
from heterofed.tasks.tables import event_table, log_table, metric_table, output_table


class Hub(People):
    """One hub. Safe to use from several threads; every operation is one transaction.

    All operations raise `NotAllowed` for who may not, `UnknownTask` for a task that is not there, `ConfigError` for
    what cannot be, and `OutputError` when the database fails.
    """

    def close(self) -> None:
        """Stop what this process carries out, and close the database; what is not done yet is done by the next one."""
        if self.dispatcher is not None:
            self.dispatcher.close()
        self.store.database.close()

    def create_task(
        self,
        actor: Actor,
        name: str,
        parties: Iterable[str],
        *,
        lives_for: timedelta | None = None,
        rounds: int | None = None,
        options: TrainerOptions | None = None,
        uncertainty: UncertaintyName | None = None,
    ) -> Task:
        """Create a task that is the actor's (see `Tasks.create`)."""
        with self._for(actor, write=True) as connection:
            if not actor.may_create:
                raise NotAllowed(f"{actor.user} may not create tasks", expected="a token of role owner")
            task = self.store.create(
                name,
                parties,
                lives_for=lives_for,
                rounds=rounds,
                options=options,
                uncertainty=uncertainty,
                within=connection,
            )
            owner = {"task_id": task.id, "user_id": actor.user_id, "role": "owner"}
            connection.execute(member_table.insert().values(**owner))
            audit.note(connection, actor, "create", task_id=task.id, detail=name)
        self._after()
        return task

    def tasks(self, actor: Actor) -> tuple[Task, ...]:
        """Return every task that the actor has to do with, the newest first."""
        with self._for(actor) as connection:
            if actor.admin:
                return self.store.list(within=connection)
            mine = sa.select(member_table.c.task_id).where(member_table.c.user_id == actor.user_id).distinct()
            if actor.task_id is not None:
                mine = mine.where(member_table.c.task_id == actor.task_id)
            return self.store.list(ids=connection.execute(mine).scalars().all(), within=connection)

    def task(self, actor: Actor, task_id: str) -> Task:
        """Return a task as it is now."""
        with self._for(actor) as connection:
            return self._enter(connection, actor, "see", task_id)

    def start(self, actor: Actor, task_id: str) -> Task:
        """Launch a task: every party's agent is told to start (see `Tasks.start`)."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "start", task_id)
            self.store.start(task_id, within=connection)
            works = dispatch.started(connection, task_id)
            audit.note(connection, actor, "start", task_id=task_id)
            task = self.store.get(task_id, within=connection)
        self._after(works)
        return task

    def cancel(self, actor: Actor, task_id: str, reason: str | None = None) -> Task:
        """Cancel a task for good; the parties that run it end with the reason."""
        return self.move(actor, task_id, TaskStatus.CANCELLED, reason)

    def move(self, actor: Actor, task_id: str, status: TaskStatus, reason: str | None = None) -> Task:
        """Move a task on, as its host; what follows from the parties' own statuses, as any of its parties."""
        action = "cancel" if status is TaskStatus.CANCELLED else "move"
        if status in (TaskStatus.VERIFYING, TaskStatus.VERIFIED):
            action = "note that data are checked"
        with self._for(actor, write=True) as connection:
            task = self._enter(connection, actor, action, task_id)
            if status is TaskStatus.VERIFIED:
                _check_verified(task)
            moved, works = self._move(connection, task, status, reason)
            if moved.status is not task.status:
                audit.note(connection, actor, action, task_id=task_id, detail=f"{status.value} {reason or ''}".strip())
        self._after(works)
        return moved

    def _move(
        self, connection: sa.Connection, task: Task, status: TaskStatus, reason: str | None
    ) -> tuple[Task, tuple[dispatch.Work, ...]]:
        moved = self.store.move(task.id, status, reason, within=connection)
        if moved.status is task.status:
            return moved, ()
        return moved, dispatch.moved(connection, task.id, task.status, status, reason)

    def set_party(
        self,
        actor: Actor,
        task_id: str,
        feature_key: str,
        *,
        status: PartyStatus | Literal[Keep.KEEP] = KEEP,
        reason: str | Literal[Keep.KEEP] | None = KEEP,
        role: Role | Literal[Keep.KEEP] | None = KEEP,
        public_key: bytes | Literal[Keep.KEEP] | None = KEEP,
        endpoint: str | Literal[Keep.KEEP] | None = KEEP,
    ) -> Task:
        """Change what is given of one party, as that party (see `Tasks.set_party`)."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "change", task_id, feature_key)
            task = self.store.set_party(
                task_id,
                feature_key,
                status=status,
                reason=reason,
                role=role,
                public_key=public_key,
                endpoint=endpoint,
                within=connection,
            )
        self._after()
        return task

    def verify(self, actor: Actor, task_id: str, feature_key: str, verified: bool, reason: str | None = None) -> Task:
        """Say whether a party's data can be used, as that party; when all can, the task is VERIFIED."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "verify", task_id, feature_key)
            task = self.store.verify(task_id, feature_key, verified, reason, within=connection)
            said = "yes" if verified else "no"
            audit.note(connection, actor, "verify", task_id=task_id, detail=f"{feature_key}: {said}")
        self._after()
        return task

    def trust(self, actor: Actor, task_id: str, feature_key: str, public_key: bytes) -> Task:
        """Say which public key a party has (see `Tasks.trust`)."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "trust a key of", task_id, feature_key)
            task = self.store.trust(task_id, feature_key, public_key, within=connection)
            audit.note(connection, actor, "trust", task_id=task_id, detail=feature_key)
        self._after()
        return task

    def log(self, actor: Actor, task_id: str, feature_key: str, text: str) -> None:
        """Append a line to a task's log, as a party."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "report for", task_id, feature_key)
            self.store.log(task_id, feature_key, text, within=connection)

    def logs(self, actor: Actor, task_id: str, limit: int = 50) -> tuple[LogEntry, ...]:
        """Return the last lines of a task's log, oldest first."""
        with self._for(actor) as connection:
            self._enter(connection, actor, "see", task_id)
            return self.store.logs(task_id, limit, within=connection)

    def report(
        self,
        actor: Actor,
        task_id: str,
        feature_key: str,
        kind: ReportKind,
        round: int,
        body: Mapping[str, Any] | None = None,
    ) -> bool:
        """Say what a party did; True: it counts, False: it was said before (see `Tasks.report`)."""
        works: tuple[dispatch.Work, ...] = ()
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "report for", task_id, feature_key)
            counts = self.store.report(task_id, feature_key, kind, round, body, within=connection)
            if counts:
                works = dispatch.reported(connection, task_id, feature_key, kind, round, body)
        if counts:
            self._after(works)
        return counts

    def begin_anew(self, actor: Actor, task_id: str, feature_key: str, launch: str) -> bool:
        """Forget what a party said of an earlier run, as that party (see `Tasks.begin_anew`)."""
        with self._for(actor, write=True) as connection:
            task = self._enter(connection, actor, "report for", task_id, feature_key)
            anew = self.store.begin_anew(task_id, feature_key, launch, within=connection)
            if anew and task.party(feature_key).role == "host":
                dispatch.began_anew(connection, task_id)
            if anew:
                audit.note(connection, actor, "begin", task_id=task_id, detail=feature_key)
        self._after()
        return anew

    def events(self, actor: Actor, task_id: str, *, after: int = 0, limit: int = 200) -> tuple[Event, ...]:
        """Return what happened to a task beyond a number, oldest first."""
        with self._for(actor) as connection:
            self._enter(connection, actor, "see", task_id)
            return self.store.events(task_id, after=after, limit=limit, within=connection)

    def put_metrics(self, actor: Actor, task_id: str, feature_key: str, rows: Sequence[Measurement]) -> int:
        """Keep rows of a party's metric sets; returns how many were new."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "report for", task_id, feature_key)
            return self.store.put_metrics(task_id, feature_key, rows, within=connection)

    def metrics(self, actor: Actor, task_id: str, *, after: int = 0, limit: int | None = None) -> tuple[Measured, ...]:
        """Return the metric rows beyond a number, in order of arrival."""
        with self._for(actor) as connection:
            self._enter(connection, actor, "see", task_id)
            return self.store.metrics(task_id, after=after, limit=limit, within=connection)

    def table(self, actor: Actor, task_id: str, feature_key: str, name: str) -> bytes:
        """Return a party's metric set as CSV, the same bytes as in the party's own file.

        Raises:
            ConfigError: the party has no such set.
        """
        with self._for(actor) as connection:
            self._enter(connection, actor, "see", task_id).party(feature_key)
            rows = self.store.metrics(task_id, party=feature_key, set=name, within=connection)
        if not rows:
            raise ConfigError(f"{feature_key} has no metric set {name[:100]!r} in task {task_id}")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0].values), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(each.values) for each in sorted(rows, key=lambda each: each.row))
        return text.getvalue().encode("utf-8", errors="replace")

    def put_output(self, actor: Actor, task_id: str, feature_key: str, name: str, data: bytes) -> None:
        """Keep a file of a party; one of this name is replaced."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "report for", task_id, feature_key)
            there = self.store.outputs(task_id, within=connection)
            others = sum(each.size for each in there if (each.party, each.name) != (feature_key, name))
            if others + len(data) > self.settings.max_task_bytes:
                raise ConfigError(
                    f"the files of task {task_id} are too many",
                    expected=f"at most {self.settings.max_task_bytes} bytes together",
                )
            self.store.put_output(task_id, feature_key, name, data, within=connection)

    def outputs(self, actor: Actor, task_id: str) -> tuple[Output, ...]:
        """Return what files there are that the actor may fetch, by party and name."""
        with self._for(actor) as connection:
            _, ties = self._ties(connection, actor, task_id)
            check(actor, "see", ties, task_id)
            return tuple(
                each
                for each in self.store.outputs(task_id, within=connection)
                if allowed(_to_fetch(each.name), ties, each.party)
            )

    def output(self, actor: Actor, task_id: str, feature_key: str, name: str) -> bytes:
        """Return the bytes of a file: tables and reports for all of the task, others for its owner and their party."""
        with self._for(actor) as connection:
            self._enter(connection, actor, _to_fetch(name), task_id, feature_key)
            return self.store.output(task_id, feature_key, name, within=connection)

    def notifications(self, actor: Actor, after: int = 0, limit: int = 200) -> tuple[Notification, ...]:
        """Return what the actor's parties are told beyond a number, oldest first."""
        each, member = notification_table, member_table
        in_it = member.c.task_id == each.c.task_id
        a_party = in_it & (member.c.feature_key == each.c.party)
        mine = sa.select(member.c.id).where(a_party, member.c.user_id == actor.user_id).exists()
        owned = (
            sa.select(member.c.id).where(in_it, member.c.user_id == actor.user_id, member.c.role == "owner").exists()
        )
        for_me = mine | (each.c.party.is_(None) & (each.c.user_id == actor.user_id))
        if actor.role == "owner":
            for_me |= owned & ~sa.select(member.c.id).where(a_party).exists()
        query = sa.select(each).where(each.c.number > after, for_me)
        if actor.task_id is not None:
            query = query.where(each.c.task_id == actor.task_id)
        if actor.party is not None:
            query = query.where(each.c.party == actor.party)
        with self._for(actor) as connection:
            rows = connection.execute(query.order_by(each.c.number).limit(limit)).all()
        return tuple(
            Notification(row.number, row.notification_type, json.loads(row.body), row.task_id, row.party, utc(row.at))
            for row in rows
        )

    def pulse(self, actor: Actor, task_id: str) -> str:
        """Return a short text that changes whenever something that people see of a task has changed."""
        with self._for(actor) as connection:
            task = self._enter(connection, actor, "see", task_id)
            newest = [
                sa.select(sa.func.max(table.c.number)).where(table.c.task_id == task_id).scalar_subquery()
                for table in (event_table, metric_table, log_table)
            ]
            files = sa.select(sa.func.max(output_table.c.at)).where(output_table.c.task_id == task_id).scalar_subquery()
            numbers = connection.execute(sa.select(*newest, files)).one()
        return hashlib.sha256(repr((task, tuple(numbers))).encode()).hexdigest()[:16]

    def audit(self, actor: Actor, after: int = 0, limit: int = 200) -> tuple[AuditEntry, ...]:
        """Return who did what, oldest first; for who is in charge of the hub."""
        with self._for(actor) as connection:
            if not actor.admin:
                raise NotAllowed(f"{actor.user} may not see the audit log", expected="who started this hub")
            return audit.read(connection, after, limit)


def _to_fetch(name: str) -> str:
    """Return what one has to be allowed to fetch a file: with a model, others could probe what it was trained on."""
    return "see" if name.endswith(".csv") or name == "report.zip" else "fetch a model of"


def _check_verified(task: Task) -> None:
    missing = [party.feature_key for party in task.parties if party.status is not PartyStatus.VERIFIED]
    if missing and task.status is not TaskStatus.VERIFIED:
        raise ConfigError(
            f"task {task.id} is not verified: {', '.join(missing)} did not say yes", expected="every party VERIFIED"
        )

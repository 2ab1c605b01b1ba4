"""The course of tasks in a database: launches, reports, events, metric rows and files."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from heterofed.errors import ConfigError
from heterofed.tasks.beginning_store import BeginningStore
from heterofed.tasks.checks import check_body, check_output, check_output_name, check_report_round, check_rows
from heterofed.tasks.course import (
    OF_THE_HOST,
    TASK_STATUS,
    TRAINING_START,
    Event,
    Measured,
    Measurement,
    Notification,
    NotificationType,
    Output,
    ReportKind,
)
from heterofed.tasks.forms import read_values, values_form
from heterofed.tasks.model import Party, PartyStatus, Task, TaskStatus
from heterofed.tasks.stored import utc
from heterofed.tasks.tables import event_table, metric_table, output_table, report_table, task_table

FOLLOW_EVERY_S = 0.3
"""How often a follower of a store looks for what is new."""
_AT_ONCE = 500

_NOT_YET: Final = frozenset({TaskStatus.CREATED, TaskStatus.VERIFYING, TaskStatus.VERIFIED})
_TOLD: Mapping[str, NotificationType] = {
    TaskStatus.COMPLETED.value: NotificationType.TRAINING_FINISHED,
    TaskStatus.FAILED.value: NotificationType.TASK_FAILED,
}
"""Which moves of a task followers of a store are told."""
_SAID: Mapping[ReportKind, str] = {
    ReportKind.ROUND_FINISHED: "{party} finished round {round}",
    ReportKind.TEST_FINISHED: "{party} tested the model of round {round}",
    ReportKind.SWAG_FINISHED: "{party} collected the moments of round {round}",
    ReportKind.PARTY_LOST: "{party} waits for {other}, in round {round}: {reason}",
    ReportKind.TASK_FAILED: "{party} gave up in round {round}: {reason}",
}


class CourseStore(BeginningStore):
    """What happens to tasks; a part of `TaskStore`."""

    def start(self, task_id: str, *, within: sa.Connection | None = None) -> Task:
        """Launch a task: note when, so that everybody who follows the store starts its party.

        Raises:
            ConfigError: the task is over, was started and did not fail, or a party's data were refused.
            UnknownTask: there is none of this id here.
        """
        with self._in(within, write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            _check_may_start(task)
            mine = task_table.c.id == task_id
            connection.execute(task_table.update().where(mine).values(launched_at=time.time()))
            # It may fail, and lose parties, in the same round again. Rounds stay reported: mostly the run goes on.
            again = report_table.c.kind.in_((ReportKind.TASK_FAILED.value, ReportKind.PARTY_LOST.value))
            connection.execute(report_table.delete().where(again & (report_table.c.task_id == task_id)))
            self._append(connection, task_id, TRAINING_START, "launched: every party that listens starts")
            return self._get(connection, task_id)

    def report(
        self,
        task_id: str,
        feature_key: str,
        kind: ReportKind,
        round: int,
        body: Mapping[str, Any] | None = None,
        *,
        within: sa.Connection | None = None,
    ) -> bool:
        """Say what a party did; see `Tasks.report`.

        Raises:
            ConfigError: the party has not come in, is not the host for what only a host reports, the task is
                cancelled, or the round or the body cannot be.
            UnknownTask: there is none of this id here.
        """
        plain = check_body(body)
        with self._in(within, write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            party = task.party(feature_key)
            kind, round = check_report_round(kind, round, task.rounds)
            _check_may_report(task, party, kind)
            place = {"task_id": task_id, "party": feature_key, "kind": kind.value, "round": round}
            columns = [report_table.c[name] == value for name, value in place.items()]
            if connection.execute(sa.select(report_table.c.round).where(*columns)).first() is not None:
                return False
            connection.execute(report_table.insert().values(**place, body=plain, at=time.time()))
            if kind is ReportKind.ROUND_FINISHED and party.role == "host" and round > task.round:
                connection.execute(task_table.update().where(task_table.c.id == task_id).values(round=round))
            text = _SAID[kind].format(
                party=feature_key,
                round=round,
                other=plain.get("party", "a party"),
                reason=plain.get("reason") or "no reason given",
            )
            self._append(connection, task_id, kind.value, text, party=feature_key, round=round, body=plain)
            return True

    def events(
        self, task_id: str, *, after: int = 0, limit: int = 200, within: sa.Connection | None = None
    ) -> tuple[Event, ...]:
        """Return the next `limit` events of a task whose number is beyond `after`, oldest first.

        Raises:
            UnknownTask: there is none of this id here.
        """
        with self._in(within) as connection:
            self._get(connection, task_id)
            newer = (event_table.c.task_id == task_id) & (event_table.c.number > after)
            query = sa.select(event_table).where(newer).order_by(event_table.c.number).limit(max(limit, 0))
            return tuple(_event(row) for row in connection.execute(query))

    def put_metrics(
        self,
        task_id: str,
        feature_key: str,
        rows: Sequence[Measurement],
        *,
        within: sa.Connection | None = None,
    ) -> int:
        """Keep rows of a party's metric sets, those that are not there yet; return how many were new.

        Raises:
            ConfigError: the task has no such party, or a row cannot be one; nothing is kept.
            UnknownTask: there is none of this id here.
        """
        wanted = {(row.set, row.row): row for row in reversed(check_rows(rows))}
        with self._in(within, write=True) as connection:
            self._get(connection, task_id, lock=True).party(feature_key)
            if not wanted:
                return 0
            places = [row for _, row in wanted]
            there = sa.select(metric_table.c.set_name, metric_table.c.row_index).where(
                metric_table.c.task_id == task_id,
                metric_table.c.party == feature_key,
                metric_table.c.set_name.in_({name for name, _ in wanted}),
                metric_table.c.row_index.between(min(places), max(places)),
            )
            for row in connection.execute(there):
                wanted.pop((row.set_name, row.row_index), None)
            now = time.time()
            new = [
                {
                    "task_id": task_id,
                    "party": feature_key,
                    "set_name": each.set,
                    "row_index": each.row,
                    "round": each.round,
                    "cells": values_form(each.values),
                    "at": now,
                }
                for each in reversed(wanted.values())
            ]
            if new:
                connection.execute(metric_table.insert(), new)
            return len(new)

    def metrics(
        self,
        task_id: str,
        *,
        after: int = 0,
        limit: int | None = None,
        party: str | None = None,
        set: str | None = None,
        within: sa.Connection | None = None,
    ) -> tuple[Measured, ...]:
        """Return the rows whose number is beyond `after`, in order of arrival.

        Args:
            task_id: the task.
            after: the number of the last one that is known already.
            limit: at most so many; None: all.
            party: only this party's.
            set: only this set's.
            within: the transaction to do it in.

        Raises:
            UnknownTask: there is none of this id here.
        """
        chosen = [metric_table.c.task_id == task_id, metric_table.c.number > after]
        if party is not None:
            chosen.append(metric_table.c.party == party)
        if set is not None:
            chosen.append(metric_table.c.set_name == set)
        with self._in(within) as connection:
            self._get(connection, task_id)
            query = sa.select(metric_table).where(*chosen).order_by(metric_table.c.number).limit(limit)
            return tuple(_measured(row) for row in connection.execute(query))

    def put_output(
        self, task_id: str, feature_key: str, name: str, data: bytes, *, within: sa.Connection | None = None
    ) -> None:
        """Keep a file of a party; one of this name is replaced.

        Raises:
            ConfigError: the task has no such party, the name cannot be one, or the file is too large.
            UnknownTask: there is none of this id here.
        """
        name, data = check_output_name(name), check_output(data, self._max_output_bytes)
        place = {"task_id": task_id, "party": feature_key, "name": name}
        content = {
            "data": data,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "at": time.time(),
        }
        with self._in(within, write=True) as connection:
            self._get(connection, task_id, lock=True).party(feature_key)
            same = [output_table.c[column] == value for column, value in place.items()]
            replaced = connection.execute(output_table.update().where(*same).values(**content)).rowcount
            if not replaced:
                connection.execute(output_table.insert().values(**place, **content))

    def outputs(self, task_id: str, *, within: sa.Connection | None = None) -> tuple[Output, ...]:
        """Return what files there are, by party and name.

        Raises:
            UnknownTask: there is none of this id here.
        """
        about = [output_table.c[name] for name in ("party", "name", "size", "sha256", "at")]
        with self._in(within) as connection:
            self._get(connection, task_id)
            query = sa.select(*about).where(output_table.c.task_id == task_id).order_by(*about[:2])
            return tuple(
                Output(row.party, row.name, row.size, row.sha256, utc(row.at)) for row in connection.execute(query)
            )

    def output(self, task_id: str, feature_key: str, name: str, *, within: sa.Connection | None = None) -> bytes:
        """Return the bytes of a file.

        Raises:
            ConfigError: there is no such file, or no such party.
            UnknownTask: there is none of this id here.
        """
        name = check_output_name(name)
        with self._in(within) as connection:
            self._get(connection, task_id).party(feature_key)
            of_it = {"task_id": task_id, "party": feature_key, "name": name}
            same = [output_table.c[column] == value for column, value in of_it.items()]
            data = connection.execute(sa.select(output_table.c.data).where(*same)).scalar_one_or_none()
        if data is None:
            raise ConfigError(
                f"{feature_key} gave no {name} to task {task_id}",
                expected="one of those that `heterofed task outputs` lists",
            )
        return bytes(data)

    def follow(self, *, after: int = 0, stop: threading.Event) -> Iterator[Notification]:
        """Yield what happened to any task of this store after event `after`, and then what happens until `stop`.

        A store tells of launches, and of tasks that are completed or failed.

        Raises:
            OutputError: the store fails.
        """
        told = event_table.c.kind.in_((TRAINING_START, TASK_STATUS))
        while not stop.is_set():
            with self.transaction() as connection:
                newer = sa.select(event_table).where(told & (event_table.c.number > after))
                rows = connection.execute(newer.order_by(event_table.c.number).limit(_AT_ONCE)).all()
            for row in rows:
                after = row.number
                kind = NotificationType.TRAINING_START if row.kind == TRAINING_START else _TOLD.get(row.body["status"])
                if kind is not None:
                    yield Notification(row.number, kind.value, row.body, row.task_id, None, utc(row.at))
                if stop.is_set():
                    return
            if len(rows) < _AT_ONCE:
                stop.wait(FOLLOW_EVERY_S)


def _check_may_start(task: Task) -> None:
    why = task.why_over()
    if why is not None:
        raise ConfigError(
            f"task {task.id} {why}, and cannot be launched", advice="Create a new one with `heterofed task create`."
        )
    waits_for_its_parties = task.status in _NOT_YET and task.launched_at is not None
    if waits_for_its_parties or task.status not in _NOT_YET | {TaskStatus.FAILED}:
        raise ConfigError(
            f"task {task.id} is launched already",
            expected="a task that nobody has launched, or that failed",
            advice="Cancel it, or wait until it ends.",
        )
    refused = [party for party in task.parties if party.status is PartyStatus.REJECTED]
    if refused:
        raise ConfigError(
            f"the data check of {refused[0].feature_key} said no: {refused[0].reason or 'no reason given'}",
            expected="no party with refused data",
            advice="That party mends its data and runs the check again.",
        )


def _check_may_report(task: Task, party: Party, kind: ReportKind) -> None:
    if task.status is TaskStatus.CANCELLED:
        raise ConfigError(f"task {task.id} is CANCELLED, and takes no report of {kind.value}")
    if party.role is None:
        raise ConfigError(
            f"{party.feature_key} reports {kind.value}, but it never came in to task {task.id}",
            expected="reports of parties that were launched",
        )
    if kind in OF_THE_HOST and party.role != "host":
        raise ConfigError(
            f"{party.feature_key} reports {kind.value} in task {task.id}", expected="the host as the one who says so"
        )


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.number, utc(row.at), row.kind, row.party, row.round, row.text, row.body)


def _measured(row: sa.Row[Any]) -> Measured:
    return Measured(
        set=row.set_name,
        row=row.row_index,
        round=row.round,
        values=read_values(row.cells),
        number=row.number,
        at=utc(row.at),
        party=row.party,
    )

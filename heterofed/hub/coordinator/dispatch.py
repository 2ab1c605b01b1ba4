"""The way in: what is launched, reported or moved on the hub, inside the transaction that writes it.

Nothing is handled here. What is to be handled becomes rows in the same transaction, and after it is committed the
caller hands the returned `Work` to its `Dispatcher`. Should that never happen, the sweeper finds the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from heterofed.errors import ConfigError
from heterofed.hub.coordinator.rows import Work, add_event
from heterofed.hub.coordinator.tables import trainer_event_table
from heterofed.hub.coordinator.trainer import ModelTrainer
from heterofed.hub.coordinator.training import Training, TrainingState, UncertaintyMethod
from heterofed.tasks.course import ReportKind
from heterofed.tasks.model import TaskStatus
from heterofed.tasks.tables import report_table, task_table

__all__ = ["Dispatcher", "Work", "began_anew", "moved", "reported", "started"]


class Dispatcher(ABC):
    """Sees to it that events are handled and notifications are sent."""

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def dispatch(self, works: Sequence[Work] = ()) -> None:
        """Take what a committed transaction has led to, be it only notifications; returns at once, raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """End, within some seconds. What is not done yet is done by the next one."""


_NOT_LAUNCHED = (TaskStatus.CREATED, TaskStatus.VERIFYING, TaskStatus.VERIFIED)
_OF_ONE_RUN = (ReportKind.TASK_FAILED, ReportKind.PARTY_LOST)
_OF_ROUNDS = ("TrainingRoundFinished", "SWAGRoundFinished", "ModelTestFinished")


def started(
    connection: sa.Connection, task_id: str, *, uncertainty_method: UncertaintyMethod | None = None
) -> tuple[Work, ...]:
    """Launch a task: its parties are told to start, and it waits for them (GATHERING).

    Whether it may be launched is the caller's question. A task that failed goes on with the rounds it has.

    Raises:
        UnknownTask: there is no such task.
    """
    training = Training.load(connection, task_id) or Training.create(connection, task_id)
    if uncertainty_method is not None:
        training.uncertainty_method = uncertainty_method
    _forget_the_last_run(training)
    ModelTrainer(training).start()
    if training.task_status in _NOT_LAUNCHED or training.task_status is TaskStatus.FAILED:
        training.move_task(TaskStatus.GATHERING, None)
    return ()


def reported(
    connection: sa.Connection,
    task_id: str,
    feature_key: str,
    kind: ReportKind,
    round: int,
    body: Mapping[str, Any] | None = None,
) -> tuple[Work, ...]:
    """Take note of a party's report, whose row the caller has just written and for the first time.

    Returns:
        What it led to, for example because it was the last one of its round.

    Raises:
        ConfigError: the task was not launched, or the round or the party that is named cannot be.
        UnknownTask: there is no such task.
    """
    training = _running(connection, task_id)
    if training is None:
        raise ConfigError(
            f"task {task_id} has not been launched, so nothing can have happened in it",
            party=feature_key,
            expected="a report of a running task",
        )
    least = 0 if kind in _OF_ONE_RUN else 1
    most = training.target_rounds
    if isinstance(round, bool) or round < least or (most is not None and round > most):
        raise ConfigError(
            f"a report is of round {round}",
            party=feature_key,
            expected=f"a round from {least}" + (f" to {most}" if most is not None else ""),
        )
    return _led_to(training, kind, round, body or {})


def moved(
    connection: sa.Connection, task_id: str, before: TaskStatus, after: TaskStatus, reason: str | None = None
) -> tuple[Work, ...]:
    """Take note that a task was moved, by its host or its owner, in this transaction.

    Raises:
        UnknownTask: there is no such task.
    """
    if before is after:
        return ()
    training = _running(connection, task_id)
    if training is None:
        return ()
    if after is TaskStatus.COMPLETED and training.state is not TrainingState.COMPLETED:
        return add_event(connection, task_id, "TaskCompleted", 0)
    if after in (TaskStatus.FAILED, TaskStatus.CANCELLED) and training.is_running:
        why = f"the task was cancelled{f': {reason}' if reason else ''}" if after is TaskStatus.CANCELLED else reason
        return add_event(connection, task_id, "TaskFailed", training.round, {"reason": why})
    if before is TaskStatus.FAILED and after is TaskStatus.GATHERING and not training.is_running:
        _forget_the_last_run(training)  # the host came back without anybody's launching it here
        training.state, training.cause, training.removed = TrainingState.ONGOING, None, {}
        training.save()
    return ()


def began_anew(connection: sa.Connection, task_id: str) -> None:
    """Take note that the host has begun with the first round again: from now on it counts again.

    What the other parties reported of the run before is theirs to take back; a round is counted only with a new report
    of the host.

    Raises:
        UnknownTask: there is no such task.
    """
    training = Training.load(connection, task_id)
    if training is None:
        return
    events = trainer_event_table.c
    of_rounds = (events.task_id == task_id) & events.kind.in_(_OF_ROUNDS)
    known = connection.execute(trainer_event_table.delete().where(of_rounds)).rowcount
    again = bool(known) or training.round > 0
    training.round = 0
    if training.task_status is not TaskStatus.FAILED:
        training.state, training.cause = TrainingState.ONGOING, None
    training.save()
    if again and training.is_running:
        ModelTrainer(training).start_round()


def _running(connection: sa.Connection, task_id: str) -> Training | None:
    """Return the training of a task; one whose parties were launched by hand begins now. None: nobody was launched."""
    training = Training.load(connection, task_id)
    if training is None:
        status = connection.scalars(sa.select(task_table.c.status).where(task_table.c.id == task_id)).one()
        if TaskStatus(status) in _NOT_LAUNCHED:
            return None
        training = Training.create(connection, task_id)
        training.state = TrainingState.ONGOING
        training.save()
    return training


def _led_to(training: Training, kind: ReportKind, round: int, body: Mapping[str, Any]) -> tuple[Work, ...]:
    connection, task_id = training.connection, training.task_id
    if kind is ReportKind.ROUND_FINISHED:
        complete = not training.missing(kind, round)
        return add_event(connection, task_id, "TrainingRoundFinished", round) if complete else ()
    if kind is ReportKind.SWAG_FINISHED:
        # Where nobody asked for moments, those who collect them for themselves may say so.
        complete = training.uncertainty_method is UncertaintyMethod.SWAG and not training.missing(kind, round)
        return add_event(connection, task_id, "SWAGRoundFinished", round) if complete else ()
    if kind is ReportKind.TEST_FINISHED:
        return add_event(connection, task_id, "ModelTestFinished", round)
    if kind is ReportKind.PARTY_LOST:
        party = body.get("party")
        if party not in training.parties:
            raise ConfigError("a report is of a lost party that the task does not have", expected="its feature_key")
        return add_event(connection, task_id, "PartyLost", round, body, subject=str(party))
    return add_event(connection, task_id, "TaskFailed", round, body)


def _forget_the_last_run(training: Training) -> None:
    """Let a task that is launched again fail again; rounds are counted on, unless it begins anew (`began_anew`)."""
    events, reports = trainer_event_table.c, report_table.c
    ended = events.kind.in_(("TaskFailed", "PartyLost"))
    training.connection.execute(trainer_event_table.delete().where(events.task_id == training.task_id, ended))
    of_one_run = reports.kind.in_([kind.value for kind in _OF_ONE_RUN])
    training.connection.execute(report_table.delete().where(reports.task_id == training.task_id, of_one_run))

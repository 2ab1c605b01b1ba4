"""The hub's view of one training: which round its parties have finished, and what it waits for.

A `Training` belongs to one transaction, in which its task's row is locked: nobody else changes it meanwhile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sqlalchemy as sa

from heterofed.errors import UnknownTask
from heterofed.hub.coordinator.tables import training_table
from heterofed.tasks.checks import short
from heterofed.tasks.course import TASK_STATUS, ReportKind
from heterofed.tasks.forms import read_options
from heterofed.tasks.model import MOVES, TaskStatus
from heterofed.tasks.options import TrainerOptions
from heterofed.tasks.tables import event_table, party_table, report_table, task_table


class TrainingState(str, Enum):
    """Where a training is, for the coordinator. The task's own status says more."""

    INITIAL = "I"
    """Nobody was told to start."""
    ONGOING = "O"
    SWAG_ROUND = "S"
    """A round is finished, and the parties collect the moments of their weights."""
    COMPLETED = "C"
    ERROR = "E"
    """The coordinator gave up, and says why; see `Training.cause`."""


class UncertaintyMethod(str, Enum):
    """How sure predictions are is found out; only SWAG makes the rounds different."""

    NONE = "NONE"
    ENSEMBLE = "ENSEMBLE"
    MC_DROPOUT = "MC_DROPOUT"
    SWAG = "SWAG"


@dataclass
class Training:
    """One task's training. Changes are kept by `save`, and are there for others when the transaction is committed."""

    connection: sa.Connection = field(repr=False)
    task_id: str
    task_status: TaskStatus
    """As it was when this was read."""

    parties: tuple[str, ...]
    """Every party of the task, in the task's order."""

    state: TrainingState = TrainingState.INITIAL
    round: int = 0
    """The last round that every party has finished; 0 before the first."""

    target_rounds: int | None = None
    """None: the host decides when it is done."""

    options: TrainerOptions = field(default_factory=TrainerOptions)
    uncertainty_method: UncertaintyMethod = UncertaintyMethod.NONE
    removed: dict[str, str] = field(default_factory=dict)
    """Parties that the coordinator waits for no more -> why, for people. They may be training all the same."""

    cause: str | None = None
    """Why the state is ERROR."""

    @classmethod
    def load(cls, connection: sa.Connection, task_id: str) -> Training | None:
        """Read the training of a task and lock the task's row; None: the task has no training yet.

        Raises:
            UnknownTask: there is no such task.
        """
        training = cls._of_task(connection, task_id)
        row = connection.execute(sa.select(training_table).where(training_table.c.task_id == task_id)).one_or_none()
        if row is None:
            return None
        training.state = TrainingState(row.state)
        training.round = row.round
        training.target_rounds = row.target_rounds
        training.options = TrainerOptions(**json.loads(row.options))
        training.uncertainty_method = UncertaintyMethod(row.uncertainty_method)
        training.removed = json.loads(row.removed)
        training.cause = row.cause
        return training

    @classmethod
    def create(
        cls, connection: sa.Connection, task_id: str, uncertainty_method: UncertaintyMethod | None = None
    ) -> Training:
        """Make the training of a task that has none; what is not given is as the task says.

        Raises:
            UnknownTask: there is no such task.
        """
        training = cls._of_task(connection, task_id)
        if uncertainty_method is not None:
            training.uncertainty_method = uncertainty_method
        new = training_table.insert().values(task_id=task_id, created_at=time.time(), **training._values())
        connection.execute(new)
        return training

    @classmethod
    def _of_task(cls, connection: sa.Connection, task_id: str) -> Training:
        query = sa.select(task_table).where(task_table.c.id == task_id).with_for_update()  # SQLite locked all of it
        row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownTask(f"there is no task {task_id[:40]!r} on this hub")
        keys = sa.select(party_table.c.feature_key).where(party_table.c.task_id == task_id)
        parties = tuple(connection.scalars(keys.order_by(party_table.c.position)))
        options = read_options(row.options) or TrainerOptions()
        status = TaskStatus(row.status)
        training = cls(connection, task_id, status, parties, target_rounds=row.rounds, options=options)
        if row.uncertainty is not None:
            training.uncertainty_method = UncertaintyMethod[row.uncertainty.upper()]
        return training

    def _values(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "round": self.round,
            "target_rounds": self.target_rounds,
            "options": json.dumps(vars(self.options)),
            "uncertainty_method": self.uncertainty_method.value,
            "removed": json.dumps(self.removed),
            "cause": self.cause,
        }

    def save(self) -> None:
        """Write what is above; never the lock, which is another's business."""
        mine = training_table.c.task_id == self.task_id
        self.connection.execute(training_table.update().where(mine).values(**self._values()))

    def move_task(self, status: TaskStatus, reason: str | None) -> None:
        """Move the task itself, if it may move there from where it is."""
        if status not in MOVES[self.task_status]:
            return
        self.task_status = status
        values = {"status": status.value, "reason": short(reason)}
        self.connection.execute(task_table.update().where(task_table.c.id == self.task_id).values(**values))
        self.note(TASK_STATUS, f"the task is {status.value}" + (f": {reason}" if reason else ""), values)

    def note(self, kind: str, text: str, body: Mapping[str, Any], party: str | None = None) -> None:
        """Append to what happened to the task, for people."""
        event = {"kind": kind, "text": short(text), "body": dict(body), "party": party, "round": None}
        self.connection.execute(event_table.insert().values(task_id=self.task_id, at=time.time(), **event))

    @property
    def awaited(self) -> tuple[str, ...]:
        """The parties that are waited for."""
        return tuple(key for key in self.parties if key not in self.removed)

    @property
    def is_running(self) -> bool:
        """Whether there is anything left to tell the parties to do."""
        return self.state in (TrainingState.ONGOING, TrainingState.SWAG_ROUND)

    def missing(self, kind: ReportKind, round: int) -> tuple[str, ...]:
        """Return the awaited parties that have not reported this of this round; each counts once, whatever it sends."""
        said = sa.select(report_table.c.party).where(
            report_table.c.task_id == self.task_id,
            report_table.c.kind == kind.value,
            report_table.c.round == round,
        )
        there = set(self.connection.scalars(said))
        return tuple(key for key in self.awaited if key not in there)

    def rounds_reported(self, kind: ReportKind, beyond: int) -> tuple[int, ...]:
        """Return the rounds after `beyond` of which some party has reported this, in order."""
        rounds = sa.select(report_table.c.round).where(
            report_table.c.task_id == self.task_id,
            report_table.c.kind == kind.value,
            report_table.c.round > beyond,
        )
        rounds = rounds.distinct()
        return tuple(sorted(self.connection.scalars(rounds)))

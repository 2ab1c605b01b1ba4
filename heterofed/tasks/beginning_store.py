"""Runs that begin anew, in a database: what a party said of the run before is forgotten in one transaction."""

from __future__ import annotations

import sqlalchemy as sa

from heterofed.errors import ConfigError
from heterofed.tasks.checks import check_launch
from heterofed.tasks.course import RUN_BEGAN, ReportKind
from heterofed.tasks.model import Party, Task, TaskStatus
from heterofed.tasks.stored import Stored
from heterofed.tasks.tables import metric_table, output_table, party_table, report_table, task_table

_OF_ROUNDS = tuple(
    kind.value for kind in (ReportKind.ROUND_FINISHED, ReportKind.TEST_FINISHED, ReportKind.SWAG_FINISHED)
)
"""What is said of a round that comes again. That a party was lost, or gave up, belongs to the launch."""


class BeginningStore(Stored):
    """How runs begin again; a part of `TaskStore`."""

    def begin_anew(self, task_id: str, feature_key: str, launch: str, *, within: sa.Connection | None = None) -> bool:
        """Forget what a party said of an earlier run; see `Tasks.begin_anew`.

        Raises:
            ConfigError: the party has not come in, the task is cancelled, or its host says so of a completed one.
            UnknownTask: there is none of this id here.
        """
        check_launch(launch)
        with self._in(within, write=True) as connection:
            task = self._get(connection, task_id, lock=True)
            party = task.party(feature_key)
            _check_may_begin(task, party)
            mine = (party_table.c.task_id == task_id) & (party_table.c.feature_key == feature_key)
            if connection.execute(sa.select(party_table.c.launch).where(mine)).scalar_one() == launch:
                return False
            connection.execute(party_table.update().where(mine).values(launch=launch))
            newest = sa.select(sa.func.max(metric_table.c.number)).where(metric_table.c.task_id == task_id)
            up_to = connection.execute(newest).scalar_one()
            forgotten = 0
            for table, also in (
                (report_table, [report_table.c.kind.in_(_OF_ROUNDS)]),
                (metric_table, []),
                (output_table, []),
            ):
                of_it: list[sa.ColumnElement[bool]] = [table.c.task_id == task_id, table.c.party == feature_key, *also]
                forgotten += connection.execute(table.delete().where(*of_it)).rowcount
            if party.role == "host" and task.round:
                connection.execute(task_table.update().where(task_table.c.id == task_id).values(round=0))
                forgotten += 1
            if forgotten:
                text = f"{feature_key} begins with the first round again; what it told of the run before is forgotten"
                self._append(connection, task_id, RUN_BEGAN, text, party=feature_key, body={"up_to": up_to or 0})
            return True


def _check_may_begin(task: Task, party: Party) -> None:
    over = task.status is TaskStatus.CANCELLED or (task.status is TaskStatus.COMPLETED and party.role == "host")
    if over:
        raise ConfigError(f"task {task.id} is {task.status.value}, so {party.feature_key} cannot begin it anew")
    if party.role is None:
        raise ConfigError(
            f"{party.feature_key} never came in to task {task.id}, so it cannot begin it anew",
            expected="a party that was launched",
        )

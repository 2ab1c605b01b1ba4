"""The tables of the task store: tasks, their parties, their logs and their course."""

from __future__ import annotations

import sqlalchemy as sa

from heterofed.tasks.checks import LONGEST_LAUNCH, LONGEST_NAME, LONGEST_VALUE

metadata = sa.MetaData()

task_table = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(LONGEST_NAME), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", sa.Float(53), nullable=False),  # seconds since the epoch
    sa.Column("expires_at", sa.Float(53)),  # the same; nobody new comes in from then on
    sa.Column("rounds", sa.Integer),
    sa.Column("options", sa.JSON(none_as_null=True)),
    sa.Column("launched_at", sa.Float(53)),
    sa.Column("round", sa.Integer),  # NULL is 0
    sa.Column("uncertainty", sa.String(16)),
)
party_table = sa.Table(
    "parties",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("feature_key", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("role", sa.String(16)),
    sa.Column("public_key", sa.LargeBinary(LONGEST_VALUE)),
    sa.Column("endpoint", sa.String(LONGEST_VALUE)),
    sa.Column("key_trusted", sa.Boolean),  # NULL is no
    sa.Column("launch", sa.String(LONGEST_LAUNCH)),  # in which it last began with the first round
    # A key belongs to one party, or one could speak for another.
    sa.UniqueConstraint("task_id", "public_key", name="one_party_per_key"),
)
_one_host = party_table.c.role == "host"
sa.Index("one_host", party_table.c.task_id, unique=True, sqlite_where=_one_host, postgresql_where=_one_host)
log_table = sa.Table(
    "task_log",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False, index=True),
    sa.Column("at", sa.Float(53), nullable=False),  # seconds since the epoch
    sa.Column("party", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
event_table = sa.Table(
    "task_events",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("party", sa.String(64)),
    sa.Column("round", sa.Integer),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Index("ix_task_events_task", "task_id", "number"),
)
metric_table = sa.Table(
    "task_metrics",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("party", sa.String(64), nullable=False),
    sa.Column("set_name", sa.String(100), nullable=False),
    sa.Column("row_index", sa.Integer, nullable=False),
    sa.Column("round", sa.Integer),
    sa.Column("cells", sa.JSON, nullable=False),  # column -> value
    sa.Column("at", sa.Float(53), nullable=False),
    sa.UniqueConstraint("task_id", "party", "set_name", "row_index", name="one_row_per_place"),
    sa.Index("ix_task_metrics_task", "task_id", "number"),
    sqlite_autoincrement=True,  # rows are deleted, and followers go on behind a number: none may come twice
)
output_table = sa.Table(
    "task_outputs",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("party", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(120), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
)
report_table = sa.Table(
    "task_reports",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("party", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(40), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
)
TABLES = [task_table, party_table, log_table, event_table, metric_table, output_table, report_table]
"""What a task store has; others may hang tables of their own on `metadata`."""

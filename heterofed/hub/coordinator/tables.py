"""The coordinator's tables, beside the hub's and the task store's, on the same metadata. Migrations make them."""

from __future__ import annotations

import sqlalchemy as sa

from heterofed.tasks.tables import metadata

training_table = sa.Table(
    "hub_trainings",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("state", sa.String(1), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),  # the last one that every party has finished
    sa.Column("target_rounds", sa.Integer),  # NULL: the host decides when it is done
    sa.Column("options", sa.Text, nullable=False),  # JSON object
    sa.Column("uncertainty_method", sa.String(16), nullable=False),
    sa.Column("removed", sa.Text, nullable=False),  # JSON object: party -> why nobody waits for it
    sa.Column("cause", sa.Text),  # of ERROR
    sa.Column("created_at", sa.Float(53), nullable=False),  # seconds since the epoch, as all times below
    # Who holds the lock works on the task's events. The token says who, so that nobody frees another's lock; the
    # time frees it when its holder was killed.
    sa.Column("lock_token", sa.String(32)),
    sa.Column("lock_expires_at", sa.Float(53)),
)
trainer_event_table = sa.Table(
    "hub_trainer_events",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),  # name of a class of `events`
    sa.Column("subject", sa.String(64), nullable=False),  # the party that was lost, else empty
    sa.Column("payload", sa.Text, nullable=False),  # JSON object
    sa.Column("state", sa.String(8), nullable=False),  # PENDING, DONE or FAILED
    sa.Column("attempts", sa.Integer, nullable=False),  # that ended in an exception
    sa.Column("cause", sa.Text),  # of the last of these
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("due_at", sa.Float(53), nullable=False),  # from then on the sweeper hands it out again
    # However often something is reported, there is one row of it, and a row is handled once.
    sa.UniqueConstraint("task_id", "round", "kind", "subject", name="one_event_per_round"),
)
sa.Index("pending_events", trainer_event_table.c.state, trainer_event_table.c.due_at)
notification_table = sa.Table(
    "hub_notifications",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False, index=True),
    sa.Column("party", sa.String(64)),  # whom it is for; NULL: an owner of the task
    sa.Column("user_id", sa.Integer),  # who that is; NULL: nobody has taken this party's place
    sa.Column("notification_type", sa.String(32), nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON object
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),  # STREAM (no endpoint), PENDING, SENT, REJECTED or FAILED
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.Float(53), nullable=False),  # of the next attempt
    sa.Column("cause", sa.Text),  # why the last attempt was none
)
sa.Index("pending_notifications", notification_table.c.state, notification_table.c.due_at)

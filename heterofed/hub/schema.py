"""The hub's own tables, beside those of the task store and in the same database. `migrations/` makes them."""

from __future__ import annotations

import sqlalchemy as sa

from heterofed.tasks.database import metadata

LONGEST_USER = 100
"""Of a user's name, in characters; an invited party's is made of its feature key and the task's id."""

user_table = sa.Table(
    "hub_users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(LONGEST_USER), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("admin", sa.Boolean, nullable=False),  # sees every task and every user
    sa.Column("made_by", sa.ForeignKey("hub_users.id")),  # who may make and revoke tokens for it
    sa.Column("message_endpoint", sa.String(1000)),
    # Signs what we send there, so it has to be readable here; it opens nothing on the hub.
    sa.Column("endpoint_secret", sa.String(200)),
    sa.Column("created_at", sa.Float(53), nullable=False),  # seconds since the epoch, as all times below
)
token_table = sa.Table(
    "hub_tokens",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.ForeignKey("hub_users.id"), nullable=False, index=True),
    # A token is 256 random bits: nobody can try them all, so the slow hashes and salts that passwords need add nothing.
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False),  # at most the user's
    sa.Column("task_id", sa.ForeignKey("tasks.id")),  # good for this task alone
    sa.Column("party", sa.String(64)),  # and for this party of it
    sa.Column("label", sa.String(100), nullable=False),
    sa.Column("made_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53)),
    sa.Column("revoked_at", sa.Float(53)),
    sa.Column("last_used_at", sa.Float(53)),
)
member_table = sa.Table(
    "hub_members",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id"), nullable=False, index=True),
    sa.Column("user_id", sa.ForeignKey("hub_users.id"), nullable=False, index=True),
    sa.Column("role", sa.String(16), nullable=False),  # owner, party or viewer, in this task
    sa.Column("feature_key", sa.String(64)),  # of a party
    sa.UniqueConstraint("task_id", "feature_key", name="one_user_per_party"),
)
audit_table = sa.Table(
    "hub_audit",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("user", sa.String(LONGEST_USER), nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("task_id", sa.String(32)),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("address", sa.String(64)),
)

"""Users, their tokens, and which user is which party: rows in, values out. Who may is decided in `people`."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub.access import Actor, UserRole, check_role
from heterofed.hub.schema import LONGEST_USER, member_table, token_table, user_table
from heterofed.tasks.stored import utc, utc_or_none

TOKEN_BYTES = 32
TOKEN_START = "hub_"  # noqa: S105 - how they all begin
"""So that people and secret scanners know what it is, and no command line takes it for an option."""
_USED_EVERY_S = 60.0
_FIRST_USER_LOCK = 0x6F776E6572  # any number that is ours
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.@-]{{0,{LONGEST_USER - 1}}}")


@dataclass(frozen=True)
class User:
    """Somebody whom the hub knows."""

    name: str
    role: UserRole
    admin: bool
    message_endpoint: str | None
    created_at: datetime
    """With its time zone, UTC."""


@dataclass(frozen=True)
class Token:
    """What the hub knows of a token: everything but the token."""

    id: int
    user: str
    role: UserRole
    label: str
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    task_id: str | None
    party: str | None

    def works(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True)
class NewToken:
    """A token that was just made. This is the only time that anybody sees it."""

    token: str
    id: int
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"NewToken(id={self.id})"


@dataclass(frozen=True)
class Member:
    """A user's part in a task."""

    user: str
    role: UserRole
    feature_key: str | None


def digest(token: str) -> str:
    """Return what is stored instead of a token."""
    return hashlib.sha256(token.encode("utf-8", errors="replace")).hexdigest()


def authenticate(connection: sa.Connection, token: str, address: str | None) -> tuple[Actor, bool]:
    """Return whose token this is, and whether its use should be noted.

    Raises:
        NotAllowed: nobody's, or it has expired or was revoked.
    """
    query = (
        sa.select(token_table, user_table.c.name, user_table.c.admin)
        .join(user_table, user_table.c.id == token_table.c.user_id)
        .where(token_table.c.sha256 == digest(token))
    )
    row = connection.execute(query).one_or_none()
    now = time.time()
    if row is None:
        raise NotAllowed("the hub does not know this token", advice="Ask the hub's owner for one, or log in again.")
    if row.revoked_at is not None:
        raise NotAllowed("this token was revoked", advice="Ask the hub's owner for a new one.")
    if row.expires_at is not None and row.expires_at <= now:
        raise NotAllowed(
            f"this token expired at {utc(row.expires_at):%Y-%m-%d %H:%M} UTC",
            advice="Ask the hub's owner for a new one.",
        )
    actor = Actor(
        user=row.name,
        user_id=row.user_id,
        role=check_role(row.role),
        admin=bool(row.admin) and row.role == "owner" and row.task_id is None,
        task_id=row.task_id,
        party=row.party,
        token_id=row.id,
        address=address,
    )
    return actor, row.last_used_at is None or row.last_used_at < now - _USED_EVERY_S


def works(connection: sa.Connection, token_id: int) -> bool:
    """Return whether a token is neither revoked nor expired."""
    row = connection.execute(
        sa.select(token_table.c.revoked_at, token_table.c.expires_at).where(token_table.c.id == token_id)
    ).one()
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > time.time())


def used(connection: sa.Connection, token_id: int) -> None:
    """Note that a token was used now."""
    mine = token_table.c.id == token_id
    connection.execute(token_table.update().where(mine).values(last_used_at=time.time()))


def one_at_a_time(connection: sa.Connection) -> None:
    """Wait for others who may be making the first user just now; on SQLite only one transaction writes anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_FIRST_USER_LOCK)))


def find_user(connection: sa.Connection, name: str) -> sa.Row[Any]:
    """Return a user's row.

    Raises:
        ConfigError: there is none of this name.
    """
    row = connection.execute(sa.select(user_table).where(user_table.c.name == name)).one_or_none()
    if row is None:
        raise ConfigError(f"there is no user {name[:LONGEST_USER]!r}", expected="the name of a user of this hub")
    return row


def invited_name(task_id: str, party: str) -> str:
    """Return the name of a party that only an invitation has made: one that nobody can choose."""
    return f"{task_id}/{party}"


def add_invited(connection: sa.Connection, task_id: str, party: str, made_by: int) -> int:
    """Return the number of the user that an invited party is, who is made if need be."""
    name = invited_name(task_id, party)
    known = connection.execute(sa.select(user_table.c.id).where(user_table.c.name == name)).scalar_one_or_none()
    return int(known) if known is not None else _insert_user(connection, name, "party", made_by, admin=False)


def add_user(connection: sa.Connection, name: object, role: UserRole, made_by: int | None, admin: bool = False) -> int:
    """Make a user and return its number.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "the name of a user is wrong",
            expected=f"1 to {LONGEST_USER} letters, digits, '_', '-', '.' or '@', the first one a letter or digit",
        )
    if connection.execute(sa.select(user_table.c.id).where(user_table.c.name == name)).first() is not None:
        raise ConfigError(f"there is a user {name!r} already", expected="a name of its own for every user")
    return _insert_user(connection, name, role, made_by, admin=admin)


def _insert_user(connection: sa.Connection, name: str, role: UserRole, made_by: int | None, *, admin: bool) -> int:
    row = {"name": name, "role": role, "admin": admin, "made_by": made_by, "created_at": time.time()}
    return int(connection.execute(user_table.insert().values(**row).returning(user_table.c.id)).scalar_one())


def add_token(
    connection: sa.Connection,
    user_id: int,
    role: UserRole,
    label: str,
    lives_s: float | None,
    *,
    task_id: str | None = None,
    party: str | None = None,
) -> NewToken:
    """Make a token and return it; only its hash is kept."""
    token = TOKEN_START + secrets.token_urlsafe(TOKEN_BYTES)
    now = time.time()
    expires_at = None if lives_s is None else now + lives_s
    values = {
        "user_id": user_id,
        "sha256": digest(token),
        "role": role,
        "task_id": task_id,
        "party": party,
        "label": label,
        "made_at": now,
        "expires_at": expires_at,
    }
    number = connection.execute(token_table.insert().values(**values).returning(token_table.c.id)).scalar_one()
    return NewToken(token, int(number), utc_or_none(expires_at))


def revoke(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Let tokens work no more."""
    live = which & token_table.c.revoked_at.is_(None)
    connection.execute(token_table.update().where(live).values(revoked_at=time.time()))


def tokens_of(connection: sa.Connection, user: sa.Row[Any]) -> tuple[Token, ...]:
    """Return a user's tokens, the newest first."""
    query = sa.select(token_table).where(token_table.c.user_id == user.id).order_by(token_table.c.id.desc())
    return tuple(
        Token(
            row.id,
            user.name,
            check_role(row.role),
            row.label,
            utc(row.made_at),
            utc_or_none(row.expires_at),
            utc_or_none(row.revoked_at),
            utc_or_none(row.last_used_at),
            row.task_id,
            row.party,
        )
        for row in connection.execute(query)
    )


def members_of(connection: sa.Connection, task_id: str) -> tuple[Member, ...]:
    """Return who takes part in a task."""
    query = (
        sa.select(user_table.c.name, member_table.c.role, member_table.c.feature_key)
        .join(user_table, user_table.c.id == member_table.c.user_id)
        .where(member_table.c.task_id == task_id)
        .order_by(member_table.c.id)
    )
    return tuple(Member(row.name, check_role(row.role), row.feature_key) for row in connection.execute(query))


def user_of(row: sa.Row[Any]) -> User:
    """Return a row as a value."""
    return User(row.name, check_role(row.role), bool(row.admin), row.message_endpoint, utc(row.created_at))

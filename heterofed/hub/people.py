"""Who the people and parties of a hub are: users, tokens, sessions, members and invitations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub import accounts, audit
from heterofed.hub.access import ROLES, Actor, UserRole, check_role
from heterofed.hub.accounts import Member, NewToken, Token, User
from heterofed.hub.base import Operations
from heterofed.hub.coordinator.endpoints import check_endpoint
from heterofed.hub.schema import member_table, token_table, user_table
from heterofed.tasks.invitation import Invitation
from heterofed.tasks.model import LONGEST_LIFE

FIRST_USER = "owner"
SESSION_LABEL = "browser"
TOKEN_LIFE = timedelta(days=90)
_LEAST_SECRET, _LONGEST_SECRET = 16, 200
_COMMAND_LINE = Actor("(command line)", 0, "owner")
_SESSIONS_KEPT_S = 30 * 86400.0


@dataclass(frozen=True)
class NewInvitation:
    """One line for a party to paste. It holds a token: whoever has it is that party."""

    invitation: str
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"NewInvitation(expires_at={self.expires_at!r})"


class People(Operations):
    """Operations on users, tokens and members. All raise NotAllowed for those who may not."""

    def first_token(self) -> NewToken | None:
        """Make the first user and a token for it, on a hub that has none yet; else return None."""
        with self.store.transaction(write=True) as connection:
            accounts.one_at_a_time(connection)
            if connection.execute(sa.select(user_table.c.id).limit(1)).first() is not None:
                return None
            number = accounts.add_user(connection, FIRST_USER, "owner", None, admin=True)
            audit.note(connection, _COMMAND_LINE, "make user", detail=f"{FIRST_USER}, on the first start")
            return accounts.add_token(connection, number, "owner", "first start", TOKEN_LIFE.total_seconds())

    def local_token(self, name: str, role: UserRole | None, lives_for: timedelta | None, label: str) -> NewToken:
        """Make a token, and the user if need be, for who can write to the database anyway: `heterofed hub token`.

        Raises:
            ConfigError: the name cannot be one, or the role is more than the user's.
        """
        with self.store.transaction(write=True) as connection:
            accounts.one_at_a_time(connection)
            known = connection.execute(sa.select(user_table).where(user_table.c.name == name)).first()
            if known is None:
                first = connection.execute(sa.select(user_table.c.id).limit(1)).first() is None
                admin = first and role in (None, "owner")
                accounts.add_user(connection, name, role or ("owner" if first else "party"), None, admin=admin)
            user = accounts.find_user(connection, name)
            made = self._token(connection, user, role, lives_for, label or "command line")
            audit.note(connection, _COMMAND_LINE, "make token", detail=f"{name}, number {made.id}")
            return made

    def login(self, token: str, address: str | None = None) -> NewToken:
        """Exchange a token for one of a browser's session, which ends after some hours or with `logout`.

        Raises:
            NotAllowed: the token is nobody's, or it has expired or was revoked.
        """
        with self.store.transaction(write=True) as connection:
            actor, _ = accounts.authenticate(connection, token, address)
            left = connection.execute(
                sa.select(token_table.c.expires_at).where(token_table.c.id == actor.token_id)
            ).scalar_one()
            lives_s = self.settings.session_hours * 3600
            if left is not None:
                lives_s = min(lives_s, left - datetime.now().timestamp())
            made = accounts.add_token(
                connection,
                actor.user_id,
                actor.role,
                SESSION_LABEL,
                lives_s,
                task_id=actor.task_id,
                party=actor.party,
            )
            over = token_table.c.expires_at < datetime.now().timestamp() - _SESSIONS_KEPT_S
            connection.execute(token_table.delete().where((token_table.c.label == SESSION_LABEL) & over))
            audit.note(connection, actor, "log in", task_id=actor.task_id)
            return made

    def logout(self, actor: Actor) -> None:
        """End a browser's session; a token that is none of those stays."""
        with self._for(actor, write=True) as connection:
            session = (token_table.c.id == actor.token_id) & (token_table.c.label == SESSION_LABEL)
            accounts.revoke(connection, session)

    def me(self, actor: Actor) -> User:
        """Return the user that an actor is."""
        with self._for(actor) as connection:
            return accounts.user_of(accounts.find_user(connection, actor.user))

    def users(self, actor: Actor) -> tuple[User, ...]:
        """Return everybody whom the hub knows, except parties that only an invitation has made; for owners."""
        with self._for(actor) as connection:
            _check_owner(actor, "see the users")
            chosen = user_table.c.name.not_like(accounts.invited_name("%", "%"))
            query = sa.select(user_table).where(chosen).order_by(user_table.c.name)
            return tuple(map(accounts.user_of, connection.execute(query)))

    def make_user(self, actor: Actor, name: str, role: str) -> User:
        """Make a user; an owner only by who is in charge of the hub.

        Raises:
            ConfigError: the name is taken or cannot be one, or there is no such role.
        """
        with self._for(actor, write=True) as connection:
            _check_owner(actor, "make users")
            wanted = check_role(role)
            if wanted == "owner" and not actor.admin:
                raise NotAllowed(f"{actor.user} may not make owners", expected="who started this hub")
            accounts.add_user(connection, name, wanted, actor.user_id)
            audit.note(connection, actor, "make user", detail=f"{name}, {wanted}")
            return accounts.user_of(accounts.find_user(connection, name))

    def make_token(
        self,
        actor: Actor,
        name: str,
        *,
        role: str | None = None,
        lives_for: timedelta | None = None,
        label: str = "",
    ) -> NewToken:
        """Make a token for oneself, or for a user whom one has made.

        Args:
            actor: who.
            name: the user.
            role: at most the user's, which is the default.
            lives_for: 90 days unless given.
            label: what it is for.

        Raises:
            ConfigError: one of these cannot be.
        """
        with self._for(actor, write=True) as connection:
            user = accounts.find_user(connection, name) if self._may_find(actor, name) else None
            if user is None or not self._has(actor, user):
                raise NotAllowed(f"{actor.user} may not make tokens for that user", expected="who made the user")
            wanted = check_role(role) if role is not None else None
            if user.id == actor.user_id and ROLES.index(wanted or user.role) > ROLES.index(actor.role):
                raise NotAllowed(f"a token of role {actor.role} cannot make one that may do more")
            made = self._token(connection, user, wanted, lives_for, label)
            audit.note(connection, actor, "make token", detail=f"{name}, number {made.id}")
            return made

    def tokens(self, actor: Actor, name: str) -> tuple[Token, ...]:
        """Return what is known of a user's tokens: one's own, or of a user whom one has made."""
        with self._for(actor) as connection:
            user = accounts.find_user(connection, name) if self._may_find(actor, name) else None
            if user is None or not self._has(actor, user):
                raise NotAllowed(f"{actor.user} may not see the tokens of that user", expected="who made the user")
            return accounts.tokens_of(connection, user)

    def revoke_token(self, actor: Actor, token_id: int) -> None:
        """Let a token work no more: one's own, or of a user whom one has made."""
        with self._for(actor, write=True) as connection:
            owner = sa.select(token_table.c.user_id).where(token_table.c.id == token_id).scalar_subquery()
            user = connection.execute(sa.select(user_table).where(user_table.c.id == owner)).one_or_none()
            if user is None or not (self._has(actor, user) or actor.token_id == token_id):
                raise NotAllowed(f"{actor.user} may not revoke that token", expected="a token of a user of theirs")
            accounts.revoke(connection, token_table.c.id == token_id)
            audit.note(connection, actor, "revoke token", detail=f"{user.name}, number {token_id}")

    def set_endpoint(self, actor: Actor, url: str | None, secret: str | None) -> User:
        """Say where this user wants notifications posted, and what they are signed with; None: nowhere.

        Raises:
            ConfigError: the URL cannot be one, or the secret is too short.
        """
        with self._for(actor, write=True) as connection:
            if url is not None:
                check_endpoint(url)
                if secret is None or not _LEAST_SECRET <= len(secret) <= _LONGEST_SECRET or not secret.isprintable():
                    raise ConfigError(
                        "the secret of an endpoint is wrong",
                        expected=f"{_LEAST_SECRET} to {_LONGEST_SECRET} printable characters",
                    )
            values = {"message_endpoint": url, "endpoint_secret": secret if url is not None else None}
            connection.execute(user_table.update().where(user_table.c.id == actor.user_id).values(**values))
            audit.note(connection, actor, "set endpoint", detail=url or "none")
            return accounts.user_of(accounts.find_user(connection, actor.user))

    def members(self, actor: Actor, task_id: str) -> tuple[Member, ...]:
        """Return which users take part in a task, and as what."""
        with self._for(actor) as connection:
            self._enter(connection, actor, "see the members of", task_id)
            return accounts.members_of(connection, task_id)

    def set_member(self, actor: Actor, task_id: str, party: str, user: str) -> tuple[Member, ...]:
        """Say which user a party is; whoever was before is no more.

        Raises:
            ConfigError: there is no such party or no such user, or the user can only read.
        """
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "choose the members of", task_id, party)
            row = accounts.find_user(connection, user)
            if row.role == "viewer":
                raise ConfigError(f"{user} is a viewer and only reads", expected="a user of role party or owner")
            _forget(connection, task_id, party)
            values = {"task_id": task_id, "user_id": row.id, "role": "party", "feature_key": party}
            connection.execute(member_table.insert().values(**values))
            audit.note(connection, actor, "choose member", task_id=task_id, detail=f"{party}: {user}")
            return accounts.members_of(connection, task_id)

    def remove_member(self, actor: Actor, task_id: str, party: str) -> tuple[Member, ...]:
        """Say that no user is a party any more; its invitations work no more."""
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "choose the members of", task_id, party)
            _forget(connection, task_id, party)
            audit.note(connection, actor, "remove member", task_id=task_id, detail=party)
            return accounts.members_of(connection, task_id)

    def add_viewer(self, actor: Actor, task_id: str, user: str) -> tuple[Member, ...]:
        """Let a user see a task.

        Raises:
            ConfigError: there is no such user.
        """
        with self._for(actor, write=True) as connection:
            self._enter(connection, actor, "choose the members of", task_id)
            row = accounts.find_user(connection, user)
            there = (member_table.c.task_id == task_id) & (member_table.c.user_id == row.id)
            if connection.execute(sa.select(member_table.c.id).where(there)).first() is None:
                values = {"task_id": task_id, "user_id": row.id, "role": "viewer"}
                connection.execute(member_table.insert().values(**values))
            audit.note(connection, actor, "add viewer", task_id=task_id, detail=user)
            return accounts.members_of(connection, task_id)

    def invite(self, actor: Actor, task_id: str, party: str, *, url: str | None = None) -> NewInvitation:
        """Make a line that a party pastes to take part, with a token good for this task and party alone.

        Args:
            actor: who; the task's owner.
            task_id: the task.
            party: the party. Where no user is it yet, one is made.
            url: how the hub is reached; by default as its settings say.

        Raises:
            ConfigError: the task has no such party, or is over.
        """
        with self._for(actor, write=True) as connection:
            task = self._enter(connection, actor, "invite", task_id, party)
            over = task.why_over()
            if over is not None:
                raise ConfigError(f"task {task_id} {over}", expected="a task that parties can still come in to")
            here = (member_table.c.task_id == task_id) & (member_table.c.feature_key == party)
            user_id = connection.execute(sa.select(member_table.c.user_id).where(here)).scalar_one_or_none()
            if user_id is None:
                user_id = self._guest(connection, actor, task_id, party)
            lives_s = self.settings.invitation_days * 86400
            made = accounts.add_token(
                connection, user_id, "party", f"invitation of {party}", lives_s, task_id=task_id, party=party
            )
            audit.note(connection, actor, "invite", task_id=task_id, detail=f"{party}, token {made.id}")
        host = task.host if task.host and task.host.feature_key != party else None
        invitation = Invitation(
            task=task_id,
            party=party,
            parties=task.feature_keys,
            name=task.name,
            hub=url or self.settings.url(),
            token=made.token,
            host=host.feature_key if host else None,
            host_key=host.public_key.decode("ascii") if host and host.public_key else None,
            expires=made.expires_at,
        )
        return NewInvitation(str(invitation), made.expires_at)

    def _guest(self, connection: sa.Connection, actor: Actor, task_id: str, party: str) -> int:
        number = accounts.add_invited(connection, task_id, party, actor.user_id)
        values = {"task_id": task_id, "user_id": number, "role": "party", "feature_key": party}
        connection.execute(member_table.insert().values(**values))
        return number

    def _token(
        self,
        connection: sa.Connection,
        user: sa.Row[tuple[object, ...]],
        role: UserRole | None,
        lives_for: timedelta | None,
        label: str,
    ) -> NewToken:
        most: UserRole = check_role(user.role)
        if role is not None and ROLES.index(role) > ROLES.index(most):
            raise ConfigError(
                f"{user.name} is {most} and cannot have a token of role {role}", expected=f"at most {most}"
            )
        life = TOKEN_LIFE if lives_for is None else lives_for
        if not timedelta() < life <= LONGEST_LIFE:
            raise ConfigError(
                "the life of a token is wrong", expected=f"more than nothing, at most {LONGEST_LIFE.days} days"
            )
        if len(label) > 100 or (label and not label.isprintable()):
            raise ConfigError("the label of a token is wrong", expected="at most 100 printable characters")
        return accounts.add_token(connection, user.id, role or most, label, life.total_seconds())

    def _may_find(self, actor: Actor, name: str) -> bool:
        """A party or viewer learns nothing about other users, also not whether they are there."""
        return actor.task_id is None and (actor.may_create or name == actor.user)

    def _has(self, actor: Actor, user: sa.Row[tuple[object, ...]]) -> bool:
        if actor.task_id is not None:
            return False
        return actor.admin or user.id == actor.user_id or (actor.may_create and user.made_by == actor.user_id)


def _check_owner(actor: Actor, what: str) -> None:
    if not actor.may_create:
        raise NotAllowed(f"{actor.user} may not {what}", expected="a token of role owner")


def _forget(connection: sa.Connection, task_id: str, party: str) -> None:
    here = (member_table.c.task_id == task_id) & (member_table.c.feature_key == party)
    connection.execute(member_table.delete().where(here))
    accounts.revoke(connection, (token_table.c.task_id == task_id) & (token_table.c.party == party))

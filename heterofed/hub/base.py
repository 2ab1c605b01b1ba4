"""What every operation of the hub begins with: who asks, what they are to the task, and whether they may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from heterofed.errors import NotAllowed, UnknownTask
from heterofed.hub import accounts, audit
from heterofed.hub.access import Actor, Ties, allowed, check, ties_of
from heterofed.hub.coordinator.dispatch import Dispatcher, Work
from heterofed.hub.coordinator.tables import notification_table
from heterofed.hub.news import News
from heterofed.hub.schema import member_table
from heterofed.hub.settings import HubSettings
from heterofed.tasks.model import Task
from heterofed.tasks.store import TaskStore


class Operations:
    """The database, and the check before everything.

    Args:
        settings: how this hub runs.
        store: its tasks, in a database that `migrations.upgrade` has prepared.
    """

    def __init__(self, settings: HubSettings, store: TaskStore) -> None:
        self.settings = settings
        self.store = store
        self.dispatcher: Dispatcher | None = None
        """Who carries out what reports lead to; None: nobody, until one is there."""
        self.news = News(self._newest_notification)

    @contextmanager
    def _for(self, actor: Actor, *, write: bool = False) -> Iterator[sa.Connection]:
        """Open the one transaction of an operation; what was refused is noted in the audit log after it."""
        try:
            with self.store.transaction(write=write) as connection:
                yield connection
        except NotAllowed as error:
            with self.store.transaction(write=True) as connection:
                audit.note(connection, actor, "refused", task_id=actor.task_id, detail=error.what)
            raise

    def _enter(
        self, connection: sa.Connection, actor: Actor, action: str, task_id: str, party: str | None = None
    ) -> Task:
        """Return a task if an actor may do something to it, or to its party.

        Raises:
            NotAllowed: it may not.
            ConfigError: the task has no such party.
            UnknownTask: there is none of this id.
        """
        task, ties = self._ties(connection, actor, task_id)
        check(actor, "see", ties, task_id)
        if party is not None:
            task.party(party)
        check(actor, action, ties, task_id, party)
        return task

    def _ties(self, connection: sa.Connection, actor: Actor, task_id: str) -> tuple[Task, Ties]:
        if not (task_id.isascii() and task_id.isalnum()):  # a database may refuse some characters in its own way
            raise UnknownTask(f"there is no task {task_id[:40]!r} on this hub")
        task = self.store.get(task_id, within=connection)
        if actor.task_id not in (None, task_id):
            return task, Ties()
        members = connection.execute(
            sa.select(member_table.c.user_id, member_table.c.role, member_table.c.feature_key).where(
                member_table.c.task_id == task_id
            )
        ).all()
        mine = [(row.role, row.feature_key) for row in members if row.user_id == actor.user_id]
        unclaimed = frozenset(task.feature_keys) - {row.feature_key for row in members}
        host = task.host
        return task, ties_of(actor, mine, host.feature_key if host else None, unclaimed)

    def require(self, actor: Actor, action: str, task_id: str, party: str | None = None) -> Task:
        """Return a task if an actor may do one of `access.RULES` to it or to its party.

        Raises:
            NotAllowed: it may not.
            ConfigError: the task has no such party.
            UnknownTask: there is no such task.
        """
        with self._for(actor) as connection:
            return self._enter(connection, actor, action, task_id, party)

    def may(self, actor: Actor, action: str, task_id: str, party: str | None = None) -> bool:
        """Return whether an actor may do one of `access.RULES` to a task or to its party; nothing is noted.

        Raises:
            UnknownTask: there is no such task.
        """
        with self.store.transaction() as connection:
            return allowed(action, self._ties(connection, actor, task_id)[1], party)

    def authenticate(self, token: str, address: str | None = None) -> Actor:
        """Return whose token this is.

        Raises:
            NotAllowed: nobody's, or it has expired or was revoked.
        """
        with self.store.transaction() as connection:
            actor, worth_noting = accounts.authenticate(connection, token, address)
        if worth_noting and actor.token_id is not None:
            with self.store.transaction(write=True) as connection:
                accounts.used(connection, actor.token_id)
        return actor

    def still_works(self, actor: Actor) -> bool:
        """Return whether the token of an actor was neither revoked nor has expired since."""
        with self.store.transaction() as connection:
            return actor.token_id is not None and accounts.works(connection, actor.token_id)

    def _after(self, works: Sequence[Work] = ()) -> None:
        """Carry out what a finished transaction has led to, and let those who listen know."""
        self.news.stale()
        if self.dispatcher is not None:
            self.dispatcher.dispatch(works)

    def _newest_notification(self) -> int:
        with self.store.transaction() as connection:
            newest = connection.execute(sa.select(sa.func.max(notification_table.c.number))).scalar_one()
        return int(newest or 0)

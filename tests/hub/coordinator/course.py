"""A hub's database with one task in it, whose parties report; what follows is handled at once, as by a dispatcher."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from heterofed.hub.coordinator import dispatch
from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.tables import notification_table, trainer_event_table, training_table
from heterofed.hub.coordinator.training import Training, UncertaintyMethod
from heterofed.hub.coordinator.work import Outcome, process
from heterofed.hub.schema import member_table, user_table
from heterofed.tasks import TaskStatus, TaskStore
from heterofed.tasks.course import ReportKind
from heterofed.tasks.database import Database
from heterofed.tasks.options import TrainerOptions, UncertaintyName
from heterofed.tasks.tables import metadata

HOST, SHOP = "bank", "shop"
KINDS = ReportKind


def new_database(where: Path | str) -> Database:
    """Make every table of a hub; migrations do it outside of tests."""
    database = Database(str(where))
    with database.transaction(write=True) as connection:
        metadata.create_all(connection)
    return database


class Course:
    """One task of a host, `bank`, and collaborators."""

    def __init__(
        self,
        database: Database,
        *,
        rounds: int | None = 3,
        options: TrainerOptions | None = None,
        collaborators: Iterable[str] = (SHOP,),
        uncertainty: UncertaintyName | None = None,
    ) -> None:
        self.database = database
        self.store = TaskStore(database)
        self.parties = (HOST, *collaborators)
        more: Any = {"rounds": rounds, "options": options, "uncertainty": uncertainty}
        self.id = self.store.create("scores", self.parties, **more).id
        self._beginnings = 0

    def come_in(self) -> None:
        """The parties' programs are running."""
        for party in self.parties:
            role: Any = "host" if party == HOST else "collaborator"
            self.store.set_party(self.id, party, role=role)

    def start(self, uncertainty_method: UncertaintyMethod | None = None) -> None:
        """As the button on the page does."""
        with self.database.transaction(write=True) as connection:
            self.store.start(self.id, within=connection)
            dispatch.started(connection, self.id, uncertainty_method=uncertainty_method)
        self.come_in()

    def move(self, *statuses: TaskStatus, reason: str | None = None) -> tuple[Work, ...]:
        """As the host does; what follows is handled."""
        works: tuple[Work, ...] = ()
        for status in statuses:
            with self.database.transaction(write=True) as connection:
                before = self.store.get(self.id, within=connection).status
                self.store.move(self.id, status, reason, within=connection)
                works = dispatch.moved(connection, self.id, before, status, reason)
            self.carry_out(works)
        return works

    def begin_anew(self, party: str) -> None:
        """As a party does whose run begins with the first round."""
        self._beginnings += 1
        with self.database.transaction(write=True) as connection:
            self.store.begin_anew(self.id, party, f"launch-{self._beginnings}", within=connection)
            if party == HOST:
                dispatch.began_anew(connection, self.id)

    def report(self, party: str, kind: ReportKind, round: int, body: dict[str, Any] | None = None) -> tuple[Work, ...]:
        """Write a report, and return what it led to; nothing is handled."""
        with self.database.transaction(write=True) as connection:
            if not self.store.report(self.id, party, kind, round, body, within=connection):
                return ()
            return dispatch.reported(connection, self.id, party, kind, round, body)

    def say(self, party: str, kind: ReportKind, round: int, body: dict[str, Any] | None = None) -> list[Outcome]:
        """Write a report, and handle what it led to."""
        return self.carry_out(self.report(party, kind, round, body))

    def all_say(self, kind: ReportKind, round: int) -> None:
        """Every party reports, and what it leads to is handled."""
        for party in self.parties:
            self.say(party, kind, round)

    def carry_out(self, works: Iterable[Work]) -> list[Outcome]:
        """Handle events until nothing is left that could be."""
        outcomes, queue = [], list(works)
        while queue:
            result = process(self.database, queue.pop(0))
            outcomes.append(result.outcome)
            queue += [work for work in result.works if work not in queue]
        return outcomes

    def training(self) -> Training:
        """The training as it is now; its transaction is over."""
        with self.database.transaction(write=True) as connection:
            training = Training.load(connection, self.id)
        assert training is not None
        return training

    def missing(self, kind: ReportKind, round: int) -> tuple[str, ...]:
        """Which parties have not reported this yet."""
        with self.database.transaction(write=True) as connection:
            training = Training.load(connection, self.id)
            assert training is not None
            return training.missing(kind, round)

    def told(self, party: str | None = SHOP) -> list[tuple[str, int]]:
        """What a party, or with None the owners, were told: type and round, in order."""
        return [
            (row.notification_type, json.loads(row.body)["round"]) for row in self.notifications() if row.party == party
        ]

    def notifications(self) -> list[sa.Row[Any]]:
        """Every notification, oldest first."""
        query = sa.select(notification_table).where(notification_table.c.task_id == self.id)
        with self.database.transaction() as connection:
            return list(connection.execute(query.order_by(notification_table.c.number)))

    def bodies(self) -> list[Any]:
        """The bodies of every notification, oldest first."""
        return [json.loads(row.body) for row in self.notifications()]

    def events(self) -> list[sa.Row[Any]]:
        """Every event, oldest first."""
        query = sa.select(trainer_event_table).where(trainer_event_table.c.task_id == self.id)
        with self.database.transaction() as connection:
            return list(connection.execute(query.order_by(trainer_event_table.c.number)))

    def lock(self) -> tuple[str | None, float | None]:
        """Who holds the lock, and until when."""
        table = training_table
        query = sa.select(table.c.lock_token, table.c.lock_expires_at).where(table.c.task_id == self.id)
        with self.database.transaction() as connection:
            row = connection.execute(query).one()
        return row.lock_token, row.lock_expires_at

    def add_user(
        self,
        name: str,
        *,
        role: str = "party",
        party: str | None = None,
        url: str | None = None,
        secret: str | None = None,
    ) -> int:
        """Make a user who is a party of the task, or its owner."""
        user = {"name": name, "role": role, "admin": False, "message_endpoint": url, "endpoint_secret": secret}
        with self.database.transaction(write=True) as connection:
            made = connection.execute(user_table.insert().values(**user, created_at=0.0))
            number = int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0
            member = {"task_id": self.id, "user_id": number, "role": role, "feature_key": party}
            connection.execute(member_table.insert().values(**member))
        return number

"""The hub's database: made by migrations, on SQLite and PostgreSQL, by one of several who start at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import heterofed.hub.coordinator.tables
import heterofed.hub.schema  # noqa: F401 - both hang their tables on the metadata
from heterofed.errors import ConfigError
from heterofed.hub import migrations
from heterofed.hub.app import open_hub
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings
from heterofed.tasks.database import Database
from heterofed.tasks.store import TaskStore
from heterofed.tasks.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "hub.db")
    made: str = request.getfixturevalue("postgresql").new_database()
    return made


Opener = Callable[[str], Database]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens databases that are closed when the test ends."""
    databases = []

    def open_one(url: str) -> Database:
        databases.append(Database(url, create=False))
        return databases[-1]

    yield open_one
    for each in databases:
        each.close()


@pytest.fixture
def hubs() -> Iterator[Callable[[str], Hub]]:
    """Opens hubs that are closed when the test ends."""
    there = []

    def open_one(url: str) -> Hub:
        there.append(open_hub(HubSettings(database=url)))
        return there[-1]

    yield open_one
    for each in there:
        each.close()


def differences(database: Database) -> list[object]:
    with database.transaction() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": migrations.VERSION_TABLE}
        )
        return list(compare_metadata(context, metadata))


def test_the_migrations_make_the_tables_that_the_program_uses(url: str, opened: Opener) -> None:
    database = opened(url)

    migrations.upgrade(database)

    assert differences(database) == []
    with database.transaction() as connection:
        assert migrations.version(connection) == migrations.newest() != ""


def test_a_table_that_the_migrations_forgot_would_be_seen(url: str, opened: Opener) -> None:
    database = opened(url)
    migrations.upgrade(database)
    with database.transaction(write=True) as connection:
        connection.execute(sa.text("DROP TABLE hub_audit"))

    assert len(differences(database)) == 1


def test_an_upgrade_of_what_is_newest_changes_nothing(url: str, hubs: Callable[[str], Hub]) -> None:
    first = hubs(url)
    token = first.first_token()

    again = hubs(url)

    assert token is not None
    assert again.authenticate(token.token).user == "owner"
    assert again.first_token() is None


def test_hubs_that_start_at_once_upgrade_the_database_once(url: str, hubs: Callable[[str], Hub]) -> None:
    faults: list[BaseException] = []
    tokens: list[object] = []

    def start() -> None:
        try:
            tokens.append(hubs(url).first_token())
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert faults == []
    assert len([token for token in tokens if token is not None]) == 1


def test_a_task_store_of_this_machine_can_become_a_hubs(url: str, hubs: Callable[[str], Hub]) -> None:
    store = TaskStore(url)
    task = store.create("before", ["h", "c"])
    with store.transaction(write=True) as connection:  # as an earlier version had it
        connection.execute(sa.text("ALTER TABLE tasks DROP COLUMN launched_at"))
    store.database.close()

    hub = hubs(url)
    token = hub.first_token()

    assert token is not None
    assert [each.id for each in hub.tasks(hub.authenticate(token.token))] == [task.id]
    assert differences(hub.store.database) == []


def test_a_database_of_a_newer_program_is_refused(url: str, opened: Opener, hubs: Callable[[str], Hub]) -> None:
    database = opened(url)
    migrations.upgrade(database)
    with database.transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE hub_version SET version_num = '9999'"))

    with pytest.raises(ConfigError, match="of a version that this heterofed does not know") as caught:
        hubs(url)

    assert "Install the newest heterofed" in str(caught.value)


def test_an_upgrade_that_fails_leaves_nothing_behind(url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    database = opened(url)
    real = command.upgrade

    def upgrade_and_fail(*arguments: Any) -> None:
        real(*arguments)
        raise RuntimeError("the power went out")

    monkeypatch.setattr(command, "upgrade", upgrade_and_fail)
    with pytest.raises(RuntimeError):
        migrations.upgrade(database)

    with database.transaction() as connection:
        assert sa.inspect(connection).get_table_names() == []

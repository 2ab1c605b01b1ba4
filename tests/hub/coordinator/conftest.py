"""A hub's database for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from heterofed.tasks.database import Database
from tests.hub.coordinator.course import Course, new_database
from tests.hub.servers import PostgreSQL


@pytest.fixture(scope="session")
def _empty_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty hub; to copy it is faster than to make its tables."""
    path = tmp_path_factory.mktemp("hub") / "empty.db"
    new_database(path)
    return path


@pytest.fixture
def database(_empty_hub: Path, tmp_path: Path) -> Database:
    return Database(str(shutil.copy(_empty_hub, tmp_path / "hub.db")), create=False)


@pytest.fixture
def server_database(postgresql: PostgreSQL) -> Iterator[Database]:
    """A hub's database on a server; `where` is its whole URL, since it needs no password."""
    database = new_database(postgresql.new_database())
    yield database
    database.close()


@pytest.fixture
def course(database: Database) -> Course:
    return Course(database)

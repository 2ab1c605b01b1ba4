"""How the database of the task store is opened and locked.

On SQLite the write-ahead log lets readers pass writers, and a writer takes its lock at the start of its transaction, so
two of them queue and never deadlock. On a server a writer locks the row of its task (see `TaskStore`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from heterofed.errors import ConfigError, OutputError
from heterofed.tasks.tables import TABLES, metadata, party_table, task_table

__all__ = ["BUSY_TIMEOUT_S", "Database", "metadata"]

BUSY_TIMEOUT_S = 10.0


class Database:
    """An opened database that holds the tables of a task store.

    Args:
        path_or_url: a SQLite file (it and its folder are created, for this user alone), or a SQLAlchemy URL.
        create: whether to create the tables that are missing; a hub's migrations do it themselves.

    Raises:
        ConfigError: the URL is wrong, its driver is missing, or it is a database that no other process could see.
        OutputError: the file cannot be created or is no database.
    """

    def __init__(self, path_or_url: str | os.PathLike[str], *, create: bool = True) -> None:
        text = os.fspath(path_or_url)
        try:
            url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=str(Path(text).absolute()))
            sqlite = url.get_backend_name() == "sqlite"
            if sqlite and (not url.database or ":memory:" in url.database):
                raise ConfigError(
                    "the task store is in memory", expected="a file or a server that every party can open"
                )
            # A connection to a file costs less than a millisecond. One for each transaction leaves nothing open that
            # could be forgotten, or shared with a forked process.
            options: dict[str, Any] = (
                {"poolclass": NullPool, "connect_args": {"timeout": BUSY_TIMEOUT_S}} if sqlite else {}
            )
            self._engine = sa.create_engine(url, hide_parameters=True, **options)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"the task store's URL cannot be used: {error}",
                expected="the path of a SQLite file or a SQLAlchemy URL, with its driver installed",
            ) from None
        self.where = url.database if sqlite and url.database else url.render_as_string(hide_password=True)
        """What to call this database in an error; without a password."""
        if sqlite:
            self._create_file(Path(self.where))
            self._use_write_ahead_log()
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        if create:
            self.create_tables()

    def close(self) -> None:
        """Close the connections that are kept open to a server; a later transaction opens new ones."""
        self._engine.dispose()

    def create_tables(self) -> None:
        """Create the tables of a task store that are missing, and the columns that an earlier version lacks."""
        with self.transaction() as connection:
            there = set(sa.inspect(connection).get_table_names())
            ready = there >= {table.name for table in TABLES} and not _missing(connection)
        if not ready:
            with self.transaction(write=True) as connection:
                metadata.create_all(connection, tables=TABLES)
                for column in _missing(connection):
                    _add(connection, column)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Open one transaction; it is rolled back when the block raises.

        Raises:
            OutputError: the database fails, or stays locked for more than 10 s.
        """
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(heterofed_write=write)
                with connection.begin():
                    yield connection
        except SQLAlchemyError as error:
            raise self._unusable(error) from error

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Keep a SQLite file open while the block runs: who closes it last copies the write-ahead log, each time."""
        if self._engine.dialect.name != "sqlite":
            yield
            return
        held = sqlite3.connect(self.where, check_same_thread=False)
        try:
            held.execute("SELECT count(*) FROM sqlite_master").fetchall()  # it opens the file only now
            yield
        finally:
            held.close()

    def _create_file(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise self._unusable(error) from error

    def _use_write_ahead_log(self) -> None:
        # SQLite does not wait for a lock when it changes the journal, so of two first openers one has to try again.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            connection = sqlite3.connect(self.where, timeout=BUSY_TIMEOUT_S)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.Error as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise self._unusable(error) from error
                time.sleep(0.02)
            finally:
                connection.close()

    def _unusable(self, error: Exception) -> OutputError:
        cause = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
        return OutputError(
            f"the task store {self.where} cannot be used: {cause}",
            expected="a database that we may read and write",
            advice="Check its folder, its permissions and the room left, or set HETEROFED_HOME to another folder.",
        )


def _missing(connection: sa.Connection) -> list[sa.Column[Any]]:
    """Return the columns that a database of an earlier version lacks."""
    missing = []
    for table in (task_table, party_table):
        there = {each["name"] for each in sa.inspect(connection).get_columns(table.name)}
        missing += [column for column in table.columns if column.name not in there]
    return missing


def _add(connection: sa.Connection, column: sa.Column[Any]) -> None:
    # Nothing that is added later may be NOT NULL: an older version goes on writing rows without it.
    kind = column.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}")


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")  # with the write-ahead log a crash costs no consistency


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("heterofed_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

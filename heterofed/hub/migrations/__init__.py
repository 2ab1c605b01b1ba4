"""The versions of the hub's database, and how one is brought to the newest."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from heterofed.errors import ConfigError
from heterofed.tasks.database import Database

VERSION_TABLE = "hub_version"
_LOCK = 0x6865746572  # any number that is ours, for pg_advisory_xact_lock


def upgrade(database: Database) -> None:
    """Bring a database to the newest version, in one transaction; of several hubs that start at once, one does it.

    A task store of the same machine may become a hub's: what is there stays.

    Raises:
        ConfigError: a newer heterofed has made it.
        OutputError: the database fails.
    """
    with database.transaction() as connection:
        current = version(connection)
        if current == newest():
            return
        was_a_store = current is None and sa.inspect(connection).has_table("tasks")
    if was_a_store:
        database.create_tables()
    with database.transaction(write=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        config = _config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigError(
                f"the database {database.where} is of a version that this heterofed does not know: {error}",
                expected=f"version {newest()} or an older one",
                advice="Install the newest heterofed, or take another database.",
            ) from None


def version(connection: sa.Connection) -> str | None:
    """Return the version of a database; None: it never was a hub's."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def newest() -> str:
    """Return the version that this program needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return head or ""


def _config() -> Config:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config

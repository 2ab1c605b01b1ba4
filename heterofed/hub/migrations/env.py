"""How Alembic runs: in the transaction and on the connection that `upgrade` has opened."""

from __future__ import annotations

from alembic import context

import heterofed.hub.coordinator.tables
import heterofed.hub.schema  # noqa: F401 - both hang their tables on the metadata
from heterofed.hub.migrations import VERSION_TABLE
from heterofed.tasks.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot change a column in place
)
with context.begin_transaction():
    context.run_migrations()

"""What `heterofed hub` and `heterofed hub token` do; their options are in `heterofed.cli.hub`."""

from __future__ import annotations

import typer

from heterofed.hub.access import check_role
from heterofed.hub.app import open_hub
from heterofed.hub.settings import HubSettings
from heterofed.tasks.model import parse_duration


def serve(settings: HubSettings) -> None:
    """Run a hub until it is told to end.

    Raises:
        ConfigError: it cannot run as the settings say.
        OutputError: the database fails.
    """
    from heterofed.hub.serve import serve as run

    run(settings, lambda line: typer.echo(line, err=True))


def token(
    settings: HubSettings, name: str, *, role: str | None = None, expires: str | None = None, label: str = ""
) -> str:
    """Make a token, and the user if there is none of this name, straight in the hub's database.

    Args:
        settings: where the database is.
        name: the user.
        role: owner, party or viewer; by default the user's, and party for a new user.
        expires: such as 12h or 30d; by default 90 days.
        label: what it is for.

    Raises:
        ConfigError: one of these cannot be.
        OutputError: the database fails.
    """
    hub = open_hub(settings)
    wanted = check_role(role) if role is not None else None
    return hub.local_token(name, wanted, parse_duration(expires) if expires is not None else None, label).token

"""What several commands need: where tasks are, and words for people."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from heterofed.config import Settings
from heterofed.tasks.directory import Directory, open_directory
from heterofed.tasks.joined import read_joined
from heterofed.tasks.model import Party, Task

TaskId = Annotated[str, typer.Argument(metavar="ID", help="As `task create` printed it.")]


def directory(task_id: str | None = None) -> Directory:
    """Open the place where a task is, for somebody who looks after it.

    A token in the environment may do more than the one of an invitation, so it wins here; a running party uses the
    invitation's.

    Raises:
        HeterofedError: it cannot be opened.
    """
    settings = Settings.from_env()
    if task_id is not None and settings.hub and settings.token:
        joined = read_joined(settings.home).get(task_id)
        if joined is None or joined.hub or joined.party is None:
            task_id = None
    return open_directory(settings, task_id)


def expiry(task: Task) -> str:
    """Return until when parties may come in, for people."""
    if task.expires_at is None:
        return ""
    when = f"{task.expires_at.astimezone():%Y-%m-%d %H:%M}"
    return f"{when}, over" if task.expires_at <= datetime.now(timezone.utc) else when


def key(party: Party) -> str:
    """Return the first letters of a party's key, and whether it is trusted."""
    if party.public_key is None:
        return ""
    start = f"{party.public_key[:8].decode('ascii', errors='replace')}…"
    return f"{start} trusted" if party.key_trusted else start

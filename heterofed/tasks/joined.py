"""The tasks that this machine has joined by an invitation, and the keys that its people trust: `joined.json`.

A file of its own and not the task store, because what it says of a task must hold whatever a hub says later: which
hub it is, which token speaks there, and which key the host and others have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from heterofed.errors import ConfigError, OutputError
from heterofed.files import refused, write_whole
from heterofed.tasks.forms import Form, read_field

FILE = "joined.json"
"""Under `Settings.home`, mode 0600: it holds tokens."""
LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Joined:
    """What this machine knows of one task besides its record."""

    party: str | None = None
    """Which party it joined as."""

    hub: str = ""
    """URL of the hub that has the record; empty: the store of this machine."""

    token: str = field(default="", repr=False)
    keys: Mapping[str, bytes] = field(default_factory=dict)
    """Party -> the only public key that is this party, whatever the record says."""


def read_joined(home: Path) -> dict[str, Joined]:
    """Return what is known, by task id.

    Raises:
        ConfigError: others may read the file, or it is none of ours.
        OutputError: it cannot be read.
    """
    path = home / FILE
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(
            f"{path} cannot be read: {error.strerror}", advice="Check its permissions (HETEROFED_HOME)."
        ) from error
    if mode & 0o077:
        raise ConfigError(f"others may read {path}", expected="mode 0600", advice=f"Run: chmod 600 {path}")
    try:
        return {task_id: _read(form) for task_id, form in json.loads(content)["tasks"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        raise ConfigError(
            f"{path} cannot be understood",
            advice="Restore it from a backup, or move it away and join its tasks again.",
        ) from None


def remember(home: Path, task_id: str, joined: Joined) -> Joined:
    """Keep what is known of a task; keys that were pinned before stay, unless `joined` has others.

    Raises:
        ConfigError: the file that is there cannot be used.
        OutputError: it cannot be written.
    """
    path = home / FILE
    with refused(path):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with FileLock(home / f".{FILE}.lock", timeout=LOCK_TIMEOUT_S):
                known = read_joined(home)
                before = known.get(task_id, Joined())
                known[task_id] = replace(joined, keys={**before.keys, **joined.keys})
                _write(path, {"tasks": {each: _form(known[each]) for each in known}})
                return known[task_id]
        except Timeout:
            raise OutputError(f"{path} is held by another process", advice="Try again.") from None


def pin(home: Path, task_id: str, party: str, public_key: bytes) -> None:
    """Keep which key a party has: from now on no hub can name another for it.

    Raises:
        ConfigError: the file that is there cannot be used.
        OutputError: it cannot be written.
    """
    before = read_joined(home).get(task_id, Joined())
    remember(home, task_id, replace(before, keys={party: public_key}))


def _form(joined: Joined) -> Form:
    keys = {party: key.decode("ascii") for party, key in joined.keys.items()}
    return {"party": joined.party, "hub": joined.hub, "token": joined.token, "keys": keys}


def _read(form: Any) -> Joined:
    keys = read_field(form, "keys", dict, {})
    return Joined(
        party=read_field(form, "party", str | None, None),
        hub=read_field(form, "hub", str, ""),
        token=read_field(form, "token", str, ""),
        keys={party: key.encode("ascii") for party, key in keys.items()},
    )


def _write(path: Path, form: Form) -> None:
    write_whole(path, lambda file: file.write(json.dumps(form, indent=1).encode()), private=True)

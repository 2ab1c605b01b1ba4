"""A collaborator's account of the sessions that it has served: who asked, when, how many rows, and how it ended.

One line of JSON for each event, on the disk before the next thing is done. It holds no ids.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from heterofed.files import refused

FINGERPRINT_DIGITS = 16


class AuditLog:
    """Appends to a file that only this user may read; or nowhere.

    Args:
        path: the file, made where it is not there; None: nothing is kept.
        task_id: of the task.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path | None, task_id: str) -> None:
        self._path = path
        self._task_id = task_id
        self._descriptor: int | None = None
        if path is not None:
            with refused(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.fchmod(self._descriptor, 0o600)

    def note(self, event: str, **facts: str | int | None) -> None:
        """Keep an event.

        Args:
            event: "opened", "asked", "closed" or "refused".
            facts: of it; no ids.

        Raises:
            OutputError: it cannot be written; nothing more should be served.
        """
        if self._descriptor is None or self._path is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line: Mapping[str, str | int | None] = {"time": now, "task": self._task_id, "event": event, **facts}
        with refused(self._path):
            os.write(self._descriptor, json.dumps(line).encode() + b"\n")
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def fingerprint(data: bytes | None) -> str | None:
    """Return a few hex digits that tell a key or a session from others."""
    return None if data is None else hashlib.sha256(data).hexdigest()[:FINGERPRINT_DIGITS]

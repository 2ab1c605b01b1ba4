"""A collaborator's account of the sessions that it has served: who asked, when, about how many ids and rows, what came.

One line of JSON for each event, on the disk before the next thing is done, and so before the host learns anything by
it. It holds no ids.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from heterofed.errors import OutputError
from heterofed.files import refused, settle

NAME = "audit.jsonl"
"""What the account is called in the folder of a run."""

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
        self._torn = False
        """Whether the file's last line has no end: the next event begins a new one, and both can be told apart."""
        if path is not None:
            with _accounted(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.fchmod(self._descriptor, 0o600)
                    settle(path.parent)
                    self._torn = _is_torn(self._descriptor)
                except BaseException:
                    self.close()
                    raise

    def note(self, event: str, **facts: str | int | None) -> None:
        """Keep an event.

        Args:
            event: "opened", "matching", "matched", "asked", "closed" or "refused".
            facts: of it; no ids.

        Raises:
            OutputError: it cannot be written; nothing more should be served.
        """
        if self._descriptor is None or self._path is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line: Mapping[str, str | int | None] = {"time": now, "task": self._task_id, "event": event, **facts}
        data = b"\n" * self._torn + json.dumps(line).encode() + b"\n"
        with _accounted(self._path):
            self._torn = True
            _write_all(self._descriptor, data)
            self._torn = False
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def fingerprint(data: bytes | None) -> str | None:
    """Return a few hex digits that tell a key or a session from others."""
    return None if data is None else hashlib.sha256(data).hexdigest()[:FINGERPRINT_DIGITS]


@contextmanager
def _accounted(path: Path) -> Iterator[None]:
    """As `refused`, with advice for one who serves: what is over cannot be recovered, and need not be."""
    try:
        with refused(path):
            yield
    except OutputError as error:
        error.advice = "Mend that, or keep the account elsewhere (audit, --audit); without it nothing is answered."
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: a disk that is almost full may take a part without a word."""
    while data:
        written = os.write(descriptor, data)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data = data[written:]


def _is_torn(descriptor: int) -> bool:
    """Whether a file ends in the middle of a line, because a disk was full or a machine lost its power."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return False
    return os.pread(descriptor, 1, found.st_size - 1) != b"\n"

"""Whether there is something new, for all who wait, at the cost of one look at the database each half second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK_EVERY_S = 0.5


class News:
    """The number of the newest notification, fresh to half a second whoever wrote it, at once if it was this process.

    Args:
        newest: asks the database.
    """

    def __init__(self, newest: Callable[[], int]) -> None:
        self._newest = newest
        self._lock = threading.Lock()
        self._known = 0
        self._looked_at = float("-inf")

    def stale(self) -> None:
        """Say that something was written: the next call looks."""
        self._looked_at = float("-inf")

    def newest(self) -> int:
        """Return the number of the newest notification."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= LOOK_EVERY_S:
                self._looked_at = now
                self._known = self._newest()
            return self._known

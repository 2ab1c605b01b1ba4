"""The limit of a wait, or of several together, and what does not count of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

STOPPED_S = 5.0
"""A wait looks about twice a second. Where it did not for so long, this process itself was stopped."""


class Deadline:
    """Time left of a limit. Time that is excused, because nobody could have answered, does not count.

    Args:
        timeout_s: the limit in seconds from now; 0: none.
        clock: what it is measured by.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self._clock = clock
        self._began = self._looked = clock()

    def waited_s(self) -> float:
        """Seconds since it began, but for those excused."""
        return self._clock() - self._began

    def left_s(self) -> float:
        """Seconds left, less than 0 when it has passed; infinity where there is no limit."""
        return self.timeout_s - self.waited_s() if self.timeout_s else math.inf

    def resume(self) -> None:
        """Begin to look at the clock again; called when a wait begins."""
        self._looked = self._clock()

    def excuse(self, excused: bool) -> None:
        """Say whether the time since the last look is excused."""
        now = self._clock()
        if excused or now - self._looked > STOPPED_S:
            self._began += now - self._looked
        self._looked = now


def longest(*timeouts_s: float) -> float:
    """Return the longest of some timeouts, of which 0 means no limit."""
    return 0.0 if 0 in timeouts_s else max(timeouts_s)

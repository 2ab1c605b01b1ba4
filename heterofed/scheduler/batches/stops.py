"""After which batches of a round all parties stop to keep a checkpoint: by count, by time, never after the last."""

from __future__ import annotations

import time
from collections.abc import Callable


class StopClock:
    """The host's decision, batch by batch.

    Args:
        every: after every so many batches of the run; None: not by count.
        every_s: so many seconds after the last one, or after the round began; None or 0: not by time.
        clock: in seconds.
    """

    def __init__(self, every: int | None, every_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._every_s = every_s
        self._clock = clock
        self._kept_at = 0.0
        self._before = 0
        self._last = 0

    def begin_round(self, before: int, batches: int) -> None:
        """Enter a round.

        Args:
            before: batches of the run before this round's first one.
            batches: of the round; 0: no stop can be made in it.
        """
        self._before = before
        self._last = batches - 1
        self.kept()

    def kept(self) -> None:
        """Note that a checkpoint was kept now."""
        self._kept_at = self._clock()

    def is_due_by_count(self, batch: int) -> bool:
        """Whether the count wants a checkpoint after this batch of the round."""
        return self._every is not None and (self._before + batch + 1) % self._every == 0 and batch < self._last

    def is_due(self, batch: int, *, another: bool) -> bool:
        """Whether a checkpoint is kept after this batch of the round.

        Args:
            batch: from 0.
            another: whether one before it is still to come; then time has no say.
        """
        if self.is_due_by_count(batch):
            return True
        if not self._every_s or another or batch >= self._last:
            return False
        return self._clock() - self._kept_at >= self._every_s

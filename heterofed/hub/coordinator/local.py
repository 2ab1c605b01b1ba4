"""Handles events in this process: for a hub without a broker."""

from __future__ import annotations

from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.threads import ThreadedDispatcher
from heterofed.hub.coordinator.work import process

_LOCK_S = 3.0
"""Nobody else works here; a hub that is started again need not wait long for the lock of the one that was killed."""


class InProcessDispatcher(ThreadedDispatcher):
    """Handles one event after the other in a thread; its arguments are those of `ThreadedDispatcher`."""

    def _hand_out(self, work: Work) -> float | None:
        result = process(self._database, work, lock_s=_LOCK_S)
        self.dispatch(result.works)
        self._on_news()
        return result.again_in_s

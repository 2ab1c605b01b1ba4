"""Gives events to Celery workers through a broker."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from heterofed.hub.coordinator.rows import HANDED_OUT_AGAIN_AFTER_S, Work
from heterofed.hub.coordinator.sender import Sender
from heterofed.hub.coordinator.threads import LOOK_EVERY_S, ThreadedDispatcher
from heterofed.hub.coordinator.worker import configure, hand_out
from heterofed.tasks.database import Database

_BROKER_AWAY_S = 1.0
"""When to come back to a broker that cannot be reached."""


class CeleryDispatcher(ThreadedDispatcher):
    """Publishes events; notifications are sent, and forgotten events found, by threads of this process.

    Args:
        database: of the hub.
        broker: URL of a Redis.
        on_news: as of `ThreadedDispatcher`, and so on.
        sender: the same.
        look_every_s: the same.
        again_after_s: the same.
    """

    def __init__(
        self,
        database: Database,
        broker: str,
        *,
        on_news: Callable[[], None] | None = None,
        sender: Sender | None = None,
        look_every_s: float = LOOK_EVERY_S,
        again_after_s: float = HANDED_OUT_AGAIN_AFTER_S,
    ) -> None:
        super().__init__(
            database, on_news=on_news, sender=sender, look_every_s=look_every_s, again_after_s=again_after_s
        )
        self._app = Celery("heterofed.hub.publisher", set_as_current=False)
        configure(self._app, broker)

    def close(self) -> None:
        """End, and let the broker's connections go."""
        super().close()
        self._app.close()

    def _hand_out(self, work: Work) -> float | None:
        return None if hand_out(self._app, work) else _BROKER_AWAY_S

"""What both dispatchers are made of: a thread that hands events out, one that sends, and one that sweeps.

The sweeper hands out again what was pending for too long: a hub that died between commit and dispatch, a worker that
was killed, a broker that lost what it had.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence

from heterofed.hub.coordinator.dispatch import Dispatcher
from heterofed.hub.coordinator.rows import HANDED_OUT_AGAIN_AFTER_S, EventState, Work, pending
from heterofed.hub.coordinator.sender import Sender
from heterofed.hub.coordinator.tables import trainer_event_table
from heterofed.tasks.database import Database

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the sweeper and the sender look for what nobody told them of."""
_AFTER_ERROR_S = 1.0


class ThreadedDispatcher(Dispatcher):
    """Hands events out in a thread of its own, so that no request waits for it.

    Args:
        database: of the hub.
        on_news: called from these threads after something was handled or sent.
        sender: carries notifications to message endpoints; None: one with the usual waits.
        look_every_s: see `LOOK_EVERY_S`.
        again_after_s: how long an event may be pending before it is handed out again.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_news: Callable[[], None] | None = None,
        sender: Sender | None = None,
        look_every_s: float = LOOK_EVERY_S,
        again_after_s: float = HANDED_OUT_AGAIN_AFTER_S,
    ) -> None:
        self._database = database
        self._on_news = on_news or (lambda: None)
        self._sender = sender or Sender(database)
        self._look_every_s = look_every_s
        self._again_after_s = again_after_s
        self._stop = threading.Event()
        self._to_send = threading.Event()
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, Work]] = []
        self._order = itertools.count()
        self._swept_once = False
        self._threads = [
            threading.Thread(target=self._until_stopped, args=(body,), name=f"heterofed-hub-{name}", daemon=True)
            for name, body in (("events", self._hand_out_next), ("sender", self._send), ("sweeper", self._sweep))
        ]

    def start(self) -> None:
        """Begin, with what an earlier hub has left."""
        for thread in self._threads:
            thread.start()

    def dispatch(self, works: Sequence[Work] = ()) -> None:
        """Take what a committed transaction has led to; returns at once."""
        self._put(works, 0.0)
        self._to_send.set()

    def close(self) -> None:
        """End, after what is being done just now."""
        self._stop.set()
        self._to_send.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(20.0)

    @abstractmethod
    def _hand_out(self, work: Work) -> float | None:
        """Have an event handled; returns after how many seconds it is to be tried again, None: not by us."""

    def _put(self, works: Sequence[Work], in_s: float) -> None:
        with self._changed:
            for work in works:
                if not any(work == waiting for _, _, waiting in self._queue):
                    heapq.heappush(self._queue, (time.monotonic() + in_s, next(self._order), work))
            self._changed.notify_all()

    def _until_stopped(self, body: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                body()
            except Exception as error:  # a database that fails now may be back in a second
                logger.warning("%s: %s", threading.current_thread().name, error)
                self._stop.wait(_AFTER_ERROR_S)

    def _hand_out_next(self) -> None:
        with self._changed:
            wait_s = self._queue[0][0] - time.monotonic() if self._queue else None
            if wait_s is None or wait_s > 0:
                if not self._stop.is_set():
                    self._changed.wait(wait_s)
                return
            _, _, work = heapq.heappop(self._queue)
        again_in_s: float | None = _AFTER_ERROR_S
        try:
            again_in_s = self._hand_out(work)
        finally:
            if again_in_s is not None:
                self._put([work], again_in_s)

    def _send(self) -> None:
        self._to_send.wait(self._look_every_s)
        self._to_send.clear()
        if not self._stop.is_set():
            works = self._sender.send_due()
            if works:
                self._put(works, 0.0)
                self._on_news()

    def _sweep(self) -> None:
        now = time.time()
        with self._database.transaction() as connection:
            # At first everything: an earlier hub may have died just now.
            forgotten = pending(connection, due_at=now if self._swept_once else None)
        self._swept_once = True
        if forgotten:
            table = trainer_event_table.c
            due = (table.state == EventState.PENDING.value) & (table.due_at <= now)
            due &= table.task_id.in_({work.training_uuid for work in forgotten})
            with self._database.transaction(write=True) as connection:
                later = trainer_event_table.update().where(due).values(due_at=now + self._again_after_s)
                connection.execute(later)
            self._put(forgotten, 0.0)
        self._stop.wait(self._look_every_s)

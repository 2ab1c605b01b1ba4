"""What a party says about its task on the way to where tasks are kept: in order, in a thread, whether or not that
place can be reached just now. Training never waits for it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from heterofed.errors import ConfigError, HeterofedError, HubUnreachable, OutputError
from heterofed.metrics.progress import logger
from heterofed.tasks.course import Measurement
from heterofed.tasks.directory import Directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.model import Task, TaskStatus

POLL_S = 1.5
"""How often the record of a hub is read."""

TICK_S = 0.5
"""How long a row waits for others to travel with."""

AT_ONCE = 500
"""Most rows that travel together."""

MOST_WAITING = 50_000
"""Past so many things that wait to be said (some 25 MB), further rows and lines of the log are left out."""

PATIENCE_S = 30.0
"""How long a party that ends waits for what it has said to arrive."""

SHORT_PATIENCE_S = 5.0
"""The same for one that its user or a signal has ended."""

_BACK_OFF_S = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Saying:
    """Something to be said."""

    say: Callable[[Tasks], object]
    what: str
    """For a warning: "the task's log was not written", for example."""

    again: Callable[[Tasks], object] | None = None
    """The same where it may have arrived already; None: to say it twice is to say it once."""


class Reporter:
    """Says things about one party of one task to where its tasks are kept.

    A hub that is away is tried again until it is back; what it refuses for good is left out with a warning. A store of
    this machine is never tried again: what it cannot do now it cannot do later.

    Args:
        directory: where the task is kept, and which keys this party trusts by itself.
        task: the task as it was a moment ago.
        feature_key: the party.
        near: whether that is this machine's own store: read at each look, written without a second try.
        poll_s: how often the record of a place that is not near is read.
        tick_s: how long a row waits for others.
    """

    def __init__(
        self,
        directory: Directory,
        task: Task,
        feature_key: str,
        *,
        near: bool,
        poll_s: float = POLL_S,
        tick_s: float = TICK_S,
    ) -> None:
        self.tasks = directory.store
        self._find = directory.find
        self.near = near
        self.task = task
        """As it was when it was last read."""
        self.launch = secrets.token_hex(16)
        """Tells this launch of the party from every other one."""
        self._task_id = task.id
        self._me = feature_key
        self._poll_s = poll_s
        self._tick_s = tick_s
        self._waiting: deque[Saying | Measurement] = deque()
        self._in_hand: list[Saying | Measurement] = []
        self._changed = threading.Condition()
        self._urgent = self._closing = self._given_up = False
        self._thread: threading.Thread | None = None
        self._left_out = 0
        self._away_since: float | None = None
        self._tried = 0
        self._not_before = 0.0
        self._warned: set[str] = set()

    # --- for the party ------------------------------------------------------------------------------------------------

    def say(self, saying: Saying, *, may_be_left_out: bool = False) -> None:
        """Queue something; returns at once."""
        if may_be_left_out and len(self._waiting) >= MOST_WAITING:
            self._left_out += 1
            return
        self._waiting.append(saying)
        with self._changed:
            self._urgent = True
            self._changed.notify()
        self._begin()

    def measured(self, row: Measurement) -> None:
        """Queue a row of a metric set; it travels with those that come within the next moment."""
        if len(self._waiting) >= MOST_WAITING:
            self._left_out += 1
            return
        self._waiting.append(row)
        if self._thread is None:
            self._begin()

    def look(self) -> Task:
        """Return the task: of a near store as it is, of a hub as it lately was.

        Raises:
            HeterofedError: a near store cannot be read.
        """
        if self.near:
            self.task = self._find(self._task_id)
        else:
            self._begin()
        return self.task

    def known(self) -> Task | None:
        """Return the task as a hub lately had it; None for a near store, which can be asked at any time."""
        return None if self.near else self.look()

    @property
    def away(self) -> bool:
        """Whether the place could not be reached when it was last tried."""
        return self._away_since is not None

    def close(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until everything is said, at most so long; say so and return False if it could not be."""
        with self._changed:
            self._closing = True
            self._not_before = 0.0
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(patience_s)
            self._given_up = True
        unsaid = len(self._waiting) + len(self._in_hand)
        if unsaid:
            logger.warning(
                "%d things that %s had to say of task %s did not arrive: %s was not reached within %.0f s. "
                "The results of this party are complete; the task's record is not.",
                unsaid,
                self._me,
                self._task_id,
                self.tasks.where,
                patience_s,
            )
        if self._left_out:
            logger.warning(
                "%d rows and lines of the log were left out of the record of task %s: %s was away for too long.",
                self._left_out,
                self._task_id,
                self.tasks.where,
            )
        return not unsaid

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name=f"heterofed record {self._me}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        next_look = 0.0
        while not self._given_up:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._closing, self._tick_s)
                self._urgent = False
            if not self._send_all() and self._closing:
                time.sleep(min(self._tick_s, 0.2))  # it is tried until those who wait for us give up
            if self._closing and not self._waiting and not self._in_hand:
                return
            if not self.near and time.monotonic() >= next_look:
                self._read()
                next_look = time.monotonic() + self._poll_s

    def _send_all(self) -> bool:
        """Say what waits, until nothing is left or the place is away; return whether nothing is left."""
        while self._waiting or self._in_hand:
            if self._given_up or time.monotonic() < self._not_before:
                return False
            again = bool(self._in_hand)
            if not self._in_hand:
                self._in_hand = self._next()
            try:
                self._send(self._in_hand, again)
            except HeterofedError as error:
                if not self.near and isinstance(error, HubUnreachable | OutputError):
                    self._is_away(error)
                    return False
                self._refused(self._in_hand, error)
            except Exception:
                logger.exception("what %s had to say of its task was left out", self._me)
            else:
                self._is_back()
            self._in_hand = []
        return True

    def _next(self) -> list[Saying | Measurement]:
        taken = [self._waiting.popleft()]
        while isinstance(taken[0], Measurement) and self._waiting and len(taken) < AT_ONCE:
            if not isinstance(self._waiting[0], Measurement):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _send(self, things: list[Saying | Measurement], again: bool) -> None:
        first = things[0]
        if isinstance(first, Saying):
            (first.again if again and first.again is not None else first.say)(self.tasks)
            return
        rows = [each for each in things if isinstance(each, Measurement)]
        try:
            self.tasks.put_metrics(self._task_id, self._me, rows)
        except ConfigError:
            if len(rows) == 1:
                raise
            for row in rows:  # one of them cannot be a row; it must not cost the others theirs
                try:
                    self.tasks.put_metrics(self._task_id, self._me, [row])
                except ConfigError as error:
                    self._refused([row], error)

    def _refused(self, things: list[Saying | Measurement], error: HeterofedError) -> None:
        first = things[0]
        what = first.what if isinstance(first, Saying) else "rows of metrics were not kept with the task"
        if f"{what}{error}" in self._warned or self._is_cancelled():
            return
        self._warned.add(f"{what}{error}")
        logger.warning("%s: %s", what, error)

    def _is_cancelled(self) -> bool:
        """Whether the task is: then nothing is taken any more, and nobody wonders."""
        try:
            return self.tasks.get(self._task_id).status is TaskStatus.CANCELLED
        except HeterofedError:
            return False

    def _read(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            self.task = self._find(self._task_id)
        except (HubUnreachable, OutputError) as error:
            self._is_away(error)
        except HeterofedError as error:
            if str(error) not in self._warned:
                self._warned.add(str(error))
                logger.warning("the task's record cannot be read: %s", error)
        else:
            self._is_back()

    def _is_away(self, error: HeterofedError) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            logger.warning(
                "%s is not reached; training goes on, and what this party says meanwhile is kept and sent later (%s)",
                self.tasks.where,
                error,
            )
        pause = _BACK_OFF_S[min(self._tried, len(_BACK_OFF_S) - 1)]
        self._not_before = now + (min(pause, 0.5) if self._closing else pause)
        self._tried += 1

    def _is_back(self) -> None:
        self._tried, self._not_before = 0, 0.0
        if self._away_since is not None:
            logger.info("%s is reached again after %.0f s", self.tasks.where, time.monotonic() - self._away_since)
            self._away_since = None

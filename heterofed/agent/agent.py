"""The agent itself: again and again it looks at the tasks and does what is to be done for the parties that it serves.

It obeys states, not messages: a notification only makes it look sooner. So nothing is lost while it is away, and
nothing is done twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from heterofed.agent import children
from heterofed.agent.children import GRACE_S, Child
from heterofed.agent.party import TRY_AGAIN, WRONG
from heterofed.agent.places import Place, Places
from heterofed.agent.registered import Served
from heterofed.agent.state import Book, Run, is_running
from heterofed.config import Settings
from heterofed.errors import HeterofedError
from heterofed.metrics.progress import logger
from heterofed.tasks.model import PartyStatus, Task, TaskStatus

LOOK_EVERY_S = 5.0
"""How often all tasks are looked at where nothing is heard."""

TICK_S = 0.3
"""How often the child processes are looked at."""

MOST_TRIES = 5
"""How often in a row a party's process may be lost before it is given up."""

GOES_WELL_S = 600.0
"""A process that ran for so long was no try in vain."""

MOST_PAUSE_S = 60.0

OLD_LAUNCH = timedelta(minutes=10)
"""A task that failed, and whose launch is older and unknown to us, is not ours to start."""

_DONE = (PartyStatus.FINISHED, PartyStatus.FAILED)


class Agent:
    """Serves some parties.

    Args:
        served: what its owner registered.
        settings: where the tasks are.
        out: folder for results; None: as each scheduler says.
        look_every_s: how often all tasks are looked at.

    Raises:
        ConfigError: another agent of this home serves one of them.
    """

    def __init__(
        self, served: Sequence[Served], settings: Settings, out: Path | None, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self._settings = settings
        self._out = out
        self._look_every_s = look_every_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._places = Places(settings, self._wake, self._stop)
        self._children: dict[tuple[str, str], Child] = {}
        self._not_before: dict[tuple[str, str], float] = {}
        self._checked: set[tuple[str, str]] = set()
        self._cancelled: dict[tuple[str, str], float] = {}
        self._parties: list[tuple[Served, Book]] = []
        try:
            for each in served:
                self._parties.append((each, Book(settings.home, each.feature_key)))
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End the loop; from any thread or a signal's handler."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Serve until `stop`. Parties that run then go on; the next agent takes them up."""
        next_look = 0.0
        while not self._stop.is_set():
            if self._wake.is_set() or time.monotonic() >= next_look or self._has_ended():
                self._wake.clear()
                self.look()
                next_look = time.monotonic() + self._look_every_s
            self._wake.wait(TICK_S)
        for (task_id, key), child in self._children.items():
            if child.ended() is None:
                logger.info("%s of task %s goes on without the agent (process %d)", key, task_id, child.pid)

    def close(self) -> None:
        """Let another agent serve these parties."""
        self._stop.set()
        for _, book in self._parties:
            book.close()

    def look(self) -> None:
        """Look at all tasks once, and do what is to be done."""
        for place in self._places:
            for task in place.look():
                for served, book in self._parties:
                    if served.feature_key not in task.feature_keys:
                        continue
                    try:
                        self._attend(place, task, served, book)
                    except HeterofedError as error:
                        logger.warning("task %s: %s", task.id, error)
                        self._pause((task.id, served.feature_key), 1)
                if place.only is not None and task.why_over() and not self._runs_in(task.id):
                    self._places.drop(task.id)

    def _has_ended(self) -> bool:
        return any(child.ended() is not None for child in self._children.values())

    def _runs_in(self, task_id: str) -> bool:
        return any(each == task_id for each, _ in self._children)

    # --- one party of one task ----------------------------------------------------------------------------------------

    def _attend(self, place: Place, task: Task, served: Served, book: Book) -> None:
        me = (task.id, served.feature_key)
        child = self._children.get(me)
        if child is not None:
            code = child.ended()
            if code is None:
                self._end_if_cancelled(task, me, child)
                return
            del self._children[me]
            self._has_ended_so(place, task, served, book, child, code)
            return
        if time.monotonic() < self._not_before.get(me, 0.0):
            return
        run = book.get(task.id)
        if run is not None and not run.ended:
            if is_running(run.pid, task.id, served.feature_key, self._settings.home):
                return  # the child of an agent before this one
            goes_on = run.launched == _launch(task) and not task.why_over()
            if goes_on and task.party(served.feature_key).status not in _DONE:
                self._start(task, served, book, run, recover=True)
                return
            book.end(task.id)
        if task.why_over():
            return
        if self._checks(task, served):
            return
        launch = _launch(task)
        if launch and (run is None or run.launched != launch) and not _is_old(task, run):
            if task.party(served.feature_key).status is PartyStatus.REJECTED:
                return  # its data were refused; the page says so
            self._start(task, served, book, Run(launch), recover=run is not None)

    def _checks(self, task: Task, served: Served) -> bool:
        """Start a data check where one is due; return whether it did."""
        me = (task.id, served.feature_key)
        status = task.party(served.feature_key).status
        if served.checker is None or me in self._checked:
            return False
        if status is not PartyStatus.INVITED and status is not PartyStatus.REJECTED:
            return False
        self._checked.add(me)
        logger.info("task %s (%s): checking the data of %s", task.id, task.name, served.feature_key)
        self._children[me] = children.start(
            "check", served.checker, task.id, served.feature_key, self._out, recover=False
        )
        return True

    def _start(self, task: Task, served: Served, book: Book, run: Run, *, recover: bool) -> None:
        me = (task.id, served.feature_key)
        book.put(task.id, replace(run, pid=None, ended=False))  # whatever happens next, it was started
        child = children.start("run", served.thing, task.id, served.feature_key, self._out, recover=recover)
        self._children[me] = child
        book.put(task.id, replace(run, pid=child.pid, ended=False))
        logger.info(
            "task %s (%s): %s %s (process %d); its output is in %s",
            task.id,
            task.name,
            served.feature_key,
            "goes on" if recover else "is started",
            child.pid,
            child.log,
        )

    def _has_ended_so(self, place: Place, task: Task, served: Served, book: Book, child: Child, code: int) -> None:
        me = (task.id, served.feature_key)
        if child.what == "check":
            if code == TRY_AGAIN:
                self._checked.discard(me)
                self._pause(me, 3)
            elif code:
                self._refuse(place, task, served, child)
            self._wake.set()
            return
        run = book.get(task.id)
        if run is None or code in (0, 1):
            book.end(task.id)
            logger.info("task %s: %s %s", task.id, me[1], "is done" if not code else f"has failed; see {child.log}")
            return
        if task.why_over():
            book.end(task.id)
            return
        if code == WRONG:
            book.end(task.id)
            logger.warning("task %s: %s cannot run; see %s", task.id, me[1], child.log)
            self._note_failure(place, task, served, "what its agent has registered cannot run; its log says more")
            return
        tries = 0 if time.monotonic() - child.began > GOES_WELL_S else run.tries + 1
        how = "the hub was not reached" if code == TRY_AGAIN else f"its process was lost ({_how(code)})"
        if tries > MOST_TRIES and code != TRY_AGAIN:
            book.end(task.id)
            logger.warning("task %s: %s is given up: %s %d times", task.id, me[1], how, tries)
            self._note_failure(place, task, served, f"{how} {tries} times in a row")
            return
        book.put(task.id, replace(run, pid=None, tries=tries))
        logger.warning("task %s: %s is started again soon: %s", task.id, me[1], how)
        self._pause(me, tries)

    def _refuse(self, place: Place, task: Task, served: Served, child: Child) -> None:
        """Let the page say that a check did not come to an end; what it said of the data itself stays."""
        logger.warning("task %s: the data check of %s failed; see %s", task.id, served.feature_key, child.log)
        if place.tasks.get(task.id).party(served.feature_key).status is PartyStatus.INVITED:
            why = "its data check did not come to an end; the log of its agent says more"
            place.tasks.verify(task.id, served.feature_key, False, why)

    def _note_failure(self, place: Place, task: Task, served: Served, reason: str) -> None:
        with suppress(HeterofedError):  # it is told by the log, too
            place.tasks.set_party(task.id, served.feature_key, status=PartyStatus.FAILED, reason=reason)

    def _end_if_cancelled(self, task: Task, me: tuple[str, str], child: Child) -> None:
        """Tell a child to end that does not do so by itself."""
        if task.status is not TaskStatus.CANCELLED:
            return
        since = self._cancelled.setdefault(me, time.monotonic())
        if time.monotonic() - since > GRACE_S:
            child.tell_to_end()

    def _pause(self, me: tuple[str, str], tries: int) -> None:
        self._not_before[me] = time.monotonic() + min(2.0**tries, MOST_PAUSE_S)


def _launch(task: Task) -> str:
    """Return which launch of a task is at hand; empty: nobody has launched it."""
    return "" if task.launched_at is None else task.launched_at.isoformat()


def _is_old(task: Task, run: Run | None) -> bool:
    if run is not None or task.status is not TaskStatus.FAILED or task.launched_at is None:
        return False
    return datetime.now(timezone.utc) - task.launched_at > OLD_LAUNCH


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"

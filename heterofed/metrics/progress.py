"""What a running party shows: its phase, and for each round the batch, the loss, samples per second and time left.

One producer (the scheduler), several views: a bar in terminals and notebooks, plain lines in logs, JSON lines for a
program that draws its own, or nothing.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from heterofed.metrics.chorus import Chorus

logger = logging.getLogger("heterofed")

SHOW_EVERY_S = {"bar": 0.1, "json": 0.25, "plain": 5.0}
"""How often each view is redrawn; the batches between cost one look at the clock."""


@dataclass
class Snapshot:
    """Where a party is in its training."""

    party: str
    phase: str = "starting"
    round: int = 0
    rounds: int | None = None
    """Rounds in all; None when the host decides as it goes."""
    batch: int = 0
    """Batches done in this round."""
    rows: int = 0
    """Rows done in this round."""
    rows_total: int = 0
    """Rows of one round."""
    loss: float | None = None
    """Mean loss of this round so far; None where it is not known."""
    rows_per_s: float = 0.0
    left_s: float | None = None
    """Estimated seconds to the end of the task, or of the round where the number of rounds is open."""

    def line(self) -> str:
        """Return it as one line for people."""
        of = f"/{self.rounds}" if self.rounds else ""
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        left = "" if self.left_s is None else f", {clock(self.left_s)} left"
        return (
            f"{self.phase}: round {self.round}{of}, batch {self.batch}, {self.rows}/{self.rows_total} rows"
            f"{loss}, {self.rows_per_s:.0f} rows/s{left}"
        )


def clock(seconds: float) -> str:
    """Return seconds as 0:07 or 1:02:03."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


LEAST_RATED_S = 0.5
"""A rate over less time says nothing."""

AFTER_MATCHING = "comparing the splits"
"""The phase after a matching of ids that has come to its end."""


class Progress(ABC):
    """Keeps the snapshot; subclasses show it.

    Args:
        party: feature key of the party.
        chorus: words what it says, where other parties speak in the same terminal.
    """

    every_s = 1.0

    def __init__(self, party: str, chorus: Chorus | None = None) -> None:
        self.now = Snapshot(party)
        self._chorus = chorus
        self._in_round = False
        self._round_began = 0.0
        self._next_show = 0.0
        self._matching_began: float | None = None
        self._trained_rows = 0
        self._trained_s = 0.0

    def phase(self, name: str) -> None:
        """Enter a phase: `name` is a gerund, like "matching ids"."""
        self.now.phase = name
        self.show(force=True)

    def say(self, text: str) -> None:
        """Show one line."""
        line = text if self._chorus is None else self._chorus.worded(self.now.party, text)
        if line is not None:
            self.put(line)

    def put(self, line: str) -> None:
        """Put a line where this view's lines go."""
        logger.info(line)

    def matched(self, done: int, total: int) -> None:
        """Note how far the matching of ids is, in elements; a total of 0 is not known yet."""
        now = time.monotonic()
        if self._matching_began is None:
            self._matching_began = now
        elif total and now >= self._next_show and now - self._matching_began >= LEAST_RATED_S:
            self._next_show = now + self.every_s
            per_s = done / max(now - self._matching_began, 1e-9)
            self.show_matching(done, total, per_s, (total - done) / per_s if done else None)

    def begin_round(self, number: int, rounds: int | None, rows_total: int) -> None:
        """Enter a round of training over `rows_total` rows."""
        self.now.phase, self.now.round, self.now.rounds = "training", number, rounds
        self.now.batch = self.now.rows = 0
        self.now.rows_total, self.now.loss = rows_total, None
        self._in_round = True
        self._round_began = time.monotonic()
        self._next_show = self._round_began + self.every_s

    def advance(self, rows: int, loss: float | None) -> None:
        """Note a trained batch of `rows` rows, and the round's mean loss so far where it is known."""
        self.now.batch += 1
        self.now.rows += rows
        if loss is not None and math.isfinite(loss):  # a peer's word: NaN would be no JSON
            self.now.loss = loss
        if time.monotonic() >= self._next_show:
            self.show()

    def end_round(self) -> None:
        """Leave the round's training."""
        self._in_round = False
        self._trained_s += time.monotonic() - self._round_began
        self._trained_rows += self.now.rows
        self.show(force=True)

    def show(self, force: bool = False) -> None:
        """Bring the snapshot up to date and draw it."""
        now = time.monotonic()
        self._next_show = now + self.every_s
        if self.now.round:
            self._estimate(now)
        self.draw(force)

    def _estimate(self, now: float) -> None:
        spent = self._trained_s + (now - self._round_began if self._in_round and self.now.rows else 0.0)
        done = self._trained_rows + (self.now.rows if self._in_round else 0)
        if spent <= 0 or not done:
            return
        self.now.rows_per_s = done / spent
        still = max(0, (self.now.rounds or self.now.round) - self.now.round) * self.now.rows_total
        still += max(0, self.now.rows_total - self.now.rows)
        self.now.left_s = still / self.now.rows_per_s

    @abstractmethod
    def draw(self, force: bool) -> None:
        """Show the snapshot; `force` marks the points that should not be skipped."""

    def show_matching(self, done: int, total: int, per_s: float, left_s: float | None) -> None:
        """Show how far the matching of ids is: elements done, elements a second, seconds left."""
        left = "" if left_s is None else f", {clock(left_s)} left"
        logger.info("%s: matching ids, %d of %d elements, %.0f a second%s", self.now.party, done, total, per_s, left)

    def close(self) -> None:  # noqa: B027 - only a view that holds the terminal has something to give back
        """Give the terminal back."""


class NoProgress(Progress):
    """Shows nothing but what is said."""

    def draw(self, force: bool) -> None:
        """Nothing."""

    def show_matching(self, done: int, total: int, per_s: float, left_s: float | None) -> None:
        """Nothing."""


class PlainProgress(Progress):
    """Log lines, a few a minute."""

    every_s = SHOW_EVERY_S["plain"]

    def draw(self, force: bool) -> None:
        """Log a line in training; a phase's name otherwise."""
        if self.now.phase == "training":
            logger.info("%s: %s", self.now.party, self.now.line())
        elif force:
            logger.info("%s: %s", self.now.party, self.now.phase)


class JsonProgress(Progress):
    """One JSON object a line: {"kind": "progress", …snapshot}, for a program that draws."""

    every_s = SHOW_EVERY_S["json"]

    def __init__(self, party: str, stream: TextIO, chorus: Chorus | None = None) -> None:
        super().__init__(party, chorus)
        self._stream = stream

    def draw(self, force: bool) -> None:
        """Write the snapshot."""
        self._write(kind="progress", **asdict(self.now))

    def show_matching(self, done: int, total: int, per_s: float, left_s: float | None) -> None:
        """Write the counts."""
        self._write(kind="matching", party=self.now.party, done=done, total=total, per_s=per_s, left_s=left_s)

    def _write(self, **fields: Any) -> None:
        with suppress(OSError):  # a full disk, or a reader that has gone, is no reason to stop training
            self._stream.write(json.dumps(fields) + "\n")
            self._stream.flush()


class BarProgress(Progress):
    """A tqdm bar for each round, in terminals and notebooks."""

    every_s = SHOW_EVERY_S["bar"]

    def __init__(self, party: str, chorus: Chorus | None = None) -> None:
        super().__init__(party, chorus)
        self._bar: Any = None

    def put(self, line: str) -> None:
        """Put a line above the bar."""
        if self._bar is None:
            logger.info(line)
        else:
            self._bar.write(line)

    def begin_round(self, number: int, rounds: int | None, rows_total: int) -> None:
        """Enter a round, which gets a bar of its own."""
        self._close_bar()
        super().begin_round(number, rounds, rows_total)

    def draw(self, force: bool) -> None:
        """Move the round's bar; log a phase's name outside training."""
        if self.now.phase != "training":
            if self.now.phase == AFTER_MATCHING and self._bar is not None:
                self._bar.n = self._bar.total  # the last look at the matching was before its end
                self._bar.refresh()
            self._close_bar()
            if force:
                logger.info("%s: %s", self.now.party, self.now.phase)
            return
        if self._bar is None:
            of = f"/{self.now.rounds}" if self.now.rounds else ""
            self._open_bar(f"round {self.now.round}{of}", self.now.rows_total, " rows", self._round_began)
        self._bar.n = min(self.now.rows, self.now.rows_total)
        shown = {"batch": self.now.batch}
        if self.now.loss is not None:
            shown["loss"] = f"{self.now.loss:.4f}"  # type: ignore[assignment]  # tqdm prints either
        if self.now.left_s is not None:
            shown["task_left"] = clock(self.now.left_s)  # type: ignore[assignment]  # tqdm prints either
        self._bar.set_postfix(shown, refresh=False)
        self._bar.refresh()
        if force:
            self._close_bar()

    def show_matching(self, done: int, total: int, per_s: float, left_s: float | None) -> None:
        """Move the bar of the matching; the next phase ends it."""
        if self._bar is None:
            self._open_bar("matching ids", total, " elements", self._matching_began)
        self._bar.n, self._bar.total = min(done, total), total
        self._bar.refresh()

    def close(self) -> None:
        """Leave the last bar as it stands."""
        self._close_bar()

    def _open_bar(self, what: str, total: int, unit: str, began: float | None) -> None:
        """Show a bar; `began` is when its first row was due, by the monotonic clock."""
        from tqdm import TqdmWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without ipywidgets a bar of text will do
            from tqdm.auto import tqdm
        self._bar = tqdm(total=total, desc=f"{self.now.party} {what}", unit=unit, dynamic_ncols=True)
        if began is not None:
            self._bar.start_t -= time.monotonic() - began  # or the rate would leave out what came before the bar

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def make_progress(form: str, party: str, chorus: Chorus | None = None) -> Progress:
    """Return the view for a form: auto, bar, plain, json or off. "auto" draws a bar where somebody can see one."""
    if form == "auto":
        form = "bar" if sys.stderr.isatty() or _in_notebook() else "plain"
    if form == "json":
        return JsonProgress(party, sys.stdout, chorus)
    views: dict[str, type[BarProgress] | type[PlainProgress] | type[NoProgress]]
    views = {"bar": BarProgress, "plain": PlainProgress, "off": NoProgress}
    return views[form](party, chorus)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"kind": "log", "level": record.levelname.lower(), "text": record.getMessage()})


class _Output(logging.StreamHandler[TextIO]):
    """Says nothing more when what it writes to takes nothing more: a full disk, or a reader that has gone."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def show_logs(form: str) -> None:
    """Let `heterofed`'s log lines reach the user, unless the program has set up logging itself."""
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = _Output(sys.stdout)
    handler.setFormatter(_JsonLines() if form == "json" else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

"""Views of an EventStorage: lines of JSON, tables, a line for people, TensorBoard.

A writer is asked to `write` now and then, and to `close` at the end. What is put into the newest iteration after a
write (a final evaluation, the results of a round) reaches the same place as what was put before it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError
from heterofed.files import make_folder, refused, write_whole
from heterofed.metrics.progress import clock
from heterofed.metrics.storage import EventStorage, active_event_storage, get_event_storage
from heterofed.metrics.tables import MetricsTable

logger = logging.getLogger("heterofed")


class EventWriter(ABC):
    """Shows what a storage holds. One writer serves one run."""

    @abstractmethod
    def write(self, storage: EventStorage | None = None) -> None:
        """Show what is new in `storage`, by default the active one (ConfigError where there is none)."""

    @abstractmethod
    def close(self, storage: EventStorage | None = None) -> None:
        """Show what is left, where a storage is given or active, and give back what is held."""


class News:
    """Tells one writer which values came since it last looked.

    Of a smoothed series that is the newest median. Of one that is not smoothed it is every value, for another round's
    loss or another evaluation is another result; but where a value comes with (nearly) every batch, as `lr` does, it
    is the newest one, and the last of each round.
    """

    def __init__(self, window_size: int) -> None:
        if window_size < 1:
            raise ConfigError(f"a window of {window_size} values", expected="a window_size of 1 or more")
        self._window_size = window_size
        self._seen: dict[str, int] = {}

    def look(self, storage: EventStorage, after: int) -> Iterator[tuple[str, float, int]]:
        """Yield (name, value, iteration) of what came since the last look, in the iterations beyond `after`.

        For each name the oldest comes first. A resumed run starts with what the one before it has put; `after` says
        up to where that was shown.
        """
        hints = storage.smoothing_hints()
        for name, history in storage.histories().items():
            unseen_count = history.count - self._seen.get(name, 0)
            if not unseen_count:
                continue
            self._seen[name] = history.count
            if hints[name]:
                newest_at = history.latest_iteration
                if newest_at > after:
                    yield name, history.median(self._window_size), newest_at
                continue
            unseen = history.recent(unseen_count)
            new = [(value, at) for value, at in unseen if at > after]
            if not new:
                continue
            newest, newest_at = new[-1]
            often = 2 * len(new) > storage.iter - new[0][1] + 1
            if not often or storage.round_at(new[0][1]) != storage.round_at(newest_at):
                for (value, at), (_, next_at) in pairwise(new):
                    if at != next_at and not (often and storage.round_at(at) == storage.round_at(next_at)):
                        yield name, value, at
            yield name, newest, newest_at


class JSONWriter(EventWriter):
    """One JSON object a line, for each iteration that something was measured in:

        {"iteration": 19, "loss": 0.31, "lr": 0.1, "round": 1}
        {"iteration": 39, "loss": 0.27, "lr": 0.1, "round": 2, "test_results/accuracy": 0.91}

    for example `jq -c 'select(.["test_results/accuracy"])' metrics.json`. NaN and infinity, which JSON does not have,
    are null. The last line is written again, in its place, when more comes for its iteration.

    Args:
        path: the file; its folder is made. Nothing happens to either before the first write.
        window_size: smoothed scalars are the median of this many values.
        start_iter: 0 starts the file anew. A resumed run gives its first iteration: the lines from there on, which the
            run that was cut off wrote after its checkpoint, and a torn last line are removed; the others stay.

    Raises:
        ConfigError: (at once) the window is below 1.
        OutputError: (when written) the file cannot be written. It is as it was, and what could not be written is
            tried again at the next write.
    """

    def __init__(self, path: str | Path, window_size: int = 20, start_iter: int = 0) -> None:
        self._path = Path(path)
        self._start_iter = start_iter
        self._news = News(window_size)
        self._begun = False
        self._file: FileIO | None = None
        self._lines: dict[int, dict[str, Any]] = {}  # by iteration: the file's last line, and those to come
        self._changed = False
        self._last = start_iter - 1  # iteration of the file's last line
        self._last_text = b""
        self._last_at = 0  # where that line begins

    def write(self, storage: EventStorage | None = None) -> None:
        """Bring the file up to date."""
        self._collect(get_event_storage() if storage is None else storage)
        self._write_lines()

    def close(self, storage: EventStorage | None = None) -> None:
        """Bring the file up to date, and wait until the disk has it."""
        storage = active_event_storage() if storage is None else storage
        try:
            if storage is not None and storage.histories():
                self._collect(storage)
            self._write_lines()
            if self._file is not None:
                with refused(self._path):
                    os.fsync(self._file.fileno())
        finally:
            if self._file is not None:
                file, self._file = self._file, None
                with refused(self._path):
                    file.close()

    def _collect(self, storage: EventStorage) -> None:
        if not self._begun:
            with refused(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                if self._start_iter > 0 and self._path.exists():
                    self._resume()
                else:
                    self._path.write_bytes(b"")
            self._begun = True
        for name, value, iteration in self._news.look(storage, after=self._last - 1):
            line = self._lines.setdefault(iteration, {"iteration": iteration})
            line["round"] = storage.round_at(iteration)
            line[name] = value if math.isfinite(value) else None
            self._changed = True

    def _resume(self) -> None:
        kept: list[bytes] = []
        found = None
        *whole, torn = self._path.read_bytes().split(b"\n")
        for text in (*whole, torn):
            line = _line_in(text)
            if line is None and (text is torn or not text.strip()):
                continue
            if line is None or line["iteration"] < self._start_iter:
                kept.append(text + b"\n")
                found = line
        write_whole(self._path, lambda file: file.writelines(kept))
        self._last_at = sum(map(len, kept))
        if found is not None:  # a checkpoint may bring back more for this iteration than was written
            self._last, self._last_text = found["iteration"], kept[-1]
            self._last_at -= len(self._last_text)
            self._lines = {self._last: found}

    def _write_lines(self) -> None:
        if not self._changed:
            return
        texts = [
            json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n"
            for _, line in sorted(self._lines.items())
        ]
        with refused(self._path):
            if self._file is None:
                self._file = self._path.open("r+b", buffering=0)
            try:
                self._put(self._file, b"".join(texts))
            except OSError:
                with contextlib.suppress(OSError):
                    self._put(self._file, self._last_text)  # no torn line, and nothing lost that was there
                raise
        self._last, self._last_text = max(self._lines), texts[-1]
        self._last_at += sum(map(len, texts[:-1]))
        self._lines = {self._last: self._lines[self._last]}
        self._changed = False

    def _put(self, file: FileIO, text: bytes) -> None:
        file.seek(self._last_at)
        left = memoryview(text)
        while left:
            left = left[file.write(left) :]
        file.truncate()


def _line_in(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("iteration"), int) else None


class CSVWriter(EventWriter):
    """Metric tables, one `<name>.csv` each, when the run ends.

    Args:
        folder: where they go; it is made.
        tables: name -> table; read when they are written.

    Raises:
        OutputError: (at `close`) one cannot be written; no file is left half written.
    """

    def __init__(self, folder: str | Path, tables: Mapping[str, MetricsTable]) -> None:
        self._folder = Path(folder)
        self._tables = tables

    def write(self, storage: EventStorage | None = None) -> None:
        """Nothing: a table is written once it is complete."""

    def close(self, storage: EventStorage | None = None) -> None:
        """Write every table."""
        if self._tables:
            make_folder(self._folder)
        for name, table in self._tables.items():
            table.to_csv(self._folder / f"{name}.csv")


class CommonMetricPrinter(EventWriter):
    """One line for people, at most one for an iteration:

        eta 0:05:22  iteration 20/1000  round 1  samples 2560  loss 0.3142  time 0.0214 s  data_time 0.0011 s
        5981 samples/s  lr 0.1                                                      (all on one line)

    The time left is the median of the last 1000 `time`s for each iteration that is left; it is also put into the
    storage as `eta_seconds`. Iterations are counted as done, so the last line says 1000/1000.

    Args:
        max_iter: where the iterations end; None if that is not known, and then there is no eta.
        window_size: losses are the median of this many values where they are smoothed, times their mean.
        batch_size: rows of one iteration; by default the storage's `samples` tell.
        say: takes the line.
        every_s: at least this many seconds between two lines; the last line comes in any case.
    """

    def __init__(
        self,
        max_iter: int | None = None,
        window_size: int = 20,
        batch_size: int | None = None,
        say: Callable[[str], object] = logger.info,
        every_s: float = 0,
    ) -> None:
        self._max_iter = max_iter
        self._window_size = window_size
        self._batch_size = batch_size
        self._say = say
        self._every_s = every_s
        self._said_at = -math.inf
        self._said: int | None = None

    def write(self, storage: EventStorage | None = None) -> None:
        """Say where the run is, unless this was said, or something was a moment ago."""
        storage = get_event_storage() if storage is None else storage
        last = self._max_iter is not None and storage.iter + 1 >= self._max_iter
        if storage.iter != self._said and (last or time.monotonic() - self._said_at >= self._every_s):
            self._said, self._said_at = storage.iter, time.monotonic()
            self._say("  ".join(self._parts(storage)))

    def close(self, storage: EventStorage | None = None) -> None:
        """Say where the run has ended, unless the last write did."""
        storage = active_event_storage() if storage is None else storage
        if storage is not None and storage.histories():
            self._said_at = -math.inf
            self.write(storage)

    def _parts(self, storage: EventStorage) -> Iterator[str]:
        histories = storage.histories()
        done = storage.iter + 1
        if self._max_iter is None:
            yield f"iteration {done}"
        else:
            done = min(done, self._max_iter)
            if "time" in histories:
                left_s = histories["time"].median(1000) * (self._max_iter - done)
                storage.put_scalar("eta_seconds", left_s, smoothing_hint=False)
                if math.isfinite(left_s):
                    yield f"eta {clock(left_s)}"
            yield f"iteration {done}/{self._max_iter}"
        yield f"round {storage.round}"
        yield f"samples {storage.samples}"
        for name, (value, _) in sorted(storage.latest_with_smoothing_hint(self._window_size).items()):
            if "loss" in name:
                yield f"{name} {value:.4g}"
        for name in ("time", "data_time"):
            if name in histories:
                yield f"{name} {histories[name].avg(self._window_size):.4f} s"
        if "time" in histories:
            batch_s = histories["time"].avg(self._window_size)
            rows = storage.samples / done if self._batch_size is None else self._batch_size
            if rows and batch_s > 0:
                yield f"{rows / batch_s:.0f} samples/s"
        yield f"lr {histories['lr'].latest():.5g}" if "lr" in histories else "lr N/A"

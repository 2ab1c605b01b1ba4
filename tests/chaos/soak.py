"""The soak: a small task for an hour, through real sockets; no process may grow."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.report import Cell, Plan
from tests.chaos.stage import Stage, Trouble
from tests.chaos.task import PARTIES

HOUR_S, LEAST_S = 3600, 20
SETTLES_S = 300
"""After so long, or the first tenth where that is shorter, a process has all the memory that it needs."""

MAY_GROW = 0.02
SLOW_BYTES_PER_S = 40_000
SLOW_AT_MOST_S = 120

_PAGES = Path("/proc/self/statm")


@dataclass(frozen=True)
class Size:
    """How large a process is at a moment."""

    at_s: float
    """Since its training began."""

    memory: int
    """Resident, in bytes."""

    descriptors: int
    threads: int


def size_of(pid: int, at_s: float) -> Size:
    """Measure a process."""
    if _PAGES.exists():
        folder = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Size(
            at_s,
            int(status["VmRSS"].split()[0]) * 1024,
            len(list((folder / "fd").iterdir())),
            int(status["Threads"]),
        )
    process: Any = importlib.import_module("psutil").Process(pid)
    return Size(at_s, process.memory_info().rss, process.num_fds(), process.num_threads())


def soak(
    folder: Path, seconds: float, *, slow: str | None = None, settles_s: float
) -> tuple[dict[str, list[Size]], dict[str, int]]:
    """Run the task for so long and return (sizes, batches trained) of each party.

    Args:
        folder: for the task.
        seconds: of training.
        slow: a collaborator that takes its time; None: none.
        settles_s: no size is taken before.

    Raises:
        Trouble: a party has not ended well.
    """
    sizes: dict[str, list[Size]] = {party: [] for party in PARTIES}
    more = ("--seconds", str(seconds + 5))  # that much for the start, at most
    with Stage(folder, variant="endless", deadline_s=seconds + 90, more=more) as stage:
        for party in PARTIES:
            stage.start(party)
        _wait_for_batches(stage)
        for each in stage.proxies(slow) if slow else ():
            each.throttle(SLOW_BYTES_PER_S)
        began = time.monotonic()
        pause_s = max(0.2, min(5.0, seconds / 200))
        while (at_s := time.monotonic() - began) < seconds - 1:
            if at_s >= settles_s:
                for party in PARTIES:
                    try:
                        sizes[party].append(size_of(stage.pid(party), at_s))
                    except OSError as error:
                        raise Trouble(f"{party} ended before its time\n{stage.last_words(*PARTIES)}") from error
            time.sleep(pause_s)
        for each in stage.proxies(slow) if slow else ():
            each.throttle(None)
        return sizes, {party: outcome["trained"] for party, outcome in stage.finish().items()}


def _wait_for_batches(stage: Stage) -> None:
    while not (stage.folder / "host" / "metrics.json").exists():
        if time.monotonic() > stage.until:
            raise Trouble(f"no batch was trained in time\n{stage.last_words(*PARTIES)}")
        time.sleep(0.05)


def judge(sizes: list[Size]) -> tuple[bool, str]:
    """Return whether a process has kept its size, and the figures: medians of the first and the last tenth."""
    tenth = max(1, len(sizes) // 10)
    first, last = sizes[:tenth], sizes[-tenth:]

    def medians(name: str) -> tuple[float, float]:
        return statistics.median(getattr(each, name) for each in first), statistics.median(
            getattr(each, name) for each in last
        )

    memory, descriptors, threads = medians("memory"), medians("descriptors"), medians("threads")
    growth = memory[1] / memory[0] - 1
    ok = growth < MAY_GROW and descriptors[1] <= descriptors[0] and threads[1] <= threads[0]
    figures = (
        f"{memory[0] / 2**20:.1f} -> {memory[1] / 2**20:.1f} MiB ({growth:+.2%}), "
        f"{descriptors[0]:.0f} -> {descriptors[1]:.0f} descriptors, {threads[0]:.0f} -> {threads[1]:.0f} threads"
    )
    return ok, figures


def cells(plan: Plan) -> Iterator[Cell]:
    """Yield a cell for each process of the soak, and one for the host with a slow reader."""
    whole_s = max(LEAST_S, round(HOUR_S * plan.share))
    if not plan.cell or plan.cell in PARTIES:
        yield from _soaked(plan.folder / "soak", whole_s)
    if not plan.cell or plan.cell == "slow reader":
        slow_s = min(SLOW_AT_MOST_S, whole_s)
        for each in _soaked(plan.folder / "slow", slow_s, slow="c2"):
            if each.name == "host":
                yield Cell("soak", "slow reader", each.ok, each.seconds, each.note)


def _soaked(folder: Path, seconds: float, slow: str | None = None) -> Iterator[Cell]:
    began = time.monotonic()
    try:
        sizes, trained = soak(folder, seconds, slow=slow, settles_s=min(SETTLES_S, seconds / 10))
    except Trouble as error:
        took = time.monotonic() - began
        yield from (Cell("soak", party, False, took, f"{error}\nwhat is left: {folder}") for party in PARTIES)
        return
    for party in PARTIES:
        ok, figures = judge(sizes[party])
        note = f"{figures}; {trained[party]:,} batches"
        yield Cell("soak", party, ok, time.monotonic() - began, note)

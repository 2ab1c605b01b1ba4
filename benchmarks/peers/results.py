"""What the runs gave: one row for each system and configuration, as a table for people and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.peers.neighbours import Neighbours
from benchmarks.peers.processes import RunFailed


@dataclass(frozen=True)
class Run:
    """What one run of one system measured; None is unknown. `cpu_seconds` and `bytes_total` are of both parties.

    `others_share` is the share of all cores, 0 to 1, that other programs used meanwhile.
    """

    seconds: float
    cpu_seconds: float | None
    peak_rss_mb: float | None
    bytes_total: int | None
    correct: bool
    others_share: float | None = None
    detail: dict[str, object] = field(default_factory=dict)


@dataclass
class Contender:
    """One row of the table: a system in one configuration, how it is run, and what its runs gave.

    `comparable` marks a peer's protocol of the same family as our `ecdh`: Diffie-Hellman on an elliptic curve.
    """

    name: str
    version: str
    measure: Callable[[], Run]
    comparable: bool = False
    runs: list[Run] = field(default_factory=list)
    error: str | None = None

    def take_turn(self) -> None:
        """Run once more, unless an earlier run failed."""
        if self.error is not None:
            return
        try:
            neighbours = Neighbours()
            run = self.measure()
            self.runs.append(replace(run, others_share=neighbours.share()))
        except RunFailed as problem:
            self.error = str(problem)
        print(f"{self.name}: {self.error or f'{self.runs[-1].seconds:.3f} s'}", file=sys.stderr, flush=True)

    @property
    def best(self) -> Run | None:
        """The fastest run, if there was one."""
        return min(self.runs, key=lambda run: run.seconds, default=None)

    def summary(self) -> dict[str, object]:
        """The row, as it stands in the JSON line."""
        row: dict[str, object] = {"name": self.name, "version": self.version, "error": self.error}
        if self.best is None:
            return row
        times = [run.seconds for run in self.runs]
        row |= {"best_seconds": min(times), "median_seconds": statistics.median(times), "seconds": times}
        row |= {"cpu_seconds": self.best.cpu_seconds, "peak_rss_mb": self.best.peak_rss_mb}
        row |= {"bytes_total": min((run.bytes_total for run in self.runs if run.bytes_total), default=None)}
        row |= {"others_share": [run.others_share for run in self.runs]}
        row |= {"correct": all(run.correct for run in self.runs)}
        return row | {"detail": self.best.detail}


def number(result: dict[str, object], key: str) -> float | None:
    """A number in a JSON object, or None where there is none."""
    value = result.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def table(contenders: list[Contender], n: int, m: int) -> str:
    """The results for people."""
    header = ("system", "best s", "median s", "ids/s", "CPU s", "peak MB", "bytes/id", "others", "correct")
    rows: list[tuple[str, ...]] = [header]
    for contender in contenders:
        row, best = contender.summary(), contender.best
        if best is None:
            rows.append((contender.name, *["-"] * 7, contender.error or "not run"))
            continue
        total = number(row, "bytes_total")
        rows.append(
            (
                contender.name,
                f"{best.seconds:.3f}",
                f"{number(row, 'median_seconds'):.3f}",
                f"{(n + m) / best.seconds:,.0f}",
                "-" if best.cpu_seconds is None else f"{best.cpu_seconds:.2f}",
                "-" if best.peak_rss_mb is None else f"{best.peak_rss_mb:.0f}",
                "-" if total is None else f"{2 * total / (n + m):.0f}",
                "-" if best.others_share is None else f"{best.others_share:.0%}",
                contender.error or ("yes" if row["correct"] else "NO"),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True))]
        )
        + f"  {row[-1]}"
        for row in rows
    )


def verdict(contenders: list[Contender]) -> dict[str, object]:
    """Whether our `ecdh`, by its best time, is at least as fast as every peer's elliptic-curve protocol that ran."""
    times = {row.name: row.best.seconds for row in contenders if row.best is not None}
    ours = times.get("ours ecdh")
    peers = {row.name: times[row.name] for row in contenders if row.comparable and row.name in times}
    if ours is None or not peers:
        return {"ours_at_least_as_fast": None, "peer_seconds_over_ours": {}}
    return {
        "ours_at_least_as_fast": ours <= min(peers.values()),
        "peer_seconds_over_ours": {name: seconds / ours for name, seconds in peers.items()},
    }


def machine() -> dict[str, object]:
    """What the numbers depend on: processor, cores this process may use, and whether it has eight-lane AVX-512 IFMA."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model or platform.processor(),
        "cores": cores,
        "avx512ifma": None if flags is None else "avx512ifma" in flags,
        "system": platform.system(),
        "python": platform.python_version(),
    }

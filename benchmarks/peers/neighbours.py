"""How much of the processor other programs took during a run: what makes a time on a shared machine hard to trust."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path


class Neighbours:
    """Watches from when it was made: all the machine's processor time, less that of processes we started and ended."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._busy = busy_seconds()
        self._own = own_seconds()

    def share(self) -> float | None:
        """The share of all cores, 0 to 1, that others used since then; None where the system does not tell."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = busy - self._busy - (own_seconds() - self._own)
        return max(0.0, others / (time.perf_counter() - self._since) / (os.cpu_count() or 1))


def busy_seconds() -> float | None:
    """Processor seconds that all cores spent on something since the machine started (Linux), else None."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, counters.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and of all that it started and saw the end of."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

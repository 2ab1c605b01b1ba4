"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time a container may use: microseconds, or "max", in each period."""


def cores() -> int:
    """Return how many cores this process may use, 1 at least; of a container's share of their time, the whole ones."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no such limit, or not on this system
    return max(1, count)

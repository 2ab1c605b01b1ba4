"""The same function over many numbers, on several cores.

gmpy2 lets go of Python's global lock inside a power when its context says so, and each thread has its own context;
so plain threads do: no second process, and the key is not copied anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import gmpy2

from psi.errors import BadArgument

T = TypeVar("T")
U = TypeVar("U")

_SLICES_PER_WORKER = 4
"""More than one, so that a core that is busy with something else does not hold up the rest."""


class Workers:
    """A number of threads for powers, started at the first use.

    Args:
        count: how many; None takes one for each core that the machine has. With 1 the calling thread does the work.

    Raises:
        BadArgument: the count is not a whole number of 1 or more.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and (not isinstance(count, int) or count < 1):
            raise BadArgument(f"workers is {count!r}; expected a whole number of 1 or more, or None for all cores.")
        self.count = count or os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """The function's results, in the order of the items; an exception in one is raised here."""
        if self.count == 1 or len(items) < 2:
            return [function(each) for each in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "psi", initializer=_share_the_lock)
        size = -(-len(items) // (self.count * _SLICES_PER_WORKER))
        slices = [items[start : start + size] for start in range(0, len(items), size)]
        return [result for part in self._pool.map(lambda some: [function(x) for x in some], slices) for result in part]

    def close(self) -> None:
        """Let the threads end; does not wait for them. May be called more than once."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _share_the_lock() -> None:
    gmpy2.get_context().allow_release_gil = True

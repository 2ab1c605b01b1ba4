"""The same work on several cores: threads, processes, or an executor that the caller brings.

Which of them is measured, not believed: RSA powers let go of Python's lock for a millisecond or more at a time, so
threads do, and the key is copied nowhere. Hashing to a curve and multiplying there holds the lock for most of its
time: two threads were no quicker than one, two processes were; so `ecdh` takes processes. These are started afresh
("spawn"), so a script that asks for them needs the usual `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from psi.errors import BadArgument, ComputeFault

T = TypeVar("T")

LEAST_SLICE = 64
"""Items that one piece of work has at least: fewer are not worth the way to a worker."""
_SLICES_PER_WORKER = 4
"""More than one, so that a core that is busy with something else does not hold up the rest."""
_DEADLINE_S = 600.0
"""For one piece of work, where the executor is not ours: a cluster that lost its workers must not hang a party."""


class Workers:
    """Where the work of a run is done; started at the first use.

    Args:
        count: how many threads or processes; None takes one thread for each core, or, where it would take processes,
            works in the calling thread. With 1 the calling thread does the work.
        executor: any `concurrent.futures.Executor` to use instead, such as that of a dask cluster
            (`Client.get_executor()`); it is not shut down. The secrets of the run are sent to it, so it has to
            belong to this party.
        processes: whether the work holds Python's lock.

    Raises:
        BadArgument: the count is not a whole number of 1 or more, or the executor is none.
    """

    def __init__(self, count: int | None = None, *, executor: Executor | None = None, processes: bool = False) -> None:
        if count is not None and (type(count) is not int or count < 1):
            raise BadArgument(f"workers is {count!r}; expected a whole number of 1 or more, or None for the usual.")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise BadArgument("the executor has no submit(); expected a concurrent.futures.Executor.")
        self._processes = processes
        self._given = executor
        self._own: Executor | None = None
        if executor is not None:
            self.count = count or getattr(executor, "_max_workers", None) or _cores()
        else:
            self.count = count or (1 if processes else _cores())

    def slices(self, total: int) -> list[slice]:
        """How `total` items are to be cut into pieces of work."""
        if self._inline(total):
            return [slice(0, total)]
        size = max(LEAST_SLICE, -(-total // (self.count * _SLICES_PER_WORKER)))
        size = -(-size // 8) * 8  # whole groups of eight for the engine that takes eight at a time
        return [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def starmap(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
        """The function's results, in the order of the arguments; an exception in one is raised here.

        Raises:
            ComputeFault: the workers are gone, or gave no answer within ten minutes.
        """
        if len(arguments) == 1 and self._given is None:
            return [function(*arguments[0])]
        pool = self._given or self._started()
        futures: list[Future[T]] = []
        try:
            futures += [pool.submit(function, *each) for each in arguments]
            return [future.result(timeout=_DEADLINE_S) for future in futures]
        except (FutureTimeout, BrokenExecutor, CancelledError) as error:
            raise ComputeFault(
                f"the workers did not finish a piece of work ({type(error).__name__}); expected an answer within "
                f"{_DEADLINE_S:.0f} s. Look at the processes or the cluster that compute for this party, then start a "
                "new run."
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Let the threads or processes end; does not wait for them. May be called more than once."""
        if self._own is not None:
            self._own.shutdown(wait=False, cancel_futures=True)
            self._own = None

    def _inline(self, total: int) -> bool:
        return self._given is None and (self.count == 1 or total < 2 * LEAST_SLICE)

    def _started(self) -> Executor:
        if self._own is None:
            if self._processes:
                self._own = ProcessPoolExecutor(self.count, mp_context=multiprocessing.get_context("spawn"))
            else:
                self._own = ThreadPoolExecutor(self.count, "psi")
        return self._own


def _cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1

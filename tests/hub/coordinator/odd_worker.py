"""A worker with a short lock whose events sleep or raise: `… -m tests.hub.coordinator.odd_worker sleeps|raises`."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from heterofed.hub.coordinator import worker
from heterofed.hub.coordinator.events import TrainingRoundFinished
from heterofed.hub.coordinator.work import process

LOCK_S = 1.5
_handle = TrainingRoundFinished.handle


def sleep_at_it(event: TrainingRoundFinished) -> None:
    """Do the work, say so, and never commit."""
    _handle(event)
    Path(os.environ["TEST_SIGN"]).write_text(str(os.getpid()))
    time.sleep(60)


def raise_at_it(event: TrainingRoundFinished) -> None:
    raise ValueError("a bug in the worker")


if __name__ == "__main__":
    vars(worker)["process"] = partial(process, lock_s=LOCK_S)
    if sys.argv[1] != "works":
        odd = {"sleeps": sleep_at_it, "raises": raise_at_it}[sys.argv[1]]
        setattr(TrainingRoundFinished, "handle", odd)  # noqa: B010 - what this worker is for
    worker.main(["--concurrency", "1"])

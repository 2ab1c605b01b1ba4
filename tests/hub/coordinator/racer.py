"""A process that tries to handle every event of a task, as a worker does: `python -m tests.hub.coordinator.racer`."""

from __future__ import annotations

import sys
import time

from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.work import Outcome, process
from heterofed.tasks.database import Database


def race(database: Database, task_id: str, rounds: int) -> int:
    """Handle the rounds of a task in their order, and come back where somebody else is at it; return how many."""
    done = 0
    for round in range(1, rounds + 1):
        while True:
            outcome = process(database, Work(task_id, "TrainingRoundFinished", {"round": round, "subject": ""})).outcome
            done += outcome is Outcome.DONE
            if outcome in (Outcome.DONE, Outcome.NOTHING):
                break
            if outcome is not Outcome.BUSY:
                raise SystemExit(f"round {round}: {outcome}")
            time.sleep(0.001)
    return done


if __name__ == "__main__":
    where, task, count = sys.argv[1:]
    opened = Database(where, create=False)
    print("ready", flush=True)
    sys.stdin.readline()
    print(race(opened, task, int(count)), flush=True)

"""A party of an intersection as a process: `python … host|collaborator TASK KEY FIRST LAST [die]`.

Its ids are the numbers from FIRST to LAST. It prints what it learns as one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psi
from heterofed.scheduler.intersecting import Intersection
from psi.messages import Kind


def die_at_the_second_question() -> None:
    """As a machine that loses its power in the middle of the work."""
    receive, seen = psi.Responder.receive, []

    def receiving(self: psi.Responder, message: bytes) -> Iterator[bytes]:
        seen.append(message[1])
        if seen.count(Kind.BLINDED) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return receive(self, message)

    psi.Responder.receive = receiving  # type: ignore[method-assign]  # the fault of this process


def die_at_the_second_answer() -> None:
    """The same, at a host."""
    receive, seen = psi.Initiator.receive, []

    def receiving(self: psi.Initiator, message: bytes) -> Iterator[bytes]:
        seen.append(message[1])
        if seen.count(Kind.ANSWERS) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return receive(self, message)

    psi.Initiator.receive = receiving  # type: ignore[method-assign]  # the fault of this process


def main() -> None:
    """Take part in the task that the command line names."""
    role, task_id, key, first, last, *fault = sys.argv[1:]
    if fault:
        (die_at_the_second_answer if role == "host" else die_at_the_second_question)()
    part = Intersection(task_id, key, [str(number) for number in range(int(first), int(last) + 1)])
    matched = part.as_host() if role == "host" else part.as_collaborator()
    print(json.dumps({"ids": matched.ids, "count": matched.count}))


if __name__ == "__main__":
    main()

"""A host and a collaborator that exchange batches over real sockets, each a process of its own, to be interfered with.

The host takes commands from its standard input and answers with a line of JSON each:

    measure N       exchange N batches with c1; the seconds of each (median), and what went wrong
    stop            end

Both use a task of the store in HETEROFED_HOME, as launched parties do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import select
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from heterofed.config import Settings
from heterofed.errors import WireError
from heterofed.tasks.directory import HostAddress, host_in, open_directory
from heterofed.tasks.guests import GuestList
from heterofed.wire.keys import load_or_create
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport, sockets

ROOT = Path(__file__).resolve().parents[2]
HOST, PARTY = "host", "c1"
BATCH = os.urandom(64 * 1024)
"""As large as the embeddings of 256 people, 64 numbers each."""

WORK = bytes(3_000_000)
"""Hashing it takes some milliseconds, as the models of a small task do."""

ANSWERS_WITHIN_S = 20.0


def run_host(task_id: str, handshake_s: str) -> None:
    """Be the host until told to stop."""
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO)
    sockets._HANDSHAKE_S = float(handshake_s)
    settings = Settings.from_env()
    directory = open_directory(settings)
    key = load_or_create(settings.home / "keys", HOST)
    end = HostTransport(HOST, key=key, doorkeeper=GuestList(directory, task_id))
    with contextlib.closing(end):
        directory.announce_host(task_id, HOST, end.endpoint, key.public)
        while (first := end.receive(ANSWERS_WITHIN_S)) is None or first.sender != PARTY:
            pass
        while True:
            if not select.select([sys.stdin], [], [], 0)[0]:
                stray = end.receive(0.02)
                if stray is not None and stray.sender != PARTY:
                    end.send(stray.sender, stray.frames, timeout_s=1.0)
                continue
            command = sys.stdin.readline().split()
            if command[:1] != ["measure"]:
                return
            print(json.dumps(measure(end, int(command[1]))), flush=True)


def measure(end: HostTransport, batches: int) -> dict[str, Any]:
    """Exchange batches with c1 and say how that went."""
    seconds, troubles, others = [], [], Counter[str]()
    for number in range(batches):
        began = time.perf_counter()
        hashlib.sha256(WORK).digest()
        head = b"batch %d" % number
        try:
            end.send(PARTY, [head, BATCH], timeout_s=ANSWERS_WITHIN_S)
            deadline = time.monotonic() + ANSWERS_WITHIN_S
            while (delivery := end.receive(max(0.0, deadline - time.monotonic()))) is not None:
                if delivery.sender == PARTY:
                    break
                others[delivery.sender] += 1
        except WireError as error:
            troubles.append(str(error))
            break
        if delivery is None or [bytes(each) for each in delivery.frames] != [head, BATCH]:
            troubles.append(f"batch {number} was not answered as it was sent")
            break
        seconds.append(time.perf_counter() - began)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return {
        "median_s": statistics.median(seconds) if seconds else 0.0,
        "slowest_s": max(seconds, default=0.0),
        "troubles": troubles,
        "others": others,
        "down_s": end.down_for(PARTY),
        "descriptors": descriptors,
    }


def run_collaborator(task_id: str) -> None:
    """Answer every batch with itself, until the process is ended."""
    settings = Settings.from_env()
    directory = open_directory(settings)
    key = load_or_create(settings.home / "keys", PARTY)
    directory.announce_collaborator(task_id, PARTY, key.public)
    address = host_in(directory.find(task_id))
    if address is None:
        raise SystemExit("no host is up")
    with CollaboratorTransport(
        PARTY, host_party=HOST, endpoint=address.endpoint, host_public_key=address.public_key, key=key
    ) as end:
        end.send(HOST, [b"here"])
        while True:
            delivery = end.receive(1.0)
            if delivery is not None:
                hashlib.sha256(WORK).digest()
                end.send(HOST, delivery.frames, timeout_s=ANSWERS_WITHIN_S)


class Exchange:
    """The two processes, seen from outside.

    Args:
        folder: for the task store and the host's log; HETEROFED_HOME of both.
        handshake_s: how long the host's sockets wait for a handshake.
    """

    def __init__(self, folder: Path, handshake_s: float) -> None:
        self.home = folder / "home"
        self.directory = open_directory(Settings(home=self.home))
        self.task_id = self.directory.store.create("exchange", [HOST, PARTY, "c2"]).id
        self._log = folder / "host.log"
        self._processes: list[subprocess.Popen[str]] = []
        environment = {**os.environ, "HETEROFED_HOME": str(self.home)}
        self._host = self._start("host", environment, self.task_id, str(handshake_s))
        deadline = time.monotonic() + 30
        while (address := host_in(self.directory.find(self.task_id))) is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the host did not start: {self.log()}")
            time.sleep(0.05)
        self.address: HostAddress = address
        self._start("collaborator", environment, self.task_id)

    def _start(self, what: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.exchange", what, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._processes.append(process)
        return process

    @property
    def port(self) -> int:
        """Where the host listens on 127.0.0.1."""
        return int(self.address.endpoint.rsplit(":", 1)[1])

    def log(self) -> str:
        """What the host has logged so far."""
        return self._log.read_text()

    def measure(self, batches: int) -> dict[str, Any]:
        """Let the two exchange batches; see `measure`."""
        if self._host.stdin is None or self._host.stdout is None:
            raise RuntimeError("the host has no pipes")
        self._host.stdin.write(f"measure {batches}\n")
        self._host.stdin.flush()
        line = self._host.stdout.readline()
        if not line:
            raise RuntimeError(f"the host died: {self.log()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
            process.communicate()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


if __name__ == "__main__":
    if sys.argv[1] == "host":
        run_host(*sys.argv[2:])
    else:
        run_collaborator(*sys.argv[2:])

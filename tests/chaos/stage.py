"""Where a task of the chaos run is played: its folder, its record, its parties' processes, and the proxies between.

Every collaborator reaches the host through a proxy of its own, so that one can be cut off while the other is not. The
host tells the task's record one address (HETEROFED_ADVERTISE); each collaborator connects to its own neighbour of it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.proxy import Proxy, free_ports
from heterofed import Settings
from heterofed.tasks.directory import open_directory
from tests.chaos.parties import main
from tests.chaos.stops import Flag
from tests.chaos.task import COLLABORATORS, PARTIES

ROOT = Path(__file__).resolve().parents[2]
LAST_LINES = 6
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.chaos.warm"])
_once = threading.Lock()
_asking = threading.Lock()
"""Held by who asks for a process' end: the word of it comes once, and multiprocessing asks too when one is started."""


_open: set[Stage] = set()


def end_all() -> None:
    """End the processes of every stage that is open, because somebody has had enough."""
    for each in list(_open):
        each.kill(*PARTIES)


class Trouble(Exception):
    """A party did not do what it must."""


def ready() -> None:
    """Start the process that the parties are forked from: it has imported torch, which takes seconds."""
    with _once:
        hidden = {name: os.environ.pop(name, None) for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")}
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(ROOT)
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop("PYTHONPATH")
            for name, value in (*hidden.items(), ("PYTHONPATH", before)):
                if value is not None:
                    os.environ[name] = value


def _be_party(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """What a party's process does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs us in the background has it ignored
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(log).parent)
    main(arguments)


class Stage:
    """One task and its three parties.

    Args:
        folder: of this task alone.
        variant: of `parties.VARIANTS`.
        deadline_s: from now; no wait goes beyond it.
        more: arguments of every party besides.
        gather_timeout_s: how long each waits for all to be there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variant: str = "plan",
        deadline_s: float = 90.0,
        more: Sequence[str] = (),
        gather_timeout_s: float = 120.0,
    ) -> None:
        ready()
        folder.mkdir(parents=True)
        self.folder = folder
        self.variant = variant
        self._more = list(more)
        self._gather_timeout_s = gather_timeout_s
        self.until = time.monotonic() + deadline_s
        self._processes: dict[str, BaseProcess] = {}
        self._said_before: dict[str, int] = {}
        self._flags = 0
        each = 1 + len(COLLABORATORS)
        first = free_ports(2 * each)
        self._addresses = [first, first + each]  # the second for a host that comes back elsewhere
        self._at = 0
        self._some_are_done = False
        self._proxies = {
            (at, party): Proxy(("127.0.0.1", address), address + number)
            for at, address in enumerate(self._addresses)
            for number, party in enumerate(COLLABORATORS, start=1)
        }
        store = open_directory(Settings(home=folder / "home")).store
        self.task = store.create("chaos", PARTIES).id
        _open.add(self)

    def start(self, party: str, *, recover: bool = False, stop: str | None = None) -> Flag:
        """Start a party's process; return the flag of its stop point, which it never reaches without one."""
        self._flags += 1
        flag = self.folder / f"flag-{self._flags}"
        through = {
            address + 1: address + 1 + COLLABORATORS.index(party) for address in self._addresses if party != "host"
        }
        arguments = [party, self.task, str(self.folder), "--variant", self.variant, "--through", json.dumps(through)]
        arguments += self._more
        if recover:
            arguments.append("--recover")
        if stop:
            arguments += ["--stop", stop, "--flag", str(flag)]
        address = self._addresses[self._at]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HETEROFED", "COVERAGE"))},
            "HETEROFED_HOME": str(self.folder / "home"),
            "HETEROFED_PROGRESS": "plain",
            "HETEROFED_PSI_PROTOCOL": "ecdh",
            "HETEROFED_GATHER_TIMEOUT_S": f"{self._gather_timeout_s:g}",
            "HETEROFED_BIND": f"127.0.0.1:{address}",
            "HETEROFED_ADVERTISE": f"127.0.0.1:{address + 1}",
        }
        log = self._log(party)
        self._said_before[party] = log.stat().st_size if log.exists() else 0
        process = _forks.Process(target=_be_party, args=(arguments, environment, str(log)), name=party)
        with _asking:
            process.start()
        self._processes[party] = process
        return Flag(flag)

    def pid(self, party: str) -> int:
        """Return the number of a party's process."""
        return self._processes[party].pid or 0

    def wait_for(self, flag: Flag, party: str) -> None:
        """Wait until a party is at its stop point.

        Raises:
            Trouble: it ended before, or did not come there in time.
        """
        while not flag.reached:
            if not self.runs(party):
                raise Trouble(f"{party} ended before it came to its stop point\n{self.last_words(party)}")
            if time.monotonic() > self.until:
                raise Trouble(f"{party} did not come to its stop point in time\n{self.last_words(*PARTIES)}")
            time.sleep(0.01)

    def kill(self, *parties: str) -> None:
        """Kill processes, all at once, and see them gone."""
        there = [each for each in parties if each in self._processes]
        for each in there:
            self._signal(each, signal.SIGKILL)
        for each in there:
            self._ended(each, time.monotonic() + 10.0)

    def interrupt(self, party: str, number: int) -> None:
        """Send a process a signal that asks it to end."""
        self._signal(party, number)

    def end_of(self, party: str, within_s: float) -> int:
        """Wait for the end of a party's process and return its exit code.

        Raises:
            Trouble: it runs still.
        """
        code = self._ended(party, min(time.monotonic() + within_s, self.until))
        if code is None:
            raise Trouble(f"{party} has not ended within {within_s:g} s\n{self.last_words(party)}")
        return code

    def words(self, party: str) -> str:
        """Return what a party has said since it was last started."""
        log = self._log(party)
        return log.read_bytes()[self._said_before[party] :].decode(errors="replace") if log.exists() else ""

    def hear(self, party: str, text: str, within_s: float = 30.0) -> None:
        """Wait until a party has said something since it was last started.

        Raises:
            Trouble: it does not say that.
        """
        until = min(self.until, time.monotonic() + within_s)
        while text not in self.words(party):
            if time.monotonic() > until:
                raise Trouble(f"{party} does not say {text!r}\n{self.last_words(*self._processes)}")
            time.sleep(0.02)

    def runs(self, party: str) -> bool:
        """Return whether a party's process is there."""
        return self._code(party) is None

    def freeze(self, party: str, seconds: float) -> None:
        """Stop a process for a while."""
        self._signal(party, signal.SIGSTOP)
        time.sleep(seconds)
        self._signal(party, signal.SIGCONT)

    def move(self, *, some_are_done: bool = False) -> None:
        """Let the host's next process have another address.

        Args:
            some_are_done: a collaborator may have ended by then, and never come to the new one.
        """
        self._at = 1
        self._some_are_done = some_are_done

    def proxies(self, party: str) -> list[Proxy]:
        """Return the proxies on the way from this party to the others: of a host, all."""
        return [each for (_, who), each in self._proxies.items() if party in ("host", who)]

    def finish(self) -> dict[str, dict[str, Any]]:
        """Wait for the end of all parties and return what each has written down.

        Raises:
            Trouble: one has not ended well, or not in time; or a collaborator never came through its own proxy, so that
                whatever was done to that proxy was done to nobody.
        """
        while (codes := self._codes()) and None in codes.values() and time.monotonic() < self.until:
            if any(codes.values()):
                # The others are about to hear of it; their words may say more.
                self.until = min(self.until, time.monotonic() + 5)
            time.sleep(0.02)
        bad = {party: code for party, code in self._codes().items() if code != 0}
        if bad:
            ends = ", ".join(
                f"{party} {'runs still' if code is None else f'exit {code}'}" for party, code in bad.items()
            )
            raise Trouble(f"{ends}\n{self.last_words(*bad)}")
        if unused := self._unused():
            raise Trouble(
                f"nothing came through the proxy of {', '.join(unused)}: it does not lie on the way to the host"
            )
        return {party: json.loads((self.folder / f"{party}.json").read_text()) for party in PARTIES}

    def last_words(self, *parties: str) -> str:
        """Return the last lines that these parties have printed."""
        lines = []
        for each in parties:
            text = self._log(each).read_text(errors="replace") if self._log(each).exists() else ""
            lines += [f"{each}: {line}" for line in text.splitlines()[-LAST_LINES:]]
        return "\n".join(lines)

    def close(self) -> None:
        """End all processes and proxies."""
        _open.discard(self)
        self.kill(*self._processes)
        for each in self._proxies.values():
            each.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _unused(self) -> list[str]:
        """Return the collaborators that had to come through their own proxies and did not."""
        addresses = range(2) if self._some_are_done else [self._at]
        return [party for party in COLLABORATORS if not any(self._proxies[at, party].connections for at in addresses)]

    def _log(self, party: str) -> Path:
        return self.folder / f"{party}.log"

    def _code(self, party: str) -> int | None:
        with _asking:
            return self._processes[party].exitcode

    def _codes(self) -> dict[str, int | None]:
        return {party: self._code(party) for party in self._processes}

    def _ended(self, party: str, until: float) -> int | None:
        while (code := self._code(party)) is None and time.monotonic() < until:
            time.sleep(0.01)
        return code

    def _signal(self, party: str, number: int) -> None:
        pid = self._processes[party].pid
        if pid is not None and self.runs(party):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


if sys.platform == "win32":
    raise RuntimeError("the chaos run stops processes by POSIX signals")

"""The processes of `psi.bench`: both roles and the timers of the floor, and how the parent speaks with them.

They and the parent exchange JSON objects over pipes. A child ends when it is done, or when its pipe is closed.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psi import engines, rsa, sockets
from psi.curve25519 import BASE_POINT
from psi.errors import PsiError
from psi.initiator import Initiator
from psi.messages import Reveal
from psi.oprf import RSA
from psi.responder import Responder

if TYPE_CHECKING:
    from psi.bench import Bench

Json = dict[str, Any]

INITIATOR = "initiator"
RESPONDER = "responder"

_FLOOR_S = 1.0
"""A floor is measured for as long, or for all operations of the run if they take less."""
_LEAST_FLOOR_S = 0.3
"""But for at least as long."""
_FLOOR_ITEMS = 256
"""Elements in one call of an engine while the floor is measured."""
_END_S = 10.0
"""For a process that has nothing more to do."""
_CONNECT_S = 60.0


class Child:
    """A process and the parent's end of the pipe to it."""

    def __init__(self, process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def tell(self, **what: object) -> None:
        """Send something."""
        say(self._pipe, **what)

    def hear(self, timeout_s: float) -> Json:
        """What it says next.

        Raises:
            PsiError: the child says that it failed.
            ConnectionError: it ended.
            TimeoutError: it says nothing in time.
        """
        name = self._process.name
        if not self._pipe.poll(timeout_s):
            raise TimeoutError(f"{name} said nothing for {timeout_s:.0f} s; expected it to go on. Measure fewer ids.")
        try:
            heard = hear(self._pipe)
        except (EOFError, ConnectionResetError):
            self._process.join(_END_S)
            raise ConnectionError(
                f"{name} ended (exit code {self._process.exitcode}); expected it to go on. See what it wrote above; if "
                "nothing, the system may have ended it for want of memory."
            ) from None
        if "error" in heard:
            raise PsiError(f"{name}: {heard['error']}")
        return heard


@contextlib.contextmanager
def child(work: Callable[..., None], name: str, *arguments: object) -> Iterator[Child]:
    """A process that does `work(pipe, *arguments)`; it is ended with the block."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_guarded, args=(work, theirs, *arguments), name=f"the process of {name}"
    )
    process.start()
    theirs.close()
    try:
        yield Child(process, ours)
    finally:
        ours.close()
        process.join(_END_S if sys.exc_info()[0] is None else 0)
        process.kill()
        process.join()
        process.close()


def play(pipe: Connection, bench: Bench, role: str) -> None:
    """One role: says its port (the responder) or hears it, then that it is ready; runs; says that it has finished.

    Last come its result and what it took. It ends once the parent closes the pipe.
    """
    ids = bench.ids(role)
    if not bench.engines:  # asking has tested them, so that it does not happen in the run
        raise PsiError("no engine works here")
    common: Json = {"task": "bench", "session": b"one run of two processes"}
    common |= {each: getattr(bench, each) for each in ("protocol", "reveal", "chunk", "workers", "engine")}
    with _connected(pipe, role) as connection:
        say(pipe, ready=True)
        hear(pipe)
        before = cpu_time()
        run: Initiator | Responder
        if role == INITIATOR:
            run = Initiator(ids, **common)
            traffic = sockets.ask(run, connection)
        else:
            run = Responder(ids, key_bits=bench.bits, **common)
            traffic = sockets.serve(run, connection)
        say(pipe, finished=True)
    for process in multiprocessing.active_children():
        process.join(_END_S)  # the time of workers counts once they have ended
    used = {"cpu_seconds": cpu_time() - before, "peak_rss_mb": peak_mb()}
    knows_which = bench.reveal == Reveal.BOTH or (bench.reveal == Reveal.INITIATOR and role == INITIATOR)
    knows_size = knows_which or bench.reveal == Reveal.CARDINALITY
    expected = bench.expected()  # not before: it is no part of the run's memory
    correct = run.finished and (not knows_size or run.cardinality == len(expected))
    correct = correct and (not knows_which or run.intersection == expected)
    say(pipe, size=run.cardinality if knows_size else None, correct=correct, sent=traffic.sent, **used)
    hear(pipe)  # until the parent closes it: our end costs time, in which the floor is measured


def time_floor(pipe: Connection, bench: Bench) -> None:
    """Prepares the bare operation of an engine, or measures it, as often as it is told to."""
    share = -(-bench.operations // bench.cores)
    count = min(_FLOOR_ITEMS, share)
    prepared, operation = "", _nothing
    while True:
        told = hear(pipe)
        if told["engine"] != prepared:
            prepared, operation = told["engine"], _bare(bench, told["engine"], count)
            operation()
        if told["word"] == "prepare":
            say(pipe, prepared=True)
            continue
        done, seconds, before, started = 0, 0.0, cpu_time(), time.perf_counter()
        while seconds < _LEAST_FLOOR_S or (done < share and seconds < _FLOOR_S):
            operation()
            done += count
            seconds = time.perf_counter() - started
        say(pipe, done=done, seconds=seconds, cpu_seconds=cpu_time() - before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The name of this machine's processor."""
    return _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _guarded(work: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    """What a child does: its work, or to say why not."""
    try:
        work(pipe, *arguments)
    except (EOFError, ConnectionResetError, KeyboardInterrupt):
        pass  # the parent is done with us
    except (PsiError, OSError) as error:
        with contextlib.suppress(OSError):
            say(pipe, error=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _connected(pipe: Connection, role: str) -> Iterator[socket.socket]:
    if role == RESPONDER:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(_CONNECT_S)
            say(pipe, port=listener.getsockname()[1])
            connection, _ = listener.accept()
    else:
        connection = socket.create_connection(("127.0.0.1", hear(pipe)["port"]), _CONNECT_S)
    with connection:
        yield connection


def _nothing() -> bytes:
    return b""


def _bare(bench: Bench, engine: str, count: int) -> Callable[[], bytes]:
    """The private operation alone, on this many elements."""
    if bench.protocol == RSA:
        numbers = rsa.generate(bench.bits)
        power = engines.rsa_private(numbers, engine)
        elements = b"".join(secrets.randbelow(numbers.n).to_bytes(numbers.width, "big") for _ in range(count))
        return lambda: power(elements)
    multiply, scalar = engines.curve(engine), secrets.token_bytes(len(BASE_POINT))
    points = b"".join(multiply(secrets.token_bytes(len(BASE_POINT)), BASE_POINT) for _ in range(count))
    return lambda: multiply(scalar, points)


def say(pipe: Connection, **what: object) -> None:
    """Tell the process at the other end."""
    pipe.send_bytes(json.dumps(what).encode())


def hear(pipe: Connection) -> Json:
    """Wait for what the process at the other end tells."""
    heard: Json = json.loads(pipe.recv_bytes())
    return heard


def cpu_time() -> float:
    """Of this process and of those that it started and that have ended."""
    times = os.times()  # in steps of 10 ms, so only for what process_time does not count
    return time.process_time() + times.children_user + times.children_system


def peak_mb() -> float:
    """The most memory that this process had; 0 where the system does not say."""
    peak = _line_of("/proc/self/status", "VmHWM")
    if peak:
        return int(peak.split()[0]) / 1024
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1024**2 if sys.platform == "darwin" else 1024)


def _line_of(path: str, name: str) -> str:
    """What a file of the system says behind a name; nothing where there is no such file or name."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return ""

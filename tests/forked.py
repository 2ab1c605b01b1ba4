"""Scripts as processes of their own that are forked from one that has imported torch: seconds less for each of them.

`Forked(script, words, environment)` has what tests use of `subprocess.Popen`, and what the script prints is kept in a
file rather than a pipe, so it may be looked at before the end. The process it is forked from starts with the first of
them, knows nothing of the tests' environment, and ends with the tests.

This file is that process' program, too.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTS_WITHIN_S = 120.0
_NOT_FOR_ALL = ("HETEROFED", "COVERAGE")


class Forked:
    """A process that runs a script.

    Args:
        script: its path.
        words: its arguments.
        environment: all of it.
        cwd: where it runs; None: here.
        apart: whether errors are kept apart from its output.
    """

    def __init__(
        self,
        script: Path,
        words: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self._output = self._file()
        self._errors = self._file() if apart else None
        self._status, theirs = socket.socketpair()
        weakref.finalize(self, self._status.close)
        request = {
            "script": str(script),
            "words": list(words),
            "environment": dict(environment),
            "cwd": str(cwd or Path.cwd()),
        }
        with theirs:
            _ask(request, [self._output, self._errors or self._output, theirs.fileno()])
        self._said = b""
        self.pid = self._word(time.monotonic() + STARTS_WITHIN_S) or 0
        if not self.pid:
            raise RuntimeError("the process that others are forked from does not answer")

    def poll(self) -> int | None:
        """Return the exit code; None: it runs still."""
        if self.returncode is None:
            self.returncode = self._word(time.monotonic())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it runs still.
        """
        if self.returncode is None:
            self.returncode = self._word(None if timeout is None else time.monotonic() + timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0, self.said().encode())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return its output and, if they are apart, its errors."""
        self.wait(timeout)
        return self.said(), _content(self._errors) if self._errors is not None else ""

    def said(self) -> str:
        """Return its output so far."""
        return _content(self._output)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs still."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        self.send_signal(signal.SIGKILL)

    def _file(self) -> int:
        descriptor, path = tempfile.mkstemp()
        Path(path).unlink()
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _word(self, until: float | None) -> int | None:
        """Return the next number that is told of it; None: none in time."""
        while b"\n" not in self._said:
            self._status.settimeout(None if until is None else max(until - time.monotonic(), 0.0))
            try:
                more = self._status.recv(64)
            except (BlockingIOError, TimeoutError):
                return None
            if not more:
                raise RuntimeError(f"nobody knows what has become of process {getattr(self, 'pid', 0)}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return int(line)


def _content(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


# --- asking for one ---------------------------------------------------------------------------------------------------

_one_asks = threading.Lock()
_way: list[socket.socket] = []


def _ask(request: Mapping[str, object], descriptors: Sequence[int]) -> None:
    with _one_asks:
        if not _way:
            _way.append(_start())
        data = json.dumps(request).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        _way[0].sendmsg([len(data).to_bytes(8, "big")], rights)
        _way[0].sendall(data)


def _start() -> socket.socket:
    """Start the process that the others are forked from."""
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_ALL)}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())],
            cwd=ROOT,
            env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the process that the others are forked from ----------------------------------------------------------------------


def serve(control: socket.socket) -> dict[str, object]:
    """Fork a process for each request, until nobody asks any more; returns the request, in a new process only."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, whose end is ours
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell of an end
    while True:
        head, rights, _, _ = control.recvmsg(8, socket.CMSG_SPACE(3 * 4))
        if not head:
            os._exit(0)
        output, errors, status = array.array("i", rights[0][2])
        data = b""
        while len(data) < int.from_bytes(head, "big"):
            data += control.recv(1 << 16)
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if pid == 0:
                os.close(status)
                return _become(json.loads(data), output, errors)
            os.close(output)
            os.close(errors)
            os.write(status, b"%d\n" % pid)
            _, ended = os.waitpid(pid, 0)
            os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
            os._exit(0)
        for each in (output, errors, status):
            os.close(each)


def _become(request: dict[str, object], output: int, errors: int) -> dict[str, object]:
    """Make the new process what `request` wants."""
    for stream, descriptor in ((1, output), (2, errors)):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
    environment = request["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["cwd"]))
    if any(name.startswith("COVERAGE") for name in environment):
        import coverage

        coverage.process_startup()
    return request


def warm_up() -> None:
    """Import what a party needs and what takes long."""
    import torch
    from torch import nn
    from torch.optim import SGD, Adam
    from torch.optim.lr_scheduler import StepLR

    import tests.party

    assert tests.party.CLASSES  # its imports are what this is for
    torch.set_num_threads(1)  # a thread that is running now would be missing in the processes forked from here
    for make in (SGD, Adam):  # the first optimizer of a process imports what takes seconds
        StepLR(make(nn.Linear(1, 1).parameters(), lr=0.1), 1)


def run(request: dict[str, object]) -> None:
    """Run the script and end as Python does, but for taking its modules apart, which costs a second.

    Never returns.
    """
    script, words = str(request["script"]), request["words"]
    assert isinstance(words, list)
    sys.argv = [script, *words]
    sys.path[0] = str(Path(script).parent)
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1 if isinstance(error, Exception) else 128 + signal.SIGINT
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends a process that it has forked
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    warm_up()
    run(serve(socket.socket(fileno=int(sys.argv[1]))))

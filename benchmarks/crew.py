"""The processes of a benchmark: each does one part of it, and waits for its turn."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from psi.bench_processes import hear, say

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]

PATIENCE_S = 600.0
"""Longest wait for one word of a worker."""

_END_S = 10.0
_LAST_LINES = 15


class Failed(RuntimeError):
    """A benchmark gave no figures; the text says which worker and why."""


class Worker:
    """A process that does one part of a benchmark, and the pipe over which it is told when.

    Args:
        name: for errors, and of the file with what it prints.
        process: started already.
        pipe: our end.
        log: what it prints.
    """

    def __init__(self, name: str, process: Any, pipe: Connection, log: Path) -> None:
        self.name = name
        self._process = process
        self._pipe = pipe
        self._log = log

    def tell(self, **what: object) -> None:
        """Send it a word."""
        with suppress(BrokenPipeError):  # it has ended: the next `hear` says how
            say(self._pipe, **what)

    def hear(self, timeout_s: float = PATIENCE_S) -> Json:
        """Return what it says next.

        Raises:
            Failed: it has ended, or says nothing in time.
        """
        if not self._pipe.poll(timeout_s):
            raise Failed(f"{self.name} said nothing for {timeout_s:.0f} s; its last words:\n{self._last_words()}")
        try:
            return hear(self._pipe)
        except (EOFError, ConnectionResetError):
            self._process.join(_END_S)
            code = self._process.exitcode
            raise Failed(f"{self.name} ended with exit code {code}; its last words:\n{self._last_words()}") from None

    def ask(self, **what: object) -> Json:
        """Send it a word and return the answer."""
        self.tell(**what)
        return self.hear()

    def end(self, wait_s: float) -> None:
        """Close the pipe, by which it knows that it is not needed any more; insist after a while."""
        self._pipe.close()
        self._process.join(wait_s)
        self._process.kill()
        self._process.join()
        self._process.close()

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = [each for each in self._log.read_text(errors="replace").splitlines() if each.strip()]
            return "\n".join(lines[-_LAST_LINES:])
        return ""


class Crew:
    """Starts workers, each a process of its own that has imported torch and heterofed already.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._workers: list[Worker] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.warm"])
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
        try:
            forkserver.ensure_running()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def start(self, name: str, work: Callable[..., None], *arguments: object) -> Worker:
        """Start a process that does `work(pipe, *arguments)`; its heterofed settings are those of the environment."""
        ours, theirs = multiprocessing.Pipe()
        log = self.folder / f"{name}.log"
        process = self._context.Process(
            target=_guarded, args=(work, theirs, str(log), settings_in(os.environ), *arguments), name=name, daemon=False
        )
        process.start()
        theirs.close()
        worker = Worker(name, process, ours, log)
        self._workers.append(worker)
        return worker

    def end(self, *, wait: bool) -> None:
        """End all workers."""
        for each in self._workers:
            each.end(_END_S if wait else 0.0)
        self._workers.clear()


@contextmanager
def crew() -> Iterator[Crew]:
    """A crew whose processes end with the block."""
    with tempfile.TemporaryDirectory(prefix="heterofed-bench-", ignore_cleanup_errors=True) as folder:
        found = Crew(Path(folder))
        try:
            yield found
        except BaseException:
            found.end(wait=False)
            raise
        found.end(wait=True)


def settings_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are settings of heterofed."""
    return {name: value for name, value in environ.items() if name.startswith("HETEROFED_")}


@contextmanager
def settings(**variables: str) -> Iterator[None]:
    """Set `HETEROFED_<NAME>` for the workers that are started inside, and let no other setting through."""
    before = settings_in(os.environ)
    _set_settings({f"HETEROFED_{name.upper()}": value for name, value in variables.items()})
    try:
        yield
    finally:
        _set_settings(before)


def _set_settings(variables: Mapping[str, str]) -> None:
    for name in settings_in(os.environ):
        del os.environ[name]
    os.environ.update(variables)


def _guarded(
    work: Callable[..., None], pipe: Connection, log: str, variables: Mapping[str, str], *arguments: object
) -> None:
    """What a worker does; it ends quietly once nobody waits for it any more."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    _set_settings(variables)
    with suppress(EOFError, ConnectionResetError, BrokenPipeError, KeyboardInterrupt):
        work(pipe, *arguments)

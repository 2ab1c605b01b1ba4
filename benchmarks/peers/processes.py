"""Starts the processes of one run, gives both parties the start signal together, and ends them by a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

from benchmarks.peers.party import MARK, Job, Report

CHECKOUT = Path(__file__).resolve().parents[2]
LAST_BREATH_S = 5.0
"""Between a party's report and the end of its process, before it is killed."""


class RunFailed(RuntimeError):
    """A run gave no measurement; the text says which party and why."""


def free_ports() -> tuple[int, int]:
    """Two ports on loopback that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def run_pair(python: Path, module: str, jobs: tuple[Job, Job], logs: Path) -> tuple[Report, Report]:
    """Run both parties of a peer as processes of their own, and return their reports in the order of `jobs`.

    The clocks start when both have said that they are ready. `logs` is a folder for what the parties print.

    Raises:
        RunFailed: if a party ends without a report or the deadline of the jobs passes; both are ended by then.
    """
    deadline_s = jobs[0].deadline_s
    try:
        return asyncio.run(asyncio.wait_for(_run_pair(python, module, jobs, logs), deadline_s))
    except asyncio.TimeoutError:
        raise RunFailed(f"{module}: no result within {deadline_s:.0f} s") from None


async def _run_pair(python: Path, module: str, jobs: tuple[Job, Job], logs: Path) -> tuple[Report, Report]:
    async with contextlib.AsyncExitStack() as stack:
        receiver, sender = [
            await stack.enter_async_context(_Party(python, module, job, logs / f"{job.role}.log")) for job in jobs
        ]
        await asyncio.gather(receiver.next_line(), sender.next_line())  # both are ready
        receiver.go()
        sender.go()
        texts = await asyncio.gather(receiver.next_line(), sender.next_line())
        await asyncio.gather(receiver.end(), sender.end())
    first, second = (Report(**json.loads(text)) for text in texts)
    return first, second


class _Party(contextlib.AbstractAsyncContextManager["_Party"]):
    """One party's process, killed with all it started when the block ends."""

    def __init__(self, python: Path, module: str, job: Job, log: Path) -> None:
        self._command = [str(python), "-Es", "-m", module, job.as_text()]
        self._role = job.role
        self._log = log

    async def __aenter__(self) -> _Party:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=CHECKOUT,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        kill_group(self._process.pid)
        await self._process.wait()

    def go(self) -> None:
        """Give the start signal."""
        if self._process.stdin is None:
            raise RunFailed(f"the {self._role} has no standard input")
        self._process.stdin.write(b"go\n")

    async def next_line(self) -> str:
        """What the party says next, without its mark."""
        if self._process.stdout is None:
            raise RunFailed(f"the {self._role} has no standard output")
        while line := await self._process.stdout.readline():
            text = line.decode(errors="replace")
            if text.startswith(MARK):
                return text[len(MARK) :]
        raise RunFailed(f"the {self._role} ended early: {tail(self._log)}")

    async def end(self) -> None:
        """Let the process end by itself for a moment; leaving the block ends it in any case."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), LAST_BREATH_S)


def run_ours(arguments: list[str], deadline_s: float) -> dict[str, object]:
    """Run `python -m psi bench` with these arguments and return the JSON object of its last line.

    Raises:
        RunFailed: if it fails, prints no such line or takes longer than `deadline_s`.
    """
    return asyncio.run(_run_ours([sys.executable, "-m", "psi", "bench", *arguments], deadline_s))


async def _run_ours(command: list[str], deadline_s: float) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), deadline_s)
    except asyncio.TimeoutError:
        raise RunFailed(f"psi bench: no result within {deadline_s:.0f} s") from None
    finally:
        kill_group(process.pid)
        await process.wait()
    lines = output.decode(errors="replace").split("\n")
    try:
        result = json.loads(next(line for line in reversed(lines) if line.strip()))
    except (StopIteration, ValueError):
        result = None
    if not isinstance(result, dict):
        said = errors.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise RunFailed(f"psi bench ended with {process.returncode} and no JSON on its last line: {said[-1]}")
    return result


def kill_group(pid: int) -> None:
    """End a process started as the first of its session, and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(log: Path) -> str:
    """The last line of a log that says something; not that which says where the one before is explained."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("See docs/")]
    return lines[-1] if lines else "it said nothing"

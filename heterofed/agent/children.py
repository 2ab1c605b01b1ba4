"""The child processes of an agent: data checks and parties, each with a log of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heterofed.agent.registered import Named
from heterofed.errors import ConfigError
from heterofed.files import make_folder, refused
from heterofed.scheduler.manifest import RUNS

DESCRIBE_S = 120.0
"""How long a registered class may take to be imported and made."""

GRACE_S = 30.0
"""How long a process may take to end by itself; one that was told to end has as long again."""


@dataclass
class Child:
    """One process."""

    what: str
    """"check" or "run"."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)
    told_to_end: float | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def ended(self) -> int | None:
        """Return its exit code, None while it runs; negative: the signal that has ended it."""
        return self.process.poll()

    def tell_to_end(self) -> None:
        """Ask it to end; the second time a while later, make it."""
        if self.told_to_end is None:
            self.told_to_end = time.monotonic()
            self.process.terminate()
        elif time.monotonic() - self.told_to_end > GRACE_S:
            self.process.kill()


def start(what: str, thing: str, task_id: str, feature_key: str, out: Path | None, *, recover: bool) -> Child:
    """Start a check or a party of a task.

    It goes on when the agent ends: a training is not to suffer from that.

    Raises:
        OutputError: its log cannot be written.
    """
    log = make_folder((out or RUNS) / task_id) / f"{feature_key}.log"
    command = [sys.executable, "-m", "heterofed.agent.party", what, thing, "--task", task_id, "--key", feature_key]
    if out is not None:
        command += ["--out", str(out)]
    if recover:
        command.append("--recover")
    with refused(log), log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603 - our own module; the arguments were checked, and no shell reads them
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PYTHONUNBUFFERED": "1", **os.environ, "HETEROFED_PROGRESS": _progress()},
        )
    return Child(what, process, log)


def _progress() -> str:
    chosen = os.environ.get("HETEROFED_PROGRESS", "auto")
    return "plain" if chosen in ("auto", "bar", "") else chosen  # it goes into a file


def describe(named: Sequence[Named], answer: Path) -> list[dict[str, Any]]:
    """Let a child find out what the registered classes are: {"feature_key", "host"} of each.

    Raises:
        ConfigError: one cannot be imported or made, or is no party.
    """
    things = [each.thing if each.key is None else f"{each.key}={each.thing}" for each in named]
    command = [sys.executable, "-m", "heterofed.agent.party", "describe", *things, "--answer", str(answer)]
    try:
        done = subprocess.run(  # noqa: S603 - as above
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DESCRIBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{', '.join(things)}: not imported and made within {DESCRIBE_S:.0f} s", expected="a quick constructor"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(
            f"what is registered cannot be served:\n{said[-2000:]}\n",
            expected="subclasses of HostScheduler or CollaboratorScheduler",
        )
    found: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
    return found

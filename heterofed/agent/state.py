"""What an agent remembers of the parties that it has started, so that the next one neither starts twice nor forgets."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError
from heterofed.files import held, is_held, make_folder, write_whole
from heterofed.metrics.progress import logger
from heterofed.tasks.directory import running_lock

FOLDER = "agents"
"""Under `Settings.home`."""


@dataclass(frozen=True)
class Run:
    """One party of one task as an agent has started it."""

    launched: str
    """Which launch of the task it follows: when that was."""

    pid: int | None = None
    ended: bool = False
    """Whether there is nothing more to do for this launch."""

    tries: int = 0
    """How often its process was lost in this launch."""


class Book:
    """The runs of one party, in a file that is written whole.

    Args:
        home: `Settings.home`.
        feature_key: the party.

    Raises:
        ConfigError: another agent of this home has it open.
        OutputError: the file cannot be used.
    """

    def __init__(self, home: Path, feature_key: str) -> None:
        self._path = make_folder(home / FOLDER) / f"{feature_key}.json"
        taken = ConfigError(
            f"another agent of this HETEROFED_HOME serves {feature_key}",
            expected="one agent for each party",
            advice="Stop that one first, or name another party.",
        )
        self._at_the_end = ExitStack()
        self._at_the_end.enter_context(held(self._path.with_suffix(".lock"), taken))
        self._runs = self._read()

    def get(self, task_id: str) -> Run | None:
        """Return what is known of a task."""
        return self._runs.get(task_id)

    def put(self, task_id: str, run: Run) -> None:
        """Keep what is known of a task."""
        self._runs[task_id] = run
        form = {each: asdict(run) for each, run in self._runs.items()}
        write_whole(self._path, lambda file: file.write(json.dumps(form, indent=1).encode()))

    def end(self, task_id: str) -> None:
        """Note that there is nothing more to do for the launch at hand."""
        run = self._runs.get(task_id)
        if run is not None and not run.ended:
            self.put(task_id, replace(run, ended=True, pid=None))

    def close(self) -> None:
        """Let another agent have it."""
        self._at_the_end.close()

    def _read(self) -> dict[str, Run]:
        try:
            form: Any = json.loads(self._path.read_bytes())
            return {str(task_id): Run(**run) for task_id, run in form.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning("%s cannot be used (%s): tasks that run already are looked at anew", self._path, error)
            return {}


def is_running(pid: int | None, task_id: str, feature_key: str, home: Path) -> bool:
    """Whether a party's process is there: it holds the party's lock, or is about to."""
    if is_held(running_lock(home, task_id, feature_key)):
        return True
    return pid is not None and _is_ours(pid, task_id)


def _is_ours(pid: int, task_id: str) -> bool:
    """Whether a process of this number is a party of this task: numbers are given again."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return Path("/proc/self").exists() is False  # another system: nothing more is known
    return b"heterofed.agent.party" in said and task_id.encode() in said

"""A full disk under the task store, which parties in processes of their own share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from heterofed import Settings
from heterofed.tasks.directory import open_directory
from tests.chaos.disk_outcome import PARTIES, Outcome, Red, check_checkpoints
from tests.chaos.smalldisk import small_disk

ROUNDS = 2
ENDS_WITHIN_S = 60
REPOSITORY = Path(__file__).resolve().parents[2]

Attempt = Callable[[Path, Outcome], str]
"""Tries one cell in a folder, and compares with the undisturbed outcome. Returns a note; raises Red."""


def _full_store(folder: Path, undisturbed: Outcome) -> str:
    """The disk of the task store is full from the second round on: the record suffers, the task does not."""
    with small_disk(folder / "home") as disk:
        task = new_task(folder)
        ended = launch(folder, task, FILL_DISK=str(folder / "home"))
        if any(code for code, _ in ended.values()):
            raise Red(f"it failed: {ended}")
        if not any("the task's record was not updated" in output for _, output in ended.values()):
            raise Red(f"nobody was warned: {ended}")
        disk.mend()
        Outcome.left_in(folder).check(undisturbed)
    return "the record was not updated, and a warning said so"


def _full_home(folder: Path, undisturbed: Outcome) -> str:
    """The disk of the task store is full when the parties are launched."""
    with small_disk(folder / "home") as disk:
        task = new_task(folder)
        disk.fill()
        ended = launch(folder, task)
        for party, (code, output) in ended.items():
            if not code or "Traceback" in output or str(folder / "home") not in output:
                raise Red(f"{party} ended with {code}: {output[-600:]}")
        disk.mend()
        _launch_again(folder, task)
        Outcome.left_in(folder).check(undisturbed)
    return ""


def _full_everything(folder: Path, undisturbed: Outcome) -> str:
    """Results and the task store lie on one disk, which is full from the second round on."""
    with small_disk(folder) as disk:
        task = new_task(folder)
        ended = launch(folder, task, FILL_DISK=str(folder))
        if not any("OutputError" in output and "No space left on device" in output for _, output in ended.values()):
            raise Red(f"nobody said what is wrong: {ended}")
        for party, (code, output) in ended.items():
            if not code or "Traceback" in output or not re.search("OutputError|TaskAborted", output):
                raise Red(f"{party} ended with {code}: {output[-600:]}")
        check_checkpoints(folder)
        disk.mend()
        _launch_again(folder, task)
        Outcome.left_in(folder).check(undisturbed)
    return ""


def new_task(folder: Path) -> str:
    directory = open_directory(Settings(home=folder / "home"))
    return directory.store.create("tiny", list(PARTIES)).id


def _launch_again(folder: Path, task: str) -> None:
    again = launch(folder, task, "recover")
    if any(code for code, _ in again.values()):
        raise Red(f"it does not go on: {again}")


def launch(folder: Path, task: str, *recover: str, **environment: str) -> dict[str, tuple[int, str]]:
    """Launch both parties and return party -> (exit code, output)."""
    environment |= {
        "HETEROFED_HOME": str(folder / "home"),
        "HETEROFED_PROGRESS": "off",
        "HETEROFED_PSI_PROTOCOL": "ecdh",
        "HETEROFED_GATHER_TIMEOUT_S": "20",
        "OMP_NUM_THREADS": "1",
    }
    processes = {
        party: subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.disk_party", party, task, folder / party, str(ROUNDS), *recover],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
        )
        for party in PARTIES
    }
    ended = {}
    try:
        for party, process in processes.items():
            output, _ = process.communicate(timeout=ENDS_WITHIN_S)
            ended[party] = (process.returncode, output)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    return ended


PROCESSES: Mapping[str, Attempt] = {
    "the task store's disk full while the parties train": _full_store,
    "the task store's disk full when they are launched": _full_home,
    "all on one disk, full while the parties train": _full_everything,
}

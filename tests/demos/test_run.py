"""The demo as a newcomer runs it: one command, every party a process, and the comparison at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from heterofed import Settings
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import TaskStatus

pytestmark = [pytest.mark.processes, pytest.mark.timeout(170)]

SMALL = ["--train", "300", "--test", "100", "--rounds", "2", "--plain", "--data-dir", "sklearn"]


def demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("heterofed")), "demo", "mnist", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "HETEROFED_PROGRESS": "auto", "HETEROFED_REJOIN_TIMEOUT_S": "60"},
    )


def test_the_demo_trains_and_is_bit_identical_to_the_unsplit_network(tmp_path: Path) -> None:
    process = demo(*SMALL, "--out", str(tmp_path / "out"), "--no-dropout", "--verify-exact")

    output, _ = process.communicate(timeout=150)

    assert process.returncode == 0, output
    assert "as asked" in output.splitlines()[0]
    assert "weights of 2 parties are bit-identical to the unsplit network's" in output
    assert "test accuracy, all parties together" in output
    assert "test accuracy, the host's part alone" in output
    for told in ("[demo_host] round 2/2", "rows/s", "loss", "left", "[demo_host] round 1: joint test accuracy"):
        assert told in output
    assert str(tmp_path / "out" / "demo_host") in output
    table = pd.read_csv(tmp_path / "out" / "demo_host" / "test_results.csv")
    assert list(table.columns) == ["round", "average_loss", "accuracy"]
    assert list(table["round"]) == [1, 2]
    assert [task.status for task in open_directory(Settings.from_env()).store.list()] == [TaskStatus.COMPLETED]


def test_ctrl_c_ends_every_process_cleanly(tmp_path: Path) -> None:
    process = demo(*SMALL, "--rounds", "1000", "--out", str(tmp_path / "out"))
    store = open_directory(Settings.from_env()).store
    deadline = time.monotonic() + 60
    while not any(task.status is TaskStatus.ONGOING for task in store.list()):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert output.rstrip().endswith("with --recover goes on where all of them were")
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def process_of(demo: subprocess.Popen[str], script: str) -> int | None:
    """Return the process id of the party that runs a script."""
    for child in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split():
        if f"/{script}\0" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    return None


@pytest.mark.parametrize("script", ["host.py", "collaborator.py"])
def test_a_party_that_is_killed_is_started_again_and_the_weights_are_the_same(tmp_path: Path, script: str) -> None:
    out = tmp_path / "out"
    process = demo(*SMALL, "--rounds", "3", "--out", str(out), "--no-dropout", "--verify-exact")
    deadline = time.monotonic() + 60
    while not list(out.glob("demo_collaborator/checkpoints/model_0*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    victim = process_of(process, script)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=100)

    assert process.returncode == 0, output
    assert "was killed; started again with --recover" in output
    assert "weights of 2 parties are bit-identical to the unsplit network's" in output


def test_a_wrong_data_folder_is_said_so_in_one_message(tmp_path: Path) -> None:
    process = demo("--data-dir", str(tmp_path), "--out", str(tmp_path / "out"))

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert output.splitlines()[1:] == ["See docs/reference/errors.md#configerror"]
    assert f"ConfigError: the data folder {tmp_path} holds no MNIST" in output

"""Scripts in the style of the source system run after their import root is changed, and two of its traps are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from heterofed import Settings
from heterofed.tasks.directory import open_directory
from tests.demos.tiny_mnist import write_tiny_mnist

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]
TRAIN, TEST = 300, 60


def run(tmp_path: Path, host_batch: int, collaborator_batch: int) -> list[tuple[int, str]]:
    """Run both scripts as processes of one task; return their exit codes and outputs."""
    write_tiny_mnist(tmp_path / "data", TRAIN, TEST)
    task = open_directory(Settings.from_env()).store.create("mnist", ["demo_host", "demo_collaborator"])
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), task.id, str(tmp_path / "data"), str(batch), str(TRAIN), str(TEST)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "HETEROFED_PROGRESS": "plain"},
        )
        for script, batch in (
            ("source_style_host.py", host_batch),
            ("source_style_collaborator.py", collaborator_batch),
        )
    ]
    try:
        return [(process.wait(timeout=100), read(process)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def read(process: subprocess.Popen[str]) -> str:
    if process.stdout is None:
        return ""
    with process.stdout as stream:
        return stream.read()


def test_both_scripts_run_with_another_import_root(tmp_path: Path) -> None:
    for code, output in run(tmp_path, 64, 64):
        assert code == 0, output

    (folder,) = (tmp_path / "runs").iterdir()
    results = pd.read_csv(folder / "demo_host" / "test_results.csv")
    assert list(results.columns) == ["average_loss", "accuracy", "correct_rate"]
    assert len(results) == 2
    assert len(pd.read_csv(folder / "demo_host" / "timer.csv")) == 2
    assert results["average_loss"].dtype == float
    model = torch.load(folder / "demo_collaborator" / "feature_model_demo_collaborator.pt", weights_only=True)
    assert model["fc2.weight"].shape == (10, 50)


def test_the_seeds_own_unequal_batch_sizes_stop_both_with_one_reason(tmp_path: Path) -> None:
    for code, output in run(tmp_path, 64, 250):
        assert code == 1
        assert "AlignmentError" in output
        assert "sent 250 rows in round 1, batch 0; expected 64 as at demo_host" in output
        assert "Use the same batch size" in output

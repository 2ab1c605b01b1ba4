from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.demos.tiny_mnist import write_tiny_mnist

SCRIPT = Path(__file__).parents[2] / "demos" / "plain_loop.py"


class Run:
    """Runs the script from an empty folder, as `python plain_loop.py` would."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(tmp_path)

    def __call__(self, *arguments: str) -> list[tuple[int, float, float]]:
        """Return (round, loss, accuracy in %) of every line that it prints."""
        self._monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        form = re.compile(r"round +(\d+) +loss ([\d.]+) +test accuracy ([\d.]+)%")
        lines = [form.fullmatch(line) for line in self._capsys.readouterr().out.splitlines()]
        return [(int(line[1]), float(line[2]), float(line[3])) for line in lines if line]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, monkeypatch, capsys)


def test_it_runs_without_arguments_and_learns(run: Run) -> None:
    printed = run()
    assert [line[0] for line in printed] == list(range(1, 11))
    assert printed[-1][1] < printed[0][1] / 10
    assert printed[-1][2] > 85


def test_it_reads_mnist_from_a_folder(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    write_tiny_mnist(tmp_path)
    assert len(run("--rounds", "2", "--data-dir", str(tmp_path))) == 2


def test_it_needs_no_framework_and_fits_a_page() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported} == {"__future__", "argparse", "torch", "sklearn", "torchvision"}
    assert text.count("\n") <= 110

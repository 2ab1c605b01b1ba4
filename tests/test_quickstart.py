"""The quickstart's way from two tables to predictions works as it is written: its own lines, typed in its own order."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

for needed in ("sklearn", "pandas", "onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(needed, reason="the quickstart installs '.[demos,tables,export]'")

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 120


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return (language, text) of every fenced block of a section of the quickstart."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@contextmanager
def running(line: str, environment: dict[str, str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Type a line in a terminal of its own; one that still runs at the end is killed."""
    with said.open("wb") as file:
        process = subprocess.Popen(line.split(), env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def terminal(tmp_path: Path) -> dict[str, str]:
    """What a terminal has in which the environment of the clone is active."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("python", ""), ("heterofed", "-m heterofed ")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n', encoding="utf-8")
        script.chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.processes
@pytest.mark.timeout(3 * LONGEST_S)
def test_two_csv_files_become_predictions_by_the_lines_of_the_page(tmp_path: Path, terminal: dict[str, str]) -> None:
    written = blocks("Two CSV files")
    (tmp_path / "two_tables.py").write_text(next(text for language, text in written if language == "python"))
    lines = [line for language, text in written if language == "bash" for line in text.splitlines()]
    shown = next(text for language, text in written if language == "text").splitlines()
    assert [" ".join(line.split()[:3]) for line in lines] == [
        "python two_tables.py",
        "heterofed check --data",
        "heterofed task create",
        "heterofed train host",
        "heterofed train collaborator",
        "heterofed serve collaborator",
        "heterofed predict host",
        "heterofed export --run",
    ], "say below which of them run at the same time"
    tables, check, create, *both, serve, predict, export = lines

    def typed(*lines: str) -> list[str]:
        """Type lines at the same time, wait for their ends, and return what they said."""
        said = [tmp_path / f"{number}.txt" for number in range(len(lines))]
        with ExitStack() as stack:
            terminals = [
                stack.enter_context(running(line, terminal, file)) for line, file in zip(lines, said, strict=True)
            ]
            codes = [each.wait(LONGEST_S) for each in terminals]
        texts = [each.read_text() for each in said]
        assert not any(codes), "\n".join(texts)
        return texts

    typed(tables)
    checked, created = typed(check, create)
    assert "smoothness" in checked
    typed(*(line.replace("ID", created.splitlines()[-1]) for line in both))
    assert (tmp_path / "runs" / "clinic" / "report.html").is_file()

    with running(serve, terminal, tmp_path / "serving.txt") as server:
        typed(predict, export)
        server.send_signal(signal.SIGINT)
        assert server.wait(LONGEST_S) == 0, (tmp_path / "serving.txt").read_text()

    page, ours = (
        list(csv.DictReader(table)) for table in (shown, (tmp_path / "predictions.csv").read_text().splitlines())
    )
    assert [list(each) for each in ours] == [list(each) for each in page]
    for ours_, page_ in zip(ours, page, strict=True):
        for column in ("patient", "status", "prediction", "absent"):
            assert ours_[column] == page_[column], f"{column} of {page_['patient']}"
    assert (tmp_path / "exported" / "feature_model.onnx").is_file()

"""How many cores a process may use: those it is bound to, and no more than its container's share of their time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heterofed import cores as module
from heterofed.cores import cores


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "cpu.max"
    monkeypatch.setattr(module, "CPU_MAX", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    return path


@pytest.mark.parametrize(
    ("said", "count"),
    [("max 100000", 8), ("100000 100000", 1), ("350000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_a_container_has_the_whole_cores_of_its_share(share: Path, said: str, count: int) -> None:
    share.write_text(said + "\n")

    assert cores() == count


@pytest.mark.parametrize("said", ["", "nonsense", "1 0", "\xff"])
def test_what_says_nothing_of_a_share_limits_nothing(share: Path, said: str) -> None:
    share.write_text(said, encoding="latin-1")

    assert cores() == 8


def test_without_such_a_file_it_is_the_cores_that_the_process_is_bound_to(share: Path) -> None:
    assert cores() == 8

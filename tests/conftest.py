"""What every test gets: no progress bars, a home of its own, short waits."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HETEROFED_HOME of this test alone, which is also where relative outputs go."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HETEROFED_HOME", str(folder))
    monkeypatch.setenv("HETEROFED_PROGRESS", "off")
    monkeypatch.setenv("HETEROFED_GATHER_TIMEOUT_S", "20")
    monkeypatch.setenv("HETEROFED_REJOIN_TIMEOUT_S", "1")
    for name in ("HETEROFED_DATA", "HETEROFED_HUB", "HETEROFED_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return folder

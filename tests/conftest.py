"""What every test gets: no progress bars, a home of its own, short waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Let processes that tests start hear Ctrl-C, also where the tests run in the background and have it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures that several tests share out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETEROFED_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HETEROFED_HOME of this test alone, which is also where relative outputs go."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HETEROFED_HOME", str(folder))
    monkeypatch.setenv("HETEROFED_PROGRESS", "off")
    monkeypatch.setenv("HETEROFED_GATHER_TIMEOUT_S", "45")
    monkeypatch.setenv("HETEROFED_REJOIN_TIMEOUT_S", "1")
    for name in ("HETEROFED_DATA", "HETEROFED_HUB", "HETEROFED_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return folder

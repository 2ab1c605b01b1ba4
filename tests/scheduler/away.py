"""A place for tasks that can be out of reach: the local store behind a door that the test opens and shuts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from heterofed.errors import HubUnreachable
from heterofed.tasks.directory import Directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.store import TaskStore


class Door:
    """Stands for a hub's client.

    Attributes:
        shut: whether no call goes through.
        deaf: calls go through, but their answers do not come back.
        calls: names of all calls that were tried.
    """

    def __init__(self, store: TaskStore) -> None:
        self.store = store
        self.shut = self.deaf = False
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            self.threads.add(threading.current_thread().name)
            if self.shut:
                raise HubUnreachable("http://hub does not answer")
            result = real(*args, **kwargs)
            if self.deaf:
                raise HubUnreachable("http://hub has not answered in time")
            return result

        return call


def door_of(home: Path) -> tuple[Door, Directory]:
    """Return a door to the local store, and the directory of a party that knows it as its hub."""
    door = Door(TaskStore(home / "tasks.db"))
    return door, Directory(cast(Tasks, door), home, pinned={})


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)

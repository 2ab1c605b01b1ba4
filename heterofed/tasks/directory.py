"""What a task id means on this machine: which parties it has, who is the host, where it listens, whose key is whose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heterofed.config import Settings
from heterofed.errors import UnknownTask
from heterofed.tasks.model import Task
from heterofed.tasks.store import TaskStore

STORE_FILE = "tasks.db"
"""Name of the task store under `Settings.home`."""


@dataclass(frozen=True)
class HostAddress:
    """What a collaborator needs to reach the host and to know that it is the host."""

    feature_key: str
    endpoint: str
    """For example tcp://127.0.0.1:40123."""

    public_key: bytes
    """The host's CURVE key, Z85-encoded."""


class Directory:
    """Tasks of one store, as the parties of this machine look them up. Safe to use from several threads.

    Every method raises `UnknownTask` for a task that is not in the store, except `party_of`; `ConfigError` for a
    feature key that is not the task's; and `OutputError` when the store fails.

    Args:
        store: where the tasks are kept.
        home: the folder in which the parties of this machine keep their keys.
    """

    def __init__(self, store: TaskStore, home: Path) -> None:
        self.store = store
        self.home = home

    def find(self, task_id: str) -> Task:
        """Return a task as it is now."""
        return self.store.get(task_id)

    def announce_host(self, task_id: str, feature_key: str, endpoint: str, public_key: bytes) -> None:
        """Say that a party is the host, where it listens and which key proves it.

        Raises:
            ConfigError: another party is the host, or has this key.
        """
        self.store.set_party(task_id, feature_key, role="host", endpoint=endpoint, public_key=public_key)

    def announce_collaborator(self, task_id: str, feature_key: str, public_key: bytes) -> None:
        """Say that a party is a collaborator and which key proves it; from now on the host lets it in.

        Raises:
            ConfigError: the host of this task is running under this feature key, or another party has this key.
        """
        self.store.set_party(task_id, feature_key, role="collaborator", endpoint=None, public_key=public_key)

    def host_of(self, task_id: str) -> HostAddress | None:
        """Return where the host is, or None while no host is up."""
        for party in self.store.get(task_id).parties:
            if party.role == "host" and party.endpoint is not None and party.public_key is not None:
                return HostAddress(party.feature_key, party.endpoint, party.public_key)
        return None

    def withdraw_host(self, task_id: str, feature_key: str) -> None:
        """Say that the host listens no more. It stays the host, and may announce itself again."""
        self.store.set_party(task_id, feature_key, endpoint=None)

    def party_of(self, task_id: str, public_key: bytes) -> str | None:
        """Return the feature key of the party of this task that owns a key, or None: keep it out.

        A task that is cancelled, completed or expired admits nobody; one that failed may be launched again.

        Raises:
            OutputError: the store fails; who asks must keep the key out.
        """
        try:
            task = self.store.get(task_id)
        except UnknownTask:
            return None
        return task.owner_of(public_key) if task.why_over() is None else None


def open_directory(settings: Settings) -> Directory:
    """Open the directory of this machine, `tasks.db` under `settings.home`; creates both if they are not there.

    Raises:
        OutputError: they cannot be created or used.
    """
    return Directory(TaskStore(settings.home / STORE_FILE), settings.home)

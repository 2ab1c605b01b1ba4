"""What a task id means on this machine: which parties it has, who is the host, where it listens, whose key is whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from heterofed.config import Settings
from heterofed.files import make_folder
from heterofed.tasks.interface import Tasks
from heterofed.tasks.joined import read_joined
from heterofed.tasks.model import Party, Task
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


def running_lock(home: Path, task_id: str, feature_key: str) -> Path:
    """Return the lock that a party's process holds while it takes part in a task, so that there is only one.

    Raises:
        OutputError: its folder, below `Settings.home`, cannot be made.
    """
    return make_folder(home / "running") / f"{task_id}-{feature_key}.lock"


def host_in(task: Task) -> HostAddress | None:
    """Return where a task's host is, or None while no host is up."""
    host = task.host
    if host is None or host.endpoint is None or host.public_key is None:
        return None
    return HostAddress(host.feature_key, host.endpoint, host.public_key)


class Directory:
    """Tasks of one store or hub, as the parties of this machine look them up. Safe to use from several threads.

    Every method raises `UnknownTask` for a task that is not there; `ConfigError` for a feature key that is not the
    task's; and what the store or the hub raises when it fails.

    Args:
        store: where the tasks are kept.
        home: the folder in which the parties of this machine keep their keys.
        pinned: of a hub: task id -> party -> the only public key that is this party, whatever the hub says. So it
            cannot put itself between two parties by listing keys of its own. None: `store` is this machine's.
        joined_as: as which party this machine joined the task that it was opened for; None: as none.
    """

    def __init__(
        self,
        store: Tasks,
        home: Path,
        pinned: Mapping[str, Mapping[str, bytes]] | None = None,
        joined_as: str | None = None,
    ) -> None:
        self.store = store
        self.home = home
        self.joined_as = joined_as
        self.at_hub = pinned is not None
        """Whether a hub has the record."""

        self._pinned = pinned or {}

    def find(self, task_id: str) -> Task:
        """Return a task as it is now, with the keys that this machine's people trust."""
        task = self.store.get(task_id)
        keys = self._pinned.get(task.id)
        if not keys:
            return task
        return replace(task, parties=tuple(_with_key(party, keys) for party in task.parties))

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


def _with_key(party: Party, keys: Mapping[str, bytes]) -> Party:
    key = keys.get(party.feature_key)
    if key is not None:
        return replace(party, public_key=key, key_trusted=True)
    if party.public_key in keys.values():  # of somebody else, who is known
        return replace(party, public_key=None, key_trusted=False)
    return party


def open_directory(settings: Settings, task_id: str | None = None) -> Directory:
    """Open the place where a task is: the hub that it was joined at, or the hub of the settings, or this machine.

    Args:
        settings: `hub` and `token` name a hub; `home` has the store of this machine, `tasks.db`, which is created if
            it is not there, and what was joined.
        task_id: without it, what was joined is left alone.

    Raises:
        OutputError: the files cannot be created or used.
        ConfigError: the hub's URL is none.
    """
    known = read_joined(settings.home)
    joined = known.get(task_id) if task_id is not None else None
    pinned = {each: known[each].keys for each in known}
    me = None if joined is None else joined.party
    if joined is not None and joined.hub:
        return Directory(open_hub(settings, joined.hub, joined.token), settings.home, pinned, me)
    if settings.hub and me is None:
        return Directory(open_hub(settings, settings.hub, settings.token), settings.home, pinned)
    return open_local(settings, me)


def open_local(settings: Settings, joined_as: str | None = None) -> Directory:
    """Open the store of this machine, `tasks.db` under `settings.home`; both are created if they are not there.

    Raises:
        OutputError: they cannot be created or used.
    """
    return Directory(TaskStore(settings.home / STORE_FILE), settings.home, joined_as=joined_as)


def open_hub(settings: Settings, url: str, token: str) -> Tasks:
    """Open the tasks of a hub.

    Raises:
        ConfigError: the URL is none, or HETEROFED_HUB_CA holds no certificate.
    """
    from heterofed.tasks.client import HubClient  # here, because the store of this machine does without HTTP

    return HubClient(url, token, ca=settings.hub_ca)

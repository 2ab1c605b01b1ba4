"""The way to the other parties: a host's socket, announced where the task is kept, and a collaborator's to it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, PeerTimeout
from heterofed.metrics.progress import Progress
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.seat import AlreadyCompleted
from heterofed.tasks.directory import Directory, HostAddress, host_in
from heterofed.tasks.guests import GuestList
from heterofed.tasks.model import Task
from heterofed.wire.headers import HEADER_BYTES
from heterofed.wire.keys import keys_folder, load_or_create
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport, only_loopback

PLAIN = "plain+"
"""Before the endpoint of a host without encryption, in the task's record."""

LOOK_FOR_HOST_S = 0.3
"""How often a collaborator asks the directory whether the host is up."""


class Door(ABC):
    """What both roles know of the way to the others."""

    def __init__(
        self,
        directory: Directory,
        task: Task,
        feature_key: str,
        settings: Settings,
        progress: Progress,
        record: StoreRecord,
    ) -> None:
        self._directory = directory
        self._record = record
        self._task = task
        self._me = feature_key
        self._settings = settings
        self._progress = progress
        self._pair = load_or_create(keys_folder(settings.home), feature_key)
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Take this party's place in the task's record."""

    @abstractmethod
    def connect(self) -> tuple[str, Transport]:
        """Open this party's transport; return it with the host's feature key."""

    @abstractmethod
    def host_public_key(self) -> bytes | None:
        """Return the host's public key; None before `connect`."""

    def host_moved(self) -> bool:
        """Whether the host is announced at another address than the one we connected to."""
        return False

    def withdraw(self) -> None:  # noqa: B027 - only a host has something to take back
        """Take back what was announced."""


class HostDoor(Door):
    """Opens the host's socket and announces it."""

    def _open(self) -> None:
        self._directory.store.claim_host(self._task.id, self._me)

    def connect(self) -> tuple[str, Transport]:
        """Listen, and let the collaborators know where."""
        encrypted, advertise = self._settings.encryption, self._settings.advertise
        if advertise and not encrypted:
            only_loopback(self._me, advertise)
        transport = HostTransport(
            self._me,
            bind=self._settings.bind,
            key=self._pair,
            doorkeeper=self._doorkeeper(),
            plain_parties=None if encrypted else self._task.feature_keys,
            max_message_bytes=self._settings.max_message_bytes + HEADER_BYTES,
        )
        told = f"tcp://{advertise}" if advertise else transport.endpoint
        self._directory.announce_host(self._task.id, self._me, told if encrypted else PLAIN + told, self._pair.public)
        self._progress.say(
            f"{self._me} listens at {transport.endpoint}" + (f", told as {told}" * (told != transport.endpoint))
        )
        return self._me, transport

    def _doorkeeper(self) -> GuestList:
        return GuestList(self._directory, self._task.id, known=self._record.reporter.known)

    def host_public_key(self) -> bytes | None:
        """Return this party's own key."""
        return self._pair.public

    def withdraw(self) -> None:
        """Say that this host listens no more."""
        self._record.withdraw()


class CollaboratorDoor(Door):
    """Finds the host and connects to it."""

    _address: HostAddress | None = None

    def _open(self) -> None:
        self._directory.announce_collaborator(self._task.id, self._me, self._pair.public)

    @property
    def _patience_s(self) -> float:
        """How long to wait for the host, in seconds; 0: for ever."""
        return self._settings.gather_timeout_s

    @property
    def _notice_every_s(self) -> float:
        """How often to tell that the host is waited for, in seconds."""
        return self._settings.notice_every_s

    def _look(self) -> None:
        """Raise what ends the wait for the host."""
        self._record.look()
        if self._record.is_completed():
            raise AlreadyCompleted
        check_not_over(self._record.task(), self._me)

    def _find(self) -> HostAddress | None:
        """Return where the host is; None while there is none to connect to."""
        return host_in(self._record.task())

    def _check(self, address: HostAddress) -> None:
        """Refuse to connect to a host that is not the right one."""

    def connect(self) -> tuple[str, Transport]:
        """Wait until the host is up, and connect."""
        limit = self._patience_s
        began = time.monotonic()
        next_notice = began + self._notice_every_s
        while (address := self._find()) is None:
            self._look()
            waited = time.monotonic() - began
            if limit and waited >= limit:
                raise PeerTimeout(
                    f"no host was started within {limit:.0f} s",
                    party=self._me,
                    phase="gathering the parties",
                    expected=f"a host of task {self._task.id} with the same HETEROFED_HOME",
                    advice="Start the host, or wait longer (HETEROFED_GATHER_TIMEOUT_S, 0 for ever).",
                )
            if time.monotonic() >= next_notice:
                of = f" of {limit:.0f}" if limit else ""
                self._progress.say(f"waiting for the host of task {self._task.id} ({waited:.0f}{of} s)")
                next_notice += self._notice_every_s
            time.sleep(LOOK_FOR_HOST_S)
        self._check(address)
        self._address = address
        encrypted = not address.endpoint.startswith(PLAIN)
        if encrypted is not self._settings.encryption:
            raise ConfigError(
                f"the host runs {'with' if encrypted else 'without'} encryption, and {self._me} does not",
                party=self._me,
                expected="the same at all parties",
                advice="Set HETEROFED_ENCRYPTION alike; it is off for measurements on one machine only.",
            )
        transport = CollaboratorTransport(
            self._me,
            host_party=address.feature_key,
            endpoint=address.endpoint.removeprefix(PLAIN),
            host_public_key=address.public_key,
            key=self._pair,
            encrypted=encrypted,
            max_message_bytes=self._settings.max_message_bytes + HEADER_BYTES,
        )
        return address.feature_key, transport

    def host_public_key(self) -> bytes | None:
        """Return the key of the host that we connected to."""
        return self._address.public_key if self._address is not None else None

    def host_moved(self) -> bool:
        """Whether the host is announced at another address than the one we connected to."""
        try:
            now = host_in(self._record.task())
        except HeterofedError:
            return False  # the look at the record says so
        return now is not None and now != self._address


def check_not_over(task: Task, feature_key: str) -> None:
    """Refuse a task that is over.

    Raises:
        ConfigError: it is.
    """
    why = task.why_over()
    if why is not None:
        raise ConfigError(
            f"task {task.id} {why}",
            party=feature_key,
            expected="a task that is not over",
            advice="Create a new one with `heterofed task create`.",
        )

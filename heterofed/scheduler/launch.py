"""From a task id to a running party: looks the task up, opens the sockets, and says clearly how it ended."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, PeerTimeout, TaskAborted
from heterofed.files import make_folder, refused
from heterofed.metrics.progress import Progress, logger, make_progress, show_logs
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.plainly import print_errors_plainly
from heterofed.scheduler.seat import TERMINATED, AlreadyCompleted, Seat, TaskResult
from heterofed.tasks.directory import Directory, HostAddress, open_directory
from heterofed.tasks.guests import GuestList
from heterofed.tasks.model import PartyStatus, Task, TaskStatus
from heterofed.wire.headers import HEADER_BYTES
from heterofed.wire.keys import load_or_create
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport, only_loopback

if TYPE_CHECKING:  # it brings torch, which those who only match ids do without
    from heterofed.scheduler.base import Scheduler

PLAIN = "plain+"
"""Before the endpoint of a host without encryption, in the task's record."""

LOOK_FOR_HOST_S = 0.3
"""How often a collaborator asks the directory whether the host is up."""


def launch(scheduler: Scheduler, task_id: str, *, host: bool, recover: bool = False) -> TaskResult:
    """Run a scheduler as a party of a task, over the network.

    Args:
        scheduler: a fresh one.
        task_id: as `heterofed task create` printed it.
        host: whether it is the host.
        recover: whether it goes on from the newest checkpoint that all parties hold.

    Raises:
        HeterofedError: the task cannot go on; as an uncaught error of a script it prints as one message.
    """
    check_constructed(scheduler)
    from heterofed.scheduler.processes import on_all_processes  # these bring torch, as the scheduler has
    from heterofed.training.threads import use_threads

    use_threads(scheduler.settings.threads)
    return on_all_processes(scheduler, task_id, lambda: _launch_here(scheduler, task_id, host, recover))


def _launch_here(scheduler: Scheduler, task_id: str, host: bool, recover: bool) -> TaskResult:
    if recover and open_directory(scheduler.settings).find(task_id).status is TaskStatus.COMPLETED:
        show_logs(scheduler.settings.progress)
        return scheduler.completed_before(task_id)
    with seat_in(task_id, scheduler.feature_key, scheduler.settings, host=host, name=scheduler.name) as seat:
        return scheduler.take_part(seat, recover=recover)


@contextmanager
def seat_in(
    task_id: str, feature_key: str, settings: Settings, *, host: bool, name: str | None = None
) -> Iterator[Seat]:
    """Give a party its place in a task of this machine's store, and free it at the end.

    Args:
        task_id: as `heterofed task create` printed it.
        feature_key: the party.
        settings: where the store is, and how to listen.
        host: whether it is the host.
        name: what people call the run; the task's name by default.

    Raises:
        ConfigError: there is no such task or party, it may not start, or it runs already.
    """
    show_logs(settings.progress)
    print_errors_plainly()
    if not isinstance(task_id, str) or not task_id:
        raise ConfigError(f"task_id is {task_id!r}", expected="the id that `heterofed task create` printed")
    directory = open_directory(settings)
    task = directory.find(task_id)
    _check_may_start(task, feature_key)
    with ended_by_sigterm(), ExitStack() as at_the_end:
        path = make_folder(settings.home / "running") / f"{task_id}-{feature_key}.lock"
        with refused(path):  # outside, because a Timeout is an OSError too
            try:
                at_the_end.enter_context(FileLock(path).acquire(timeout=0))
            except Timeout:
                raise ConfigError(
                    f"another process of this machine already runs as {feature_key} in task {task_id}",
                    party=feature_key,
                    expected="a feature_key of its own for every party",
                    advice="Wait for it or stop it; if it is another party, give each its own feature_key.",
                ) from None
        progress = make_progress(settings.progress, feature_key)
        open_door = _HostDoor if host else _CollaboratorDoor
        door = open_door(directory, task, feature_key, settings, progress)
        at_the_end.callback(door.withdraw)
        yield Seat(
            task_id=task_id,
            task_name=name or task.name,
            feature_key=feature_key,
            parties=task.feature_keys,
            connect=door.connect,
            settings=settings,
            progress=progress,
            record=StoreRecord(directory, task, feature_key),
            host_moved=door.host_moved,
        )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as an exception, so that the other parties are told; where that can be arranged."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # only the main thread may, and whoever has a handler knows what it does
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class StoreRecord:
    """Keeps a task's course in the task store.

    The record is for people: when it cannot be written, training goes on and a warning says so.

    Args:
        directory: where the store is.
        task: the task as it was at the start.
        feature_key: this party.
    """

    def __init__(self, directory: Directory, task: Task, feature_key: str) -> None:
        self._directory = directory
        self._task_id = task.id
        self._me = feature_key
        # What had failed before we started is old news: its people may be about to start it again.
        self._old_failures = {each.feature_key for each in task.parties if each.status is PartyStatus.FAILED}
        self._old_task_failure = task.status is TaskStatus.FAILED
        self._unreadable = False

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        """Note the status of the whole task."""
        try:
            self._directory.store.move(self._task_id, status, reason)
        except HeterofedError as error:
            if status is TaskStatus.FAILED and self._is(TaskStatus.CANCELLED):
                return  # that is why it failed
            logger.warning("the task's record was not updated: %s", error)

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        """Note the status of this party."""
        try:
            self._directory.store.set_party(self._task_id, self._me, status=status, reason=reason)
        except HeterofedError as error:
            logger.warning("the task's record was not updated: %s", error)

    def log(self, text: str) -> None:
        """Keep a line with the task."""
        try:
            self._directory.store.log(self._task_id, self._me, text)
        except HeterofedError as error:
            logger.warning("the task's log was not written: %s", error)

    def is_completed(self) -> bool:
        """Return whether the store says that the task is completed."""
        return self._is(TaskStatus.COMPLETED)

    def _is(self, status: TaskStatus) -> bool:
        try:
            return self._directory.find(self._task_id).status is status
        except HeterofedError:
            return False

    def look(self) -> None:
        """Raise TaskAborted if another party failed since we started, or the task was cancelled."""
        try:
            task = self._directory.find(self._task_id)
        except HeterofedError as error:
            if not self._unreadable:
                logger.warning("the task's record cannot be read: %s", error)
            self._unreadable = True
            return
        self._unreadable = False
        if task.status is TaskStatus.CANCELLED:
            raise TaskAborted(f"task {task.id} was cancelled" + (f": {task.reason}" if task.reason else ""))
        for party in task.parties:
            if party.status is not PartyStatus.FAILED:
                self._old_failures.discard(party.feature_key)
            elif party.feature_key not in self._old_failures and party.feature_key != self._me:
                raise TaskAborted(f"ended the task: {party.reason}", party=party.feature_key)
        if task.status is not TaskStatus.FAILED:
            self._old_task_failure = False
        elif not self._old_task_failure:
            raise TaskAborted(f"task {task.id} failed: {task.reason}")


class _Door(ABC):
    """What both roles know of the way to the others."""

    def __init__(
        self, directory: Directory, task: Task, feature_key: str, settings: Settings, progress: Progress
    ) -> None:
        self._directory = directory
        self._task = task
        self._me = feature_key
        self._settings = settings
        self._progress = progress
        self._pair = load_or_create(settings.home / "keys", feature_key)
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Take this party's place in the task's record."""

    @abstractmethod
    def connect(self) -> tuple[str, Transport]:
        """Open this party's transport; return it with the host's feature key."""

    def host_moved(self) -> bool:
        """Whether the host is announced at another address than the one we connected to."""
        return False

    def withdraw(self) -> None:  # noqa: B027 - only a host has something to take back
        """Take back what was announced."""


class _HostDoor(_Door):
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
            doorkeeper=GuestList(self._directory, self._task.id),
            plain_parties=None if encrypted else self._task.feature_keys,
            max_message_bytes=self._settings.max_message_bytes + HEADER_BYTES,
        )
        told = f"tcp://{advertise}" if advertise else transport.endpoint
        self._directory.announce_host(self._task.id, self._me, told if encrypted else PLAIN + told, self._pair.public)
        self._progress.say(
            f"{self._me} listens at {transport.endpoint}" + (f", told as {told}" * (told != transport.endpoint))
        )
        return self._me, transport

    def withdraw(self) -> None:
        """Say that this host listens no more."""
        try:
            self._directory.withdraw_host(self._task.id, self._me)
        except HeterofedError as error:
            logger.warning("the host's address was not withdrawn: %s", error)


class _CollaboratorDoor(_Door):
    """Finds the host and connects to it."""

    _address: HostAddress | None = None

    def _open(self) -> None:
        self._record = StoreRecord(self._directory, self._task, self._me)
        self._directory.announce_collaborator(self._task.id, self._me, self._pair.public)

    def connect(self) -> tuple[str, Transport]:
        """Wait until the host is up, and connect."""
        limit = self._settings.gather_timeout_s
        began = time.monotonic()
        next_notice = began + self._settings.notice_every_s
        while (address := self._directory.host_of(self._task.id)) is None:
            self._record.look()
            if self._record.is_completed():
                raise AlreadyCompleted
            _check_not_over(self._directory.find(self._task.id), self._me)
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
                self._progress.say(f"waiting for the host of task {self._task.id} ({waited:.0f} of {limit:.0f} s)")
                next_notice += self._settings.notice_every_s
            time.sleep(LOOK_FOR_HOST_S)
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

    def host_moved(self) -> bool:
        """Whether the host is announced at another address than the one we connected to."""
        try:
            now = self._directory.host_of(self._task.id)
        except HeterofedError:
            return False  # the look at the record says so
        return now is not None and now != self._address


def _check_may_start(task: Task, feature_key: str) -> None:
    party = task.party(feature_key)
    if party.status is PartyStatus.REJECTED:
        raise ConfigError(
            f"the data check of task {task.id} said no: {party.reason}",
            party=feature_key,
            expected="data that DataChecker.verify_data() accepts",
            advice="Mend the data and run the check again.",
        )
    _check_not_over(task, feature_key)


def _check_not_over(task: Task, feature_key: str) -> None:
    why = task.why_over()
    if why is not None:
        raise ConfigError(
            f"task {task.id} {why}",
            party=feature_key,
            expected="a task that is not over",
            advice="Create a new one with `heterofed task create`.",
        )

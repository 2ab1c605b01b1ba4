"""From a task id to a running party: looks the task up, opens the sockets, and says clearly how it ended."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, PeerTimeout
from heterofed.files import make_folder, refused
from heterofed.metrics.progress import Progress, make_progress, show_logs
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.plainly import print_errors_plainly
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.reporter import PATIENCE_S, SHORT_PATIENCE_S
from heterofed.scheduler.seat import TERMINATED, AlreadyCompleted, Seat, TaskResult
from heterofed.tasks.directory import Directory, HostAddress, host_in, open_directory
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
    if recover and (task := open_directory(scheduler.settings, task_id).find(task_id)).status is TaskStatus.COMPLETED:
        show_logs(scheduler.settings.progress)
        scheduler._obey_completed(task)
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
    directory = open_directory(settings, task_id)
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
        record = StoreRecord(directory, task, feature_key, upload=settings.upload)
        at_the_end.push(_when_all_is_said(record))
        open_door = _HostDoor if host else _CollaboratorDoor
        door = open_door(directory, task, feature_key, settings, progress, record)
        at_the_end.callback(door.withdraw)
        yield Seat(
            task_id=task_id,
            task_name=name or task.name,
            feature_key=feature_key,
            parties=task.feature_keys,
            connect=door.connect,
            settings=settings,
            progress=progress,
            record=record,
            host_moved=door.host_moved,
            rounds=task.rounds,
            options=task.options,
            uncertainty=task.uncertainty,
        )


def _when_all_is_said(record: StoreRecord) -> Callable[..., None]:
    """Return what waits, at the end of a party, for its last words to arrive; not for long where it was told to end."""

    def wait(kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        hurried = kind is not None and not issubclass(kind, Exception)
        record.reporter.close(SHORT_PATIENCE_S if hurried else PATIENCE_S)

    return wait


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


class _Door(ABC):
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
            doorkeeper=GuestList(self._directory, self._task.id, known=self._record.reporter.known),
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
        self._record.withdraw()


class _CollaboratorDoor(_Door):
    """Finds the host and connects to it."""

    _address: HostAddress | None = None

    def _open(self) -> None:
        self._directory.announce_collaborator(self._task.id, self._me, self._pair.public)

    def connect(self) -> tuple[str, Transport]:
        """Wait until the host is up, and connect."""
        limit = self._settings.gather_timeout_s
        began = time.monotonic()
        next_notice = began + self._settings.notice_every_s
        while (address := host_in(self._record.task())) is None:
            self._record.look()
            if self._record.is_completed():
                raise AlreadyCompleted
            _check_not_over(self._record.task(), self._me)
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
            now = host_in(self._record.task())
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

"""From a task id to a running party: looks the task up, opens the sockets, and says clearly how it ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.files import held
from heterofed.metrics.progress import Progress, logger, make_progress, show_logs
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.doors import CollaboratorDoor, Door, HostDoor, check_not_over
from heterofed.scheduler.plainly import interrupts_plainly, print_errors_plainly
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.reporter import PATIENCE_S, SHORT_PATIENCE_S
from heterofed.scheduler.seat import TERMINATED, Seat, TaskResult
from heterofed.tasks.directory import Directory, open_directory, running_lock
from heterofed.tasks.model import PartyStatus, Task, TaskStatus

if TYPE_CHECKING:  # it brings torch, which those who only match ids do without
    from heterofed.scheduler.base import Scheduler

GO_ON = "start all parties again with recover=True (--recover)"
"""What a user does after a party was stopped."""

OpenDoor = Callable[[Directory, Task, str, Settings, Progress, StoreRecord], Door]
"""Takes a party's place in a task's record, and knows the way to the others."""


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
    from heterofed.scheduler.replicas.processes import on_all_processes  # these bring torch, as the scheduler has
    from heterofed.training.threads import use_threads

    use_threads(scheduler.settings.threads)
    return on_all_processes(scheduler, task_id, lambda: _launch_here(scheduler, task_id, host, recover))


def _launch_here(scheduler: Scheduler, task_id: str, host: bool, recover: bool) -> TaskResult:
    if recover and (task := open_directory(scheduler.settings, task_id).find(task_id)).status is TaskStatus.COMPLETED:
        show_logs(scheduler.settings.progress)
        return scheduler.completed_before(task_id, task)
    with seat_in(
        task_id, scheduler.feature_key, scheduler.settings, host=host, name=scheduler.name, go_on=GO_ON
    ) as seat:
        return scheduler.take_part(seat, recover=recover)


def _check_may_start(task: Task, feature_key: str) -> None:
    party = task.party(feature_key)
    if party.status is PartyStatus.REJECTED:
        raise ConfigError(
            f"the data check of task {task.id} said no: {party.reason}",
            party=feature_key,
            expected="data that DataChecker.verify_data() accepts",
            advice="Mend the data and run the check again.",
        )
    check_not_over(task, feature_key)


@contextmanager
def seat_in(
    task_id: str,
    feature_key: str,
    settings: Settings,
    *,
    host: bool,
    name: str | None = None,
    check: Callable[[Task, str], None] = _check_may_start,
    make_record: Callable[..., StoreRecord] = StoreRecord,
    open_door: OpenDoor | None = None,
    go_on: str | None = None,
) -> Iterator[Seat]:
    """Give a party its place in a task of this machine's store, and free it at the end.

    Args:
        task_id: as `heterofed task create` printed it.
        feature_key: the party.
        settings: where the store is, and how to listen.
        host: whether it is the host.
        name: what people call the run; the task's name by default.
        check: refuses a task that this party may not start in.
        make_record: keeps the task's course; arguments as `StoreRecord`.
        open_door: the way to the others; by default that of its role.
        go_on: what the user does to go on after SIGTERM or Ctrl-C.

    Raises:
        ConfigError: there is no such task or party, it may not start, or it runs already.
    """
    show_logs(settings.progress)
    print_errors_plainly()
    if not isinstance(task_id, str) or not task_id:
        raise ConfigError(f"task_id is {task_id!r}", expected="the id that `heterofed task create` printed")
    directory = open_directory(settings, task_id)
    task = directory.find(task_id)
    check(task, feature_key)
    with _says_that_it_was_stopped(feature_key, go_on), ended_by_sigterm(), ExitStack() as at_the_end:
        taken = ConfigError(
            f"another process of this machine already runs as {feature_key} in task {task_id}",
            party=feature_key,
            expected="a feature_key of its own for every party",
            advice="Wait for it or stop it; if it is another party, give each its own feature_key.",
        )
        at_the_end.enter_context(held(running_lock(settings.home, task_id, feature_key), taken))
        progress = make_progress(settings.progress, feature_key)
        record = make_record(directory, task, feature_key, upload=settings.upload)
        at_the_end.push(_when_all_is_said(record))
        door = (open_door or (HostDoor if host else CollaboratorDoor))(
            directory, task, feature_key, settings, progress, record
        )
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
            host_public_key=door.host_public_key,
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
def _says_that_it_was_stopped(feature_key: str, go_on: str | None) -> Iterator[None]:
    """Make it a party's last line that SIGTERM or Ctrl-C has stopped it: no traceback says so."""
    try:
        with interrupts_plainly():
            yield
    except (KeyboardInterrupt, SystemExit) as told:
        if isinstance(told, KeyboardInterrupt) or told.code == TERMINATED:
            what = "was interrupted" if isinstance(told, KeyboardInterrupt) else "was told to end (SIGTERM)"
            logger.warning("%s %s%s", feature_key, what, f"; to go on, {go_on}" if go_on else "")
        raise


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

"""A party that torchrun has started as several processes: the first takes part in the task, the others follow it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from heterofed.errors import ConfigError, TaskAborted, TaskFailed
from heterofed.metrics.progress import NoProgress, logger
from heterofed.scheduler.manifest import results_folder
from heterofed.scheduler.replicas.following import Follower
from heterofed.scheduler.replicas.sharing import Leader
from heterofed.scheduler.replicas.sharing_words import End
from heterofed.scheduler.seat import TERMINATED, Seat, TaskRecord, TaskResult
from heterofed.training.team import Team, as_limit
from heterofed.wire.transport import Transport

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

LAST_WORD = timedelta(seconds=5)
"""How long the first process takes to tell the others that the task has failed."""

PARTING = timedelta(seconds=10)
"""How long the others then wait for the first one to end, so that it is the one that says why."""


def on_all_processes(party: Scheduler, task_id: str, run: Callable[[], TaskResult]) -> TaskResult:
    """Let the first process run a party's part in a task, and the others compute with it; where there are several.

    Args:
        party: this process's object of the party.
        task_id: the task.
        run: takes part in it; called in the first process only.

    Returns:
        The result, the same in all processes.

    Raises:
        HeterofedError: as `run` in the first process. In the others TaskAborted, or what has gone wrong there.
    """
    team = Team.join(party.settings.gather_timeout_s)
    if team is None:
        return run()
    if party.models_after_alignment:
        raise ConfigError(
            f"{type(party).__name__} makes its models after the matching, and this party has {team.size} processes",
            expected="one process, or a class that makes its models before",
        )
    return _follow(party, team, task_id) if team.rank else _lead(party, team, task_id, run)


def _lead(party: Scheduler, team: Team, task_id: str, run: Callable[[], TaskResult]) -> TaskResult:
    with _first_signal_counts(team):
        try:
            leader = Leader(party, team)
            leader.meet(_told(party, task_id), as_limit(party.settings.gather_timeout_s))
            if party.own_batches:
                raise ConfigError(
                    f"{type(party).__name__} chooses its own batches, and this party has {team.size} processes",
                    party=party.feature_key,
                    expected="load_batch in the place of iterate_*, so that batches can be shared",
                    advice="Write load_batch, or start the script without torchrun.",
                )
            party._replicas = leader
            result = run()
            tables = {name: table.rows() for name, table in party._metric_sets.items()}
            files = tuple(map(str, result.files))
            leader.part(End(True, leader.has_begun, result.rounds, str(result.out_dir), files, tables))
        except BaseException:
            team.say_at_last(End(False), LAST_WORD)
            raise
    return result


def _follow(party: Scheduler, team: Team, task_id: str) -> TaskResult:
    logger.setLevel(logging.ERROR)  # the first process says the rest
    if party.out_dir is None:
        party.out_dir = results_folder(task_id, party.feature_key)
    party._seat = Seat(
        task_id=task_id,
        task_name=party.name or task_id,
        feature_key=party.feature_key,
        parties=(),
        connect=_nobody,
        settings=party.settings,
        progress=NoProgress(party.feature_key),
        record=TaskRecord(),  # the first process has the task's
    )
    follower = Follower(party, team)
    party._replicas = follower
    with _first_process_is_asked():
        try:
            follower.start(_told(party, task_id))
            end = follower.obey()
        except TaskFailed as error:
            error.located(party=party.feature_key)
            raise
        if not end.completed:
            team.wait_for_the_end(PARTING)
            raise follower.failure or TaskAborted(
                "process 0 of this party has ended the task", party=party.feature_key, advice="Its output says why."
            )
        team.leave()
    for name, rows in (end.tables or {}).items():
        party._metric_sets[name].replace_rows(rows)
    files = tuple(map(Path, end.files))
    return TaskResult(task_id, party.feature_key, end.rounds, Path(end.out_dir), files, dict(party._metric_sets))


def _told(party: Scheduler, task_id: str) -> str:
    """Return which party of which task this process's is."""
    return f"{party.feature_key} ({type(party).__name__}) of task {task_id}"


# --- signals ----------------------------------------------------------------------------------------------------------


@contextmanager
def _first_signal_counts(team: Team) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the body once: torchrun and a terminal send more of them while peers are told."""

    def end(number: int, frame: object) -> None:
        if team.broken and number == signal.SIGTERM:
            return  # torchrun has seen it too; the body ends by it already
        for each in kept:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if team.gone():  # which is why torchrun ends the rest
            raise team.lost(None)
        raise SystemExit(TERMINATED)

    with _handled({signal.SIGINT: end, signal.SIGTERM: end}) as kept:
        yield


@contextmanager
def _first_process_is_asked() -> Iterator[None]:
    """Leave Ctrl-C to the first process; let SIGTERM end the body as an exception."""

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    with _handled({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: end}):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, object]) -> Iterator[list[signal.Signals]]:
    """Set handlers for the body, in the place of Python's own only; yield the signals that have one."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if threading.current_thread() is not threading.main_thread():
        yield []  # only the main thread may
        return
    kept = [each for each in handlers if signal.getsignal(each) == usual[each]]
    for each in kept:
        signal.signal(each, handlers[each])  # type: ignore[arg-type]  # a handler, as signal() takes them
    try:
        yield kept
    finally:
        for each in kept:
            signal.signal(each, usual[each])  # type: ignore[arg-type]  # as above


# --- the seat of a process that has none ------------------------------------------------------------------------------


def _nobody() -> tuple[str, Transport]:
    """Refuse to connect.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("only the first process of a party talks to others")

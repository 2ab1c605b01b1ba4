"""A whole task in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from heterofed.errors import ConfigError, HeterofedError, PeerTimeout, TaskAborted, WireError
from heterofed.metrics.chorus import Chorus
from heterofed.metrics.progress import make_progress, show_logs
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.collaborator import CollaboratorScheduler
from heterofed.scheduler.host import HostScheduler
from heterofed.scheduler.local_record import NO_TASK, SharedRecord
from heterofed.scheduler.plainly import interrupts_plainly
from heterofed.scheduler.seat import Seat, TaskResult, as_failure
from heterofed.simulate.ends import memory_ends, zeromq_ends
from heterofed.simulate.turns import InTurn, Turn, get_state, set_state
from heterofed.wire.transport import Transport

JOIN_S = 30.0
"""How long collaborators may take to end after the host has."""


@dataclass(frozen=True)
class LocalRun:
    """What `run_locally` gives: each party's result."""

    parties: dict[str, TaskResult]
    """feature key -> result, host first."""

    @property
    def host(self) -> TaskResult:
        """The host's result."""
        return next(iter(self.parties.values()))


@interrupts_plainly()
def run_locally(
    host: HostScheduler,
    *collaborators: CollaboratorScheduler,
    task_id: str = NO_TASK,
    seed: int | None = None,
    transport: Literal["memory", "zeromq"] | Callable[[Sequence[str]], dict[str, Transport]] = "memory",
    recover: bool = False,
) -> LocalRun:
    """Run one task with all its parties in this process and return their results.

    The parties take turns: one computes while the others wait for messages, each with random generators of its own.
    So a run with the same seed gives the same bits, as the same parties in processes of their own would.

    Args:
        host: a fresh host.
        collaborators: 1 to 8 fresh collaborators.
        task_id: names the run; results go to each scheduler's `out_dir`, or `runs/<task id>/<feature key>`. Where it is
            the id of a task, of this machine or of a hub, that task's record is kept as with `launch_task`.
        seed: of torch's, numpy's and Python's generators of each party; None draws it from torch's.
        transport: "memory", or "zeromq" for real encrypted sockets on this machine; or a function that is given the
            feature keys, host first, and returns each party's end of a transport of your own.
        recover: whether the parties go on from the newest checkpoint that all of them hold, if there is one.

    Raises:
        HeterofedError: what ended the task, from the party where it began.
    """
    schedulers: Sequence[Scheduler] = (host, *collaborators)
    for each in schedulers:
        check_constructed(each)
    keys = [each.feature_key for each in schedulers]
    if not 1 <= len(collaborators) <= 8:
        raise ConfigError(f"{len(collaborators)} collaborators", expected="1 to 8")
    if len(set(keys)) < len(keys):
        raise ConfigError(f"feature keys {', '.join(keys)} repeat", expected="a feature_key of its own for every party")
    show_logs(host.settings.progress)
    base = int(torch.randint(2**31, ()).item()) if seed is None else seed
    record = SharedRecord(host.settings, task_id, keys)
    make_ends = {"memory": memory_ends, "zeromq": zeromq_ends}[transport] if isinstance(transport, str) else transport
    ends = make_ends(keys)
    chorus = Chorus()
    turn = Turn([base + index for index in range(len(keys))])
    results: dict[str, TaskResult] = {}
    errors: dict[str, BaseException] = {}

    def run(index: int) -> None:
        scheduler = schedulers[index]
        key = scheduler.feature_key
        end = InTurn(ends[key], turn, index)
        seat = Seat(
            task_id=task_id,
            task_name=scheduler.name or task_id,
            feature_key=key,
            parties=tuple(keys),
            connect=lambda: (keys[0], end),
            settings=scheduler.settings,
            progress=make_progress(scheduler.settings.progress if index == 0 else "off", key, chorus),
            record=record.of(key),
            clock=lambda: time.monotonic() / len(keys),  # they compute one after another: a step takes n times as long
            rounds=None if record.task is None else record.task.rounds,
            options=None if record.task is None else record.task.options,
            uncertainty=None if record.task is None else record.task.uncertainty,
        )
        with turn.taken(index):
            try:
                results[key] = scheduler.take_part(seat, recover=recover)
            except BaseException as error:
                errors[key] = error
                record.failed.setdefault(key, as_failure(error).for_peers())  # it will not come again
            finally:
                end.close()

    threads = [
        threading.Thread(target=run, args=(index,), name=f"heterofed {keys[index]}") for index in range(1, len(keys))
    ]
    outside = get_state()
    for thread in threads:
        thread.start()
    try:
        run(0)
    finally:
        for thread in threads:
            thread.join(JOIN_S)
        set_state(outside)
        record.close()
    if errors:
        raise root_of(errors, keys)
    late = [key for key in keys if key not in results]
    if late:
        raise PeerTimeout(
            f"has not ended within {JOIN_S:.0f} s after the host",
            party=", ".join(late),
            expected="every party to end with the host",
            advice="See what it does; its thread still runs.",
        )
    return LocalRun({key: results[key] for key in keys})


def root_of(errors: dict[str, BaseException], keys: Sequence[str]) -> BaseException:
    """Return the error that the others follow from: an abort or a broken link is never the first one."""
    found = [errors[key] for key in keys if key in errors]
    for error in found:
        if not isinstance(error, HeterofedError):
            return error
    for followers in ((TaskAborted, WireError), (TaskAborted,)):
        for error in found:
            if not isinstance(error, followers):
                return error
    return found[0]

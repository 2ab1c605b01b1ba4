"""All parties of a task in one process: for tests, notebooks, and trying a scheduler out before others see it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from heterofed.errors import ConfigError, HeterofedError, PeerTimeout, TaskAborted, WireError
from heterofed.metrics.progress import NoProgress, make_progress, show_logs
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.checks import check_constructed
from heterofed.scheduler.collaborator import CollaboratorScheduler
from heterofed.scheduler.host import HostScheduler
from heterofed.scheduler.local_record import NO_TASK, SharedRecord
from heterofed.scheduler.manifest import RunManifest
from heterofed.scheduler.predicting.audit_log import AuditLog
from heterofed.scheduler.predicting.loading import find_run
from heterofed.scheduler.predicting.opening import Absent, predicting
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.predicting.serve_limits import ServeLimits
from heterofed.scheduler.predicting.serving import Server
from heterofed.scheduler.seat import Seat, TaskRecord, TaskResult, as_failure
from heterofed.wire.keys import KeyPair
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Buffer, Delivery, Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport

AT_ONCE_S = 0.001
"""Enough for a send that does not have to wait for room."""

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
    make_ends = {"memory": _memory_ends, "zeromq": _zeromq_ends}[transport] if isinstance(transport, str) else transport
    ends = make_ends(keys)
    turn = _Turn([base + index for index in range(len(keys))])
    results: dict[str, TaskResult] = {}
    errors: dict[str, BaseException] = {}

    def run(index: int) -> None:
        scheduler = schedulers[index]
        key = scheduler.feature_key
        end = _InTurn(ends[key], turn, index)
        seat = Seat(
            task_id=task_id,
            task_name=scheduler.name or task_id,
            feature_key=key,
            parties=tuple(keys),
            connect=lambda: (keys[0], end),
            settings=scheduler.settings,
            progress=make_progress(scheduler.settings.progress, key) if index == 0 else NoProgress(key),
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
    outside = _get_state()
    for thread in threads:
        thread.start()
    try:
        run(0)
    finally:
        for thread in threads:
            thread.join(JOIN_S)
        _set_state(outside)
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


@contextmanager
def predict_locally(
    host: HostScheduler,
    *collaborators: CollaboratorScheduler,
    ids: Sequence[str] | None = None,
    absent: Absent = "fail",
    wait: float = 5.0,
) -> Iterator[Predictions]:
    """Predict with what a completed run has trained, all parties in this process, inside a `with` block.

    Args:
        host: of the run in its `out_dir`.
        collaborators: those that are there, each with the `out_dir` of its own run; the others are absent.
        ids: as in `HostScheduler.open_predictions`.
        absent: as there.
        wait: how long to wait for a party that is not given, in seconds.

    Raises:
        HeterofedError: what went wrong, from the party where it began.
    """
    manifest = find_run(host, "host", None)
    found = {each.feature_key: (each, find_run(each, "collaborator", manifest.task_id)) for each in collaborators}
    if strange := sorted(found.keys() - set(manifest.parties[1:])) or len(found) < len(collaborators):
        raise ConfigError(
            f"the collaborators are {', '.join(each.feature_key for each in collaborators)}",
            party=host.feature_key,
            expected=f"some of {', '.join(manifest.parties[1:])}, each once" + f" (not {strange})" * bool(strange),
        )
    if absent != "fail":
        wait = wait if found else 0.001
    hub = MemoryHub(host=host.feature_key)
    record = _UntilOver()
    errors: dict[str, BaseException] = {}

    def seat_of(party: Scheduler) -> Seat:
        end = hub.transport(party.feature_key)
        return Seat(
            task_id=manifest.task_id,
            task_name=manifest.task_name,
            feature_key=party.feature_key,
            parties=manifest.parties,
            connect=lambda: (host.feature_key, end),
            settings=party.settings,
            progress=NoProgress(party.feature_key),
            record=record,
        )

    def answer(party: CollaboratorScheduler, seat: Seat, run: RunManifest) -> None:
        try:
            Server(party, seat, run, ServeLimits(idle_s=0), AuditLog(None, run.task_id)).serve_one(0.0)
        except BaseException as error:
            errors[party.feature_key] = error
        finally:
            seat.connect()[1].close()

    threads = [
        threading.Thread(target=answer, args=(party, seat_of(party), run), name=f"heterofed {key}")
        for key, (party, run) in found.items()
    ]
    seat = seat_of(host)
    with ExitStack() as at_the_end:
        for thread in threads:
            thread.start()
            at_the_end.callback(thread.join, JOIN_S)
        try:
            with predicting(host, seat, manifest, ids, absent=absent, wait_s=wait) as predictions:
                yield predictions
        except (TaskAborted, WireError) as error:
            record.over = True
            at_the_end.close()
            raise root_of({**errors, host.feature_key: error}, manifest.parties) from None
        finally:
            record.over = True
            seat.connect()[1].close()


class _UntilOver(TaskRecord):
    """Ends the waits of those that the host could not tell that it has ended."""

    over = False

    def look(self) -> None:
        """Raise TaskAborted if it has."""
        if self.over:
            raise TaskAborted("the host has ended")


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


class _Turn:
    """Lets one party compute at a time, with random generators of its own.

    Args:
        seeds: one for each party.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._states = [_seeded_state(each) for each in seeds]

    @contextmanager
    def taken(self, party: int) -> Iterator[None]:
        """Hold the turn, with this party's generators."""
        with self._lock:
            _set_state(self._states[party])
            try:
                yield
            finally:
                self._states[party] = _get_state()

    @contextmanager
    def given_up(self, party: int) -> Iterator[None]:
        """Let the others compute while this party waits; called with the turn held."""
        self._states[party] = _get_state()
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            _set_state(self._states[party])


RandomState = tuple[torch.Tensor, object, object]


def _get_state() -> RandomState:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _set_state(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    random.setstate(state[1])  # type: ignore[arg-type]  # what getstate gave
    np.random.set_state(state[2])  # type: ignore[arg-type]  # what get_state gave


def _seeded_state(seed: int) -> RandomState:
    outside = _get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    state = _get_state()
    _set_state(outside)
    return state


class _InTurn(Transport):
    """A transport whose waits let the other parties compute."""

    def __init__(self, inner: Transport, turn: _Turn, index: int) -> None:
        self.party = inner.party
        self._inner = inner
        self._turn = turn
        self._index = index

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """As the inner transport.

        The turn is kept unless the queue is full: a gradient may leave from one of autograd's own threads, which the
        next party needs for its backward pass.
        """
        try:
            self._inner.send(to, frames, AT_ONCE_S)
        except PeerTimeout:
            with self._turn.given_up(self._index):
                self._inner.send(to, frames, timeout_s)

    def receive(self, timeout_s: float) -> Delivery | None:
        """As the inner transport."""
        with self._turn.given_up(self._index):
            return self._inner.receive(timeout_s)

    def down_for(self, party: str) -> float:
        """As the inner transport."""
        return self._inner.down_for(party)

    def close(self, linger_s: float = 2.0) -> None:
        """As the inner transport."""
        self._inner.close(linger_s)


def _memory_ends(keys: Sequence[str]) -> dict[str, Transport]:
    hub = MemoryHub(host=keys[0])
    return {key: hub.transport(key) for key in keys}


def _zeromq_ends(keys: Sequence[str]) -> dict[str, Transport]:
    pairs = {key: KeyPair.generate() for key in keys}
    host = HostTransport(keys[0], key=pairs[keys[0]], doorkeeper=_Listed({pairs[key].public: key for key in keys[1:]}))
    ends: dict[str, Transport] = {keys[0]: host}
    for key in keys[1:]:
        ends[key] = CollaboratorTransport(
            key, host_party=keys[0], endpoint=host.endpoint, host_public_key=pairs[keys[0]].public, key=pairs[key]
        )
    return ends


@dataclass(frozen=True)
class _Listed:
    """A doorkeeper with a fixed list."""

    parties: dict[bytes, str]

    def party_of(self, public_key: bytes) -> str | None:
        return self.parties.get(public_key)

"""Parties in threads of which one is killed at a word and started again, as processes would be, but in a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, partialmethod
from typing import Any

import pytest

from heterofed import HeterofedError, TaskAborted
from heterofed.metrics.progress import NoProgress
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import Seat, TaskRecord, TaskResult
from heterofed.simulate.turns import InTurn, Turn, seeded_state
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport

ENDS_WITHIN_S = 50.0
TASK = "task"
DOWN_S = 0.25
"""How long a party that was killed is away, longer than the pauses in which others look at their links."""


class Killed(BaseException):
    """Ends a party without a word, as SIGKILL does."""


@dataclass(frozen=True)
class Kill:
    """Where a party is killed: before, or right after, it says something for the n-th time."""

    party: str
    message: str
    nth: int = 1
    after: bool = False

    def __str__(self) -> str:
        return f"{self.party} {'after' if self.after else 'before'} {self.message} {self.nth}"


@dataclass
class Record:
    """What the task store would say."""

    statuses: list[TaskStatus] = field(default_factory=list)
    parties: dict[str, list[PartyStatus]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)


class PartyRecord(TaskRecord):
    """One party's view of it; a dead one writes nothing."""

    def __init__(self, record: Record, party: str) -> None:
        self._record = record
        self._me = party

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        if self._me not in self._record.dead:
            self._record.statuses.append(status)

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        if self._me in self._record.dead:
            return
        self._record.parties.setdefault(self._me, []).append(status)
        if status is PartyStatus.FAILED:
            self._record.failed[self._me] = reason or ""

    def log(self, text: str) -> None:
        """Nothing."""

    def is_completed(self) -> bool:
        return TaskStatus.COMPLETED in self._record.statuses

    def look(self) -> None:
        for party, reason in self._record.failed.items():
            if party != self._me:
                raise TaskAborted(f"ended the task: {reason}", party=party)


class Told(NoProgress):
    """Keeps what a party says to its user."""

    def __init__(self, party: str, lines: list[str]) -> None:
        super().__init__(party)
        self._lines = lines

    def say(self, text: str) -> None:
        self._lines.append(text)


class Federation:
    """Parties of one task, each in a thread of its own; they compute one after another.

    Args:
        make: feature key -> a fresh scheduler; the same folders every time.
        keys: feature keys, host first.
        seed: of the parties' generators.
        reseed: whether those of a party that was started again are others.
        recover: whether all parties look for checkpoints when they are first started.
    """

    def __init__(
        self,
        make: Callable[[str], Any],
        keys: Sequence[str],
        *,
        seed: int = 1,
        reseed: bool = True,
        recover: bool = False,
    ) -> None:
        self.hub = MemoryHub(host=keys[0])
        self.keys = tuple(keys)
        self.record = Record()
        self.said: dict[str, list[str]] = {key: [] for key in keys}
        self.schedulers: dict[str, Any] = {}
        self.results: dict[str, TaskResult] = {}
        self.errors: dict[str, BaseException] = {}
        self.ends: dict[str, Transport] = {}
        self.starts: dict[str, int] = dict.fromkeys(keys, 0)
        self._make = make
        self._seed = seed
        self._reseed = reseed
        self._recover = recover
        self._turn = Turn([seed + index for index in range(len(keys))])
        self._threads: dict[str, threading.Thread] = {}

    def start(self, key: str, *, recover: bool = False) -> None:
        """Start a party, or start it again."""
        self.record.dead.discard(key)
        self.starts[key] += 1
        if self.starts[key] > 1:
            index = self.keys.index(key)
            seed = 1000 * self.starts[key] if self._reseed else self._seed
            self._turn._states[index] = seeded_state(seed + index)
        thread = threading.Thread(target=self._run, args=(key, recover), name=f"{key} {self.starts[key]}", daemon=True)
        self._threads[key] = thread
        thread.start()

    def kill(self, key: str) -> None:
        """Cut a party off; called in its own thread, which has to raise then."""
        self.record.dead.add(key)
        self.ends[key].close()

    def await_end(self, key: str) -> None:
        """Wait until a party's thread has ended."""
        self._threads[key].join(ENDS_WITHIN_S)
        assert not self._threads[key].is_alive(), f"{key} did not end; {self.said}"

    def run(self) -> dict[str, TaskResult]:
        """Run all parties; start those again that are killed. Return everybody's result, or raise the first error."""
        for key in self.keys:
            self.start(key, recover=self._recover)
        deadline = time.monotonic() + ENDS_WITHIN_S
        while any(each.is_alive() for each in self._threads.values()) or self._dead():
            assert time.monotonic() < deadline, f"it did not end: {self.said}, {self.errors}"
            for key in self._dead():
                self._threads[key].join()
                time.sleep(DOWN_S)
                del self.errors[key]
                self.start(key, recover=True)
            time.sleep(0.01)
        if self.errors:
            raise next(iter(self.errors.values()))
        return {key: self.results[key] for key in self.keys}

    def _dead(self) -> list[str]:
        return [key for key, error in list(self.errors.items()) if isinstance(error, Killed)]

    def _connect(self, key: str) -> tuple[str, Transport]:
        self.ends[key] = self.hub.transport(key)
        return self.keys[0], InTurn(self.ends[key], self._turn, self.keys.index(key))

    def _run(self, key: str, recover: bool) -> None:
        index = self.keys.index(key)
        with self._turn.taken(index):
            scheduler = self._make(key)
            self.schedulers[key] = scheduler
            record = PartyRecord(self.record, key)
            seat = Seat(
                task_id=TASK,
                task_name=TASK,
                feature_key=key,
                parties=self.keys,
                connect=lambda: self._connect(key),
                settings=scheduler.settings,
                progress=Told(key, self.said[key]),
                record=record,
                clock=lambda: time.monotonic() / len(self.keys),
            )
            try:
                if recover and record.is_completed():  # as `launch` does
                    self.results[key] = scheduler.completed_before(TASK)
                else:
                    self.results[key] = scheduler.take_part(seat, recover=recover)
            except BaseException as error:
                self.errors[key] = error


@contextmanager
def killed(federation: Federation, *kills: Kill) -> Iterator[list[Kill]]:
    """Kill parties of a federation at what they say; yields the kills that have happened so far.

    Each kill waits for the one before it, and counts from there.
    """
    originals = {"send": Link.send, "tell": Link.tell}
    left, happened = list(kills), []
    counts: dict[str, int] = {}

    def said(how: str, self: Link, to: str, message: Any, timeout_s: float = 0.0) -> Any:
        original: Any = originals[how]
        kill = left[0] if left else None
        if kill is None or self.party != kill.party or type(message).__name__ != kill.message:
            return original(self, to, message, timeout_s)
        counts[self.party] = counts.get(self.party, 0) + 1
        due = counts[self.party] == kill.nth
        if due and not kill.after:
            _die(kill)
        answer = original(self, to, message, timeout_s)
        if due:
            _die(kill)
        return answer

    def _die(kill: Kill) -> None:
        happened.append(left.pop(0))
        counts.clear()
        federation.kill(kill.party)
        raise Killed(str(kill))

    with pytest.MonkeyPatch.context() as patch:
        for how in originals:
            patch.setattr(Link, how, partialmethod(partial(said, how)))
        yield happened


def run_with(federation: Federation, *kills: Kill) -> Mapping[str, TaskResult]:
    """Run a federation of which parties are killed; see that they were."""
    with killed(federation, *kills) as happened:
        results = federation.run()
    assert happened == list(kills), "some kill never came"
    return results


def first_error(federation: Federation) -> HeterofedError:
    """Return how a run ended that had to fail."""
    with pytest.raises(HeterofedError) as caught:
        federation.run()
    return caught.value

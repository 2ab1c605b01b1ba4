"""A party's place in one task: who takes part, how to reach the others, where progress and outcome go.

`launch_task` makes one from the task store and real sockets, `simulate.run_locally` from memory. A scheduler knows
only this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heterofed.config import Settings
from heterofed.errors import HeterofedError, PeerRestarted, TaskFailed
from heterofed.frames.messages import Matching, Reveal
from heterofed.metrics.progress import Progress
from heterofed.metrics.tables import Cell, MetricsTable
from heterofed.tasks.model import MIN_PARTIES, PartyStatus, TaskStatus
from heterofed.tasks.options import TrainerOptions, UncertaintyName
from heterofed.wire.transport import Transport


class AlreadyCompleted(Exception):
    """The task's record says that it is completed: this party's outputs were written before."""


class TaskRecord:
    """Where a task's course is kept for people to see; this one keeps nothing, others override what they keep.

    No call makes its caller wait for another machine.
    """

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        """Note the status of the whole task; only the host calls it."""

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        """Note the status of this party."""

    def begins_anew(self) -> None:
        """Note that all parties begin with the first round: what was kept of an earlier run is forgotten."""

    def log(self, text: str) -> None:
        """Keep a line that the user pushed."""

    def round_finished(self, round_: int, figures: Mapping[str, Cell] | None = None) -> None:
        """Note that this party has closed a round, and its "loss" and "seconds" where they are known."""

    def test_finished(self, round_: int, scores: Mapping[str, Cell]) -> None:
        """Note that the model of a round was tested; only the host calls it."""

    def swag_finished(self, round_: int) -> None:
        """Note that this party has collected the moments of a round."""

    def lost(self, party: str, reason: str) -> None:
        """Note that a party is away and waited for; only the host calls it."""

    def measured(self, set_: str, row: int, round_: int | None, values: Mapping[str, Cell]) -> None:
        """Keep a row of a metric set: its place there from 0, and the round in which it was recorded, if known."""

    def outputs(self, files: tuple[Path, ...], *, host: bool) -> None:
        """Keep those files of this party's results that its settings let out."""

    def look(self) -> None:
        """Raise TaskAborted if the record says that another party failed, or that the task was cancelled."""

    def look_for_cancel(self) -> None:
        """Raise TaskAborted if the record says that the task was cancelled; other ends are heard of from the peers."""

    def is_completed(self) -> bool:
        """Return whether the record says that the task is completed."""
        return False


TERMINATED = 128 + 15
"""Exit code of a process that SIGTERM has ended."""


class HostMoved(PeerRestarted):
    """The host was started again at another address."""


@dataclass
class Seat:
    """One party's place."""

    task_id: str
    task_name: str
    feature_key: str
    parties: tuple[str, ...]
    """Feature keys of all parties."""
    connect: Callable[[], tuple[str, Transport]]
    """Opens this party's transport and returns it with the host's feature key; may wait for the host."""
    settings: Settings
    progress: Progress
    record: TaskRecord
    clock: Callable[[], float] = time.monotonic
    """What deadlines are measured by, in seconds."""
    host_public_key: Callable[[], bytes | None] = lambda: None
    """The host's public key on the wire, as Z85 text, once this party is connected; None where there is no network."""
    host_moved: Callable[[], bool] = lambda: False
    """True when the host is at another address than the one we connected to."""
    rounds: int | None = None
    """How many rounds the task says; None: as many as the host's own code says."""
    options: TrainerOptions | None = None
    """What the task says of tests and checkpoints; None: as the parties' own code says."""
    uncertainty: UncertaintyName | None = None
    """What the task wants this party to collect after each round; None: as its own code says."""

    def matching(self, reveal: Reveal = "both") -> Matching:
        """Return how this party would match ids."""
        protocol: Literal["rsa", "ecdh"] = "ecdh" if self.settings.psi_protocol == "ecdh" else "rsa"
        return Matching(protocol, reveal, len(self.parties) > MIN_PARTIES and not self.settings.psi_pairwise)

    @property
    def others(self) -> tuple[str, ...]:
        """Feature keys of all parties but this one."""
        return tuple(key for key in self.parties if key != self.feature_key)


@contextmanager
def presence(seat: Seat, give_up: Callable[[HeterofedError], None]) -> Iterator[None]:
    """Frame a party's whole part in a task: its record says when it comes and how it ends.

    Args:
        seat: the party's place.
        give_up: called with what ended the body early; tells the peers and notes it.

    Raises:
        HeterofedError: as the body, or TaskFailed for an error that nobody expected, with that as its cause.
    """
    try:
        seat.record.party_is(PartyStatus.ONLINE)
        yield
        seat.record.party_is(PartyStatus.FINISHED)
    except BaseException as error:
        failure = as_failure(error)
        give_up(failure)
        if failure is error or not isinstance(error, Exception):
            raise
        raise failure from error
    finally:
        seat.progress.close()


def as_failure(error: BaseException) -> HeterofedError:
    """Return an error as the one that the other parties are told; one of ours is itself."""
    if isinstance(error, HeterofedError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return TaskFailed("its user interrupted it")
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return TaskFailed("its process was told to end (SIGTERM)")
    if not isinstance(error, Exception):
        return TaskFailed("its own code ended the process")
    return TaskFailed(f"stopped by an unexpected {type(error).__name__}", advice="Please report it with the traceback.")


@dataclass(frozen=True)
class TaskResult:
    """What a party has when its task is completed."""

    task_id: str
    feature_key: str
    rounds: int
    """Rounds trained."""
    out_dir: Path
    files: tuple[Path, ...]
    """What was written there."""
    metrics: dict[str, MetricsTable]
    """The metric sets of `register_metrics`, by name."""

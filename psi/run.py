"""What an initiator's and a responder's run have in common: phases, one use only, an end at the first error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from psi.entropy import Source
from psi.errors import BadMessage, UsedTwice
from psi.hashing import check_context
from psi.ids import check_ids
from psi.messages import Kind, Side, check_chunk_size, open_message


class Phase(Enum):
    """Where a run is; the value says it for people."""

    NEW = "not started"
    OFFERED = "waiting for the key offer"
    EXCHANGING = "signing the initiator's ids"
    TAGGING = "comparing tags"
    MATCHED = "waiting for the reveal"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Progress:
    """How far a run is, in elements.

    The initiator counts each own id twice (blinded, verified) and each tag of the peer once; the responder counts each
    signature and each own tag once. The reveal does not count.
    """

    done: int
    """Elements processed so far."""
    total: int
    """Elements of the whole run; 0 until both parties' numbers of ids are known."""


class Run(ABC):
    """One use of one role. Sans-I/O: bytes in, bytes out; not for several threads at a time.

    A fault in what the peer says ends the run: secrets are dropped and it takes nothing more. A wrong call of our own
    (too early, twice, ids that were not shared) raises and leaves the run as it was.
    """

    _side: ClassVar[Side]
    _allowed: ClassVar[Mapping[Phase, Kind]]
    """The one kind of message that may come in each phase; none in a phase that is not here."""

    def __init__(
        self, ids: Sequence[str], *, task: str, session: bytes, chunk: int, phase: Phase, source: Source
    ) -> None:
        check_context(task, session)
        check_chunk_size(chunk)
        self._ids = check_ids(ids)
        self._task = task
        self._session = session
        self._chunk = chunk
        self._phase = phase
        self._source = source
        self._run: bytes | None = None
        self._done = 0
        self._total = 0
        self._peer_count: int | None = None

    @property
    def progress(self) -> Progress:
        """Elements processed and expected, for a progress bar; equal numbers when all is computed."""
        return Progress(self._done, self._total)

    @property
    def peer_count(self) -> int | None:
        """How many ids the peer says it has; None before it said so. Each is a question about our ids."""
        return self._peer_count

    @property
    def finished(self) -> bool:
        """Whether the run is over, with a result that both sides hold."""
        return self._phase is Phase.FINISHED

    def close(self) -> None:
        """Give the run up wherever it is: drop its secrets and end its threads. May be called more than once.

        A finished run keeps its result.
        """
        if self._phase is not Phase.FINISHED:
            self._phase = Phase.FAILED
        self._forget()

    @abstractmethod
    def _forget(self) -> None:
        """Drop the secrets."""

    def _read(self, message: bytes) -> tuple[Kind, bytes, bytes]:
        """Open a message that may come now: (kind, run id, body)."""
        kind, run, body = open_message(message, self._side)
        allowed = self._allowed.get(self._phase)
        if kind is not allowed:
            wanted = f"only {_spoken(allowed)}" if allowed else "nothing more"
            raise BadMessage(
                f"the peer sent {_spoken(kind)} while this run is {self._phase.value}; expected {wanted}. "
                "A message was lost, repeated or moved: start a new run."
            )
        if self._run is not None and run != self._run:
            raise BadMessage(
                "the peer's message belongs to another run; expected this run's id. "
                "Do not mix runs, and start each with new objects at both parties."
            )
        return kind, run, body

    def _check_going_on(self) -> None:
        if self._phase is Phase.FAILED:
            raise UsedTwice(
                "this run failed earlier; expected no further use of it. Make a new object with a new session."
            )

    def _check_unfinished(self) -> None:
        """Before a message is taken: what comes after the end is refused and leaves the result as it was."""
        self._check_going_on()
        if self._phase is Phase.FINISHED:
            raise BadMessage(
                "a message came after the end of the run; expected nothing more. "
                "A message was repeated on the way, or the peer does not follow the protocol."
            )

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._phase = Phase.FAILED
            self._forget()
            raise


def _spoken(kind: Kind) -> str:
    return f"a {kind.name.lower().replace('_', ' ')} message"

"""What an initiator's and a responder's run have in common: phases, one use only, an end at the first error."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from psi.engines import CURVE_ENGINES, RSA_ENGINES
from psi.entropy import Source
from psi.errors import BadArgument, BadMessage, NotRevealed, NotYet, UsedTwice
from psi.hashing import Context, check_context
from psi.ids import check_ids
from psi.messages import (
    CONFIRM_BYTES,
    NO_RUN,
    Envelope,
    Kind,
    Reveal,
    Side,
    Terms,
    Writer,
    check_chunk_size,
    open_message,
)
from psi.oprf import ECDH, RSA, check_protocol
from psi.parallel import Workers

CHUNK_IDS = {RSA: 512, ECDH: 1024}
"""Ids in one message unless said otherwise: enough to keep the cores busy, few enough to see progress."""

WINDOW = 16
"""Chunks that an initiator has under way, unanswered. Bounds what both parties keep and what a network has to queue."""


class Phase(Enum):
    """Where a run is; the value says it for people."""

    NEW = "not started"
    OFFERED = "waiting for the offer"
    EXCHANGING = "exchanging blinded ids"
    MATCHED = "ready to reveal"
    REVEALING = "waiting for the reveal"
    CONFIRMING = "waiting for the peer's word on the result"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Progress:
    """How far a run is, in elements.

    The initiator counts each own id twice (blinded, unblinded) and each item of the peer once; the responder counts
    each answer and each own id once. The reveal does not count.
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
    _allowed: ClassVar[Mapping[Phase, frozenset[Kind]]]
    """The kinds of message that may come in each phase; none in a phase that is not here."""

    def __init__(
        self,
        ids: Sequence[str],
        *,
        task: str,
        session: bytes,
        terms: Terms,
        chunk: int | None,
        workers: int | None,
        executor: Executor | None,
        engine: str | None,
        phase: Phase,
        source: Source,
    ) -> None:
        check_context(task, session)
        if chunk is not None:
            check_chunk_size(chunk)
        engines = RSA_ENGINES if terms.protocol == RSA else CURVE_ENGINES
        if engine is not None and engine not in engines:
            raise BadArgument(f"engine is {engine!r}; expected one of {', '.join(engines)}, or None for the fastest.")
        self.terms = terms
        """What both parties must have chosen alike."""
        self._ids = check_ids(ids)
        self._task = task
        self._session = session
        self._chunk = chunk or CHUNK_IDS[terms.protocol]
        self._phase = phase
        self._source = source
        self._engine = engine
        self._workers = Workers(workers, executor=executor, processes=terms.protocol == ECDH)
        self._writer = Writer(self._side)
        self._items_kind = Kind.CELLS if terms.joint else Kind.TAGS
        self._streams = {kind: hashlib.blake2b() for kind in (Kind.BLINDED, Kind.ANSWERS, self._items_kind)}
        self.worked: Callable[[], None] = lambda: None
        """Called after each chunk of work, also of work that gives nothing to send; a driver may say that it lives."""
        self._done = 0
        self._total = 0
        self._peer_count: int | None = None
        self._cardinality: int | None = None
        self._intersection: list[str] | None = None

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
        """Whether the run is over, with a result that both sides hold and have compared."""
        return self._phase is Phase.FINISHED

    @property
    def cardinality(self) -> int:
        """How many ids are shared.

        Raises:
            NotYet: the run is not that far.
            NotRevealed: this party is not to know.
        """
        if self._cardinality is None:
            self._not_known()
            raise NotRevealed(f"how many ids are shared is not for this party to know: {self.terms}.")
        return self._cardinality

    @property
    def intersection(self) -> list[str]:
        """The shared ids that this run tells this party, sorted, in Unicode's normal form C; empty if there is none.

        Raises:
            NotYet: the run is not that far.
            NotRevealed: this party is not to know.
        """
        if self._intersection is None:
            self._not_known()
            raise NotRevealed(f"which ids are shared is not for this party to know: {self.terms}.")
        return list(self._intersection)

    def close(self) -> None:
        """Give the run up wherever it is: drop its secrets and end its threads. May be called more than once.

        A finished run keeps its result.
        """
        if self._phase is Phase.FINISHED:
            self._forget()
        else:
            self._fail()

    @abstractmethod
    def _forget(self) -> None:
        """Drop the secrets."""

    def _fail(self) -> None:
        """End the run without a result: one that was seen but not confirmed may not be used."""
        self._phase = Phase.FAILED
        self._intersection = None
        self._cardinality = None
        self._forget()

    def _not_known(self) -> None:
        if self._phase is Phase.FAILED:
            raise NotYet("there is no result: this run failed or was closed before its end. Start a new run.")
        if self._phase not in (Phase.FINISHED, Phase.MATCHED, Phase.CONFIRMING):
            raise NotYet(f"the result is not known: this run is {self._phase.value}. Hand over the peer's messages.")

    def _open(self, message: bytes) -> Envelope | None:
        """Open a message that may come now; None for one of an earlier attempt, which is not to be looked at."""
        envelope = open_message(message, self._side)
        if self._writer.run != NO_RUN and not (envelope.kind is Kind.RESUME and envelope.run == NO_RUN):
            self._check_run(envelope)
        if envelope.attempt < self._writer.attempt:
            return None
        if envelope.attempt > self._writer.attempt and envelope.kind is not Kind.RESUME:
            raise BadMessage(
                "the peer's message is of an attempt that was not begun; expected one of this attempt. Start a new run."
            )
        allowed = self._allowed.get(self._phase, frozenset())
        if envelope.kind not in allowed or not self._expects(envelope.kind):
            wanted = " or ".join(_spoken(kind) for kind in sorted(allowed) if self._expects(kind)) or "nothing more"
            raise BadMessage(
                f"the peer sent {_spoken(envelope.kind)} while this run is {self._phase.value}; expected {wanted}. "
                "A message was lost, repeated or moved: start a new run."
            )
        return envelope

    def _expects(self, kind: Kind) -> bool:
        """Whether these terms have this kind of message at all."""
        if kind in (Kind.TAGS, Kind.CELLS):
            return kind is self._items_kind
        if kind is Kind.ACK:
            return self.terms.reveal is Reveal.CARDINALITY
        if kind is Kind.REVEAL:
            return self.terms.reveal is Reveal.BOTH
        return True

    def _check_run(self, envelope: Envelope) -> None:
        if envelope.run != self._writer.run:
            raise BadMessage(
                "the peer's message belongs to another run; expected this run's id. "
                "Do not mix runs, and start each with new objects at both parties."
            )

    def _check_going_on(self) -> None:
        if self._phase is Phase.FAILED:
            raise UsedTwice(
                "this run failed earlier; expected no further use of it. Make a new object with a new session."
            )

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._fail()
            raise

    def _digest(self, side: Side, context: Context, count: int, result: bytes) -> bytes:
        """What a party says of the whole run: keyed, over all that was exchanged and the result."""
        digest = hashlib.blake2b(key=context.derive("confirm"), digest_size=CONFIRM_BYTES)
        digest.update(bytes([side]))
        for kind in sorted(self._streams):
            digest.update(self._streams[kind].digest())
        digest.update(count.to_bytes(8, "big"))
        digest.update(result)
        return digest.digest()


def terms_of(protocol: str, reveal: str, joint: bool) -> Terms:
    """The terms, checked.

    Raises:
        BadArgument: the protocol or the reveal does not exist, or they do not go together.
    """
    check_protocol(protocol)
    try:
        chosen = Reveal(reveal)
    except ValueError:
        names = ", ".join(each.value for each in Reveal)
        raise BadArgument(f"reveal is {reveal!r}; expected one of {names}.") from None
    if chosen is Reveal.CARDINALITY and protocol != ECDH:
        raise BadArgument(
            "reveal='cardinality' needs protocol='ecdh': an answer of 'rsa' fits only the id it was asked for, so the "
            "initiator would see which ids are shared."
        )
    if chosen is Reveal.CARDINALITY and joint:
        raise BadArgument("reveal='cardinality' is for two parties; expected joint=False with it.")
    return Terms(protocol, chosen, joint)


def _spoken(kind: Kind) -> str:
    return f"a message of kind {kind.name.lower()}"

"""The responder's run: holds the key, answers blinded ids unseen, learns only what is revealed to it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from psi.answering import Answers, ShuffledAnswers
from psi.closing import check_digest, mismatch
from psi.ecdh import EcdhHolder
from psi.engines import RsaNumbers
from psi.entropy import Source
from psi.errors import BadArgument, BadMessage, UsedTwice
from psi.hashing import RUN_BYTES, TAG_BYTES, Context, run_id
from psi.messages import NO_RUN, ChunkReader, Envelope, Kind, Offer, Reveal, Side, read_confirm, read_pair
from psi.oprf import RSA, Holder
from psi.pairing import KEY_BYTES
from psi.rsa import MIN_KEY_BITS, RsaHolder, check_key_bits
from psi.run import Phase, Run, terms_of
from psi.telling import OwnItems

_NOWHERE = np.empty(0, np.int64)


class Responder(Run):
    """One run in the role that holds the key. Single use; the key is made for this run and dropped with its last use.

    Args:
        ids: our sample ids; non-empty strings, each once. Their order is not kept.
        task: what the parties call the job; the same at both.
        session: bytes that both parties hold and no other run of this task uses.
        protocol: "rsa" or "ecdh"; the same at both.
        reveal: who learns what: "both", "initiator" or "cardinality"; the same at both.
        joint: the keys agreed with each other responder of a joint run (see `PairKey`), or None for a run of two
            parties.
        key_bits: with `rsa` the size of the key, a multiple of 8 from 2048 to 16384; 3072 is recommended.
        chunk: ids per message, 1 to 16384; None takes the usual number for the protocol.
        workers: threads (`rsa`) or processes (`ecdh`) for the work; None: see `parallel`.
        executor: a `concurrent.futures.Executor` of this party to use instead; the key is sent to it.
        engine: the arithmetic, a name of `psi.engines`; None takes the fastest.
        _key, _entropy: for known-answer tests only. A key of two runs lets the initiator link them.

    Raises:
        BadIds: the ids cannot be used.
        BadArgument: an argument cannot be used.
    """

    _side: ClassVar[Side] = Side.RESPONDER
    _allowed: ClassVar[Mapping[Phase, frozenset[Kind]]] = {
        Phase.EXCHANGING: frozenset({Kind.BLINDED, Kind.RESUME}),
        Phase.REVEALING: frozenset({Kind.REVEAL, Kind.CONFIRM, Kind.RESUME}),
        Phase.FINISHED: frozenset({Kind.CONFIRM, Kind.RESUME}),
    }

    def __init__(
        self,
        ids: Sequence[str],
        *,
        task: str,
        session: bytes,
        protocol: str = RSA,
        reveal: str = Reveal.BOTH,
        joint: Sequence[bytes] | None = None,
        key_bits: int = MIN_KEY_BITS,
        chunk: int | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        engine: str | None = None,
        _key: RsaNumbers | None = None,
        _entropy: Source = secrets.token_bytes,
    ) -> None:
        super().__init__(
            ids,
            task=task,
            session=session,
            terms=terms_of(protocol, reveal, joint is not None),
            chunk=chunk,
            workers=workers,
            executor=executor,
            engine=engine,
            phase=Phase.NEW,
            source=_entropy,
        )
        check_key_bits(key_bits)
        self._key_bits = key_bits
        self._pair_keys = _checked_keys(() if joint is None else joint)
        self._given_key = _key
        self._offer: Offer | None = None
        self._context: Context | None = None
        self._blinded_in: ChunkReader | None = None
        self._spots = 0
        self._answers: Answers | None = None
        self._shuffled: ShuffledAnswers | None = None
        self._own: OwnItems | None = None
        self._reveal_in = ChunkReader(Kind.REVEAL, TAG_BYTES)
        self._revealed: list[NDArray[np.int64]] = []
        """Where among our items the revealed ones are, for each message."""
        self._told = 0
        """Items of ours that were said at least once."""
        self._last_word: tuple[int, bytes] | None = None

    def start(self) -> Iterator[bytes]:
        """Make the key and offer it: gives the first message of the run.

        Raises:
            UsedTwice: the run was started before.
        """
        if self._phase is not Phase.NEW:
            raise UsedTwice("this run was started before; expected one start. Make a new object with a new session.")
        with self._ending_on_error():
            holder = self._make_holder()
            nonce = self._source(RUN_BYTES)
            self._writer = replace(self._writer, run=run_id(self.terms.protocol, self._task, self._session, nonce))
            self._context = holder.context
            self._offer = Offer(self.terms, nonce, len(self._ids), holder.context.public)
            self._blinded_in = ChunkReader(Kind.BLINDED, holder.width, least=holder.spot_checks)
            self._spots = holder.spot_checks
            self._answers = Answers(holder, self._workers)
            if self.terms.reveal is Reveal.CARDINALITY:
                self._shuffled = ShuffledAnswers(holder.width)
            self._own = OwnItems(holder, self._ids, self.terms, self._pair_keys, self._workers, self._source)
            self._phase = Phase.EXCHANGING
        return iter((self._writer.offer(self._offer),))

    def receive(self, message: bytes) -> Iterator[bytes]:
        """Take one message of the initiator; what it gives is to be sent, each before the next is computed.

        A blinded chunk is answered; after the last one follows what is left to tell of our own ids. The message is
        checked by this call itself; the answers are computed as they are asked for.

        Raises:
            BadElement, BadMessage, WrongRole: the peer's message cannot be used; the run is over.
            ResultMismatch: the initiator holds another result; the run is over.
            UsedTwice: the run is over already.
        """
        self._check_going_on()
        if self._phase is Phase.FINISHED:  # what comes now may be refused, but leaves the result as it is
            envelope = self._open(message)
            return iter(()) if envelope is None or envelope.kind is Kind.CONFIRM else self._resumed(envelope)
        with self._ending_on_error():
            envelope = self._open(message)
            return iter(()) if envelope is None else self._take(envelope)

    def advance(self) -> Iterator[bytes]:
        """Do one chunk of the work on our own ids; for the time while no message has come.

        Gives what is to be sent, if there is anything; does nothing once all is told (`busy` says so). What `start` or
        `receive` gave has to be sent before.
        """
        self._check_going_on()
        if not self.busy:
            return iter(())
        message = self._next_own()
        return iter(()) if message is None else iter((message,))

    @property
    def busy(self) -> bool:
        """Whether `advance` has work to do."""
        return self._phase is Phase.EXCHANGING and self._own is not None and self._own.sent < self._own.total

    def _expects(self, kind: Kind) -> bool:
        if kind is Kind.CONFIRM and self._phase is Phase.FINISHED:
            return self._writer.attempt > 0  # an initiator that resumed says it again, before it hears our last word
        return super()._expects(kind)

    def _make_holder(self) -> Holder:
        if self.terms.protocol == RSA:
            bits, key = self._key_bits, self._given_key
            return RsaHolder.fresh(self._task, self._session, bits=bits, numbers=key, engine=self._engine)
        return EcdhHolder.fresh(self._task, self._session, source=self._source, engine=self._engine)

    def _take(self, envelope: Envelope) -> Iterator[bytes]:
        if envelope.kind is Kind.BLINDED:
            self._take_blinded(envelope.body)
            return self._outgoing()
        if envelope.kind is Kind.RESUME:
            return self._resumed(envelope)
        if envelope.kind is Kind.REVEAL:
            self._take_reveal(envelope.body)
            return iter(())
        return self._take_confirm(*read_confirm(envelope.body))

    def _take_blinded(self, body: bytes) -> None:
        if self._blinded_in is None or self._answers is None:
            raise BadMessage("elements came before the offer; expected nothing yet. Start a new run.")
        position, items = self._blinded_in.take(body)
        self._answers.take(position, items)
        total = self._blinded_in.total or 0
        if self._peer_count is None:
            self._peer_count = total - self._spots
            self._total = total + len(self._ids)
        self._streams[Kind.BLINDED].update(items)
        self._finish_exchange_if_complete()

    def _outgoing(self) -> Iterator[bytes]:
        """Answers first, for the initiator waits for them; then, once all is answered, what is left to tell."""
        while self._answers is not None and self._answers.waiting:
            with self._ending_on_error():
                message = self._next_answer(self._answers)
            yield message
        while self._shuffled is not None and (part := self._shuffled.next(self._chunk)) is not None:
            yield self._writer.chunk(Kind.ANSWERS, part[0], self._blinded_total(), part[1])
        if self._blinded_in is not None and self._blinded_in.complete:
            while self._phase is not Phase.FINISHED and self._own is not None and self._own.sent < self._own.total:
                own = self._next_own()
                if own is not None:
                    yield own

    def _next_answer(self, answers: Answers) -> bytes:
        position, items = answers.compute()
        count = answers.computed - position
        self._done += count
        self.worked()
        if self._shuffled is None:
            self._streams[Kind.ANSWERS].update(items)
            message = self._writer.chunk(Kind.ANSWERS, position, self._blinded_total(), items)
        else:
            self._shuffled.add(items)
            message = self._writer.ack(position + count)
            if answers.computed == self._blinded_total():
                self._streams[Kind.ANSWERS].update(self._shuffled.shuffle(self._source))
        self._finish_exchange_if_complete()
        return message

    def _next_own(self) -> bytes | None:
        own = self._own
        if own is None:
            return None
        with self._ending_on_error():
            before = own.computed
            position, items = own.step(self._chunk)
            self._done += own.computed - before
            self.worked()
            if not items:
                return None
            if position >= self._told:
                self._streams[self._items_kind].update(items)
                self._told = own.sent
            self._finish_exchange_if_complete()
        return self._writer.chunk(self._items_kind, position, own.total, items)

    def _finish_exchange_if_complete(self) -> None:
        """Once everything is computed and said, the key is of no more use."""
        blinded, answers, own = self._blinded_in, self._answers, self._own
        if self._phase is not Phase.EXCHANGING or blinded is None or answers is None or own is None:
            return
        if not blinded.complete or answers.waiting or self._told < own.total:
            return
        answers.drop_key()
        own.drop_key()
        self._given_key = None
        self._workers.close()
        limit = min(len(self._ids), self._peer_count or 0)
        self._reveal_in = ChunkReader(Kind.REVEAL, TAG_BYTES, least=0, limit=limit)
        self._phase = Phase.REVEALING

    def _take_reveal(self, body: bytes) -> None:
        if self._own is None:
            raise BadMessage("a reveal came before the tags; expected blinded ids. Start a new run.")
        _, items = self._reveal_in.take(body)
        self._revealed.append(self._own.find(items))

    def _take_confirm(self, count: int, digest: bytes) -> Iterator[bytes]:
        if self._context is None or (self.terms.reveal is Reveal.BOTH and not self._reveal_in.complete):
            raise BadMessage("the initiator confirms what it has not revealed; expected a reveal. It is faulty.")
        ids, result = None, b""
        if self.terms.reveal is Reveal.BOTH and self._own is not None:
            ids, result = self._own.revealed(np.concatenate([_NOWHERE, *self._revealed]))
        check_digest(self._digest(Side.INITIATOR, self._context, count, result), digest)
        if count not in self._possible_counts():
            raise mismatch()
        self._intersection = ids
        if self.terms.reveal is not Reveal.INITIATOR:
            self._cardinality = count
        self._last_word = count, self._digest(Side.RESPONDER, self._context, count, result)
        self._phase = Phase.FINISHED
        self._forget()
        return iter((self._writer.confirm(*self._last_word),))

    def _possible_counts(self) -> range:
        """How many shared ids the initiator can have counted, as far as we can tell."""
        if self.terms.reveal is Reveal.BOTH:
            return range(self._reveal_in.done, self._reveal_in.done + 1)
        if self.terms.reveal is Reveal.INITIATOR:
            return range(1)  # it says 0, whatever it counted
        return range(min(len(self._ids), self._peer_count or 0) + 1)

    def _resumed(self, envelope: Envelope) -> Iterator[bytes]:
        """The initiator lost the link: say again what it has not got."""
        if envelope.attempt == self._writer.attempt:
            return iter(())  # a repeated request
        answered, told = read_pair(envelope.body, "a resume")
        if envelope.run == NO_RUN:
            if self._offer is None or self._blinded_in is None or self._own is None or self._blinded_in.begun:
                raise BadMessage("the initiator asks for the offer again, which it has answered. It is faulty.")
            self._own.sent = 0
            self._writer = replace(self._writer, attempt=envelope.attempt)
            return iter((self._writer.offer(self._offer),))
        self._writer = replace(self._writer, attempt=envelope.attempt)
        received = self._blinded_in.mark if self._blinded_in else 0
        first = self._writer.pair(Kind.RESUMED, received, self._reveal_in.mark)
        if self._last_word is not None:
            return iter((first, self._writer.confirm(*self._last_word)))
        if self._answers is None or self._own is None or told > self._told:
            raise BadMessage("the initiator has tags that were not sent; expected no more. It is faulty.")
        self._own.sent = told
        again = self._answers.again(answered) if self._shuffled is None else ()
        if self._shuffled is not None:
            self._shuffled.rewind(answered)
        total = self._blinded_total()
        repeated = (self._writer.chunk(Kind.ANSWERS, position, total, items) for position, items in again)
        return itertools.chain((first,), repeated, self._outgoing())

    def _forget(self) -> None:
        self._workers.close()
        self._given_key = None
        self._answers = None
        self._shuffled = None
        self._own = None
        self._revealed = []

    def _blinded_total(self) -> int:
        return (self._blinded_in.total if self._blinded_in else None) or 0


def _checked_keys(keys: Sequence[bytes]) -> list[bytes]:
    if not isinstance(keys, list | tuple) or not all(isinstance(key, bytes) and len(key) == KEY_BYTES for key in keys):
        raise BadArgument(f"joint holds something that is no key; expected a list of {KEY_BYTES} bytes each (PairKey).")
    if len(set(keys)) != len(keys):
        raise BadArgument("joint holds a key twice; expected one for each other responder.")
    return list(keys)

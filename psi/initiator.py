"""The initiator's run: asks about its ids unseen, learns which of them the responder has, reveals those it chooses."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from psi.asking import Questions
from psi.closing import Closing
from psi.ecdh import EcdhAsker
from psi.entropy import Source
from psi.errors import BadArgument, BadMessage, NotYet, UsedTwice
from psi.hashing import ITEM_BYTES, TAG_BYTES
from psi.joint import Shares, offered_items, unmask
from psi.messages import (
    MAX_ATTEMPT,
    ChunkReader,
    Envelope,
    Kind,
    Offer,
    Reveal,
    Side,
    open_message,
    read_ack,
    read_confirm,
    read_offer,
    read_pair,
)
from psi.oprf import RSA, Asker
from psi.repeats import Repeats
from psi.result import chosen_among, result_digest, text_order
from psi.rsa import RsaAsker
from psi.run import WINDOW, Phase, Run, terms_of
from psi.tags import as_texts, matches, rows


class Initiator(Run):
    """One run in the role that asks. Single use.

    Args:
        ids: our sample ids; non-empty strings, each once. Their order is not kept.
        task: what the parties call the job; the same at both.
        session: bytes that both parties hold and no other run of this task uses.
        protocol: "rsa" or "ecdh"; the same at both.
        reveal: who learns what: "both", "initiator" or "cardinality"; the same at both.
        joint: this run is one of several that `psi.join` brings together: it does not tell which ids this one
            responder has; the same at both.
        chunk: ids per message, 1 to 16384; None takes the usual number for the protocol.
        workers: threads (`rsa`) or processes (`ecdh`) for the work; None: see `parallel`.
        executor: a `concurrent.futures.Executor` of this party to use instead.
        engine: the arithmetic, a name of `psi.engines`; None takes the fastest.
        _entropy: for known-answer tests only; predictable bytes here give our ids to the responder.

    Raises:
        BadIds: the ids cannot be used.
        BadArgument: an argument cannot be used.
    """

    _side: ClassVar[Side] = Side.INITIATOR
    _allowed: ClassVar[Mapping[Phase, frozenset[Kind]]] = {
        Phase.OFFERED: frozenset({Kind.OFFER}),
        Phase.EXCHANGING: frozenset({Kind.ANSWERS, Kind.TAGS, Kind.CELLS, Kind.ACK, Kind.RESUMED}),
        Phase.MATCHED: frozenset({Kind.RESUMED}),
        Phase.CONFIRMING: frozenset({Kind.CONFIRM, Kind.RESUMED}),
    }

    def __init__(
        self,
        ids: Sequence[str],
        *,
        task: str,
        session: bytes,
        protocol: str = RSA,
        reveal: str = Reveal.BOTH,
        joint: bool = False,
        chunk: int | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        engine: str | None = None,
        _entropy: Source = secrets.token_bytes,
    ) -> None:
        super().__init__(
            ids,
            task=task,
            session=session,
            terms=terms_of(protocol, reveal, joint),
            chunk=chunk,
            workers=workers,
            executor=executor,
            engine=engine,
            phase=Phase.OFFERED,
            source=_entropy,
        )
        self._asker: Asker | None = None
        self._questions: Questions | None = None
        self._sent = 0
        """Blinded elements that were sent in this attempt or are known to have come."""
        self._acked = 0
        self._answers_in: ChunkReader | None = None
        self._items_in: ChunkReader | None = None
        self._items = bytearray()
        self._items_seen: Repeats | None = None
        self._shares: Shares | None = None
        self._shared: NDArray[np.int64] | None = None
        """Numbers of the shared ids, in the order of their text."""
        self._closing: Closing | None = None
        self._awaits_resumed = False

    def receive(self, message: bytes) -> Iterator[bytes]:
        """Take one message of the responder; what it gives is to be sent, each before the next is computed.

        The message is checked and taken in by this call itself; the blinded chunks that it makes room for are computed
        as they are asked for.

        Raises:
            WeakKey, BadElement, BadMessage, WrongRole: the peer's message cannot be used; the run is over.
            ResultMismatch: the responder holds another result; the run is over.
            UsedTwice: the run is over already.
        """
        self._check_going_on()
        if self._phase is Phase.FINISHED:
            if open_message(message, self._side).attempt < self._writer.attempt:
                return iter(())  # late
            raise BadMessage(
                "a message came after the end of the run; expected nothing more. "
                "A message was repeated on the way, or the peer does not follow the protocol."
            )
        with self._ending_on_error():
            envelope = self._open(message)
            if envelope is None or (self._awaits_resumed and envelope.kind not in (Kind.RESUMED, Kind.OFFER)):
                return iter(())
            self._take(envelope)
        return self._outgoing()

    @property
    def shares(self) -> Shares:
        """What this run adds to a joint result; for `psi.join`.

        Raises:
            NotYet: not all has come.
        """
        if self._shares is None:
            raise NotYet(f"there are no shares: this run is {self._phase.value} ({self.terms}).")
        return self._shares

    def has_same_ids(self, other: Initiator) -> bool:
        """Whether two runs are of the same ids in the same order; for `psi.join`."""
        return self._ids == other._ids

    @property
    def matched(self) -> bool:
        """Whether everything that the responder has to tell has come, so that `reveal` (or `join`) may follow."""
        return self._phase in (Phase.MATCHED, Phase.CONFIRMING, Phase.FINISHED)

    def reveal(self, ids: Iterable[str] | None = None) -> Iterator[bytes]:
        """End the run: tell the responder what the terms say, and ask for its word on the result.

        Args:
            ids: with `reveal="both"`: some, all or none of `intersection`, each once; None reveals all of it. With
                several responders those that all of them have. With other terms: None.

        Raises:
            NotYet: the result is not known yet.
            UsedTwice: something was revealed already.
            BadIds: an id is not in the intersection, or comes twice; nothing was revealed.
            BadArgument: the terms reveal no ids.
        """
        if self._phase in (Phase.CONFIRMING, Phase.FINISHED):
            raise UsedTwice(
                "this run has revealed its result already; expected one reveal. Make a new object for a new run."
            )
        self._check_going_on()
        if self._asker is None or self._questions is None or self._phase is not Phase.MATCHED:
            raise NotYet(
                f"nothing can be revealed: this run is {self._phase.value}. Hand over the peer's messages first."
            )
        shared = self._shared
        if self.terms.joint and shared is None:
            raise NotYet("nothing can be revealed before the runs are brought together; call psi.join first.")
        if ids is not None and self.terms.reveal is not Reveal.BOTH:
            raise BadArgument(f"these terms reveal no ids to the responder: {self.terms}. Call reveal() without any.")
        context, tags, result, count = self._asker.context, None, b"", 0
        if self.terms.reveal is Reveal.BOTH and shared is not None:
            chosen = shared if ids is None else chosen_among(self._ids, shared, ids)
            outputs = self._questions.outputs[chosen]
            tags = np.sort(as_texts(outputs[:, :TAG_BYTES])).tobytes()  # sorted: their order says nothing
            result = result_digest((self._ids[n], row.tobytes()) for n, row in zip(chosen, outputs, strict=True))
            count = len(chosen)
        elif self.terms.reveal is Reveal.CARDINALITY:
            count = self.cardinality
        self._closing = Closing(
            tags,
            count,
            mine=self._digest(Side.INITIATOR, context, count, result),
            theirs=self._digest(Side.RESPONDER, context, count, result),
            chunk=self._chunk,
        )
        self._phase = Phase.CONFIRMING
        self._forget()
        return self._outgoing()

    def resume(self) -> bytes:
        """After the link was lost and is back: the message that lets both go on from what each of them has.

        Whatever an earlier call of `receive` or `reveal` would still give is not to be taken any more.

        Raises:
            UsedTwice: the run is over, or was resumed 255 times.
        """
        self._check_going_on()
        if self._phase is Phase.FINISHED or self._writer.attempt == MAX_ATTEMPT:
            raise UsedTwice("this run cannot be resumed: it is over, or was resumed too often. Start a new run.")
        self._writer = replace(self._writer, attempt=self._writer.attempt + 1)
        self._awaits_resumed = self._phase is not Phase.OFFERED
        answered = self._answers_in.mark if self._answers_in else 0
        return self._writer.pair(Kind.RESUME, answered, self._items_in.done if self._items_in else 0)

    def _not_known(self) -> None:
        if self._shares is not None:
            raise NotYet("the result of a joint run is not known before the runs are brought together; call psi.join.")
        super()._not_known()

    def _take(self, envelope: Envelope) -> None:
        if envelope.kind is Kind.OFFER:
            self._take_offer(read_offer(envelope, self.terms, self._task, self._session), envelope.run)
        elif envelope.kind is Kind.ANSWERS:
            self._take_answers(envelope.body)
        elif envelope.kind is Kind.ACK:
            self._take_ack(read_ack(envelope.body))
        elif envelope.kind is Kind.RESUMED:
            self._take_resumed(*read_pair(envelope.body, "a resumed"))
        elif envelope.kind is Kind.CONFIRM:
            self._take_confirm(*read_confirm(envelope.body))
        else:
            self._take_items(envelope.kind, envelope.body)
        self._match_if_complete()

    def _take_offer(self, offer: Offer, run: bytes) -> None:
        protocol, task, session, source = self.terms.protocol, self._task, self._session, self._source
        if protocol == RSA:
            self._asker = RsaAsker.fresh(offer.public, task, session, engine=self._engine)
        else:
            self._asker = EcdhAsker.fresh(offer.public, task, session, source=source, engine=self._engine)
        in_order = self.terms.reveal is not Reveal.CARDINALITY
        self._questions = Questions(self._asker, self._ids, self._workers, source, in_order=in_order)
        self._writer = replace(self._writer, run=run)
        self._answers_in = ChunkReader(Kind.ANSWERS, self._asker.width, total=self._questions.total)
        items = offered_items(offer.count) if self.terms.joint else offer.count
        self._items_in = ChunkReader(self._items_kind, ITEM_BYTES, total=items)
        self._items_seen = None if self.terms.joint else Repeats(ITEM_BYTES)
        self._peer_count = offer.count
        self._total = 2 * self._questions.total + items
        self._phase = Phase.EXCHANGING

    def _outgoing(self) -> Iterator[bytes]:
        """What may be sent now: blinded chunks while there is room, or the end of the run."""
        while not self._awaits_resumed:
            if self._phase is Phase.EXCHANGING:
                message = self._next_blinded()
            elif self._phase is Phase.CONFIRMING and self._closing is not None:
                message = self._closing.next(self._writer)
            else:
                return
            if message is None:
                return
            yield message

    def _next_blinded(self) -> bytes | None:
        questions = self._questions
        if questions is None:
            return None
        empty = questions.total == 0 and self._sent == 0
        done = max(questions.answered, self._acked)
        if not empty and (self._sent >= questions.total or self._sent >= done + WINDOW * self._chunk):
            return None
        with self._ending_on_error():
            position = self._sent
            if position == questions.blinded:
                elements = questions.blind(self._chunk)
                self._streams[Kind.BLINDED].update(elements)
                self._done += len(elements) // questions.element_bytes
                self.worked()
            else:
                elements = questions.under_way(position)
            # With no id at all one empty message says so; the count then keeps it from being sent twice.
            self._sent += len(elements) // questions.element_bytes or 1
        return self._writer.chunk(Kind.BLINDED, position, questions.total, elements)

    def _take_answers(self, body: bytes) -> None:
        if self._answers_in is None or self._questions is None:
            raise BadMessage("answers came before an offer; expected an offer. Start a new run.")
        position, items = self._answers_in.take(body)
        self._questions.answer(position, items)
        self._streams[Kind.ANSWERS].update(items)
        self._done += len(items) // self._questions.element_bytes

    def _take_ack(self, received: int) -> None:
        if self._questions is None or received > self._sent:
            raise BadMessage("the peer acknowledges more than was sent; expected no more. End the run: it is faulty.")
        # After a resume acks come once more for what the peer had received, but not answered.
        self._acked = max(self._acked, received)
        self._questions.received(received)

    def _take_items(self, kind: Kind, body: bytes) -> None:
        if self._items_in is None:
            raise BadMessage("tags came before an offer; expected an offer. Start a new run.")
        _, items = self._items_in.take(body)
        if self._items_seen is not None and self._items_seen.add(items) is not None:
            raise BadMessage("a tag of the responder came twice; expected one for each id. The peer is faulty.")
        self._items += items
        self._streams[kind].update(items)
        self._done += len(items) // ITEM_BYTES

    def _take_resumed(self, blinded: int, revealed: int) -> None:
        if not self._awaits_resumed:
            raise BadMessage("the peer resumes what was not interrupted; expected no such message. It is faulty.")
        self._awaits_resumed = False
        if self._closing is not None:
            self._closing.rewind(revealed)
        questions = self._questions
        if questions is None:
            return
        if blinded > (questions.blinded or self._sent) or blinded < questions.answered:
            raise BadMessage("the peer has elements that were not sent, or lost what it answered. It is faulty.")
        if self.terms.reveal is Reveal.CARDINALITY:
            self._take_ack(blinded)
        self._sent = blinded
        if blinded < questions.blinded:
            questions.under_way(blinded)  # it has to be the end of a chunk

    def _take_confirm(self, count: int, digest: bytes) -> None:
        if self._closing is None:
            raise BadMessage("the peer confirms a result before there is one; expected answers. It is faulty.")
        self._closing.check(count, digest)
        self._closing = None
        self._phase = Phase.FINISHED

    def _match_if_complete(self) -> None:
        answers, items = self._answers_in, self._items_in
        if self._phase is not Phase.EXCHANGING or answers is None or items is None:
            return
        # An empty run begins too: the responder has to say that it knows of there being nothing to answer.
        if not (answers.complete and items.complete and answers.begun):
            return
        if self._questions is None or self._asker is None:
            return
        self._items_seen = None
        if self.terms.joint:
            self._shares = unmask(self._questions.outputs, self._asker.context, bytes(self._items))
        else:
            shared = matches(self._questions.outputs, rows(self._items, ITEM_BYTES))
            self._items = bytearray()
            self._cardinality = len(shared)
            if self.terms.reveal is not Reveal.CARDINALITY:
                self.settle(shared)
        self._items = bytearray()
        self._phase = Phase.MATCHED

    def settle(self, shared: NDArray[np.int64]) -> None:
        """Note which ids are shared, by their numbers; for `psi.join`."""
        self._shared = shared[text_order(self._ids, shared)]
        self._intersection = [self._ids[number] for number in self._shared]
        self._cardinality = len(self._shared)

    def _forget(self) -> None:
        self._workers.close()
        self._asker = None
        self._questions = None
        self._shares = None
        self._items = bytearray()
        self._items_seen = None

"""The initiator's run: blinds its ids, learns which of them the responder has, reveals those it chooses."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from gmpy2 import mpz

from psi import rsa
from psi.elements import pack, unpack
from psi.entropy import Source, shuffled
from psi.errors import BadElement, BadIds, BadMessage, NotYet, UsedTwice
from psi.hashing import TAG_BYTES, RunHash
from psi.messages import ChunkReader, Kind, Side, chunk_ranges, read_key_offer, write_chunk
from psi.run import Phase, Run


class Initiator(Run):
    """One run in the role that asks. Single use.

    Args:
        ids: our sample ids; non-empty strings, each once. Their order is not kept.
        task: what the parties call the job; the same at both.
        session: bytes that both parties hold and no other run of this task uses.
        chunk: ids per message, 1 to 16384.
        _entropy: for known-answer tests only; predictable bytes here give our ids to the responder.

    Raises:
        BadIds: the ids cannot be used.
        BadArgument: task, session or chunk cannot be used.
    """

    _side: ClassVar[Side] = Side.INITIATOR
    _allowed: ClassVar[Mapping[Phase, Kind]] = {
        Phase.OFFERED: Kind.KEY_OFFER,
        Phase.EXCHANGING: Kind.SIGNED,
        Phase.TAGGING: Kind.TAGS,
    }

    def __init__(
        self,
        ids: Sequence[str],
        *,
        task: str,
        session: bytes,
        chunk: int = 512,
        _entropy: Source = secrets.token_bytes,
    ) -> None:
        super().__init__(ids, task=task, session=session, chunk=chunk, phase=Phase.OFFERED, source=_entropy)
        self._key: rsa.PublicKey | None = None
        self._hash: RunHash | None = None
        # What is blinded and not yet signed, in order: (id, y, r). Each entry goes when its signature has come.
        self._pending: deque[tuple[str, mpz, mpz]] | None = deque()
        self._own_tags: dict[bytes, str] | None = {}
        self._peer_tags: set[bytes] | None = set()
        self._signed_in: ChunkReader | None = None
        self._tags_in = ChunkReader(Kind.TAGS, TAG_BYTES)
        self._shared: dict[str, bytes] | None = None
        self._intersection: list[str] | None = None

    def receive(self, message: bytes) -> Iterator[bytes]:
        """Take one message of the responder; what it gives is to be sent, each before the next is computed.

        A key offer is answered by all blinded chunks; signatures may be handed over while these are still being taken.
        The message is checked and taken in by this call itself, the answers are computed as they are asked for.

        Raises:
            WeakKey, BadElement, BadMessage, WrongRole: the peer's message cannot be used; the run is over.
            UsedTwice: the run is over already.
        """
        self._check_unfinished()
        with self._ending_on_error():
            kind, run, body = self._read(message)
            if kind is Kind.KEY_OFFER:
                return self._blinded_chunks(*self._take_key_offer(run, body))
            if kind is Kind.SIGNED:
                self._take_signed(body)
            else:
                self._take_tags(body)
        return iter(())

    @property
    def matched(self) -> bool:
        """Whether all tags have come, so that `intersection` is known."""
        return self._intersection is not None

    @property
    def intersection(self) -> list[str]:
        """The ids that both parties have, sorted; empty if there is none.

        Raises:
            NotYet: not all of the responder's tags have come.
        """
        if self._intersection is None:
            raise NotYet(
                f"the intersection is not known: this run is {self._phase.value}. Hand over the peer's messages."
            )
        return list(self._intersection)

    def reveal(self, ids: Iterable[str]) -> Iterator[bytes]:
        """Tell the responder which of its ids are shared, and end the run.

        Args:
            ids: some, all or none of `intersection`, each once; with several responders those that all of them have.

        Raises:
            NotYet: the intersection is not known yet.
            UsedTwice: something was revealed already.
            BadIds: an id is not in the intersection, or comes twice; nothing was revealed.
        """
        if self._phase is Phase.FINISHED:
            raise UsedTwice(
                "this run has revealed its ids already; expected one reveal. Make a new object for a new run."
            )
        self._check_going_on()
        if self._shared is None or self._run is None:
            raise NotYet(
                f"nothing can be revealed: this run is {self._phase.value}. Hand over the peer's messages first."
            )
        if isinstance(ids, str):
            raise BadIds("the ids to reveal are one string; expected a collection of strings. Put them into a list.")
        given = list(ids)
        chosen = [each for each in given if isinstance(each, str) and each in self._shared]
        unknown = len(given) - len(chosen)
        repeats = len(chosen) - len(set(chosen))
        if unknown or repeats:
            raise BadIds(
                f"of {len(given)} ids to reveal {unknown} are not in the intersection and {repeats} repeat another; "
                "expected some of `intersection`, each once."
            )
        tags = sorted(self._shared[each] for each in chosen)  # sorted: their order says nothing
        run = self._run
        self._phase = Phase.FINISHED
        self._forget()
        return (
            write_chunk(Side.INITIATOR, Kind.REVEAL, run, part.start, len(tags), b"".join(tags[part.start : part.stop]))
            for part in (chunk_ranges(len(tags), self._chunk) if tags else iter((range(0),)))
        )

    def _take_key_offer(self, run: bytes, body: bytes) -> tuple[rsa.PublicKey, RunHash, bytes]:
        offer = read_key_offer(body, run, self._task, self._session)
        rsa.check_public_key(offer.key)
        run_hash = RunHash(self._task, self._session, offer.key.n)
        rsa.check_key_proof(offer.key, run_hash, offer.roots)
        self._key, self._hash, self._run = offer.key, run_hash, run
        self._signed_in = ChunkReader(Kind.SIGNED, offer.key.width, total=len(self._ids))
        self._tags_in = ChunkReader(Kind.TAGS, TAG_BYTES, total=offer.count)
        self._peer_count = offer.count
        self._total = 2 * len(self._ids) + offer.count
        self._phase = Phase.EXCHANGING
        return offer.key, run_hash, run

    def _blinded_chunks(self, key: rsa.PublicKey, run_hash: RunHash, run: bytes) -> Iterator[bytes]:
        order = shuffled(self._ids, self._source)
        for part in chunk_ranges(len(order), self._chunk):
            self._check_going_on()
            with self._ending_on_error():
                blinded = []
                for sample_id in order[part.start : part.stop]:
                    element, factor = rsa.blind(key, run_hash.element(sample_id), self._source)
                    blinded.append((sample_id, element, factor))
                if self._pending is not None:
                    self._pending.extend(blinded)
                self._done += len(blinded)
                items = pack((element for _, element, _ in blinded), key.n)
            yield write_chunk(Side.INITIATOR, Kind.BLINDED, run, part.start, len(order), items)

    def _take_signed(self, body: bytes) -> None:
        reader, key, run_hash = self._signed_in, self._key, self._hash
        if reader is None or key is None or run_hash is None or self._pending is None or self._own_tags is None:
            raise BadMessage("signatures came before a key; expected a key offer. Start a new run.")
        position, items = reader.take(body)
        if len(items) > len(self._pending) * key.width:
            raise BadMessage(
                f"signatures came for elements that were not sent; expected at most {len(self._pending)}. "
                "End the run: the peer is faulty."
            )
        signed = unpack(items, key.n, first=position)
        asked = [self._pending.popleft() for _ in signed]
        for index, ((_, element, _), signature) in enumerate(zip(asked, signed, strict=True)):
            if not rsa.verifies(key, element, signature):
                raise BadElement(
                    f"signature {position + index} of the responder does not verify; expected the power of the element "
                    "in its place. End the run: the responder is faulty or its messages are changed on the way."
                )
        powers = rsa.unblind(key, signed, [factor for _, _, factor in asked])
        for (sample_id, _, _), power in zip(asked, powers, strict=True):
            self._own_tags[run_hash.tag(power)] = sample_id
        self._done += len(asked)
        if reader.complete:
            self._phase = Phase.TAGGING

    def _take_tags(self, body: bytes) -> None:
        if self._own_tags is None or self._peer_tags is None:
            raise BadMessage("tags came before the signatures; expected signatures. Start a new run.")
        _, items = self._tags_in.take(body)
        for start in range(0, len(items), TAG_BYTES):
            tag = items[start : start + TAG_BYTES]
            if tag in self._peer_tags:
                raise BadMessage("a tag of the responder came twice; expected one for each id. The peer is faulty.")
            self._peer_tags.add(tag)
        self._done += len(items) // TAG_BYTES
        if self._tags_in.complete:
            self._shared = {self._own_tags[tag]: tag for tag in self._own_tags.keys() & self._peer_tags}
            self._intersection = sorted(self._shared)
            self._own_tags = self._peer_tags = self._pending = None
            self._phase = Phase.MATCHED

    def _forget(self) -> None:
        self._pending = None
        self._own_tags = None
        self._peer_tags = None
        self._shared = None

"""The responder's run: holds the key, signs blinded ids unseen, learns only what the initiator reveals."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from gmpy2 import mpz

from psi import rsa
from psi.elements import SeenElements, pack, unpack
from psi.entropy import Source, shuffled
from psi.errors import BadMessage, NotYet, UsedTwice
from psi.hashing import RUN_BYTES, TAG_BYTES, RunHash, run_id
from psi.messages import ChunkReader, KeyOffer, Kind, Side, chunk_ranges, write_chunk, write_key_offer
from psi.parallel import Workers
from psi.run import Phase, Run


class Responder(Run):
    """One run in the role that holds the key. Single use; the key is made for this run and dropped with its last tag.

    Args:
        ids: our sample ids; non-empty strings, each once. Their order is not kept.
        task: what the parties call the job; the same at both.
        session: bytes that both parties hold and no other run of this task uses.
        key_bits: size of the RSA key, a multiple of 8 from 2048 to 16384.
        chunk: tags per message, 1 to 16384.
        workers: threads that compute powers; None takes one for each core.
        _key, _entropy: for known-answer tests only. A key of two runs lets the initiator link them.

    Raises:
        BadIds: the ids cannot be used.
        BadArgument: task, session, key_bits, chunk or workers cannot be used.
    """

    _side: ClassVar[Side] = Side.RESPONDER
    _allowed: ClassVar[Mapping[Phase, Kind]] = {Phase.EXCHANGING: Kind.BLINDED, Phase.MATCHED: Kind.REVEAL}

    def __init__(
        self,
        ids: Sequence[str],
        *,
        task: str,
        session: bytes,
        key_bits: int = rsa.MIN_KEY_BITS,
        chunk: int = 512,
        workers: int | None = None,
        _key: rsa.PrivateKey | None = None,
        _entropy: Source = secrets.token_bytes,
    ) -> None:
        super().__init__(ids, task=task, session=session, chunk=chunk, phase=Phase.NEW, source=_entropy)
        rsa.check_key_bits(key_bits)
        self._key_bits = key_bits
        self._workers = Workers(workers)
        self._key = _key
        self._hash: RunHash | None = None
        self._seen: SeenElements | None = SeenElements()
        self._blinded_in: ChunkReader | None = None
        self._signed = 0
        self._own_tags: dict[bytes, str] | None = {}
        self._reveal_in = ChunkReader(Kind.REVEAL, TAG_BYTES)
        self._last_revealed = b""
        self._intersection: list[str] | None = None

    def start(self) -> Iterator[bytes]:
        """Make the key and offer it: gives the first message of the run.

        Raises:
            UsedTwice: the run was started before.
        """
        if self._phase is not Phase.NEW:
            raise UsedTwice("this run was started before; expected one start. Make a new object with a new session.")
        with self._ending_on_error():
            key = self._key or rsa.PrivateKey.generate(self._key_bits)
            nonce = self._source(RUN_BYTES)
            run_hash = RunHash(self._task, self._session, key.public.n)
            self._run = run_id(self._task, self._session, nonce)
            self._key, self._hash = key, run_hash
            self._blinded_in = ChunkReader(Kind.BLINDED, key.public.width)
            offer = KeyOffer(key.public, rsa.prove_key(key, run_hash), len(self._ids), nonce)
            self._phase = Phase.EXCHANGING
        return iter((write_key_offer(offer, self._run),))

    def receive(self, message: bytes) -> Iterator[bytes]:
        """Take one message of the initiator; what it gives is to be sent, each before the next is computed.

        A blinded chunk is answered by its signatures, the last one also by all tag chunks. The message is checked by
        this call itself; the answers are computed as they are asked for, and have to be taken in the order of the
        messages.

        Raises:
            BadElement, BadMessage, WrongRole: the peer's message cannot be used; the run is over.
            UsedTwice: the run is over already.
        """
        self._check_unfinished()
        with self._ending_on_error():
            kind, _, body = self._read(message)
            if kind is Kind.BLINDED:
                return self._answers(*self._take_blinded(body))
            self._take_reveal(body)
        return iter(())

    @property
    def intersection(self) -> list[str]:
        """The ids that the initiator revealed, sorted; empty if it revealed none.

        Raises:
            NotYet: the reveal has not come, or not all of it.
        """
        if self._phase is not Phase.FINISHED or self._intersection is None:
            raise NotYet(
                f"the intersection is not known: this run is {self._phase.value}. Hand over the peer's messages."
            )
        return list(self._intersection)

    def _take_blinded(self, body: bytes) -> tuple[int, list[mpz]]:
        if self._blinded_in is None or self._key is None or self._seen is None:
            raise BadMessage("elements came before the key offer; expected nothing yet. Start a new run.")
        position, items = self._blinded_in.take(body)
        elements = unpack(items, self._key.public.n, first=position, units=True)
        self._seen.add(items, self._key.public.width)
        self._peer_count = self._blinded_in.total or 0
        self._total = self._peer_count + len(self._ids)
        if self._blinded_in.complete:
            self._phase = Phase.TAGGING
            self._seen = None
        return position, elements

    def _answers(self, position: int, elements: list[mpz]) -> Iterator[bytes]:
        self._check_going_on()
        if self._signed != position or self._key is None or self._run is None or self._peer_count is None:
            raise UsedTwice(
                f"the answers from element {position} were taken out of order; expected those from element "
                f"{self._signed}. Take all answers to one message before those to the next."
            )
        key, run, total = self._key, self._run, self._peer_count
        with self._ending_on_error():
            signed = pack(self._workers.map(key.power, elements), key.public.n)
            self._signed += len(elements)
            self._done += len(elements)
        yield write_chunk(Side.RESPONDER, Kind.SIGNED, run, position, total, signed)
        if self._signed == total:
            yield from self._tag_chunks(key, run)

    def _tag_chunks(self, key: rsa.PrivateKey, run: bytes) -> Iterator[bytes]:
        order = shuffled(self._ids, self._source)
        for part in chunk_ranges(len(order), self._chunk):
            self._check_going_on()
            with self._ending_on_error():
                sample_ids = order[part.start : part.stop]
                tags = self._tags_of(key, sample_ids)
                self._done += len(tags)
                if part.stop == len(order):
                    self._drop_key()
                    self._phase = Phase.MATCHED
                    limit = min(len(order), self._peer_count or 0)
                    self._reveal_in = ChunkReader(Kind.REVEAL, TAG_BYTES, least=0, limit=limit)
            yield write_chunk(Side.RESPONDER, Kind.TAGS, run, part.start, len(order), b"".join(tags))

    def _tags_of(self, key: rsa.PrivateKey, sample_ids: list[str]) -> list[bytes]:
        if self._hash is None or self._own_tags is None:
            raise UsedTwice("this run is over; expected a run that goes on. Make a new object with a new session.")
        run_hash = self._hash
        tags = self._workers.map(lambda each: run_hash.tag(key.power(run_hash.element(each))), sample_ids)
        self._own_tags.update(zip(tags, sample_ids, strict=True))
        return tags

    def _take_reveal(self, body: bytes) -> None:
        if self._own_tags is None:
            raise BadMessage("a reveal came before the tags; expected blinded ids. Start a new run.")
        _, items = self._reveal_in.take(body)
        revealed = self._intersection or []
        for start in range(0, len(items), TAG_BYTES):
            tag = items[start : start + TAG_BYTES]
            if tag not in self._own_tags:
                raise BadMessage(
                    "a revealed tag is not one of ours; expected some of the tags we sent. The peer is faulty."
                )
            if tag <= self._last_revealed:
                raise BadMessage(
                    "a revealed tag is repeated or out of order; expected ascending tags. The peer is faulty."
                )
            self._last_revealed = tag
            revealed.append(self._own_tags[tag])
        self._intersection = revealed
        if self._reveal_in.complete:
            self._intersection = sorted(revealed)
            self._phase = Phase.FINISHED
            self._forget()

    def _drop_key(self) -> None:
        self._key = None
        self._workers.close()

    def _forget(self) -> None:
        self._drop_key()
        self._own_tags = None
        self._seen = None

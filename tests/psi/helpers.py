"""A fixed test key, repeatable randomness, and runs stopped at the point where a test wants to look at them.

The factories use the engines that every machine has, one worker and tiny chunks; `terms` are the keywords `protocol`,
`reveal` and `joint` (a bool here; a joint responder gets the pair keys `PAIR_KEYS` unless others are given).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import cache
from typing import TypedDict

import gmpy2
from typing_extensions import Unpack

from psi import Initiator, Responder
from psi.ecdh import EcdhHolder
from psi.engines import RsaNumbers
from psi.hashing import ITEM_BYTES, TAG_BYTES
from psi.messages import Kind, Side, Writer
from psi.oprf import ECDH, RSA, Holder
from psi.rsa import RsaHolder, numbers_from_primes

TASK = "task-7"
SESSION = b"a session of sixteen or more bytes"
ENGINES = {RSA: "gmpy2", ECDH: "cryptography"}
"""The engine of each protocol that does not depend on the machine."""
SPOTS = {RSA: 0, ECDH: 32}
"""Elements that an initiator asks beyond its ids."""
WIDTH = {RSA: 256, ECDH: 32}
"""Bytes of an element."""
PAIR_KEYS = (bytes(range(32)),)
"""For a joint responder whose other responders do not matter to the test."""
HEAD = 19
"""Bytes of a message's header."""
CHUNK_HEAD = HEAD + 16
"""Bytes before the first item of a chunk."""


class TermsOf(TypedDict, total=False):
    """What both parties have to choose alike."""

    protocol: str
    reveal: str
    joint: bool


class Seeded:
    """Endless repeatable bytes in place of the system's randomness: SHAKE-256 of the seed and a counter."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(self._seed + self._calls.to_bytes(8, "big")).digest(size)


@cache
def prime(label: str, bits: int = 1024) -> int:
    """A prime that anybody can make again from its label; the two top bits are set, so a product has full length."""
    start = int.from_bytes(hashlib.shake_256(label.encode()).digest(bits // 8), "big") | 3 << (bits - 2)
    return int(gmpy2.next_prime(start))


@cache
def key(label: str = "test", bits: int = 2048) -> RsaNumbers:
    """A key made of two such primes. Everybody knows it: for tests only."""
    return numbers_from_primes(prime(label + " p", bits // 2), prime(label + " q", bits // 2))


def initiator(
    ids: Sequence[str],
    *,
    session: bytes = SESSION,
    task: str = TASK,
    protocol: str = RSA,
    reveal: str = "both",
    joint: bool = False,
    chunk: int | None = 4,
    workers: int | None = 1,
    executor: Executor | None = None,
    engine: str | None = "",
    seed: bytes = b"initiator",
) -> Initiator:
    """An initiator with seeded randomness; `engine=None` takes the fastest."""
    return Initiator(
        ids,
        task=task,
        session=session,
        protocol=protocol,
        reveal=reveal,
        joint=joint,
        chunk=chunk,
        workers=workers,
        executor=executor,
        engine=ENGINES.get(protocol) if engine == "" else engine,
        _entropy=Seeded(seed),
    )


def responder(
    ids: Sequence[str],
    *,
    session: bytes = SESSION,
    task: str = TASK,
    protocol: str = RSA,
    reveal: str = "both",
    joint: bool | Sequence[bytes] = False,
    chunk: int | None = 4,
    workers: int | None = 1,
    executor: Executor | None = None,
    engine: str | None = "",
    seed: bytes = b"responder",
    numbers: RsaNumbers | None = None,
) -> Responder:
    """A responder with seeded randomness and, with `rsa`, the test key or the given one."""
    pair_keys = (PAIR_KEYS if joint else None) if isinstance(joint, bool) else joint
    return Responder(
        ids,
        task=task,
        session=session,
        protocol=protocol,
        reveal=reveal,
        joint=pair_keys,
        chunk=chunk,
        workers=workers,
        executor=executor,
        engine=ENGINES.get(protocol) if engine == "" else engine,
        _key=(numbers or key()) if protocol == RSA else None,
        _entropy=Seeded(seed),
    )


def answers(run: Initiator | Responder, messages: Iterable[bytes]) -> list[bytes]:
    """Everything that a run says to these messages."""
    return [answer for message in messages for answer in run.receive(message)]


def carry(left: Initiator, right: Responder, messages: Iterable[bytes]) -> list[bytes]:
    """Carry messages both ways, in order, until nobody has more to say; `messages` are the responder's.

    Returns all of them, in the order in which they were said.
    """
    said = list(messages)
    to_initiator, to_responder = list(said), list[bytes]()
    while to_initiator or to_responder:
        if to_responder:
            new = list(right.receive(to_responder.pop(0)))
            to_initiator += new
        else:
            new = list(left.receive(to_initiator.pop(0)))
            to_responder += new
        said += new
    return said


def finish(left: Initiator, right: Responder, ids: Iterable[str] | None = None) -> list[bytes]:
    """Reveal, and carry the last words; returns what was said."""
    said = []
    for message in left.reveal(ids):
        said.append(message)
        for reply in right.receive(message):
            said.append(reply)
            said += list(left.receive(reply))
    return said


def started(ids: Sequence[str], **terms: Unpack[TermsOf]) -> tuple[Responder, bytes]:
    """A responder that has offered its key, and the run's id."""
    run = responder(ids, **terms)
    return run, run_of(next(run.start()))


def asked(
    ids: Sequence[str], peer_ids: Sequence[str], **terms: Unpack[TermsOf]
) -> tuple[Initiator, Responder, list[bytes]]:
    """Both runs up to where the initiator has sent all blinded chunks it may send unanswered; they are the third."""
    left, right = initiator(ids, **terms), responder(peer_ids, **terms)
    return left, right, answers(left, right.start())


def matched(ids: Sequence[str], peer_ids: Sequence[str], **terms: Unpack[TermsOf]) -> tuple[Initiator, Responder]:
    """Both runs up to where the initiator knows what the responder has to tell."""
    left, right = initiator(ids, **terms), responder(peer_ids, **terms)
    carry(left, right, right.start())
    return left, right


def revealed(
    ids: Sequence[str], peer_ids: Sequence[str], **terms: Unpack[TermsOf]
) -> tuple[Initiator, Responder, list[bytes]]:
    """Both runs up to where the initiator has said everything and the responder has not heard it; that is the third."""
    left, right = matched(ids, peer_ids, **terms)
    return left, right, list(left.reveal())


def run_of(message: bytes) -> bytes:
    """The run id in a message's header."""
    return message[3:HEAD]


def of_kind(messages: Iterable[bytes], kind: Kind) -> list[bytes]:
    """The messages of one kind."""
    return [message for message in messages if message[1] == kind]


def items_of(message: bytes, width: int) -> list[bytes]:
    """The items of a chunk."""
    return [message[start : start + width] for start in range(CHUNK_HEAD, len(message), width)]


def point(number: int) -> bytes:
    """A u-coordinate as it travels."""
    return number.to_bytes(32, "little")


def blinded(
    run: bytes, items: Iterable[int | bytes], *, position: int = 0, total: int | None = None, attempt: int = 0
) -> bytes:
    """A chunk of elements as an initiator would send it: numbers for `rsa`, points (bytes) for `ecdh`."""
    return chunk_of(Side.INITIATOR, Kind.BLINDED, run, items, position=position, total=total, attempt=attempt)


def chunk_of(
    side: Side,
    kind: Kind,
    run: bytes,
    items: Iterable[int | bytes],
    *,
    position: int = 0,
    total: int | None = None,
    attempt: int = 0,
) -> bytes:
    """Any chunk, of whatever items the test likes; a number takes the width of the test key's elements."""
    spelled = [item if isinstance(item, bytes) else item.to_bytes(WIDTH[RSA], "big") for item in items]
    declared = len(spelled) if total is None else total
    return Writer(side, run, attempt).chunk(kind, position, declared, b"".join(spelled))


@cache
def holder(protocol: str = RSA, *, session: bytes = SESSION, task: str = TASK) -> Holder:
    """What a responder of `responder(...)` makes first: the key with its context."""
    if protocol == RSA:
        return RsaHolder.fresh(task, session, bits=2048, numbers=key(), engine=ENGINES[RSA])
    return EcdhHolder.fresh(task, session, source=Seeded(b"responder"), engine=ENGINES[ECDH])


def output_of(sample_id: str, protocol: str = RSA, *, session: bytes = SESSION, task: str = TASK) -> bytes:
    """The 32 bytes that the function of that responder gives for an id: tag, check, companion."""
    key_holder = holder(protocol, session=session, task=task)
    return key_holder.context.outputs([sample_id], key_holder.powers([sample_id]), key_holder.width)


def tag_of(sample_id: str, protocol: str = RSA, *, session: bytes = SESSION, task: str = TASK) -> bytes:
    """An id's tag, as it is revealed."""
    return output_of(sample_id, protocol, session=session, task=task)[:TAG_BYTES]


def item_of(sample_id: str, protocol: str = RSA, *, session: bytes = SESSION, task: str = TASK) -> bytes:
    """An id's tag and check, as the responder tells them."""
    return output_of(sample_id, protocol, session=session, task=task)[:ITEM_BYTES]

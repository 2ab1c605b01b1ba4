"""A fixed test key, repeatable randomness, and runs stopped at the point where a test wants to attack them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import gmpy2
from gmpy2 import mpz

from psi import Initiator, Responder
from psi.elements import pack
from psi.hashing import RunHash
from psi.messages import Kind, Side, write_chunk
from psi.rsa import PrivateKey, PublicKey

TASK = "task-7"
SESSION = b"a session of sixteen or more bytes"


class Seeded:
    """Endless repeatable bytes in place of the system's randomness: SHAKE-256 of the seed and a counter."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(self._seed + self._calls.to_bytes(8, "big")).digest(size)


@cache
def prime(label: str, bits: int = 1024) -> mpz:
    """A prime that anybody can make again from its label; the two top bits are set, so a product has full length."""
    start = int.from_bytes(hashlib.shake_256(label.encode()).digest(bits // 8), "big") | 3 << (bits - 2)
    return gmpy2.next_prime(start)


@cache
def key(label: str = "test", bits: int = 2048) -> PrivateKey:
    """A key made of two such primes. Everybody knows it: for tests only."""
    return PrivateKey.from_primes(prime(label + " p", bits // 2), prime(label + " q", bits // 2))


def initiator(ids: Sequence[str], *, session: bytes = SESSION, task: str = TASK, chunk: int = 4) -> Initiator:
    return Initiator(ids, task=task, session=session, chunk=chunk, _entropy=Seeded(b"initiator"))


def responder(
    ids: Sequence[str], *, session: bytes = SESSION, task: str = TASK, chunk: int = 4, private: PrivateKey | None = None
) -> Responder:
    return Responder(
        ids, task=task, session=session, chunk=chunk, workers=1, _key=private or key(), _entropy=Seeded(b"responder")
    )


def started(ids: Sequence[str]) -> tuple[Responder, bytes]:
    """A responder that has offered its key, and the run's id."""
    run = responder(ids)
    return run, run_of(next(run.start()))


def run_of(message: bytes) -> bytes:
    """The run id in a message's header."""
    return message[2:18]


def blinded(run: bytes, values: Iterable[int], *, position: int = 0, total: int | None = None) -> bytes:
    """A chunk of elements as an initiator would send it, of whatever values the test likes."""
    numbers = [mpz(value) for value in values]
    declared = len(numbers) if total is None else total
    return write_chunk(Side.INITIATOR, Kind.BLINDED, run, position, declared, pack(numbers, key().public.n))


def answers(run: Initiator | Responder, messages: Iterable[bytes]) -> list[bytes]:
    """Everything that a run says to these messages."""
    return [answer for message in messages for answer in run.receive(message)]


def asked(ids: Sequence[str], peer_ids: Sequence[str]) -> tuple[Initiator, Responder, list[bytes]]:
    """Both runs up to where all blinded chunks have been sent; they are the third value."""
    left, right = initiator(ids), responder(peer_ids)
    return left, right, answers(left, right.start())


def matched(ids: Sequence[str], peer_ids: Sequence[str]) -> tuple[Initiator, Responder]:
    """Both runs up to where the initiator knows the intersection."""
    left, right, chunks = asked(ids, peer_ids)
    answers(left, answers(right, chunks))
    return left, right


def tag_of(sample_id: str, *, session: bytes = SESSION, task: str = TASK) -> bytes:
    """What the holder of the test key computes as an id's tag."""
    run_hash = RunHash(task, session, key().public.n)
    return run_hash.tag(key().power(run_hash.element(sample_id)))


def units_near(public: PublicKey, start: int, count: int) -> Iterator[mpz]:
    """Some different valid elements."""
    return (mpz(start + step) for step in range(count) if gmpy2.gcd(start + step, public.n) == 1)

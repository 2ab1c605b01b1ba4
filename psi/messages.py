"""What initiator and responder say, byte for byte. All integers are big-endian.

    every message   side u8 ('I' or 'R') | kind u8 | run id 16 bytes | body
    key offer       version u8 | nonce 16 bytes | responder's number of ids u64 | e u32 | width u16 |
                    n, width bytes | 8 roots, width bytes each
    the four others position of the first item u64 | items in the whole run u64 | the items, end to end

    kind            side   one item
    1 key offer     R
    2 blinded       I      y, width bytes
    3 signed        R      s, width bytes, in the order of the y
    4 tags          R      16 bytes, in random order
    5 reveal        I      16 bytes, ascending; a reveal of nothing is one message of no items

Every length is checked before anything is made of the bytes; positions count up without a gap, so a message that is
lost, repeated or moved is noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from gmpy2 import mpz

from psi.elements import unpack
from psi.errors import BadArgument, BadMessage, WrongRole
from psi.hashing import RUN_BYTES, run_id, width_of
from psi.rsa import KEY_PROOF_ROOTS, MAX_KEY_BITS, PublicKey

MAX_CHUNK = 16384
"""Items in one message. With the longest key that is 32 MiB."""
MAX_IDS = 10**10
"""Ids of one party: more than people on earth. A larger count is a wrong number, not a table."""
MAX_MESSAGE_BYTES = 64 + MAX_CHUNK * MAX_KEY_BITS // 8

_VERSION = 1
_HEADER = struct.Struct(f">BB{RUN_BYTES}s")
_OFFER = struct.Struct(f">B{RUN_BYTES}sQIH")
_CHUNK = struct.Struct(">QQ")


class Side(IntEnum):
    """Who wrote a message."""

    INITIATOR = ord("I")
    RESPONDER = ord("R")


class Kind(IntEnum):
    """What a message is."""

    KEY_OFFER = 1
    BLINDED = 2
    SIGNED = 3
    TAGS = 4
    REVEAL = 5


@dataclass(frozen=True)
class KeyOffer:
    """Responder to initiator, first: the key, its proof and how many ids the responder has."""

    key: PublicKey
    roots: Sequence[mpz]
    count: int
    nonce: bytes


def open_message(message: bytes, reader: Side) -> tuple[Kind, bytes, bytes]:
    """Split a message into (kind, run id, body).

    Raises:
        WrongRole: the reader's own side wrote it.
        BadMessage: it is not bytes, too short, too long, or names no side or kind.
    """
    if not isinstance(message, bytes):
        raise BadMessage("a message is not bytes; expected what the peer's run gave. Hand over the bytes unchanged.")
    if not _HEADER.size <= len(message) <= MAX_MESSAGE_BYTES:
        raise _malformed(f"{len(message)} bytes long", f"{_HEADER.size} to {MAX_MESSAGE_BYTES}")
    side, kind, run = _HEADER.unpack_from(message)
    if side == reader:
        raise WrongRole(
            f"a message of the {reader.name.lower()} came to the {reader.name.lower()}; expected one of the other "
            "side. Check that the parties took different roles; if so, somebody reflects messages."
        )
    if side not in Side.__members__.values():
        raise _malformed("of no known side", "the initiator's or the responder's mark")
    if kind not in Kind.__members__.values():
        raise _malformed(f"of kind {kind}", "a kind of 1 to 5")
    return Kind(kind), run, message[_HEADER.size :]


def write_key_offer(offer: KeyOffer, run: bytes) -> bytes:
    """A key offer as bytes."""
    width = offer.key.width
    fixed = _OFFER.pack(_VERSION, offer.nonce, offer.count, int(offer.key.e), width)
    numbers = b"".join(bytes(each.to_bytes(width, "big")) for each in (offer.key.n, *offer.roots))
    return _HEADER.pack(Side.RESPONDER, Kind.KEY_OFFER, run) + fixed + numbers


def read_key_offer(body: bytes, run: bytes, task: str, session: bytes) -> KeyOffer:
    """The bytes of a key offer; whether the key may be used is not judged here.

    Raises:
        BadMessage: it is malformed, of another version, or of another task or session.
        BadElement: a root is not in 2..n-2.
    """
    if not body or body[0] != _VERSION:
        raise _malformed("of another version", f"version {_VERSION}. Both parties need the same release")
    if len(body) < _OFFER.size:
        raise _malformed("too short for a key offer", "its fixed fields")
    _, nonce, count, e, width = _OFFER.unpack_from(body)
    if not 1 <= width <= MAX_KEY_BITS // 8 or len(body) != _OFFER.size + (1 + KEY_PROOF_ROOTS) * width:
        raise _malformed("not as long as its key says", f"a modulus and {KEY_PROOF_ROOTS} roots")
    if not 1 <= count <= MAX_IDS:
        raise _malformed("a key offer for an impossible number of ids", f"1 to {MAX_IDS}")
    if run != run_id(task, session, nonce):
        raise BadMessage(
            "the key offer belongs to another task or session; expected this one. "
            "Check that both parties gave the same task and session, then start a new run."
        )
    modulus = mpz.from_bytes(body[_OFFER.size : _OFFER.size + width], "big")
    if width_of(modulus) != width:
        raise _malformed("a key offer whose modulus starts with a zero byte", "the shortest spelling")
    return KeyOffer(PublicKey(modulus, mpz(e)), unpack(body[_OFFER.size + width :], modulus), count, nonce)


def write_chunk(side: Side, kind: Kind, run: bytes, position: int, total: int, items: bytes) -> bytes:
    """One message of items; `position` is that of the first, `total` counts all of the run."""
    return _HEADER.pack(side, kind, run) + _CHUNK.pack(position, total) + items


def chunk_ranges(total: int, size: int) -> Iterator[range]:
    """The positions of each chunk in turn: 0..size-1, size..2·size-1, …"""
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def check_chunk_size(chunk: int) -> None:
    """Refuse a number of items per message that no peer would accept.

    Raises:
        BadArgument: it is not a whole number of 1 to 16384.
    """
    if not isinstance(chunk, int) or not 1 <= chunk <= MAX_CHUNK:
        raise BadArgument(f"chunk is {chunk!r}; expected a whole number of 1 to {MAX_CHUNK} ids per message.")


class ChunkReader:
    """The items of one kind as they come, in order, as many as declared.

    Args:
        kind: what they are, for the texts.
        width: bytes of an item.
        total: how many must come; None takes what the first message declares, up to `limit`.
        least: the smallest total that may be declared.
        limit: the largest.
    """

    def __init__(
        self, kind: Kind, width: int, *, total: int | None = None, least: int = 1, limit: int = MAX_IDS
    ) -> None:
        self._what = f"the {kind.name.lower()} items"
        self._width = width
        self._least = least
        self._limit = limit
        self.total = total
        """How many were declared; None before the first message."""
        self.done = 0
        """How many came."""

    @property
    def complete(self) -> bool:
        """Whether all declared items came."""
        return self.done == self.total

    def take(self, body: bytes) -> tuple[int, bytes]:
        """Split the body of one message into (position of its first item, its items' bytes).

        Raises:
            BadMessage: its length is not whole items, its position is not the next one, or its count is not as
                declared. Nothing is taken then.
        """
        size = len(body) - _CHUNK.size
        if size < 0 or size % self._width:
            raise _malformed(f"a message of {self._what} that is cut or too long", f"items of {self._width} bytes")
        position, total = _CHUNK.unpack_from(body)
        count = size // self._width
        if self.total is None and not self._least <= total <= self._limit:
            raise _malformed(f"a declaration of {total} for {self._what}", f"{self._least} to {self._limit}")
        if self.total is not None and total != self.total:
            raise _malformed(f"a second declaration of {total} for {self._what}", f"{self.total} as agreed")
        if position != self.done:
            raise BadMessage(
                f"{self._what} from position {position} came; expected position {self.done}. "
                "A message was lost, repeated or moved: start a new run."
            )
        if count > min(MAX_CHUNK, total - position) or (count == 0 and total > 0):
            raise _malformed(f"a message of {count} of {self._what}", f"1 to {min(MAX_CHUNK, total - position)}")
        self.total = total
        self.done += count
        return position, body[_CHUNK.size :]


def _malformed(what: str, expected: str) -> BadMessage:
    return BadMessage(f"the peer sent a message that is {what}; expected {expected}. End the run: the peer is faulty.")

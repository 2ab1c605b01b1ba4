"""What initiator and responder say, byte for byte. All integers are big-endian.

    every message   side u8 ('I' or 'R') | kind u8 | attempt u8 | run id 16 bytes | body
    offer           version u8 | protocol u8 | reveal u8 | joint u8 | nonce 16 bytes | responder's number of ids u64 |
                    its public part (see `rsa` and `ecdh`)
    ack             how many blinded items have come u64
    confirm         how many ids are shared u64 (0 where the reader is not to know) | keyed digest 32 bytes
    resume          answers that have come u64 | tags or cells that have come u64
    resumed         blinded items that have come u64 | revealed items that have come u64
    the five others position of the first item u64 | items in the whole run u64 | the items, end to end

    kind            side   one item
    1 offer         R
    2 blinded       I      y, an element; spot checks among them
    3 answers       R      s, an element, in the order of the y; where only a number is revealed, in random order
    4 tags          R      16 bytes, in random order
    5 reveal        I      12 bytes, ascending; a reveal of nothing is one message of no items
    6 confirm       both
    7 ack           R      only where the answers wait until all blinded items have come
    8 cells         R      16 bytes: the seed u64 and 8 zero bytes, then the cells of the store (see `okvs`)
    9 resume        I      the link was lost: asks to go on
    10 resumed      R      the answer; everything after it carries the new attempt number

Every length is checked before anything is made of the bytes; positions count up without a gap, so a message that is
lost, repeated or moved is noticed. After a resume, messages of an earlier attempt are dropped unread. Where there are
no items at all, the one empty message that says so counts as one in a resume and a resumed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

from psi.errors import BadArgument, BadMessage, WrongRole
from psi.hashing import RUN_BYTES, run_id
from psi.oprf import ECDH, RSA

MAX_CHUNK = 16384
"""Items in one message. With the longest key that is 32 MiB."""
MAX_IDS = 10**10
"""Ids of one party: more than people on earth. A larger count is a wrong number, not a table."""
MAX_MESSAGE_BYTES = 1 << 26
MAX_ATTEMPT = 255
CONFIRM_BYTES = 32

_VERSION = 2
_HEADER = struct.Struct(f">BBB{RUN_BYTES}s")
_OFFER = struct.Struct(f">BBBB{RUN_BYTES}sQ")
_CHUNK = struct.Struct(">QQ")
_TWO = struct.Struct(">QQ")
_ACK = struct.Struct(">Q")
_CONFIRM = struct.Struct(f">Q{CONFIRM_BYTES}s")
_PROTOCOL_CODES = {RSA: 1, ECDH: 2}
NO_RUN = bytes(RUN_BYTES)
"""In place of the run id before it is known."""


class Side(IntEnum):
    """Who wrote a message."""

    INITIATOR = ord("I")
    RESPONDER = ord("R")


class Kind(IntEnum):
    """What a message is."""

    OFFER = 1
    BLINDED = 2
    ANSWERS = 3
    TAGS = 4
    REVEAL = 5
    CONFIRM = 6
    ACK = 7
    CELLS = 8
    RESUME = 9
    RESUMED = 10


class Reveal(str, Enum):
    """Who learns what at the end of a run."""

    BOTH = "both"
    """Both parties learn which of their ids are shared (the responder: those that the initiator chooses)."""
    INITIATOR = "initiator"
    """Only the initiator learns which."""
    CARDINALITY = "cardinality"
    """Both learn how many are shared, nobody which. Needs `ecdh`."""


_REVEAL_CODES = {Reveal.BOTH: 1, Reveal.INITIATOR: 2, Reveal.CARDINALITY: 3}


@dataclass(frozen=True)
class Terms:
    """What both parties must have chosen alike."""

    protocol: str
    reveal: Reveal
    joint: bool

    def __str__(self) -> str:
        return f"protocol={self.protocol!r}, reveal={self.reveal.value!r}, joint={self.joint}"


@dataclass(frozen=True)
class Offer:
    """Responder to initiator, first: the terms, the public part and how many ids the responder has."""

    terms: Terms
    nonce: bytes
    count: int
    public: bytes


@dataclass(frozen=True)
class Envelope:
    """A message, opened."""

    kind: Kind
    attempt: int
    run: bytes
    body: bytes


@dataclass(frozen=True)
class Writer:
    """Puts our messages of one run and one attempt into bytes."""

    side: Side
    run: bytes = NO_RUN
    attempt: int = 0

    def offer(self, offer: Offer) -> bytes:
        """An offer."""
        terms = offer.terms
        codes = _VERSION, _PROTOCOL_CODES[terms.protocol], _REVEAL_CODES[terms.reveal], int(terms.joint)
        return self._head(Kind.OFFER) + _OFFER.pack(*codes, offer.nonce, offer.count) + offer.public

    def chunk(self, kind: Kind, position: int, total: int, items: bytes) -> bytes:
        """One message of items; `position` is that of the first, `total` counts all of the run."""
        return self._head(kind) + _CHUNK.pack(position, total) + items

    def ack(self, received: int) -> bytes:
        """An ack."""
        return self._head(Kind.ACK) + _ACK.pack(received)

    def confirm(self, count: int, digest: bytes) -> bytes:
        """A confirm."""
        return self._head(Kind.CONFIRM) + _CONFIRM.pack(count, digest)

    def pair(self, kind: Kind, first: int, second: int) -> bytes:
        """A resume or a resumed."""
        return self._head(kind) + _TWO.pack(first, second)

    def _head(self, kind: Kind) -> bytes:
        return _HEADER.pack(self.side, kind, self.attempt, self.run)


def open_message(message: bytes, reader: Side) -> Envelope:
    """Split a message.

    Raises:
        WrongRole: the reader's own side wrote it.
        BadMessage: it is not bytes, too short, too long, or names no side or kind.
    """
    if not isinstance(message, bytes):
        raise BadMessage("a message is not bytes; expected what the peer's run gave. Hand over the bytes unchanged.")
    if not _HEADER.size <= len(message) <= MAX_MESSAGE_BYTES:
        raise _malformed(f"{len(message)} bytes long", f"{_HEADER.size} to {MAX_MESSAGE_BYTES}")
    side, kind, attempt, run = _HEADER.unpack_from(message)
    if side == reader:
        raise WrongRole(
            f"a message of the {reader.name.lower()} came to the {reader.name.lower()}; expected one of the other "
            "side. Check that the parties took different roles; if so, somebody reflects messages."
        )
    if side not in Side.__members__.values():
        raise _malformed("of no known side", "the initiator's or the responder's mark")
    if kind not in Kind.__members__.values():
        raise _malformed(f"of kind {kind}", f"a kind of 1 to {max(Kind)}")
    return Envelope(Kind(kind), attempt, run, message[_HEADER.size :])


def read_offer(envelope: Envelope, terms: Terms, task: str, session: bytes) -> Offer:
    """The bytes of an offer; whether its public part may be used is not judged here.

    Raises:
        BadMessage: it is malformed, of another version, on other terms, or of another task or session.
    """
    body = envelope.body
    if not body or body[0] != _VERSION:
        raise _malformed("of another version", f"version {_VERSION}. Both parties need the same release")
    if len(body) < _OFFER.size:
        raise _malformed("too short for an offer", "its fixed fields")
    _, protocol, reveal, joint, nonce, count = _OFFER.unpack_from(body)
    protocols = {code: name for name, code in _PROTOCOL_CODES.items()}
    reveals = {code: each for each, code in _REVEAL_CODES.items()}
    if protocol not in protocols or reveal not in reveals or joint > 1:
        raise _malformed("an offer on unknown terms", "a known protocol and reveal")
    offered = Terms(protocols[protocol], reveals[reveal], bool(joint))
    if offered != terms:
        raise BadMessage(f"the responder offers {offered}; expected {terms}. Give both parties the same arguments.")
    if count > MAX_IDS:
        raise _malformed("an offer for an impossible number of ids", f"0 to {MAX_IDS}")
    if envelope.run != run_id(terms.protocol, task, session, nonce):
        raise BadMessage(
            "the offer belongs to another task or session; expected this one. "
            "Check that both parties gave the same task and session, then start a new run."
        )
    return Offer(offered, nonce, count, body[_OFFER.size :])


def read_ack(body: bytes) -> int:
    """The number in an ack."""
    return int(_exactly(_ACK, body, "an ack")[0])


def read_confirm(body: bytes) -> tuple[int, bytes]:
    """(number of shared ids, digest)."""
    count, digest = _exactly(_CONFIRM, body, "a confirm")
    return int(count), bytes(digest)


def read_pair(body: bytes, what: str) -> tuple[int, int]:
    """The two numbers of a resume or a resumed."""
    first, second = _exactly(_TWO, body, what)
    return int(first), int(second)


def _exactly(layout: struct.Struct, body: bytes, what: str) -> tuple[int | bytes, ...]:
    if len(body) != layout.size:
        raise _malformed(f"{what} of {len(body)} bytes", f"{layout.size}")
    return layout.unpack(body)


def chunk_ranges(total: int, size: int, start: int = 0) -> Iterator[range]:
    """The positions of each chunk in turn, from `start` on: 0..size-1, size..2·size-1, …"""
    return (range(at, min(at + size, total)) for at in range(start, total, size))


def check_chunk_size(chunk: int) -> None:
    """Refuse a number of items per message that no peer would accept.

    Raises:
        BadArgument: it is not a whole number of 1 to 16384.
    """
    if type(chunk) is not int or not 1 <= chunk <= MAX_CHUNK:
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
        self.begun = False
        """Whether a message came, be it one of no items."""

    @property
    def complete(self) -> bool:
        """Whether all declared items came."""
        return self.done == self.total

    @property
    def mark(self) -> int:
        """Where a resumed run goes on: how many came; the one message of a run of none counts as one."""
        return self.done or int(self.begun)

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
        self.begun = True
        return position, body[_CHUNK.size :]


def _malformed(what: str, expected: str) -> BadMessage:
    return BadMessage(f"the peer sent a message that is {what}; expected {expected}. End the run: the peer is faulty.")

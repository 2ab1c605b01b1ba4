"""The small frame in front of every message of a reliable transport: who talks to whom, and what has come so far.

      0  version (1 byte), kind (1), nothing (2)
      4  CRC-32 of this header, with zeros here, and of the payload; 0: none
      8  the sender's incarnation (8 bytes)
     16  the receiver's, as far as the sender knows it; zeros: it does not
     24  number, handed, received (8 each, big-endian)

An incarnation is a random name of one end for as long as it remembers what it sent and received.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import NamedTuple

from heterofed.wire.transport import Buffer

VERSION = 1
UNKNOWN = bytes(8)
"""Stands for an incarnation that the sender has not heard of yet."""

_LAYOUT = struct.Struct("!BBxxI8s8sQQQ")
_BEFORE_NUMBERS = struct.Struct("!BBxxI8s8s")
_NUMBERS = struct.Struct("!QQQ")
_CHECKSUM = struct.Struct("!I")
_CHECKSUM_AT = 4
HEADER_BYTES = _LAYOUT.size


class Kind(IntEnum):
    """What a message is for. The meaning of `number` differs."""

    DATA = 1
    """The caller's frames follow; number is their place in the stream."""

    ACK = 2
    """Every message from `received` up to, not including, number is missing here: repeat it."""

    PROBE = 3
    """What have you got? Number is the next one that will be sent. Answered with an ACK."""

    HELLO = 4
    """Are you there? Number is a question, drawn at random, and handed the answer to the other end's; 0: none."""


_KINDS = frozenset(int(kind) for kind in Kind)


class Flaw(Enum):
    """Why something that came is no message."""

    MALFORMED = "no message of this version"
    DAMAGED = "not what was sent"


class Header(NamedTuple):
    """A header that was read."""

    kind: int
    sender: bytes
    receiver: bytes
    number: int
    handed: int
    """Every message before this number was handed out at the sender: a cumulative acknowledgement."""

    received: int
    """Every message before this number has come to the sender."""


def pack(header: Header | tuple[int, bytes, bytes, int, int, int], sealed: Sequence[Buffer] | None = None) -> bytes:
    """Return the bytes of a header; `sealed` are the frames behind it, where a checksum must protect them."""
    kind, sender, receiver, number, handed, received = header
    plain = _LAYOUT.pack(VERSION, kind, 0, sender, receiver, number, handed, received)
    return plain if sealed is None else _with_checksum(plain, _checksum(plain, sealed))


def usual(sender: bytes, receiver: bytes) -> bytes:
    """Return how the header of a DATA without a checksum begins; it ends with three numbers."""
    if sender == UNKNOWN:
        return bytes(HEADER_BYTES + 1)  # no header begins so
    return _BEFORE_NUMBERS.pack(VERSION, Kind.DATA, 0, sender, receiver)


def usual_header(beginning: bytes, number: int, handed: int, received: int) -> bytes:
    """Return the header of a DATA without a checksum, as `pack` does in three times the time."""
    return beginning + _NUMBERS.pack(number, handed, received)


def usual_numbers(frames: Sequence[Buffer], beginning: bytes) -> tuple[int, int, int] | None:
    """Return number, handed and received of a DATA whose header begins so, or None if these frames are none."""
    if len(frames) < 2 or len(frames[0]) != HEADER_BYTES or not len(frames[1]):
        return None
    header = bytes(frames[0])
    if not header.startswith(beginning):
        return None
    return _NUMBERS.unpack_from(header, _BEFORE_NUMBERS.size)


def unpack(frames: Sequence[Buffer], *, must_be_sealed: bool) -> Header | Flaw:
    """Return the header of a frame sequence. Whatever came, it does not raise.

    A checksum that is there is checked; where it must be, its absence is a flaw.
    """
    if not frames:
        return Flaw.MALFORMED
    try:
        version, kind, checksum, sender, receiver, number, handed, received = _LAYOUT.unpack(frames[0])
    except struct.error:
        return Flaw.MALFORMED
    if must_be_sealed or checksum:
        plain = _with_checksum(bytes(frames[0]), 0)
        if checksum != _checksum(plain, frames[1:]):
            return Flaw.DAMAGED
    has_content = len(frames) > 1 and len(frames[1]) > 0
    if version != VERSION or kind not in _KINDS or has_content != (kind == Kind.DATA) or sender == UNKNOWN:
        return Flaw.MALFORMED
    return Header(kind, sender, receiver, number, handed, received)


def _checksum(plain: bytes, frames: Sequence[Buffer]) -> int:
    checksum = zlib.crc32(plain)
    for frame in frames:
        checksum = zlib.crc32(frame, checksum)
    return checksum or 1  # 0 says that there is none


def _with_checksum(header: bytes, checksum: int) -> bytes:
    return header[:_CHECKSUM_AT] + _CHECKSUM.pack(checksum) + header[_CHECKSUM_AT + _CHECKSUM.size :]

"""Frame sequences to the parts of one ZeroMQ message, and back.

    [joined]                     a small sequence: its frames in one part, the last one first, then their sizes
    [joined, piece, piece, ...]  a sequence with big frames: those cut into pieces of at most PIECE_BYTES, in order
    [empty, kind]                a signal from transport to transport, see `Signal`

Small frames are joined because a part costs more than a copy of them: some 5 microseconds and 42 bytes of encryption
and framing. The last frame, a tensor, goes first because there the memory is aligned.

Big frames are cut because of heartbeats: libzmq counts only whole parts as a sign of life, and answers a PING only
between two parts (libzmq issue 2709). One 100 MB part on a slow line would lose its connection, again and again.
It also lets the socket refuse big parts, so that a stranger cannot make a host allocate much before it is known.
Encryption, network and decryption work at the same time on the pieces of one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeAlias

import zmq

from heterofed.errors import ConfigError, WireError
from heterofed.wire.transport import Buffer, size_of

PIECE_BYTES = 512 * 1024
"""A line that carries less than this within the time after which a connection counts as dead would lose it."""

JOIN_BYTES = (1 << 16) - 1
"""A sequence of up to so many bytes travels in one part."""

SMALL_BYTES = 256
"""In a larger sequence, only frames of up to so many bytes are joined."""

MAX_FRAMES = 255
"""More frames than that are no message of ours; as small ones they fit one piece with their sizes."""

Part: TypeAlias = Buffer | zmq.Frame

_SHORT = [struct.Struct(f"!{max(0, count - 1)}HB") for count in range(MAX_FRAMES + 1)]
"""At the end of a small sequence: the size of each frame but the last, and how many there are."""

_LONG = [struct.Struct(f"!{count}QBB") for count in range(MAX_FRAMES + 1)]
"""At the end of the joined part of another one: the size of each frame, how many there are, and 0."""


class Signal(Enum):
    """What transports tell each other; never handed to the caller."""

    PROBE = b"probe"
    """Host to collaborator: nothing; only that it can be sent tells the host that the connection stands."""

    HELLO = b"hello"
    """Collaborator to host: this connection is mine now. The first thing on every connection, but for a message."""

    REFUSED = b"refused"
    """Host to collaborator: another process with your key is here already."""

    NOISE = b""
    """Not made by this module; to be ignored."""

    @property
    def parts(self) -> list[Part]:
        """The parts to send."""
        return [b"", self.value]


_SIGNALS = {signal.value: signal for signal in Signal}


class Cut:
    """A big frame, copied into pieces that belong to libzmq: sent any number of times without another copy."""

    __slots__ = ("_size", "pieces")

    def __init__(self, frame: Buffer) -> None:
        self.pieces = [zmq.Frame(piece, copy=True) for piece in _pieces(frame)]
        self._size = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self._size


_MEASURED_BY_LEN = frozenset({bytes, bytearray, Cut})


def keep(frames: Sequence[Buffer]) -> list[Buffer | Cut]:
    """Return frames that stay as these are now: bytes, and what is too big to be joined as pieces for `to_parts`.

    Raises:
        ConfigError: see `frame_sizes`.
    """
    return [
        frame
        if type(frame) is bytes and len(frame) <= JOIN_BYTES
        else bytes(frame)
        if size_of(frame) <= JOIN_BYTES
        else Cut(frame)
        for frame in frames
    ]


def frame_sizes(frames: Sequence[Buffer | Cut], max_bytes: int) -> list[int]:
    """Return the size of each frame in bytes, after checking that the sequence may travel.

    Raises:
        ConfigError: no frames, too many, an empty first one, or memory that is not contiguous.
        WireError: together they are larger than `max_bytes`.
    """
    known = _MEASURED_BY_LEN.issuperset(map(type, frames))
    sizes = list(map(len, frames)) if known else [_size(frame) for frame in frames]
    if not 1 <= len(sizes) <= MAX_FRAMES:
        raise ConfigError(f"a message of {len(sizes)} frames cannot be sent", expected=f"1 to {MAX_FRAMES}")
    if sizes[0] == 0:
        raise ConfigError("a message with an empty first frame cannot be sent", expected="a header in it")
    if sum(sizes) > max_bytes:
        raise WireError(
            f"a message of {sum(sizes)} bytes cannot be sent",
            expected=f"at most {max_bytes}",
            advice="Use smaller batches, or raise HETEROFED_MAX_MESSAGE_BYTES at every party.",
        )
    return sizes


def to_parts(frames: Sequence[Buffer | Cut], max_bytes: int) -> list[Part]:
    """Return the parts that carry a frame sequence; big frames are not copied into them.

    Raises:
        ConfigError: see `frame_sizes`.
        WireError: see `frame_sizes`.
    """
    sizes = frame_sizes(frames, max_bytes)
    count = len(sizes)
    if sum(sizes) <= JOIN_BYTES:
        # None of them is cut, then.
        joined: list[Any] = [*frames[::-1], _SHORT[count].pack(*sizes[:-1], count)]
        return [b"".join(joined)]
    small: list[Buffer] = []
    pieces: list[Part] = []
    for frame, size in zip(frames, sizes, strict=True):
        if isinstance(frame, Cut):
            pieces += frame.pieces
        elif size <= SMALL_BYTES:
            small.insert(0, frame)
        else:
            pieces += _pieces(frame)
    return [b"".join((*small, _LONG[count].pack(*sizes, count, 0))), *pieces]


def from_parts(parts: Sequence[memoryview], max_bytes: int) -> list[Buffer] | Signal:
    """Return the frame sequence, or the signal, that these parts carry. Whatever came, it does not raise.

    The frames refer to the parts' memory, but for those that were cut; all are writable if the parts are.
    """
    if not parts:
        return Signal.NOISE
    joined = parts[0]
    if not joined.nbytes:
        return _SIGNALS.get(bytes(parts[1]) if len(parts) == 2 else b"", Signal.NOISE)
    count = joined[-1]
    if not count:
        return _apart(joined, parts, max_bytes) or Signal.NOISE
    layout = _SHORT[count]
    end = joined.nbytes - layout.size
    if len(parts) != 1 or not 0 < end <= max_bytes:
        return Signal.NOISE
    frames: list[Buffer] = []
    for size in layout.unpack_from(joined, end)[:-1]:
        if size > end:
            return Signal.NOISE
        frames.append(joined[end - size : end])
        end -= size
    frames.append(joined[:end])
    return frames if len(frames[0]) else Signal.NOISE


def _apart(joined: memoryview, parts: Sequence[memoryview], max_bytes: int) -> list[Buffer] | None:
    """Return the frames of a sequence with big ones."""
    count = joined[-2] if joined.nbytes > 1 else 0
    layout = _LONG[count]
    end = joined.nbytes - layout.size
    if not count or end < 0:
        return None
    sizes: tuple[int, ...] = layout.unpack_from(joined, end)[:count]
    counts = [0 if size <= SMALL_BYTES else -(-size // PIECE_BYTES) for size in sizes]
    if sizes[0] == 0 or sum(sizes) > max_bytes or sum(counts) != len(parts) - 1:
        return None
    frames: list[Buffer] = []
    at = 1
    for size, pieces in zip(sizes, counts, strict=True):
        if not pieces:
            if size > end:
                return None
            frame = joined[end - size : end]
            end -= size
        else:
            # One piece is the frame; several come one behind the other, in one copy.
            frame = parts[at] if pieces == 1 else memoryview(bytearray().join(parts[at : at + pieces]))
            if frame.nbytes != size:
                return None
            at += pieces
        frames.append(frame)
    return frames if end == 0 else None


def _size(frame: Buffer | Cut) -> int:
    return len(frame) if isinstance(frame, Cut) else size_of(frame)


def _pieces(frame: Buffer) -> list[memoryview]:
    """Return a frame that is not empty in slices of at most PIECE_BYTES."""
    view = memoryview(frame).cast("B")
    return [view[at : at + PIECE_BYTES] for at in range(0, view.nbytes, PIECE_BYTES)]

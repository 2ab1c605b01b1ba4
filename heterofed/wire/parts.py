"""Frame sequences to the parts of one ZeroMQ message, and back.

Most sequences travel as they are: one part a frame. Two kinds begin with an empty part, which no caller may send:

    [empty, kind]                      a signal from transport to transport, see `Signal`
    [empty, "pieces", sizes, ...]      a sequence with a big frame, cut into pieces of at most PIECE_BYTES

Big frames are cut because of heartbeats: libzmq counts only whole parts as a sign of life, and answers a PING only
between two parts (libzmq issue 2709). One 100 MB part on a slow line would lose its connection, again and again.
It also lets the socket refuse big parts, so that a stranger cannot make a host allocate much before it is known.
Pieces cost nothing: encryption, network and decryption work at the same time (5 MiB and an answer between two processes
of one machine: 6.3 ms in pieces of 256 KiB, 8.7 ms as one part).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum

from heterofed.errors import ConfigError, WireError
from heterofed.wire.transport import Buffer

PIECE_BYTES = 256 * 1024
MAX_FRAMES = 8192
"""More frames than that are no message of ours; their sizes fit one piece."""

_PIECES = b"pieces"


class Signal(Enum):
    """What transports tell each other; never handed to the caller."""

    PROBE = b"probe"
    """Host to collaborator: nothing; only that it can be sent tells the host that the connection stands."""

    HELLO = b"hello"
    """Collaborator to host: this connection is mine now. The first thing on every connection."""

    REFUSED = b"refused"
    """Host to collaborator: another process with your key is here already."""

    NOISE = b""
    """Not made by this module; to be ignored."""

    @property
    def parts(self) -> list[Buffer]:
        """The parts to send."""
        return [b"", self.value]


_SIGNALS = {signal.value: signal for signal in Signal}


def frame_sizes(frames: Sequence[Buffer], max_bytes: int) -> list[int]:
    """Return the size of each frame in bytes, after checking that the sequence may travel.

    Raises:
        ConfigError: no frames, too many, an empty first one, or memory that is not contiguous.
        WireError: together they are larger than `max_bytes`.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ConfigError(f"a message of {len(frames)} frames cannot be sent", expected=f"1 to {MAX_FRAMES}")
    views = [memoryview(frame) for frame in frames]
    if not all(view.c_contiguous for view in views):
        raise ConfigError("a frame with gaps in its memory cannot be sent", expected="contiguous memory")
    sizes = [view.nbytes for view in views]
    if sizes[0] == 0:
        raise ConfigError("a message with an empty first frame cannot be sent", expected="a header in it")
    if sum(sizes) > max_bytes:
        raise WireError(
            f"a message of {sum(sizes)} bytes cannot be sent",
            expected=f"at most {max_bytes}",
            advice="Use smaller batches, or raise HETEROFED_MAX_MESSAGE_BYTES at every party.",
        )
    return sizes


def to_parts(frames: Sequence[Buffer], max_bytes: int) -> list[Buffer]:
    """Return the parts that carry a frame sequence; they refer to its memory.

    Raises:
        ConfigError: see `frame_sizes`.
        WireError: see `frame_sizes`.
    """
    sizes = frame_sizes(frames, max_bytes)
    if max(sizes) <= PIECE_BYTES:
        return list(frames)
    parts: list[Buffer] = [b"", _PIECES, struct.pack(f"!{len(sizes)}Q", *sizes)]
    for frame, size in zip(frames, sizes, strict=True):
        # An empty frame has no pieces; its size says all there is to say.
        view = memoryview(frame).cast("B") if size else memoryview(b"")
        parts.extend(view[at : at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES))
    return parts


def from_parts(parts: Sequence[memoryview], max_bytes: int) -> list[Buffer] | Signal:
    """Return the frame sequence, or the signal, that these parts carry. Whatever came, it does not raise.

    The frames of an uncut sequence refer to the parts' memory; all are writable if the parts are.
    """
    if not parts:
        return Signal.NOISE
    if parts[0].nbytes:
        whole = len(parts) <= MAX_FRAMES and sum(part.nbytes for part in parts) <= max_bytes
        return list(parts) if whole else Signal.NOISE
    kind = bytes(parts[1]) if len(parts) > 1 else b""
    if kind != _PIECES:
        return _SIGNALS.get(kind, Signal.NOISE)
    return _join(parts[2:], max_bytes) or Signal.NOISE


def _join(parts: Sequence[memoryview], max_bytes: int) -> list[Buffer] | None:
    if not parts or not 8 <= parts[0].nbytes <= 8 * MAX_FRAMES or parts[0].nbytes % 8:
        return None
    sizes: tuple[int, ...] = struct.unpack(f"!{parts[0].nbytes // 8}Q", parts[0])
    pieces = [-(-size // PIECE_BYTES) for size in sizes]
    if sizes[0] == 0 or sum(sizes) > max_bytes or sum(pieces) != len(parts) - 1:
        return None
    frames: list[Buffer] = []
    at = 1
    for size, count in zip(sizes, pieces, strict=True):
        frame = bytearray().join(parts[at : at + count])
        if len(frame) != size:
            return None
        frames.append(memoryview(frame))
        at += count
    return frames

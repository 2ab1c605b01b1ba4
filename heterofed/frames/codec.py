"""Message <-> frames: a small msgpack header, then one frame for each blob. Nothing here can run a peer's code.

    [ header ]                       ["Embedding", 1, 0, 128, digest, ["raw", "float32", [128, 10], 0]]
    [ blob 0 ]                       128 x 10 float32, 5,120 bytes

A blob stands in the header as its number; numbers count up from 0 in the order of the fields. Whatever comes in,
`decode` returns a message or raises `FrameError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from heterofed.errors import FrameError, LocalProtocolError
from heterofed.frames.forms import Blob
from heterofed.frames.messages import PROTOCOL_VERSION, AnyMessage, Embedding, Gradient, Message

Frame = bytes | bytearray | memoryview

MAX_HEADER_BYTES = 1 << 16
"""No header comes near this; a longer one is not ours."""

MAX_FRAMES = 4
"""A header and at most two blobs today; room for one more."""

MAX_PLAIN_BYTES = 1 << 20
"""Largest message without a tensor. A part of the intersection takes up to half of it (512 elements of 8192 bits)."""

WITH_TENSORS: tuple[type[Message], ...] = (Embedding, Gradient)
"""The messages that may be as large as the user's batches make them."""


class Codec:
    """Turns messages into frames and back. One per link end; not for two threads at once.

    Args:
        max_bytes: largest message with a tensor accepted or produced, in bytes of all its frames; of the others the
            largest has `MAX_PLAIN_BYTES`, or `max_bytes` where that is less.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self._plain_bytes = min(max_bytes, MAX_PLAIN_BYTES)
        self._outgoing: list[Frame] = []
        self._incoming: Sequence[Frame] = ()
        self._taken = 0
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._put_blob)
        self._decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(
            AnyMessage, dec_hook=self._take_blob
        )

    def encode(self, message: AnyMessage) -> list[Frame]:
        """Return the header and the blobs of a message; the blobs are not copied.

        Raises:
            FrameError: the message is larger than one of its kind may be.
            LocalProtocolError: a field holds what no message can carry (a bug on this side).
        """
        self._outgoing = []
        try:
            header = self._encoder.encode(message)
        except (TypeError, ValueError, OverflowError) as error:  # the error's own text may quote the value
            raise LocalProtocolError(
                f"tried to send a {type(message).__name__} that cannot be encoded ({type(error).__name__})",
                advice="This is a bug in heterofed.",
            ) from None
        finally:
            blobs, self._outgoing = self._outgoing, []  # keep no tensor alive until the next message
        frames: list[Frame] = [header, *blobs]
        if size_of(frames) > (self.max_bytes if isinstance(message, WITH_TENSORS) else self._plain_bytes):
            raise self._too_large(size_of(frames), message)
        return frames

    def decode(self, frames: Sequence[Frame]) -> AnyMessage:
        """Return the message that these frames are; its blobs are views of them.

        Raises:
            FrameError: they are not a message, or one beyond the limits.
        """
        if not 1 <= len(frames) <= MAX_FRAMES:
            raise FrameError(f"sent {len(frames)} frames", expected=f"1 to {MAX_FRAMES}")
        if _size(frames[0]) > MAX_HEADER_BYTES:
            raise FrameError(f"sent a header of {_size(frames[0])} bytes", expected=f"at most {MAX_HEADER_BYTES}")
        total = size_of(frames)
        if total > self.max_bytes:
            raise self._too_large(total)
        self._incoming = frames
        self._taken = 0
        try:
            message = self._decoder.decode(frames[0])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(
                f"sent bytes that are no message of ours ({type(error).__name__}: {_first_line(error)})",
                expected=f"a message of protocol version {PROTOCOL_VERSION}",
                advice="Check that all parties run the same version of heterofed.",
            ) from None
        finally:
            self._incoming = ()
        if self._taken != len(frames) - 1:
            raise FrameError(f"sent {len(frames) - 1} blobs", expected=f"{self._taken}, as its header says")
        if total > (self.max_bytes if isinstance(message, WITH_TENSORS) else self._plain_bytes):
            raise self._too_large(total, message)  # no blob was looked into yet
        return message

    def _too_large(self, total: int, message: AnyMessage | None = None) -> FrameError:
        if message is not None and not isinstance(message, WITH_TENSORS) and self._plain_bytes < self.max_bytes:
            return FrameError(
                f"a message of {total} bytes without a tensor",
                expected=f"at most {self._plain_bytes}",
                advice="Check that all parties run the same version of heterofed.",
            )
        return FrameError(
            f"a message of {total} bytes",
            expected=f"at most {self.max_bytes}",
            advice="Use smaller batches, or raise HETEROFED_MAX_MESSAGE_BYTES at every party.",
        )

    def _put_blob(self, value: Any) -> int:
        if not isinstance(value, Blob):
            raise TypeError(f"{type(value).__name__} cannot be sent")
        self._outgoing.append(value.data)
        return len(self._outgoing) - 1

    def _take_blob(self, kind: type, value: Any) -> Blob:
        # Blobs stand in the header in the order of their frames, so each number says only what must be so anyway.
        # The type is compared too: to Python, False and 0.0 equal 0.
        if kind is not Blob or type(value) is not int or value != self._taken or self._taken + 1 >= len(self._incoming):
            raise ValueError("a blob that is not there")
        self._taken += 1
        return Blob(self._incoming[self._taken])


def size_of(frames: Sequence[Frame]) -> int:
    """Return the bytes of a message in all its frames."""
    return sum([frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames])


def _size(frame: Frame) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


def _first_line(error: Exception) -> str:
    # msgspec quotes field paths and expected types; the one value that it quotes, raw, is an unknown name.
    text = str(error)
    if text.startswith("Invalid value"):
        return "an unknown kind of message or tensor"
    return text.splitlines()[0][:200] if text else "no details"

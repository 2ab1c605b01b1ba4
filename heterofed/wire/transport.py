"""The contract of every transport: frame sequences go to a named party, and come from one that is known to be it.

A transport knows bytes and parties and nothing else: no message, no phase. `tests/wire/contract.py` is the same text as
tests; memory, ZeroMQ and the faulty wrapper pass it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from heterofed.errors import ConfigError

Buffer = bytes | bytearray | memoryview
"""One frame, to be sent. A transport must not change it, and the caller must not while it travels."""


class Delivery(NamedTuple):
    """One frame sequence that arrived."""

    sender: str
    """Feature key of the party that sent it, vouched for by the transport (not read from the frames)."""

    frames: Sequence[Buffer]
    """The frames as they were sent, in their order."""


def size_of(frame: Buffer) -> int:
    """Return the size of a frame in bytes, after checking that it can travel.

    Raises:
        ConfigError: its memory has gaps.
    """
    if not isinstance(frame, memoryview):
        return len(frame)
    if not frame.c_contiguous:
        raise ConfigError("a frame with gaps in its memory cannot be sent", expected="contiguous memory")
    return frame.nbytes


class Transport(ABC):
    """One party's end of its links. Used by one thread at a time; a context manager that closes itself.

    Between two parties frame sequences arrive whole, in order and at most once while the link is up.
    """

    party: str
    """Feature key of the party whose end this is."""

    intact: ClassVar[bool] = False
    """Whether what arrives is what was sent, bit by bit, because something below vouches for it (CURVE does)."""

    @abstractmethod
    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """Queue a frame sequence for a party; waits while that party's queue is full.

        Args:
            to: feature key of the receiver.
            frames: at least one frame; the first is not empty.
            timeout_s: how long to wait for room in the queue, in seconds; 0 waits for ever.

        Raises:
            PeerGone: this party never had a link, or has none now.
            PeerTimeout: its queue stayed full.
            WireError: this end is closed.
        """

    def keep(self, frames: Sequence[Buffer]) -> list[Buffer]:
        """Return frames with what these hold now, for `send` of this transport, as often as it takes.

        They are for nothing else but `len`, the size of each in bytes: big ones may have a form of the transport's own,
        in which they are sent without another copy.

        Raises:
            ConfigError: the memory of a frame is not contiguous.
        """
        for frame in frames:
            size_of(frame)
        return [frame if type(frame) is bytes else bytes(frame) for frame in frames]

    def expect_soon(self, soon: bool) -> None:  # noqa: B027 - a transport need not make use of it
        """Take note whether what is awaited from now on is likely to come within a millisecond or two."""

    @abstractmethod
    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next frame sequence from any party, or None when none came within `timeout_s` seconds.

        Raises:
            PeerRefused: the other end told us to go away.
            WireError: this end is closed.
        """

    @abstractmethod
    def down_for(self, party: str) -> float:
        """Seconds since the link to a party broke; 0.0 while it is up, and before it was ever up."""

    @abstractmethod
    def close(self, linger_s: float = 2.0) -> None:
        """Send what is queued for up to `linger_s` seconds and free everything. May be called again."""

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Doorkeeper(Protocol):
    """Says which party a public key belongs to; how a host's transport knows who may come in."""

    def party_of(self, public_key: bytes) -> str | None:
        """Return the feature key of the party that owns this Z85-encoded CURVE key, or None to keep it out.

        May be called from another thread than the transport's.
        """

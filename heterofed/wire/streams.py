"""The numbering of one direction of a link: what the sender keeps, what the receiver awaits. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from heterofed.wire.transport import Buffer

FIRST = 0
FIRST_AGAIN = 1 << 63
"""The first number of a stream that begins when the receiver's incarnation is known already. One that begins before may
have stray copies of its messages under way, addressed to nobody in particular; their numbers must not fit here."""


class Outgoing:
    """What was sent to a peer and not yet handed out there: the numbers from `first` up to, not including, `next`."""

    def __init__(self, first: int = FIRST) -> None:
        self.first = first
        self.next = first
        self.bytes = 0
        self._messages: deque[tuple[list[Buffer], int]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, frames: list[Buffer], size: int) -> None:
        """Keep a message of `size` bytes under the next number."""
        self._messages.append((frames, size))
        self.bytes += size
        self.next += 1

    def acknowledge(self, handed: int) -> bool:
        """Forget every message before this number; True if there were any."""
        if handed <= self.first:
            return False
        while self._messages and self.first < handed:
            self.bytes -= self._messages.popleft()[1]
            self.first += 1
        return True

    def between(self, start: int, stop: int) -> Iterator[tuple[int, list[Buffer]]]:
        """Yield number and frames of what is kept from `start` up to, not including, `stop`."""
        for number in range(max(start, self.first), min(stop, self.next)):
            yield number, self._messages[number - self.first][0]


class Incoming:
    """What came from a peer: handed out before `handed`, here in order before `received`, some kept beyond a gap.

    Args:
        most_messages: how many may be here and not handed out.
        most_bytes: how many bytes; one message of any size may always.
    """

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self.handed = FIRST
        self.received = FIRST
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._unread: deque[tuple[Sequence[Buffer], int]] = deque()
        self._beyond: dict[int, tuple[Sequence[Buffer], int]] = {}
        self._bytes = 0
        self._bytes_beyond = 0

    @property
    def unread(self) -> int:
        """How many messages can be handed out."""
        return len(self._unread)

    def pass_on(self, number: int) -> bool:
        """Take in and hand out the next message at once, if this is its number and nothing else is here."""
        if number != self.received or number != self.handed or self._beyond:
            return False
        self.handed = self.received = number + 1
        return True

    @property
    def gap_ends(self) -> int | None:
        """The first number that came too early, so that all from `received` up to it are missing; None: no gap."""
        return min(self._beyond) if self._beyond else None

    def take(self, number: int, frames: Sequence[Buffer], size: int) -> int:
        """Take a message in, unless it was here already or has no room; return how many more can be handed out now."""
        if number < self.received or number - self.handed >= self._most_messages or number in self._beyond:
            return 0
        if number > self.received:
            if self._bytes + self._bytes_beyond + size <= self._most_bytes:
                self._beyond[number] = (frames, size)
                self._bytes_beyond += size
            return 0
        if self._bytes + self._bytes_beyond + size > self._most_bytes:
            self._beyond.clear()  # what is awaited goes before what came too early
            self._bytes_beyond = 0
            if self._unread and self._bytes + size > self._most_bytes:
                return 0
        self._append(frames, size)
        more = 1
        while self._beyond and self.received in self._beyond:
            kept, its_size = self._beyond.pop(self.received)
            self._bytes_beyond -= its_size
            self._append(kept, its_size)
            more += 1
        return more

    def hand_out(self) -> tuple[Sequence[Buffer], int]:
        """Return the next message in order, and its size in bytes."""
        frames, size = self._unread.popleft()
        self._bytes -= size
        self.handed += 1
        return frames, size

    def begin_again(self) -> None:
        """Drop everything and await `FIRST_AGAIN`."""
        self._unread.clear()
        self._beyond.clear()
        self._bytes = self._bytes_beyond = 0
        self.handed = self.received = FIRST_AGAIN

    def _append(self, frames: Sequence[Buffer], size: int) -> None:
        self._unread.append((frames, size))
        self._bytes += size
        self.received += 1

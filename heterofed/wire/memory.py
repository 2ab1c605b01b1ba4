"""The transport contract inside one process, between threads: for simulations and tests.

It has the shape of the real thing, a star: collaborators reach the host only. Frames are copied when they are sent,
as a network would, so that no party ever sees another one's memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from heterofed.errors import ConfigError, PeerGone, PeerRefused, PeerTimeout, WireError
from heterofed.wire.parts import frame_sizes
from heterofed.wire.transport import Buffer, Delivery, Transport


@dataclass
class _Inbox:
    """What waits for one party. All fields are read and written under the hub's lock."""

    changed: threading.Condition
    """Something arrived, was taken out, or the owner came or went."""

    deliveries: deque[Delivery] = field(default_factory=deque)
    owner: MemoryTransport | None = None
    closed_at: float | None = None
    """When the last owner left; None before the first came and while one is there."""

    def waiting_from(self, sender: str) -> int:
        return sum(delivery.sender == sender for delivery in self.deliveries)


class MemoryHub:
    """Where the ends of all parties of one process meet.

    Args:
        host: feature key of the party in the middle.
        queue_messages: how many messages may wait in each direction of each link.
        max_message_bytes: larger messages are not sent.
    """

    def __init__(self, host: str, *, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> None:
        if queue_messages < 1:
            raise ConfigError(f"a queue of {queue_messages} messages cannot work", expected="1 or more")
        self.host = host
        self.queue_messages = queue_messages
        self.max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self._inboxes: dict[str, _Inbox] = {}

    def transport(self, party: str) -> MemoryTransport:
        """Open a party's end; again after it was closed.

        Raises:
            PeerRefused: this party's end is open already.
        """
        with self._lock:
            inbox = self._inbox(party)
            if inbox.owner is not None:
                raise PeerRefused(
                    f"another end is already open as {party}", party=party, advice="Close that one first."
                )
            inbox.owner = MemoryTransport(self, party)
            inbox.closed_at = None
            return inbox.owner

    def _inbox(self, party: str) -> _Inbox:
        if party not in self._inboxes:
            self._inboxes[party] = _Inbox(threading.Condition(self._lock))
        return self._inboxes[party]

    def _linked(self, party: str, other: str) -> bool:
        return party != other and self.host in (party, other)

    def _send(self, sender: MemoryTransport, to: str, frames: Sequence[Buffer], timeout_s: float) -> None:
        frame_sizes(frames, self.max_message_bytes)
        delivery = Delivery(sender.party, tuple(memoryview(bytearray(frame)) for frame in frames))
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else None
        with self._lock:
            while True:
                self._refuse_closed(sender)
                inbox = self._inboxes.get(to)
                if not self._linked(sender.party, to):
                    raise PeerGone(f"there is no link to {to}", party=sender.party)
                if inbox is None and to == self.host:
                    inbox = self._inbox(to)  # what comes before the host waits for it
                if inbox is None or inbox.closed_at is not None:
                    raise PeerGone(f"the end of {to} is not open", party=sender.party, advice=f"Start {to}.")
                if inbox.waiting_from(sender.party) < self.queue_messages:
                    break
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise PeerTimeout(
                        f"the queue to {to} was full for {timeout_s:g} s",
                        party=sender.party,
                        advice=f"See what {to} does.",
                    )
                inbox.changed.wait(left_s)
            inbox.deliveries.append(delivery)
            inbox.changed.notify_all()

    def _receive(self, receiver: MemoryTransport, timeout_s: float) -> Delivery | None:
        deadline = time.monotonic() + timeout_s
        with self._lock:
            inbox = self._inbox(receiver.party)
            while True:
                self._refuse_closed(receiver)
                if inbox.deliveries:
                    inbox.changed.notify_all()
                    return inbox.deliveries.popleft()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                inbox.changed.wait(left_s)

    def _down_for(self, asker: MemoryTransport, party: str) -> float:
        with self._lock:
            self._refuse_closed(asker)
            inbox = self._inboxes.get(party)
            if inbox is None or inbox.closed_at is None or not self._linked(asker.party, party):
                return 0.0
            return time.monotonic() - inbox.closed_at

    def _close(self, leaver: MemoryTransport) -> None:
        with self._lock:
            inbox = self._inbox(leaver.party)
            if inbox.owner is not leaver:
                return
            inbox.owner = None
            inbox.closed_at = time.monotonic()
            inbox.deliveries.clear()
            for each in self._inboxes.values():  # the leaver may wait for room in another one's inbox
                each.changed.notify_all()

    def _refuse_closed(self, end: MemoryTransport) -> None:
        if self._inbox(end.party).owner is not end:
            raise WireError("this end of the link is closed", party=end.party)


class MemoryTransport(Transport):
    """One party's end at a `MemoryHub`, which makes it: `hub.transport(party)`."""

    intact = True

    def __init__(self, hub: MemoryHub, party: str) -> None:
        self.party = party
        self._hub = hub

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`. The frames are copied."""
        self._hub._send(self, to, frames, timeout_s)

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`."""
        return self._hub._receive(self, timeout_s)

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`."""
        return self._hub._down_for(self, party)

    def close(self, linger_s: float = 2.0) -> None:
        """See `Transport.close`. What was sent is in the receivers' hands already, so nothing lingers."""
        self._hub._close(self)

"""What both ends of a ZeroMQ link share: one private context, one CURVE socket, its monitor, and how they close."""

from __future__ import annotations

import math
import struct
from abc import abstractmethod
from collections.abc import Iterator

import zmq

from heterofed.errors import ConfigError, WireError
from heterofed.wire.keys import KeyPair
from heterofed.wire.parts import PIECE_BYTES
from heterofed.wire.transport import Transport

_MONITOR_ADDRESS = "inproc://heterofed.monitor"
_HANDSHAKE_S = 10.0
_PART_SLACK_BYTES = 1024
"""CURVE makes a part 33 bytes longer."""


def as_milliseconds(seconds: float) -> int:
    """Whole milliseconds for libzmq, rounded up so that a wait never ends early and never spins."""
    return math.ceil(seconds * 1000)


class End(Transport):
    """One socket with CURVE, heartbeats, bounded queues and a monitor. Subclasses bind or connect it.

    Args:
        party: feature key of the party whose end this is.
        kind: zmq.ROUTER or zmq.DEALER.
        key: this party's long-term key.
        monitored: the zmq.EVENT_* that `_events` reports.
        max_message_bytes: larger messages are neither sent nor accepted.
        queue_messages: how many messages may wait in each direction of each link.
        heartbeat_s: pause between two signs of life on an idle connection.
        dead_after_s: a connection without a sign of life for so long is dropped.
    """

    intact = True

    def __init__(
        self,
        party: str,
        kind: int,
        key: KeyPair,
        *,
        monitored: int,
        max_message_bytes: int,
        queue_messages: int,
        heartbeat_s: float,
        dead_after_s: float,
    ) -> None:
        if queue_messages < 1 or max_message_bytes < 1 or not 0 < heartbeat_s < dead_after_s <= 600:
            raise ConfigError(
                "the limits of a transport do not fit together",
                party=party,
                expected="a queue and messages of 1 or more, and 0 < heartbeat_s < dead_after_s <= 600",
            )
        self.party = party
        self._max_message_bytes = max_message_bytes
        self._closed = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        for option, number in (
            (zmq.SNDHWM, queue_messages),
            (zmq.RCVHWM, queue_messages),
            (zmq.MAXMSGSIZE, PIECE_BYTES + _PART_SLACK_BYTES),
            (zmq.HEARTBEAT_IVL, as_milliseconds(heartbeat_s)),
            (zmq.HEARTBEAT_TIMEOUT, as_milliseconds(dead_after_s)),
            (zmq.HEARTBEAT_TTL, as_milliseconds(dead_after_s)),
            (zmq.HANDSHAKE_IVL, as_milliseconds(_HANDSHAKE_S)),
        ):
            self._socket.setsockopt(option, number)
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
        self._socket.monitor(_MONITOR_ADDRESS, monitored)
        self._monitor = self._context.socket(zmq.PAIR)
        # No limit: libzmq's network thread would stand still at a full monitor until we read it.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(_MONITOR_ADDRESS)
        self._news = zmq.Poller()
        self._news.register(self._monitor, zmq.POLLIN)

    def close(self, linger_s: float = 2.0) -> None:
        """See `Transport.close`."""
        if self._closed:
            return
        self._closed = True
        self._close_extras(linger_s)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=as_milliseconds(max(0.0, linger_s)))
        self._context.term()

    @abstractmethod
    def _close_extras(self, linger_s: float) -> None:
        """Close what the subclass added, while the socket still works."""

    def _refuse_closed(self) -> None:
        if self._closed:
            raise WireError("this end of the link is closed", party=self.party)

    def _events(self) -> Iterator[tuple[int, int]]:
        """The monitor's news since the last call: (zmq.EVENT_*, its value)."""
        while self._news.poll(0):
            kind, value = struct.unpack("=Hi", self._monitor.recv_multipart()[0])
            yield kind, value

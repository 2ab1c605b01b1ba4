"""What both ends of a ZeroMQ link share: one private context, one CURVE socket, its monitor, and how they close."""

from __future__ import annotations

import ipaddress
import logging
import math
import secrets
import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from typing import cast

import zmq

from heterofed.errors import ConfigError, WireError
from heterofed.wire.keys import KeyPair
from heterofed.wire.parts import PIECE_BYTES, Part, keep
from heterofed.wire.transport import Buffer, Transport
from heterofed.wire.zeromq.slices import short_slices
from heterofed.wire.zeromq.watch import AT_ONCE, Watch

_MONITOR_ADDRESS = "inproc://heterofed.monitor"
_HANDSHAKE_S = 10.0
_PART_SLACK_BYTES = 16 * 1024
"""CURVE makes a part 33 bytes longer, and the sizes of many frames take 2 KiB."""

_LARGEST_BLOCK_BYTES = (32 << 20) - (64 << 10)
"""glibc adapts to no larger ones."""

_MORE = int(zmq.SNDMORE)

logger = logging.getLogger(__name__)


def as_milliseconds(seconds: float) -> int:
    """Whole milliseconds for libzmq, rounded up so that a wait never ends early and never spins."""
    return math.ceil(seconds * 1000)


def only_loopback(party: str, address: str) -> None:
    """Check that what goes to "address:port" without encryption does not leave this machine.

    Raises:
        ConfigError: it would, or nobody can tell.
    """
    try:
        stays = ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:  # a name may be anybody's
        stays = False
    if not stays:
        raise ConfigError(
            f"encryption is off, and {address} is not an address of this machine alone",
            party=party,
            expected="127.0.0.1 or [::1]",
            advice="Turn encryption on (HETEROFED_ENCRYPTION); it is off for measurements on one machine only.",
        )
    logger.warning(
        "%s: encryption is off: everybody on this machine can read what the parties say, and speak for them", party
    )


_NAME_BEGINS, _NAME_ENDS = 1, -8


def naming(party: str = "") -> bytes:
    """Draw a routing id; without encryption it names the party.

    libzmq draws ids that begin with a zero; ours must not be mistaken for one.
    """
    return bytes([1 + secrets.randbelow(255)]) + party.encode() + secrets.token_bytes(15 if not party else -_NAME_ENDS)


def named_in(routing_id: bytes) -> str:
    """Return the party that a routing id names, if it was drawn for one."""
    return routing_id[_NAME_BEGINS:_NAME_ENDS].decode(errors="replace")


@cache
def _keep_freed_memory() -> None:
    """Let memory of large messages come from those before, instead of from the system, page by page, again and again.

    glibc keeps more for itself once a large block was freed that it had from the system; other libraries do not mind.
    Messages of 2 MiB cost half as much then.
    """
    bytearray(_LARGEST_BLOCK_BYTES)


class End(Transport):
    """One socket with CURVE, heartbeats, bounded queues and a monitor. Subclasses bind or connect it.

    Args:
        party: feature key of the party whose end this is.
        kind: zmq.ROUTER or zmq.DEALER.
        key: this party's long-term key; None: without encryption.
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
        key: KeyPair | None,
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
        _keep_freed_memory()
        self.party = party
        self._max_message_bytes = max_message_bytes
        self._closed = False
        self._receive_timeout_ms = -1
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with short_slices():  # the first socket starts the network threads
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
        if key is not None:
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
        self._socket.monitor(_MONITOR_ADDRESS, monitored)
        self._watch = Watch(self._socket.recv)
        self._monitor = self._context.socket(zmq.PAIR)
        # No limit: libzmq's network thread would stand still at a full monitor until we read it.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(_MONITOR_ADDRESS)
        self._news = zmq.Poller()
        self._news.register(self._monitor, zmq.POLLIN)

    def expect_soon(self, soon: bool) -> None:
        """See `Transport.expect_soon`: waits for small messages stay awake for a moment."""
        self._watch.soon = soon

    def keep(self, frames: Sequence[Buffer]) -> list[Buffer]:
        """See `Transport.keep`. The one copy of a big frame is in libzmq's memory, and every send refers to it."""
        return cast("list[Buffer]", keep(frames))  # what is none, nobody but our send looks into

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

    def _send_parts(self, parts: Sequence[Part], flags: int) -> None:
        """Send one message; with `AT_ONCE` in the flags it raises zmq.Again where it would have to wait."""
        send = self._socket.send  # send_multipart looks at each part again, which takes longer than sending it
        for part in parts[:-1]:
            send(part, flags | _MORE)
        send(parts[-1], flags)

    def _next_parts(self, timeout_ms: int) -> list[zmq.Frame] | None:
        """Return the parts of the next message, or None when none came in time."""
        receive = self._socket.recv
        try:
            if timeout_ms == 0:
                part = receive(AT_ONCE, copy=False)
            else:
                # One waiting call instead of a poll and a call: a tenth of a small message's round trip.
                if timeout_ms != self._receive_timeout_ms:
                    self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
                    self._receive_timeout_ms = timeout_ms
                part = self._watch.wait(timeout_ms)
        except zmq.Again:
            return None
        parts = [part]
        while part.more:
            part = receive(copy=False)
            parts.append(part)
        if timeout_ms:
            self._watch.note_size(sum(map(len, parts)))
        return parts

    def _refuse_closed(self) -> None:
        if self._closed:  # asked before where every message passes: a call takes longer than that
            raise WireError("this end of the link is closed", party=self.party)

    def _events(self) -> Iterator[tuple[int, int]]:
        """The monitor's news since the last call: (zmq.EVENT_*, its value)."""
        while self._news.poll(0):
            kind, value = struct.unpack("=Hi", self._monitor.recv_multipart()[0])
            yield kind, value

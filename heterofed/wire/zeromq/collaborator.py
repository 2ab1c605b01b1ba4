"""A collaborator's end: a DEALER with one connection, to the host. The package's text says how it fits together."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from enum import Enum

import zmq

from heterofed.errors import ConfigError, PeerGone, PeerRefused, PeerTimeout
from heterofed.wire.keys import KEY_CHARACTERS, KeyPair
from heterofed.wire.parts import Part, Signal, from_parts, to_parts
from heterofed.wire.transport import Buffer, Delivery
from heterofed.wire.zeromq.sockets import End, as_milliseconds, naming, only_loopback
from heterofed.wire.zeromq.watch import AT_ONCE

RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 2.0
FIRST_CONNECTION_S = 1.0
"""In the first second a send waits for the connection, so that the message is on its way when the caller goes on to
something long. Later it only puts it aside, for the next call to send."""

LOOKUP_PATIENCE = 12
"""How many times longer to knock at a host that cannot look up our key, than at one that does not know it."""

LOOK_AROUND_S = 0.1
"""How often a wait for a message looks whether the connection still stands."""

REDIAL_PAUSE_S = 0.25
"""How soon to knock again after the host turned our key away; libzmq does not do it by itself."""

logger = logging.getLogger(__name__)


_ARRIVALS, _ROOM = int(zmq.POLLIN), int(zmq.POLLOUT)


class _Link(Enum):
    NEW = "not connected yet"
    UP = "connected"
    DOWN = "lost; libzmq tries to connect again"
    REFUSED = "the host does not let us in; final"


class CollaboratorTransport(End):
    """A collaborator's end: connects to the host, again and again until it is there. Needs no open port.

    What is sent before the first connection stands is put aside; it leaves with the first call after that.

    Args:
        party: feature key of this collaborator; the host goes by the key, not by this.
        host_party: feature key of the host.
        endpoint: the host's "tcp://address:port".
        host_public_key: the only key (Z85) that is accepted at the other end.
        key: this party's long-term key, which the task must list.
        encrypted: False turns encryption off, on a loopback address; the host takes our word for who we are then.
        max_message_bytes: larger messages are neither sent nor accepted.
        queue_messages: how many messages may wait in each direction.
        heartbeat_s: pause between two signs of life on an idle connection.
        dead_after_s: a connection without a sign of life for so long is dropped.
        admission_patience_s: for how long to knock again when the host does not know our key (it may learn it soon).

    Raises:
        ConfigError: the endpoint or the host's key is malformed, or may not be used without encryption.
    """

    def __init__(
        self,
        party: str,
        *,
        host_party: str,
        endpoint: str,
        host_public_key: bytes,
        key: KeyPair,
        encrypted: bool = True,
        max_message_bytes: int = 1 << 30,
        queue_messages: int = 64,
        heartbeat_s: float = 1.5,
        dead_after_s: float = 6.0,
        admission_patience_s: float = 5.0,
    ) -> None:
        if not encrypted:
            only_loopback(party, endpoint.removeprefix("tcp://"))
        super().__init__(
            party,
            zmq.DEALER,
            key if encrypted else None,
            monitored=zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            max_message_bytes=max_message_bytes,
            queue_messages=queue_messages,
            heartbeat_s=heartbeat_s,
            dead_after_s=dead_after_s,
        )
        self.host_party = host_party
        self.endpoint = endpoint
        self._queue_messages = queue_messages
        self._patience_s = admission_patience_s
        self._link = _Link.NEW
        self._down_since = 0.0
        self._denied_since: float | None = None
        self._redial_at: float | None = None
        self._failed_handshakes = 0
        self._refusal: PeerRefused | None = None
        self._unsent: deque[list[Part]] = deque()
        self._pollers = {direction: zmq.Poller() for direction in (_ARRIVALS, _ROOM, _ARRIVALS | _ROOM)}
        for direction, poller in self._pollers.items():
            poller.register(self._monitor, zmq.POLLIN)
            poller.register(self._socket, direction)
        self._opened_at = time.monotonic()
        self._socket.setsockopt(zmq.ROUTING_ID, naming() if encrypted else naming(party))
        # No queue without a connection: a message waits in _unsent, or the caller is told that the link is down.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, as_milliseconds(RECONNECT_FIRST_S))
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, as_milliseconds(RECONNECT_MOST_S))
        self._socket.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
        try:
            if not endpoint.startswith("tcp://") or len(host_public_key) != KEY_CHARACTERS:
                raise ValueError
            if encrypted:
                self._socket.setsockopt(zmq.CURVE_SERVERKEY, host_public_key)
            self._socket.connect(endpoint)
        except (zmq.ZMQError, ValueError):
            self.close(0)
            raise ConfigError(
                f"cannot connect to {endpoint!r} with the key given for {host_party}",
                party=party,
                expected=f"tcp://address:port and a public key of {KEY_CHARACTERS} characters",
                advice="Take both from the task, as the host published them.",
            ) from None

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`. The frames are copied: their memory is the caller's again when this returns.

        Raises:
            PeerRefused: the host told us to go away.
        """
        if self._closed:
            self._refuse_closed()
        if to != self.host_party:
            raise PeerGone(f"there is no link to {to}", party=self.party, expected=f"{self.host_party}, the host")
        parts = to_parts(frames, self._max_message_bytes)
        if self._link is _Link.UP and not self._unsent and self._sent_at_once(parts):
            return  # whatever happened to the connection meanwhile, the next wait sees it
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else None
        self._await_first_connection(deadline)
        while not self._try_to_send(parts):
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise PeerTimeout(
                    f"the queue to {to} was full for {timeout_s:g} s ({self._link.value})",
                    party=self.party,
                    advice=f"See what {to} does.",
                )
            self._wait(left_s, _ROOM)

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`."""
        if self._closed:
            self._refuse_closed()
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            parts = self._arrival(left_s)
            if parts is not None:
                delivery = self._open(parts)
                if delivery is not None:
                    return delivery
            else:
                self._settle()
                if self._refusal is not None:
                    raise self._refusal  # after everything that the host had said before
            if left_s == 0:
                return None

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`."""
        self._refuse_closed()
        self._settle()
        lost = party == self.host_party and self._link is _Link.DOWN
        return time.monotonic() - self._down_since if lost else 0.0

    def _close_extras(self, linger_s: float) -> None:
        deadline = time.monotonic() + linger_s
        while self._unsent and self._refusal is None and (left_s := deadline - time.monotonic()) > 0:
            self._wait(left_s, _ROOM)
            self._settle()

    def _await_first_connection(self, deadline: float | None) -> None:
        until = self._opened_at + FIRST_CONNECTION_S
        if deadline is not None:
            until = min(until, deadline)
        self._settle()
        while self._link is _Link.NEW and (left_s := until - time.monotonic()) > 0:
            self._wait(left_s, _ROOM)
            self._settle()

    def _sent_at_once(self, parts: list[Part]) -> bool:
        try:
            self._send_parts(parts, AT_ONCE)
        except zmq.Again:
            return False
        return True

    def _try_to_send(self, parts: list[Part]) -> bool:
        self._settle()
        if self._refusal is not None:
            raise self._refusal
        if self._link is _Link.DOWN:
            raise PeerGone(
                f"the connection to {self.host_party} is down",
                party=self.party,
                advice=f"Check that {self.host_party} still runs and that the network is up.",
            )
        if self._link is _Link.UP and not self._unsent:
            return self._sent_at_once(parts)
        if len(self._unsent) < self._queue_messages:
            self._unsent.append([part if isinstance(part, bytes | zmq.Frame) else bytes(part) for part in parts])
            return True
        return False

    def _arrival(self, timeout_s: float) -> list[zmq.Frame] | None:
        """Wait for a message; None when none came, for a while at least, or when there is something to settle."""
        if self._link is _Link.UP and not self._unsent:
            return self._next_parts(as_milliseconds(min(timeout_s, LOOK_AROUND_S)))
        return self._next_parts(0) if self._wait(timeout_s, _ARRIVALS) else None

    def _wait(self, timeout_s: float | None, direction: int) -> bool:
        """Wait until the socket is ready in this direction (True) or there is something to settle (False)."""
        awaited = direction | _ROOM if self._unsent and self._link is _Link.UP else direction
        if self._redial_at is not None:
            until_redial_s = max(0.0, self._redial_at - time.monotonic())
            timeout_s = until_redial_s if timeout_s is None else min(timeout_s, until_redial_s)
        for socket, ready in self._pollers[awaited].poll(None if timeout_s is None else as_milliseconds(timeout_s)):
            if socket is self._socket:
                return bool(ready & direction)
        return False

    def _settle(self) -> None:
        """Take note of what happened to the connection, and do what is due."""
        for event, value in self._events():
            if self._link is _Link.REFUSED:
                continue
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._link = _Link.UP
                self._denied_since = self._redial_at = None
                self._failed_handshakes = 0
                self._unsent.appendleft(Signal.HELLO.parts)
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._on_denied(value)
            elif event == zmq.EVENT_DISCONNECTED:
                if self._link is _Link.UP:
                    self._link = _Link.DOWN
                    self._down_since = time.monotonic()
                    self._unsent.clear()
            else:
                self._on_failed_handshake()
                if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:  # libzmq gives up
                    pause_s = min(RECONNECT_MOST_S, RECONNECT_FIRST_S * 2**self._failed_handshakes)
                    self._redial_at = time.monotonic() + pause_s
        if self._redial_at is not None and time.monotonic() >= self._redial_at:
            self._redial_at = None
            with contextlib.suppress(zmq.ZMQError):  # not connected: nothing to end
                self._socket.disconnect(self.endpoint)
            self._socket.connect(self.endpoint)
        if self._link is _Link.UP:
            with contextlib.suppress(zmq.Again):
                while self._unsent:
                    self._send_parts(self._unsent[0], AT_ONCE)
                    self._unsent.popleft()

    def _on_denied(self, status: int) -> None:
        now = time.monotonic()
        if self._denied_since is None:
            self._denied_since = now
        # 500 and the like: the host could not look us up just now, its store is busy or its disk is full.
        patience_s = self._patience_s if status == 400 else LOOKUP_PATIENCE * self._patience_s
        if now - self._denied_since < patience_s:
            self._redial_at = now + REDIAL_PAUSE_S
        elif status == 400:
            self._refuse(
                f"{self.host_party} does not know the key of this party",
                f"Check that the task is not over, and that it lists the public key that {self.party} has now; it may "
                f"have got a new one.",
            )
        else:
            self._refuse(
                f"{self.host_party} could not look up the key of this party (status {status})",
                f"See the log of {self.host_party}; its task store may be unreachable.",
            )

    def _on_failed_handshake(self) -> None:
        self._failed_handshakes += 1
        if self._failed_handshakes == 3:
            logger.warning(
                "%s: something answers at %s but does not prove to be %s. Check the address and the host's public key, "
                "and that encryption is on at both ends or at none",
                self.party,
                self.endpoint,
                self.host_party,
            )

    def _refuse(self, what: str, advice: str) -> None:
        self._link = _Link.REFUSED
        self._redial_at = None
        self._unsent.clear()
        self._refusal = PeerRefused(what, party=self.party, advice=advice)

    def _open(self, parts: list[zmq.Frame]) -> Delivery | None:
        content = from_parts([part.buffer for part in parts], self._max_message_bytes)
        if not isinstance(content, Signal):
            return Delivery(self.host_party, content)
        if content is Signal.REFUSED:
            self._refuse(
                f"another process already runs as {self.party}",
                "Stop that one first. If it has just been cut off, try again in half a minute.",
            )
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self.endpoint)
        elif content is Signal.NOISE:
            logger.warning("%s sent something that is no message, or is too large; ignored", self.host_party)
        return None

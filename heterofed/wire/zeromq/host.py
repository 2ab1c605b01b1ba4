"""The host's end: a ROUTER that knows every connection by its key. The package's text says how it fits together."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import zmq

from heterofed.errors import ConfigError, PeerGone, PeerTimeout
from heterofed.wire.keys import KeyPair
from heterofed.wire.parts import Part, Signal, from_parts, to_parts
from heterofed.wire.transport import Buffer, Delivery, Doorkeeper
from heterofed.wire.zeromq.descriptors import raise_descriptor_limit
from heterofed.wire.zeromq.gate import ZAP_DOMAIN, Gate
from heterofed.wire.zeromq.sockets import End, as_milliseconds, named_in, only_loopback
from heterofed.wire.zeromq.strangers import CONNECTIONS, Notices
from heterofed.wire.zeromq.watch import AT_ONCE

PROBE_PAUSE_S = 0.5
"""A link that is suspected or down is probed this often."""

PROBE_AT_LEAST_EVERY_S = 30.0
"""Any other link is probed this seldom: a queue of 64 lasts for half an hour, and no suspicion is missed for ever."""

LOOK_AROUND_S = 0.1
"""How often a send that waits for room looks whether the connection still stands."""

BACKLOG = 1024
"""How many connections may wait to be accepted; with libzmq's 100, a burst of strangers keeps a party waiting."""

logger = logging.getLogger(__name__)


class _Outcome(Enum):
    SENT = "sent"
    FULL = "the queue is full"
    GONE = "there is no such connection"


@dataclass
class _Link:
    """What a host knows of its connection to one party."""

    routing_id: bytes
    key: str
    descriptor: int | None
    """The connection's file descriptor in this process; None while it may have changed."""

    doubts: int = 0
    """How many more probes must succeed before we believe that it stands."""

    down_since: float | None = None
    probed_at: float = -math.inf


class HostTransport(End):
    """The host's end: listens, and talks to every party that the doorkeeper knows.

    Args:
        party: feature key of the host.
        bind: address:port to listen on; port 0 takes a free one.
        key: the host's long-term key.
        doorkeeper: says whose key it is; called from a thread of its own.
        plain_parties: turns encryption off, on a loopback address: whoever says that it is one of these comes in.
        max_message_bytes: larger messages are neither sent nor accepted.
        queue_messages: how many messages may wait in each direction of each link.
        heartbeat_s: pause between two signs of life on an idle connection.
        dead_after_s: a connection without a sign of life for so long is dropped.

    Raises:
        ConfigError: it cannot listen there, or may not without encryption.
    """

    def __init__(
        self,
        party: str,
        *,
        bind: str = "127.0.0.1:0",
        key: KeyPair,
        doorkeeper: Doorkeeper,
        plain_parties: Collection[str] | None = None,
        max_message_bytes: int = 1 << 30,
        queue_messages: int = 64,
        heartbeat_s: float = 1.5,
        dead_after_s: float = 6.0,
    ) -> None:
        self._plain = plain_parties is not None
        if self._plain:
            only_loopback(party, bind)
        super().__init__(
            party,
            zmq.ROUTER,
            None if self._plain else key,
            monitored=CONNECTIONS,
            max_message_bytes=max_message_bytes,
            queue_messages=queue_messages,
            heartbeat_s=heartbeat_s,
            dead_after_s=dead_after_s,
        )
        self._links: dict[str, _Link] = {}
        self._bound: dict[bytes, str] = {}
        self._unread: deque[list[zmq.Frame]] = deque()
        self._queue_messages = queue_messages
        self._notices = Notices()
        raise_descriptor_limit()
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._gate = Gate(
            self._context,
            doorkeeper,
            monitor=self._monitor,
            events=self._events,
            notices=self._notices,
            admitted={each: each for each in plain_parties or ()},
        )
        if not self._plain:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
            # Without it libzmq lets everybody in when no gate answers.
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.IPV6, int(bind.startswith("[")))
        try:
            self._socket.bind(f"tcp://{bind}")
        except zmq.ZMQError as error:
            self.close(0)
            raise ConfigError(
                f"cannot listen on {bind}: {error.strerror}",
                party=party,
                expected="address:port of this machine, for example 127.0.0.1:0",
                advice="Choose another port, or 0 for a free one (HETEROFED_BIND).",
            ) from error
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        """Where collaborators connect to, "tcp://address:port". A host bound to 0.0.0.0 is reached by its own name."""

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`. The frames are copied: their memory is the caller's again when this returns."""
        if self._closed:
            self._refuse_closed()
        link = self._links.get(to)
        if link is None:
            raise PeerGone(f"{to} never connected", party=self.party, advice=f"Check that {to} runs.")
        parts: list[Part] = [link.routing_id, *to_parts(frames, self._max_message_bytes)]
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else math.inf
        wait_s = 0.0
        while (outcome := self._try_to_send(parts, wait_s)) is _Outcome.FULL:
            if not self._stands(link):
                outcome = _Outcome.GONE
                break
            wait_s = min(deadline - time.monotonic(), LOOK_AROUND_S)
            if wait_s <= 0:
                raise PeerTimeout(
                    f"the queue to {to} was full for {timeout_s:g} s",
                    party=self.party,
                    advice=f"{to} is connected but takes nothing: see what it does.",
                )
        if outcome is _Outcome.GONE:
            self._note_down(link)
            raise PeerGone(
                f"the connection to {to} is down",
                party=self.party,
                advice=f"Check that {to} still runs and that the network is up.",
            )
        link.down_since = None

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`."""
        if self._closed:
            self._refuse_closed()
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            parts = self._unread.popleft() if self._unread else self._next_parts(as_milliseconds(left_s))
            delivery = self._open(parts) if parts else None
            if delivery is not None:
                return delivery
            if left_s == 0:
                self._read_monitor()
                return None

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`."""
        self._refuse_closed()
        link = self._links.get(party)
        if link is None or self._stands(link) or link.down_since is None:
            return 0.0
        return time.monotonic() - link.down_since

    def _close_extras(self, linger_s: float) -> None:
        # Who is inside stays connected while the rest of the queue is sent; nobody new comes in.
        self._gate.close()

    def _open(self, parts: list[zmq.Frame]) -> Delivery | None:
        if len(parts) < 2:
            return None
        party = self._sender(parts)
        if party is None:
            return None
        content = from_parts([part.buffer for part in parts[1:]], self._max_message_bytes)
        if isinstance(content, Signal):
            if content is Signal.NOISE:
                self._notices.tell(
                    "something that is no message", party, f"{party} sent something that is no message, or is too large"
                )
            return None
        return Delivery(party, content)

    def _sender(self, parts: list[zmq.Frame]) -> str | None:
        routing_id = parts[0].bytes
        key = named_in(routing_id) if self._plain else _key(parts[1])
        if key is None:
            return None
        party = self._bound.get(routing_id)
        if party is None:
            return self._welcome(routing_id, key, _descriptor(parts[1]))
        link = self._links[party]
        if link.key != key:
            # Someone took over a routing id that belongs to another key, and with it what we would send there.
            del self._bound[routing_id]
            link.routing_id = secrets.token_bytes(32)
            self._note_down(link)
            self._notices.tell(
                "a connection taken over",
                party,
                f"a connection of {party} was taken over with another key, and is not used any more",
            )
            return None
        if link.descriptor is None and link.doubts == 0:
            # With doubts, this may be what was left unread of the connection before.
            link.descriptor = _descriptor(parts[1])
        if link.down_since is not None:
            self._probe(link)
        return party

    def _welcome(self, routing_id: bytes, key: str, descriptor: int | None) -> str | None:
        """A routing id that we have not heard: bind it to its party, unless that is here already."""
        party = self._gate.admitted.get(key)
        # libzmq's own ids begin with a zero. Ours never do: this is what was left unread of a connection that the same
        # process has replaced. To hand it out after newer messages would break their order.
        if party is None or routing_id[:1] == b"\0":
            return None
        link = self._links.get(party)
        if link is not None:
            if self._stands(link, claimed=True):
                self._notices.tell("a second process", party, f"a second process came as {party} and was refused")
                self._signal(routing_id, Signal.REFUSED)
                return None
            self._bound.pop(link.routing_id, None)
        self._links[party] = _Link(routing_id, key, descriptor)
        self._bound[routing_id] = party
        logger.info("%s is connected", party)
        return party

    def _stands(self, link: _Link, *, claimed: bool = False) -> bool:
        """Whether a link is up, probing it where there is a reason; somebody else's claim to its name is one."""
        self._read_monitor()
        doubted = link.doubts > 0 or link.down_since is not None
        if claimed:
            pause_s = 0.0 if doubted else PROBE_PAUSE_S
        else:
            pause_s = PROBE_PAUSE_S if doubted else PROBE_AT_LEAST_EVERY_S
        if time.monotonic() - link.probed_at >= pause_s:
            self._probe(link)
        return link.down_since is None

    def _probe(self, link: _Link) -> None:
        link.probed_at = time.monotonic()
        outcome = self._signal(link.routing_id, Signal.PROBE)
        if outcome is _Outcome.FULL and link.doubts > 0:
            outcome = self._probe_full(link)
        if outcome is _Outcome.GONE:
            self._note_down(link)
            return
        link.down_since = None
        link.doubts = max(0, link.doubts - 1)

    def _probe_full(self, link: _Link) -> _Outcome:
        """Find out about a connection that may have died with a full queue.

        To libzmq it is there, and full, until everything from there has been read. So take in what lies unread.
        """
        for _ in range(5):
            for _ in range(2 * self._queue_messages * len(self._links)):
                parts = self._next_parts(0)
                if parts is None:
                    break
                self._unread.append(parts)
            outcome = self._signal(link.routing_id, Signal.PROBE)
            if outcome is not _Outcome.FULL:
                break
            time.sleep(0.002)  # libzmq's network thread has its part in it
        return outcome

    def _note_down(self, link: _Link) -> None:
        if link.down_since is None:
            link.down_since = time.monotonic()
            link.descriptor = None

    def _signal(self, routing_id: bytes, signal: Signal) -> _Outcome:
        return self._try_to_send([routing_id, *signal.parts], 0.0)

    def _try_to_send(self, parts: list[Part], wait_s: float) -> _Outcome:
        try:
            if wait_s == 0:
                self._send_parts(parts, AT_ONCE)
            else:
                self._socket.setsockopt(zmq.SNDTIMEO, as_milliseconds(wait_s))
                self._send_parts(parts, 0)
        except zmq.Again:
            return _Outcome.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return _Outcome.GONE
        return _Outcome.SENT

    def _read_monitor(self) -> None:
        while self._gate.broken:
            descriptor = self._gate.broken.popleft()
            for link in self._links.values():
                if link.descriptor in (descriptor, None):
                    # Two, because libzmq tells the monitor before it takes the connection away: a probe that is fast
                    # enough still succeeds.
                    link.doubts = 2
                    link.descriptor = None


def _key(part: zmq.Frame) -> str | None:
    try:
        return str(part.get("User-Id"))
    except zmq.ZMQError:
        return None  # came past the gate: never seen, and not to be trusted


def _descriptor(part: zmq.Frame) -> int | None:
    try:
        return int(part.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None  # a libzmq without it: then every disconnection suspects every party, which is right but slower

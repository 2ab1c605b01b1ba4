"""The gate of a host: every CURVE handshake ends here, and only keys that the doorkeeper knows pass.

It also follows the monitor of the host's socket, so that strangers are noticed, and what libzmq says of them does not
pile up, while the host computes.

libzmq asks over the ZeroMQ Authentication Protocol (RFC 27) on a fixed in-process address. The answer comes from a
thread of its own, because handshakes must go on while the host computes a batch. pyzmq has such a thread too, but a
doorkeeper that raises ends it, and then every handshake waits for ever; this one says "not now".
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import zmq
from zmq.utils import z85

from heterofed.wire.transport import Doorkeeper
from heterofed.wire.zeromq.sockets import as_milliseconds
from heterofed.wire.zeromq.strangers import Connections, Notices

ZAP_DOMAIN = b"heterofed"

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_STOP_ADDRESS = "inproc://heterofed.gate"
_VERSION = b"1.0"
_SHOWN = 8
"""Characters of a stranger's public key in the log: enough to compare."""


class Gate:
    """Answers libzmq's questions for one context until it is closed.

    A connection that passes carries its public key (Z85 text) as the property "User-Id" of each of its messages.

    Args:
        context: the host's.
        doorkeeper: says whose key it is.
        monitor: the host socket's monitor; until `close` nobody else uses it.
        events: its news since the last call: (zmq.EVENT_*, its value).
        notices: told of everybody who does not come in.
        admitted: who need not ask, as `Gate.admitted`.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        doorkeeper: Doorkeeper,
        *,
        monitor: zmq.Socket[bytes],
        events: Callable[[], Iterable[tuple[int, int]]],
        notices: Notices,
        admitted: Mapping[str, str],
    ) -> None:
        self._doorkeeper = doorkeeper
        self._monitor = monitor
        self._events = events
        self._notices = notices
        self._connections = Connections(notices)
        self._admitted = dict(admitted)
        self._questions = context.socket(zmq.REP)
        self._questions.bind(_ZAP_ADDRESS)
        self._stop = context.socket(zmq.PAIR)
        self._stop.bind(_STOP_ADDRESS)
        self._stopped = context.socket(zmq.PAIR)
        self._stopped.connect(_STOP_ADDRESS)
        self._thread = threading.Thread(target=self._run, name="heterofed-gate", daemon=True)
        self._thread.start()

    @property
    def admitted(self) -> MappingProxyType[str, str]:
        """Public key -> feature key of every party that ever passed."""
        return MappingProxyType(self._admitted)

    @property
    def broken(self) -> deque[int]:
        """Descriptors of connections that ended and may have been a party's, oldest first; who reads pops them."""
        return self._connections.broken

    def close(self) -> None:
        """End the thread; from now on nobody comes in. May be called again."""
        if self._stop.closed:
            return
        self._stop.send(b"")
        self._thread.join()
        self._stop.close(linger=0)
        self._notices.sum_up(at_the_end=True)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._stopped, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            due_in_s = self._notices.due_in_s()
            ready = dict(poller.poll(None if due_in_s is None else as_milliseconds(due_in_s)))
            if self._stopped in ready:
                break
            # Before the answer: when a party comes in, the end of its connection before is known.
            for event, value in self._events():
                self._connections.note(event, value)
            if self._questions in ready:
                self._questions.send_multipart(self._answer(self._questions.recv_multipart()))
            self._notices.sum_up()
        self._questions.close(linger=0)
        self._stopped.close(linger=0)

    def _answer(self, question: list[bytes]) -> list[bytes]:
        """RFC 27: version, request id, domain, address, identity, mechanism, credentials -> version, ..., metadata."""
        request_id = question[1] if len(question) > 1 else b""
        if len(question) != 7 or question[0] != _VERSION or question[5] != b"CURVE" or len(question[6]) != 32:
            return [_VERSION, request_id, b"400", b"CURVE is required", b"", b""]
        key = z85.encode(question[6])
        try:
            party = self._doorkeeper.party_of(key)
        except Exception as error:
            # Only the type: the text of an error from a store may hold anything.
            kind = type(error).__name__
            self._notices.tell(
                f"a key that could not be looked up ({kind})",
                kind,
                f"a party waits outside, because looking up its key raised {kind}",
            )
            return [_VERSION, request_id, b"500", b"try again", b"", b""]
        if party is None:
            address = question[3].decode("ascii", errors="replace")
            self._notices.tell(
                "a key that may not come in",
                key.decode("ascii"),
                f"the key {key[:_SHOWN].decode('ascii')}… from {address} was turned away: the task does not list it, "
                "or is over",
            )
            return [_VERSION, request_id, b"400", b"key not listed", b"", b""]
        self._admitted[key.decode("ascii")] = party
        return [_VERSION, request_id, b"200", b"", key, b""]

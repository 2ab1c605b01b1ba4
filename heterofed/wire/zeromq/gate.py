"""The gate of a host: every CURVE handshake ends here, and only keys that the doorkeeper knows pass.

libzmq asks over the ZeroMQ Authentication Protocol (RFC 27) on a fixed in-process address. The answer comes from a
thread of its own, because handshakes must go on while the host computes a batch. pyzmq has such a thread too, but a
doorkeeper that raises ends it, and then every handshake waits for ever; this one says "not now".
"""

from __future__ import annotations

import logging
import threading
from types import MappingProxyType

import zmq
from zmq.utils import z85

from heterofed.wire.transport import Doorkeeper

ZAP_DOMAIN = b"heterofed"

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_STOP_ADDRESS = "inproc://heterofed.gate"
_VERSION = b"1.0"

logger = logging.getLogger(__name__)


class Gate:
    """Answers libzmq's questions for one context until it is closed.

    A connection that passes carries its public key (Z85 text) as the property "User-Id" of each of its messages.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper
        self._admitted: dict[str, str] = {}
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

    def close(self) -> None:
        """End the thread; from now on nobody comes in. May be called again."""
        if self._stop.closed:
            return
        self._stop.send(b"")
        self._thread.join()
        self._stop.close(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._stopped, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stopped in ready:
                break
            self._questions.send_multipart(self._answer(self._questions.recv_multipart()))
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
            logger.warning("a party waits outside, because looking up its key raised %s", type(error).__name__)
            return [_VERSION, request_id, b"500", b"try again", b"", b""]
        if party is None:
            logger.info("a key that the task does not list was turned away at the door")
            return [_VERSION, request_id, b"400", b"key not listed", b"", b""]
        self._admitted[key.decode("ascii")] = party
        return [_VERSION, request_id, b"200", b"", key, b""]

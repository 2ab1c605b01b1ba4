"""Who knocked at a host's door and did not come in: said once, then counted; and which connections broke.

libzmq's monitor tells of connections by their file descriptors, and of failures without any. All its events come from
one network thread, so a failed handshake is followed at once by the end of its connection.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

REMEMBERED = 1000
"""So many are known again as the same; beyond that the ones not seen for longest are forgotten."""

LINES_AT_ONCE = 20
SUM_UP_EVERY_S = 10.0
"""How soon the first sum of what was not said follows; as long as there is more, the pauses double."""

SUM_UP_AT_LEAST_EVERY_S = 600.0

CONNECTIONS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)
"""What `Connections` has to hear of."""

_FAILURES = frozenset(
    {zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_AUTH}
)

logger = logging.getLogger(__name__)


class Notices:
    """Warnings that nobody can fill the log with. Used by several threads.

    The first of each kind from each sender is a line, as long as lines are few: 20, and one more every 10 s. All
    others are counted, and a line every 10 s at most says how many they were.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._untold: Counter[str] = Counter()
        self._lines_left = float(LINES_AT_ONCE)
        self._counted_at = clock()
        self._pause_s = SUM_UP_EVERY_S
        self._summed_at = -SUM_UP_AT_LEAST_EVERY_S

    def tell(self, kind: str, who: str, text: str) -> None:
        """Warn, or count.

        Args:
            kind: names it in a sum, for example "a key that is not listed".
            who: tells the senders apart.
            text: the line of the first time.
        """
        with self._lock:
            now = self._clock()
            self._lines_left = min(LINES_AT_ONCE, self._lines_left + (now - self._counted_at) / SUM_UP_EVERY_S)
            self._counted_at = now
            known = (kind, who) in self._known
            told = not known and self._lines_left >= 1
            if told or known:
                self._known[kind, who] = None
                self._known.move_to_end((kind, who))
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            if told:
                self._lines_left -= 1
            else:
                if not self._untold and now - self._summed_at > 2 * self._pause_s:
                    self._pause_s = SUM_UP_EVERY_S  # it was quiet meanwhile
                    self._summed_at = now
                self._untold[kind] += 1
        if told:
            logger.warning("%s", text)

    def due_in_s(self) -> float | None:
        """Seconds until `sum_up` has something to say; None: nothing was counted."""
        with self._lock:
            return max(0.0, self._summed_at + self._pause_s - self._clock()) if self._untold else None

    def sum_up(self, *, at_the_end: bool = False) -> None:
        """Say what was counted, if that is due.

        Args:
            at_the_end: say it in any case.
        """
        with self._lock:
            now = self._clock()
            if not self._untold or (now < self._summed_at + self._pause_s and not at_the_end):
                return
            counted, self._untold = self._untold, Counter()
            self._summed_at = now
            self._pause_s = min(2 * self._pause_s, SUM_UP_AT_LEAST_EVERY_S)
        logger.warning(
            "turned away or ignored besides: %s", ", ".join(f"{count} x {kind}" for kind, count in counted.items())
        )


@dataclass
class _Arrival:
    address: str | None
    successes_before: int


class Connections:
    """Follows the monitor of a listening socket. Used by one thread; `broken` is read by another.

    Args:
        notices: told of connections that end before they have shown a key.
    """

    def __init__(self, notices: Notices) -> None:
        self.broken: deque[int] = deque()
        """Descriptors of connections that ended and may have been a party's, oldest first; who reads pops them."""

        self._notices = notices
        self._open: dict[int, _Arrival] = {}
        self._successes = 0
        self._failure: int | None = None

    def note(self, event: int, value: int) -> None:
        """Take in one zmq.EVENT_* with its value."""
        if event == zmq.EVENT_ACCEPTED:
            self._open[value] = _Arrival(_address(value), self._successes)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._successes += 1
        elif event in _FAILURES:
            self._failure = event
        elif event == zmq.EVENT_DISCONNECTED:
            self._ended(value)

    def _ended(self, descriptor: int) -> None:
        failure, self._failure = self._failure, None
        arrival = self._open.pop(descriptor, None)
        # libzmq says nothing of what does not even begin like its protocol; then no handshake succeeded in that time.
        may_be_a_party = arrival is None or arrival.successes_before != self._successes
        if may_be_a_party:
            self.broken.append(descriptor)
        if failure == zmq.EVENT_HANDSHAKE_FAILED_AUTH or (failure is None and may_be_a_party):
            return  # the gate has told why; or it was one of those inside
        address = arrival.address if arrival is not None else None
        self._notices.tell(
            "a connection without a CURVE handshake",
            str(address),
            f"a connection from {address or 'an address that was gone already'} ended without a CURVE handshake: "
            "it was no party, or its line broke",
        )


def _address(descriptor: int) -> str | None:
    """Return the address at the other end of a connection that libzmq has; None if it is closed already."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            return str(copy.getpeername()[0])
    except (OSError, IndexError):
        return None

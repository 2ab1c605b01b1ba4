"""The smallest driver of a run: two parties and one connected stream socket between them.

Each message goes as its length (u32, big-endian) and its bytes. This proves nothing about who is at the
other end and hides nothing from the network: stay on one machine, or hand over a socket of `ssl` for which both parties
have shown certificates.

No deadlock: an initiator has at most `WINDOW` chunks unanswered, and a party that waits to write reads meanwhile, up to
`WINDOW` + 2 messages. So a responder always takes what its initiator writes, and the initiator then gets to read.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from psi.errors import BadArgument, BadMessage
from psi.initiator import Initiator
from psi.messages import MAX_MESSAGE_BYTES
from psi.responder import Responder
from psi.run import WINDOW, Progress

Report = Callable[[Progress], None]
"""Is called with the run's progress after each message."""

TIMEOUT_S = 600.0
"""How long the peer may take for one message unless said otherwise; it may have a large chunk to compute."""

_LENGTH_BYTES = 4
_MAX_WAITING = WINDOW + 2
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True)
class Traffic:
    """Bytes of one party over the socket, lengths in front of the messages included."""

    sent: int
    received: int


def serve(
    run: Responder, connection: socket.socket, *, timeout_s: float = TIMEOUT_S, progress: Report | None = None
) -> Traffic:
    """Carry a responder's run from its start to its end. While no message waits, it works on the responder's own ids.

    Args:
        run: not started yet; it has its result when this returns.
        connection: connected to a party that calls `ask`; for this run alone. Stays open unless an error ends the run.
        timeout_s: how long the initiator may take for a message, or to accept one.
        progress: called after each message.

    Raises:
        PsiError: the run's own errors.
        ConnectionError: the initiator went away before the end.
        TimeoutError: it took too long.
    """
    with _Link(run, connection, "initiator", timeout_s, progress) as link:
        link.put_all(run.start())
        while not run.finished:
            message = link.poll() if run.busy else link.take()
            link.put_all(run.advance() if message is None else run.receive(message))
    return link.traffic


def ask(
    run: Initiator,
    connection: socket.socket,
    *,
    ids: Iterable[str] | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Report | None = None,
) -> Traffic:
    """Carry an initiator's run from its start to its end.

    A joint run returns once it is matched, without its end: after `psi.join` call this again to reveal and finish.

    Args:
        run: has its result when this returns.
        connection: connected to a party that calls `serve`; for this run alone. Stays open unless an error ends the
            run.
        ids: which of the shared ids to reveal; None reveals all that the terms say.
        timeout_s: how long the responder may take for a message, or to accept one.
        progress: called after each message.

    Raises:
        PsiError: the run's own errors.
        ConnectionError: the responder went away before the end.
        TimeoutError: it took too long.
    """
    with _Link(run, connection, "responder", timeout_s, progress) as link:
        to_be_joined = run.terms.joint and not run.matched
        while not run.matched:
            link.put_all(run.receive(link.take()))
        if not to_be_joined:
            link.put_all(run.reveal(ids))
            while not run.finished:
                link.put_all(run.receive(link.take()))
    return link.traffic


class _Link:
    """Messages over a socket that is not blocking while this is open; an error ends the run and the connection."""

    def __init__(
        self,
        run: Initiator | Responder,
        connection: socket.socket,
        peer: str,
        timeout_s: float,
        progress: Report | None,
    ) -> None:
        if not timeout_s > 0:
            raise BadArgument(f"timeout_s is {timeout_s!r}; expected seconds, more than 0.")
        self._run = run
        self._socket = connection
        self._peer = peer
        self._timeout_s = timeout_s
        self._progress = progress
        self._usual_timeout = connection.gettimeout()
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[bytes] = deque()
        self._part = bytearray(_LENGTH_BYTES)
        """What is being read: a length, or the message of that length."""
        self._filled = 0
        self._is_length = True
        self._ended = False
        self._sent = 0
        self._received = 0

    @property
    def traffic(self) -> Traffic:
        """What went over the socket so far."""
        return Traffic(self._sent, self._received)

    def __enter__(self) -> _Link:
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # a socket pair of the system's own has no such option
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self._socket, selectors.EVENT_READ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        if error is None:
            self._socket.settimeout(self._usual_timeout)
            return
        self._run.close()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # the peer need not wait for its deadline
        self._socket.close()

    def put_all(self, messages: Iterator[bytes]) -> None:
        """Send what a run gives, each message before the next is computed."""
        for message in messages:
            self._put(message)
            self._report()
        self._report()

    def take(self) -> bytes:
        """The next message.

        Raises:
            BadMessage: it says that it is too long, or of no length.
            ConnectionError: the peer went away.
            TimeoutError: none came in time.
        """
        deadline = time.monotonic() + self._timeout_s
        while (message := self.poll()) is None:
            if self._ended:
                raise self._lost()
            self._wait(selectors.EVENT_READ, deadline, "sent no whole message")
        return message

    def poll(self) -> bytes | None:
        """The next message if it has come; as `take`, but never waits."""
        if not self._waiting:
            self._read()
        return self._waiting.popleft() if self._waiting else None

    def _put(self, message: bytes) -> None:
        deadline = time.monotonic() + self._timeout_s
        rest = memoryview(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
        while True:
            rest = rest[self._write(rest) :]
            if not rest:
                return
            if self._ended:
                raise self._lost()
            reads = selectors.EVENT_READ if len(self._waiting) < _MAX_WAITING else 0
            self._wait(selectors.EVENT_WRITE | reads, deadline, "did not accept a whole message")
            self._read()

    def _write(self, data: memoryview) -> int:
        try:
            count = self._socket.send(data)
        except _NOT_NOW:
            return 0
        except OSError as error:
            raise self._lost() from error
        self._sent += count
        return count

    def _read(self) -> None:
        """Take in what has come, until enough messages wait."""
        while len(self._waiting) < _MAX_WAITING and not self._ended:
            try:
                count = self._socket.recv_into(memoryview(self._part)[self._filled :])
            except _NOT_NOW:
                return
            except OSError as error:
                raise self._lost() from error
            self._ended = count == 0
            self._received += count
            self._filled += count
            if self._filled == len(self._part):
                self._take_part()

    def _take_part(self) -> None:
        size = _LENGTH_BYTES
        if self._is_length:
            size = int.from_bytes(self._part, "big")
            if not 0 < size <= MAX_MESSAGE_BYTES:
                raise BadMessage(
                    f"the {self._peer} announces a message of {size} bytes; expected 1 to {MAX_MESSAGE_BYTES}. "
                    "Check that both ends of the connection run this protocol, then start a new run."
                )
        else:
            self._waiting.append(bytes(self._part))
        self._is_length = not self._is_length
        self._part = bytearray(size)
        self._filled = 0

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._run.progress)

    def _wait(self, events: int, deadline: float, fault: str) -> None:
        left = deadline - time.monotonic()
        if left > 0:
            self._selector.modify(self._socket, events)
            self._selector.select(left)
        if time.monotonic() >= deadline:  # whatever has come: single bytes must not put it off
            raise TimeoutError(
                f"the {self._peer} {fault} within {self._timeout_s:g} s; {self._where()}. Look at its log, or give it "
                "a larger timeout_s, then start a new run."
            )

    def _lost(self) -> ConnectionError:
        return ConnectionError(
            f"the connection to the {self._peer} ended; {self._where()}. Look at its log for the cause, then start a "
            "new run."
        )

    def _where(self) -> str:
        progress = self._run.progress
        return f"{progress.done} of {progress.total} elements were done" if progress.total else "the run had not begun"

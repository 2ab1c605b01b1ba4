"""A TCP proxy that misbehaves on demand: it resets, hangs, refuses, delays, slows down and damages what passes.

Delay and speed are those of a line: bytes go onto it one after another, as fast as it carries them, and each comes out
so much later; what is on its way does not keep others from following.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

CHUNK = 65_536
MOST_HELD = 65_536
"""Bytes that may wait for one direction's line, or for its reader; then the proxy reads no more, and the sender feels
it. What is on its way on a long line does not count."""

QUEUE_S = 0.01
"""A fast line may have as much waiting as it carries in so many seconds: it must not run dry."""

PIECE_S = 0.001
LEAST_PIECE = 1500
"""What comes out of a slow line together: what it carries in a millisecond, or one packet."""

LOOK_S = 0.05
MOST_SELECTED = 1000
"""Descriptors from here on are too high for select(2)."""

BACKLOG = 128


@dataclass
class _Way:
    """One direction of a connection."""

    source: socket.socket
    sink: socket.socket
    outwards: bool
    """Towards the target."""

    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    """What is not on the line yet: when it came, and the bytes."""

    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    """What is on the line: when it comes out, and the bytes."""

    queue: int = 0
    """Bytes in `waiting`."""

    size: int = 0
    """Bytes in both."""

    free_at: float = 0.0
    """When the line has taken all that is on it."""

    stuck: bool = False
    """Whether the sink took nothing the last time."""

    ended: bool = False
    """The source will send no more."""

    closed: bool = False
    """The sink has been told so."""


class Proxy:
    """Listens on 127.0.0.1 and passes every connection on to the target; one thread does it all.

    Its methods may be called from any thread; a fault with a time begins at once and ends by itself.

    Args:
        target: (address, port) of the real listener; may change (attribute `target`), for connections that come later.
        port: to listen on; 0 takes a free one.
        seed: of what `corrupt` damages.

    Attributes:
        port: where it listens.
        sent: bytes passed to the target.
        received: bytes passed from the target.
        connections: how many it has passed on.
    """

    def __init__(self, target: tuple[str, int], port: int = 0, *, seed: int = 0) -> None:
        self.target = target
        self._listener: socket.socket | None = self._listen(port)
        self.port: int = self._listener.getsockname()[1]
        self.sent = self.received = self.connections = 0
        self._ways: list[_Way] = []
        self._random = random.Random(seed)
        self._wants_reset = threading.Event()
        self._reset_done = threading.Event()
        self._cut_until = self._refused_until = self._delay_s = self._corrupt_rate = 0.0
        self._bytes_per_s: float | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    # --- faults -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """End every open connection with an RST to both sides; new ones are accepted. Returns when it is done."""
        self._reset_done.clear()
        self._wants_reset.set()
        self._wake()
        self._reset_done.wait(5.0)

    def cut(self, seconds: float) -> None:
        """Let no byte pass for a while: connections stay open, new ones hang. Then everything goes on."""
        self._cut_until = time.monotonic() + seconds
        self._wake()

    def refuse(self, seconds: float) -> None:
        """Refuse new connections for a while; open ones go on."""
        self._refused_until = time.monotonic() + seconds
        self._wake()
        while self._listener is not None and not self._closing:
            time.sleep(0.001)

    def delay(self, seconds: float) -> None:
        """Let every byte take so much longer; 0 ends it."""
        self._delay_s = seconds

    def throttle(self, bytes_per_s: float | None) -> None:
        """Let each direction of each connection carry no more than this; None ends it."""
        self._bytes_per_s = bytes_per_s

    def corrupt(self, rate: float) -> None:
        """Flip a bit in this share of the pieces that pass (a piece: what one read gives); 0 ends it."""
        self._corrupt_rate = rate

    def close(self) -> None:
        """Reset every connection and listen no more."""
        self._closing = True
        self._wake()
        self._thread.join(5.0)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- the thread ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        listener.setblocking(False)
        return listener

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"x")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            for each in list(self._ways):
                self._drop(each)
            for each_socket in (self._listener, self._wake_in, self._wake_out):
                if each_socket is not None:
                    each_socket.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._wants_reset.is_set():
            self._wants_reset.clear()
            for way in list(self._ways):
                self._drop(way)
            self._reset_done.set()
        self._open_or_shut(now)
        cut = now < self._cut_until
        wait_s = min(LOOK_S, self._cut_until - now) if cut else LOOK_S
        readable, writable = {self._wake_in.fileno()}, set[int]()
        if not cut:
            if self._listener is not None:
                readable.add(self._listener.fileno())
            for way in self._ways:
                if self._may_read(way):
                    readable.add(way.source.fileno())
                if way.waiting:
                    wait_s = min(wait_s, way.free_at - now)
                if way.held and way.held[0][0] > now:
                    wait_s = min(wait_s, way.held[0][0] - now)
                elif way.held:
                    writable.add(way.sink.fileno())
        ready = _ready(readable, writable, max(0.0, wait_s))
        if self._wake_in.fileno() in ready:
            self._wake_in.recv(1024)
        if cut or time.monotonic() < self._cut_until:
            return
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(self._listener)
        for way in list(self._ways):
            if way in self._ways and way.source.fileno() in ready:
                self._read(way)
            if way in self._ways:
                self._write(way)

    def _open_or_shut(self, now: float) -> None:
        if now < self._refused_until:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
        elif self._listener is None:
            self._listener = self._listen(self.port)

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(self.target, timeout=1.0)
        except OSError:
            _hang_up(near)
            return
        self.connections += 1
        for each in (near, far):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways += [_Way(near, far, outwards=True), _Way(far, near, outwards=False)]

    def _may_read(self, way: _Way) -> bool:
        most = max(MOST_HELD, int((self._bytes_per_s or 0.0) * QUEUE_S))
        return not way.ended and way.queue < most and not (way.stuck and way.size >= MOST_HELD)

    def _read(self, way: _Way) -> None:
        if not self._may_read(way):
            return
        try:
            data = way.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(way)
            return
        if not data:
            way.ended = True
            return
        if self._corrupt_rate and self._random.random() < self._corrupt_rate:
            damaged = bytearray(data)
            damaged[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            data = bytes(damaged)
        way.waiting.append((time.monotonic(), data))
        way.queue += len(data)
        way.size += len(data)

    def _carry(self, way: _Way, now: float) -> None:
        """Put onto the line what it can take by now."""
        while way.waiting and way.free_at <= now:
            came, data = way.waiting.popleft()
            speed = self._bytes_per_s
            piece = data[: max(LEAST_PIECE, int(speed * PIECE_S))] if speed else data
            if len(piece) < len(data):
                way.waiting.appendleft((came, data[len(piece) :]))
            # From when the line was free, not from now: looking late at it does not slow it down.
            way.free_at = max(way.free_at, came) + (len(piece) / speed if speed else 0.0)
            way.queue -= len(piece)
            way.held.append((way.free_at + self._delay_s, piece))

    def _write(self, way: _Way) -> None:
        now = time.monotonic()
        self._carry(way, now)
        while way.held and way.held[0][0] <= now:
            due, data = way.held[0]
            try:
                count = way.sink.send(data)
            except BlockingIOError:
                way.stuck = True
                return
            except OSError:
                self._drop(way)
                return
            way.stuck = False
            if way.outwards:
                self.sent += count
            else:
                self.received += count
            way.size -= count
            way.held.popleft()
            if count < len(data):
                way.held.appendleft((due, data[count:]))
        if way.ended and not way.size and not way.closed:
            way.closed = True
            with contextlib.suppress(OSError):
                way.sink.shutdown(socket.SHUT_WR)
            if all(each.closed for each in self._both(way)):
                self._drop(way)

    def _both(self, way: _Way) -> list[_Way]:
        return [each for each in self._ways if {each.source, each.sink} == {way.source, way.sink}]

    def _drop(self, way: _Way) -> None:
        """End a connection; an RST goes to either side that has not ended it itself."""
        both = self._both(way)
        polite = bool(both) and all(each.closed for each in both)
        self._ways = [each for each in self._ways if each not in both]
        for each in (way.source, way.sink):
            if polite:
                each.close()
            else:
                _hang_up(each)


def _ready(readable: set[int], writable: set[int], wait_s: float) -> set[int]:
    """Return the descriptors that can be read or written, or what is so after `wait_s` seconds."""
    if max(readable | writable) < MOST_SELECTED:  # it waits for microseconds, poll only for whole milliseconds
        found = select.select(readable, writable, [], wait_s)
        return {*found[0], *found[1]}
    poll = select.poll()
    for descriptor in readable | writable:
        mask = select.POLLIN * (descriptor in readable) | select.POLLOUT * (descriptor in writable)
        poll.register(descriptor, mask)
    return {descriptor for descriptor, _ in poll.poll(1000 * wait_s)}


def _hang_up(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        each.close()


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports of this machine that nobody listens on.

    They lie below the range that outgoing connections take theirs from, so that nobody gets one of them by chance
    while its listener is away.
    """
    chance = random.SystemRandom()
    for _ in range(1000):
        first = chance.randrange(12_000, 30_000 - count)
        with contextlib.ExitStack() as opened:
            try:
                for port in range(first, first + count):
                    opened.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", port))))
            except OSError:
                continue
            return first
    raise RuntimeError(f"process {os.getpid()} finds no {count} neighbouring free ports")

"""Who tries to get in while two parties exchange batches: refused, said once in the log, and not felt.

Each cell measures the exchange before, while and after the intruder is there; the slow-down is the ratio of the median
batch with it to that without it, of several rounds taken in turn.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import zmq

from heterofed.errors import HeterofedError
from heterofed.wire.keys import KeyPair, load_or_create
from heterofed.wire.zeromq import CollaboratorTransport
from tests.chaos.exchange import HOST, PARTY, Exchange
from tests.chaos.report import Cell, Plan

SLOWER_AT_MOST = 1.10
CONNECTIONS = 1000
LEAST_SHARE_FOR_TIMES = 0.1
"""Below it, all is smaller and nothing is said of speed."""

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
"""What a ZMTP 3.1 peer says first (RFC 37), 64 bytes."""


@dataclass(frozen=True)
class Target:
    """What an intruder knows."""

    exchange: Exchange
    connections: int
    """How many the crowds open."""

    @property
    def address(self) -> tuple[str, int]:
        """Where the host listens."""
        return "127.0.0.1", self.exchange.port


@dataclass(frozen=True)
class Intruder:
    """One way of trying."""

    name: str
    act: Callable[[Target, threading.Event], None]
    """Goes on until the event is set."""

    in_log: dict[str, int]
    """What stands in the host's log, and in how many lines at most: one for each key and address."""

    may_say: tuple[str, ...] = ()
    """As whom it may be heard: a party of the task that speaks for itself."""


def knock(target: Target, stop: threading.Event, key: KeyPair | None) -> None:
    """Try to come in again and again, with libzmq's own handshake, and to say something."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    while not stop.is_set():
        dealer = context.socket(zmq.DEALER)
        if key is not None:
            dealer.setsockopt(zmq.CURVE_SERVERKEY, target.exchange.address.public_key)
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
            dealer.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
        dealer.setsockopt(zmq.ROUTING_ID, b"\x01" + secrets.token_bytes(15))
        dealer.connect(target.exchange.address.endpoint)
        dealer.send(b"let me in")
        stop.wait(0.1)
        dealer.close(linger=0)
    context.term()


def no_key(target: Target, stop: threading.Event) -> None:
    """Speak ZeroMQ without CURVE."""
    knock(target, stop, None)


def wrong_key(target: Target, stop: threading.Event) -> None:
    """Come with a key that nobody listed."""
    knock(target, stop, load_or_create(target.exchange.home / "keys", "nobody"))


def key_of_another_task(target: Target, stop: threading.Event) -> None:
    """Come with a key that another task of the same store lists."""
    directory = target.exchange.directory
    key = load_or_create(target.exchange.home / "keys", "x")
    other = directory.store.create("another", ["x", "y"]).id
    directory.announce_collaborator(other, "x", key.public)
    knock(target, stop, key)


def anothers_name(target: Target, stop: threading.Event) -> None:
    """Come with c2's own key, and say that it is c1."""
    home = target.exchange.home
    key = load_or_create(home / "keys", "c2")
    target.exchange.directory.announce_collaborator(target.exchange.task_id, "c2", key.public)
    _talk(target, stop, key)


def stolen_key(target: Target, stop: threading.Event) -> None:
    """Come with c1's own key while c1 is there."""
    while not stop.is_set():
        _talk(target, stop, load_or_create(target.exchange.home / "keys", PARTY))
        stop.wait(0.1)


def _talk(target: Target, stop: threading.Event, key: KeyPair) -> None:
    address = target.exchange.address
    with (
        contextlib.suppress(HeterofedError),
        CollaboratorTransport(
            PARTY, host_party=HOST, endpoint=address.endpoint, host_public_key=address.public_key, key=key
        ) as end,
    ):
        while not stop.is_set():
            end.send(HOST, [b"batch 0", b"made up"], timeout_s=1.0)
            end.receive(0.1)


class Recorder:
    """Passes one connection on to the host and keeps what the collaborator said."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = target
        self.said: list[bytes] = []
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(self._target) as far:
            back = threading.Thread(target=self._pump, args=(far, near, []))
            back.start()
            self._pump(near, far, self.said)
            back.join()
        self._listener.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, said: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                said.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def wait(self) -> None:
        """Wait until both ends have hung up."""
        self._thread.join()


def replay(target: Target, stop: threading.Event) -> None:
    """Record a whole session of c2, from its greeting to its end, and play it to the host again and again."""
    recorder = Recorder(target.address)
    key = load_or_create(target.exchange.home / "keys", "c2")
    target.exchange.directory.announce_collaborator(target.exchange.task_id, "c2", key.public)
    host_key = target.exchange.address.public_key
    with CollaboratorTransport(
        "c2", host_party=HOST, endpoint=recorder.endpoint, host_public_key=host_key, key=key
    ) as end:
        for number in range(5):
            end.send(HOST, [b"recorded %d" % number], timeout_s=5.0)
            end.receive(0.05)
    recorder.wait()
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(target.address) as again:
            again.settimeout(0.2)
            for piece in recorder.said:
                again.sendall(piece)
                with contextlib.suppress(TimeoutError):
                    again.recv(65_536)  # as the collaborator did, wait for the host's word
        stop.wait(0.05)


def slow_loris(target: Target, stop: threading.Event) -> None:
    """Say a true greeting on many connections, a letter every half second, and begin again where the host hung up."""
    with contextlib.ExitStack() as open_sockets:
        while not stop.is_set():
            crowd = list(_crowd(target, target.connections // 10))
            for each in crowd:
                open_sockets.enter_context(each)
            alive, sent = crowd, 0
            while alive and not stop.wait(0.5):
                alive = [each for each in alive if _says(each, GREETING[sent : sent + 1])]
                sent = min(sent + 1, len(GREETING) - 1)


def many_connections(target: Target, stop: threading.Event) -> None:
    """Connect a thousand times: a third says nothing, a third half a greeting, a third garbage."""
    with contextlib.ExitStack() as open_sockets:
        for what in (b"", GREETING[:30], secrets.token_bytes(200)):
            for each in _crowd(target, target.connections // 3):
                open_sockets.enter_context(each)
                _says(each, what)
        stop.wait()


def new_keys(target: Target, stop: threading.Event) -> None:
    """Come with another key each time, some forty times a second."""
    threads = [threading.Thread(target=_knock_with_new_keys, args=(target, stop)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _knock_with_new_keys(target: Target, stop: threading.Event) -> None:
    while not stop.is_set():
        once = threading.Event()
        threading.Timer(0.09, once.set).start()
        knock(target, once, KeyPair.generate())


def _says(end: socket.socket, what: bytes) -> bool:
    try:
        end.sendall(what)
    except OSError:
        return False
    return True


def _crowd(target: Target, count: int) -> Iterator[socket.socket]:
    for _ in range(count):
        with contextlib.suppress(OSError):
            yield socket.create_connection(target.address, timeout=10)


NO_HANDSHAKE = {"ended without a CURVE handshake": 2}
"""All come from one address, but a connection may be gone before it can be asked."""

UNLISTED = {"was turned away: the task does not list it, or is over": 1, **NO_HANDSHAKE}
"""A knock may be cut off in the middle."""

INTRUDERS = [
    Intruder("no key", no_key, NO_HANDSHAKE),
    Intruder("a wrong key", wrong_key, UNLISTED),
    Intruder("a key of another task", key_of_another_task, UNLISTED),
    Intruder("a right key with another's party id", anothers_name, {}, may_say=("c2",)),
    Intruder("a right key while its party is there", stolen_key, {"a second process came as c1 and was refused": 1}),
    Intruder("a replayed capture", replay, NO_HANDSHAKE, may_say=("c2",)),
    Intruder("a slow loris", slow_loris, NO_HANDSHAKE),
    Intruder("1,000 connections", many_connections, NO_HANDSHAKE),
    Intruder("a new key each time", new_keys, dict.fromkeys(UNLISTED, 40)),
]
SUM = "turned away or ignored besides"


def cells(plan: Plan) -> Iterator[Cell]:
    """Let each of them try, each at a new pair of processes; in a small share all at the same pair."""
    whole = plan.share >= LEAST_SHARE_FOR_TIMES
    connections = CONNECTIONS if whole else max(90, round(plan.share * CONNECTIONS))
    with contextlib.ExitStack() as exchanges:
        exchange: Exchange | None = None
        for intruder in INTRUDERS:
            began = time.monotonic()
            if whole or exchange is None:
                exchanges.close()
                folder = plan.folder / "intruders" / intruder.name.replace(" ", "-").replace("'", "")
                folder.mkdir(parents=True)
                exchange = exchanges.enter_context(Exchange(folder, handshake_s=10.0 if whole else 1.0))
            rounds = 0 if not whole else 3 if plan.share < 1 else 5
            wrong, note = _try(Target(exchange, connections), intruder, 200 if whole else 20, rounds)
            yield Cell("intruders", intruder.name, not wrong, time.monotonic() - began, "; ".join(wrong) or note)


def _try(target: Target, intruder: Intruder, batches: int, rounds: int) -> tuple[list[str], str]:
    """Return what went wrong, and the figures; with 0 rounds it tries once and does not look at the times."""
    logged = len(target.exchange.log())
    exchange = target.exchange
    exchange.measure(batches)  # everything is warm and connected
    descriptors = exchange.measure(5)["descriptors"]
    measured: list[tuple[Measured, Measured, Measured]] = []
    # On a machine with other work a ratio is a lot of noise: where the median is too high, more rounds must confirm it.
    while len(measured) < max(1, rounds) or (_slower(measured) > SLOWER_AT_MOST and len(measured) < 3 * rounds):
        before = exchange.measure(batches)
        stop = threading.Event()
        thread = threading.Thread(target=intruder.act, args=(target, stop))
        thread.start()
        time.sleep(0.5)
        disturbed = exchange.measure(batches)
        stop.set()
        thread.join()
        measured.append((before, disturbed, exchange.measure(batches)))
        if measured[-1][1]["troubles"]:
            break
    wrong = [trouble for each in measured for one in each for trouble in one["troubles"]]
    if any(one["down_s"] for each in measured for one in each):
        wrong.append("the link of c1 went down")
    spoke = {party for each in measured for one in each for party in one["others"]}
    if spoke - set(intruder.may_say):
        wrong.append(f"the host heard {', '.join(spoke)}")
    deadline = time.monotonic() + 20
    while (left := exchange.measure(5)["descriptors"] - descriptors) > 2:
        if time.monotonic() > deadline:
            wrong.append(f"{left} descriptors are still open")
            break
        time.sleep(0.2)
    wrong += _wrong_lines(exchange.log()[logged:], intruder, said_before=not rounds)
    quiet = statistics.median(one["median_s"] for each in measured for one in (each[0], each[2]))
    note = (
        f"{1000 * quiet:.1f} ms a batch; with it times {_slower(measured):.2f} (median of {len(measured)}); "
        f"up to {max(each[1]['descriptors'] for each in measured)} descriptors"
    )
    if rounds and _slower(measured) > SLOWER_AT_MOST:
        wrong.append(f"slower: {note}")
    return wrong, note


Measured = dict[str, Any]


def _slower(measured: list[tuple[Measured, Measured, Measured]]) -> float:
    ratio: float = statistics.median(
        2 * disturbed["median_s"] / (before["median_s"] + after["median_s"]) for before, disturbed, after in measured
    )
    return ratio


def _wrong_lines(log: str, intruder: Intruder, *, said_before: bool) -> list[str]:
    warnings = [line for line in log.splitlines() if line.startswith(("WARNING", "ERROR")) or "Traceback" in line]
    known = {SUM: len(warnings), **intruder.in_log}
    wrong = [f"in the log: {line}" for line in warnings if not any(text in line for text in known)]
    for text, allowed in intruder.in_log.items():
        said = [line for line in warnings if text in line]
        if len(said) > allowed:
            wrong.append(f"{len(said)} lines in the log: {said[:3]}")
    # Another intruder from the same address may have had the one line.
    if intruder.in_log and not said_before and not any(text in line for line in warnings for text in intruder.in_log):
        wrong.append("nothing in the log")
    return wrong

"""The layers below the codec: parts of a ZeroMQ message, and what numbers and acknowledges messages."""

from __future__ import annotations

import random
import struct
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import zmq

from heterofed.errors import PeerRestarted, PeerTimeout
from heterofed.wire import headers
from heterofed.wire import parts as wire_parts
from heterofed.wire.conversation import Conversation
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Buffer, Delivery, Transport
from tests.chaos.corpus.mutations import HUGE
from tests.chaos.corpus.outcome import Outcome, watched
from tests.chaos.corpus.target import Broken


def parts(seed: int, count: int, folder: Path) -> Outcome:
    """The layer below: parts of a ZeroMQ message; whatever they are, `from_parts` does not raise."""
    dice = random.Random(seed)
    limit = 1 << 20
    began = time.perf_counter()
    big = _cut([b"head", HUGE[: wire_parts.PIECE_BYTES + 5], b""], limit)
    small = [b"head" + struct.pack("!3QBB", 4, 300, 0, 3, 0), bytes(300)]
    signals = [[_bytes(part) for part in each.parts] for each in wire_parts.Signal]
    valid = [small, small, _cut([b"head", bytes(24)], limit), _cut([b"h"], limit), [b"", b"pieces"], *signals]
    for number in range(count):
        made = list(big if dice.random() < 0.02 else dice.choice(valid))
        for _ in range(1 + int(dice.random() * 2)):
            made = _spoilt_parts(dice, made)
        try:
            taken = wire_parts.from_parts([memoryview(each) for each in made], limit)
            if not isinstance(taken, wire_parts.Signal):
                _check_taken([memoryview(each).nbytes for each in taken], made)
        except Exception as error:
            return Outcome(number, time.perf_counter() - began, watched([list(made)], folder, seed, number, error))
    return Outcome(count, time.perf_counter() - began)


def _check_taken(sizes: list[int], made: list[bytes]) -> None:
    if len(sizes) > wire_parts.MAX_FRAMES:
        raise Broken("more frames came out than are allowed")
    if made[0][-1]:
        said = struct.pack(f"!{len(sizes) - 1}HB", *sizes[:-1], len(sizes))
    else:
        said = struct.pack(f"!{len(sizes)}QBB", *sizes, len(sizes), 0)
    if not made[0].endswith(said) or sum(sizes) + len(said) != sum(map(len, made)):
        raise Broken("frames of other sizes came out than were declared")


def _cut(frames: list[bytes], limit: int) -> list[bytes]:
    return [_bytes(each) for each in wire_parts.to_parts(frames, limit)]


def _bytes(part: wire_parts.Part) -> bytes:
    return part.bytes if isinstance(part, zmq.Frame) else bytes(part)


def _spoilt_parts(dice: random.Random, made: list[bytes]) -> list[bytes]:
    at = int(dice.random() * len(made)) if made else 0
    what = int(dice.random() * 8)
    if what == 0:
        sizes = [
            dice.choice([0, 1, 4, 24, 2**18, 2**18 + 1, 2**20, 2**63, 2**64 - 1])
            for _ in range(dice.choice([1, 2, 9, 255]))
        ]
        end = dice.choice([b"", bytes([len(sizes)]), bytes([len(sizes), 0])])
        return [*made[:1], struct.pack(f"!{len(sizes)}Q", *sizes) + end, *made[2:]]
    if what == 1:
        return made[:at] + made[at + 1 :]
    if what == 2:
        return made[:at] + made[at : at + 1] * 2 + made[at + 1 :]
    if what == 3:
        return [*made[:at], dice.randbytes(int(dice.random() * 40)), *made[at:]]
    if what == 4:
        return [*made[:at], b"", *made[at:]]
    if what == 5:
        return [*made, *[b"x"] * dice.choice([1, 3, 100])]
    if what == 6 and dice.random() < 0.5:
        tail = dice.randbytes(int(dice.random() * 20)) + bytes([int(dice.random() * 4)])
        return [each[:-1] + tail if index == at else each for index, each in enumerate(made)]
    if what == 6:
        return [
            each[: int(dice.random() * (len(each) + 1))] if index == at else each for index, each in enumerate(made)
        ]
    return made[::-1]


MOST_MESSAGES, MOST_BYTES = 8, 3000
"""Windows of the transport that is attacked."""


class _Hostile(Transport):
    """An inner transport whose other end says whatever it likes."""

    party = "host"

    def __init__(self) -> None:
        self.coming: deque[list[Buffer]] = deque()
        self.said: deque[list[Buffer]] = deque(maxlen=20)
        """What was last said to the other end; it may say it back."""

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        self.said.append(list(frames))

    def receive(self, timeout_s: float) -> Delivery | None:
        return Delivery("c1", self.coming.popleft()) if self.coming else None

    def down_for(self, party: str) -> float:
        return 0.0

    def close(self, linger_s: float = 2.0) -> None:
        """Nothing is held."""


class _Intact(_Hostile):
    intact = True


class _Clock:
    """Seconds that pass when somebody looks."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


def reliable(seed: int, count: int, folder: Path) -> Outcome:
    """Whatever comes, the reliable transport hands out, drops or says that the peer restarted, within its limits."""
    dice, clock = random.Random(seed), _Clock()
    began = time.perf_counter()
    inner, wrapped = _fresh(dice, clock)
    for number in range(count):
        clock.now += dice.choice([0.0, 0.01, 0.6])
        if dice.random() < 0.005:
            inner, wrapped = _fresh(dice, clock)
        made = _hostile(dice, inner, wrapped)
        inner.coming.append([memoryview(each) for each in made])
        try:
            headers.unpack(made, must_be_sealed=dice.random() < 0.5)
            if dice.random() < 0.3:
                wrapped.send("c1", [b"ours"], 1e-9)
            while wrapped.receive(0.0) is not None and dice.random() < 0.7:
                pass
        except (PeerRestarted, PeerTimeout):
            pass
        except Exception as error:
            return Outcome(number, time.perf_counter() - began, watched([list(made)], folder, seed, number, error))
        try:
            _check_kept(wrapped._conversation("c1"))
        except Broken as error:
            return Outcome(number, time.perf_counter() - began, watched([list(made)], folder, seed, number, error))
    return Outcome(count, time.perf_counter() - began)


def _fresh(dice: random.Random, clock: _Clock) -> tuple[_Hostile, ReliableTransport]:
    inner = dice.choice([_Hostile, _Intact])()
    wrapped = ReliableTransport(inner, window_messages=MOST_MESSAGES, window_bytes=MOST_BYTES, clock=clock)
    return inner, wrapped


def _hostile(dice: random.Random, inner: _Hostile, wrapped: ReliableTransport) -> list[bytes]:
    """What a peer could say that has heard everything that we said, changed or not."""
    if inner.said and dice.random() < 0.1:
        made = [bytes(each) for each in dice.choice(inner.said)]  # our own words come back
    else:
        incoming = wrapped._conversation("c1")._incoming
        near = incoming.received + int(dice.random() * 12) - 2
        questions = [header.number for frames in inner.said if isinstance(header := _read(frames), headers.Header)]
        numbers = [max(0, dice.choice([near, near, near, 0, 2**63, 2**64 - 1, *questions])) for _ in range(3)]
        payload = [b"x" * dice.choice([0, 1, 24, 400, 999, 4000])] * dice.choice([0, 1, 1, 2])
        names = [bytes(range(8)), bytes(range(8)), headers.UNKNOWN, b"\xff" * 8, wrapped._ours]
        to = dice.choice([wrapped._ours, wrapped._ours, headers.UNKNOWN, bytes(8)])
        header = headers.Header(dice.choice([1, 1, 1, 2, 3, 4, 4, 9]), dice.choice(names), to, *numbers)
        made = [headers.pack(header, None if inner.intact and dice.random() < 0.9 else payload), *payload]
    return _spoilt_parts(dice, made) if dice.random() < 0.3 else made


def _read(frames: Sequence[Buffer]) -> headers.Header | headers.Flaw:
    return headers.unpack(frames, must_be_sealed=False)


def _check_kept(peer: Conversation) -> None:
    """See that a conversation keeps no more than its windows allow, whatever came."""
    incoming, outgoing = peer._incoming, peer._outgoing
    sizes = [size for _, size in (*incoming._unread, *incoming._beyond.values())]
    if len(sizes) > MOST_MESSAGES or sum(sizes) > MOST_BYTES + max(sizes, default=0):
        raise Broken("more is kept than may be")
    if outgoing.first + len(outgoing) != outgoing.next or outgoing.bytes != 4 * len(outgoing):
        raise Broken("what was sent is miscounted")
    if len(peer._retired) > 1000:
        raise Broken("too many restarts are remembered")

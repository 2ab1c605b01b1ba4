"""Two reliable ends of one link in one thread: what passes between them is seen, kept, lost or made by the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heterofed.errors import PeerGone, PeerRestarted
from heterofed.wire.headers import Flaw, Header, Kind, unpack
from heterofed.wire.memory import MemoryHub
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Buffer, Delivery, Transport
from tests.wire.contract import HOST


class Clock:
    """Time that passes when a test says so, and when somebody waits in vain."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Tap(Transport):
    """An inner end that keeps a copy of what is sent through it, and may lose it."""

    intact = True

    def __init__(self, inner: Transport, clock: Clock | None = None) -> None:
        self.party = inner.party
        self.inner = inner
        self.clock = clock
        self.sent: list[list[bytes]] = []
        self.loses: Callable[[Header], bool] | None = None
        self.is_down = False

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        copies = [bytes(frame) for frame in frames]
        if self.is_down:
            raise PeerGone(f"the link to {to} is down", party=self.party)
        self.sent.append(copies)
        if self.loses is None or not self.loses(read(copies)):
            self.inner.send(to, copies, timeout_s)

    def receive(self, timeout_s: float) -> Delivery | None:
        delivery = self.inner.receive(0.0 if self.clock else timeout_s)
        if delivery is None and self.clock:
            self.clock.now += timeout_s
        return None if self.is_down else delivery

    def down_for(self, party: str) -> float:
        return 1.0 if self.is_down else self.inner.down_for(party)

    def close(self, linger_s: float = 2.0) -> None:
        self.inner.close(linger_s)

    def headers(self, *kinds: Kind) -> list[Header]:
        """Of what was sent, of these kinds or of all."""
        return [header for header in map(read, self.sent) if not kinds or header.kind in kinds]


def read(frames: Sequence[Buffer]) -> Header:
    """The header of a frame sequence that has one."""
    header = unpack(frames, must_be_sealed=False)
    if isinstance(header, Flaw):
        raise AssertionError(header.value)
    return header


@dataclass
class Pair:
    """A host and a bank that share a clock."""

    hub: MemoryHub = field(default_factory=lambda: MemoryHub(HOST, queue_messages=100_000))
    clock: Clock = field(default_factory=Clock)
    limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host_tap, self.host = self.open(HOST)
        self.bank_tap, self.bank = self.open("bank")

    def open(self, party: str) -> tuple[Tap, ReliableTransport]:
        tap = Tap(self.hub.transport(party), self.clock)
        return tap, ReliableTransport(tap, clock=self.clock, **self.limits)  # type: ignore[arg-type]  # int or float

    def start_anew(self, party: str) -> None:
        """Kill one end as SIGKILL would, and open it in a new process."""
        if party == HOST:
            self.host_tap.inner.close()
            self.host_tap, self.host = self.open(HOST)
        else:
            self.bank_tap.inner.close()
            self.bank_tap, self.bank = self.open("bank")

    def settle(self, seconds: float = 1.0, step_s: float = 0.05) -> tuple[list[str], list[str]]:
        """Let both ends wait for so long; return what the host and the bank heard meanwhile."""
        heard: tuple[list[str], list[str]] = ([], [])
        for _ in range(round(seconds / step_s)):
            for end, its in zip((self.host, self.bank), heard, strict=True):
                its += hear(end)
            self.clock.now += step_s
        return heard


def say(sender: Transport, to: str, *texts: str) -> None:
    for text in texts:
        sender.send(to, [b"head", text.encode()], timeout_s=0.1)


def hear(end: Transport) -> list[str]:
    """All that can be handed out now; a restart is heard as "<party> restarted"."""
    texts: list[str] = []
    while True:
        try:
            delivery = end.receive(0.0)
        except PeerRestarted as error:
            texts.append(f"{error.party} restarted")
            continue
        if delivery is None:
            return texts
        texts.append(bytes(delivery.frames[-1]).decode())


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]

"""A transport that misbehaves on purpose, the same way for the same seed.

It wraps any other one and spoils what is sent through it: loses, delays, doubles, swaps and damages messages, and
cuts the link. Every send draws as many random numbers as any other, so what happens to the n-th message for one
reason does not change with the rate of another.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from heterofed.errors import ConfigError, PeerGone, PeerTimeout, WireError
from heterofed.wire.transport import Buffer, Delivery, Transport


@dataclass
class _Held:
    """A message on its way to one party, later than it should be."""

    frames: list[Buffer]
    due: float
    may_be_overtaken: bool


class FaultyTransport(Transport):
    """Wraps an end; what it sends may go wrong. Receiving is untouched, so wrap both ends to spoil both directions.

    Args:
        inner: the transport that does the work; closed with this one.
        seed: of all decisions.
        drop: probability that a message is lost.
        delay: probability that a message is held back, with all after it to the same party, for up to `max_delay_s`.
        max_delay_s: longest delay, in seconds.
        duplicate: probability that a message is sent twice.
        reorder: probability that the message after it overtakes it (or that it waits `max_delay_s` for one).
        corrupt: probability that one byte of one of its frames is changed.
        cut_after: the link breaks at the send after this many; None never breaks it. `mend()` repairs it.

    Raises:
        ConfigError: a probability is not between 0 and 1, or a number is negative.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        seed: int,
        drop: float = 0.0,
        delay: float = 0.0,
        max_delay_s: float = 0.05,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        cut_after: int | None = None,
    ) -> None:
        self._rates = {
            "drop": drop,
            "delay": delay,
            "duplicate": duplicate,
            "reorder": reorder,
            "corrupt": corrupt,
        }
        for name, rate in self._rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"{name} is {rate}", expected="a probability, 0 to 1")
        if max_delay_s < 0 or (cut_after is not None and cut_after < 0):
            raise ConfigError("max_delay_s or cut_after is negative", expected="0 or more")
        self.party = inner.party
        self.faults: Counter[str] = Counter()
        """How often each fault has happened so far, by the name of its argument."""
        self._inner = inner
        self._random = random.Random(seed)  # noqa: S311  # faults must be the same again, not secret
        self._max_delay_s = max_delay_s
        self._cut_after = cut_after
        self._sends = 0
        self._cut_at: float | None = None
        self._held: dict[str, list[_Held]] = {}

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`; and what may go wrong, does."""
        if self._cut_after is not None and self._sends >= self._cut_after:
            self._cut_after = None
            self.cut()
        if self._cut_at is not None:
            raise PeerGone(f"the link to {to} was cut on purpose", party=self.party)
        self._sends += 1
        happens = {name: self._random.random() < rate for name, rate in self._rates.items()}
        fate = random.Random(self._random.getrandbits(64))  # noqa: S311  # faults must be the same again, not secret
        if happens["drop"]:
            self.faults["drop"] += 1
            return
        self.faults.update(name for name, true in happens.items() if true)
        if happens["corrupt"]:
            frames = _damaged(frames, fate)
        for _ in range(2 if happens["duplicate"] else 1):
            self._pass_on(to, frames, timeout_s, happens, fate)

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`; nothing arrives while the link is cut."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._release()
            left_s = max(0.0, deadline - time.monotonic())
            due_s = min((queue[0].due for queue in self._held.values() if queue), default=deadline) - time.monotonic()
            delivery = self._inner.receive(max(0.001, min(left_s, due_s)) if left_s else 0.0)
            if delivery is not None and self._cut_at is None:
                return delivery
            if left_s == 0:
                return None

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`; a cut link is down for every party."""
        self._release()
        inner = self._inner.down_for(party)
        return inner if self._cut_at is None else max(inner, time.monotonic() - self._cut_at)

    def close(self, linger_s: float = 2.0) -> None:
        """See `Transport.close`. What is still held back is sent first."""
        self._release(everything=True)
        self._inner.close(linger_s)

    def cut(self) -> None:
        """Break the link: sends fail, arrivals vanish, and what is held back is lost."""
        self.faults["cut"] += 1
        self._cut_at = time.monotonic()
        self._held.clear()

    def mend(self) -> None:
        """Repair a cut link. What was lost stays lost."""
        self._cut_at = None

    def _pass_on(
        self, to: str, frames: Sequence[Buffer], timeout_s: float, happens: dict[str, bool], fate: random.Random
    ) -> None:
        self._release()
        queue = self._held.get(to, [])
        late = happens["delay"] or happens["reorder"]
        if not late and all(held.may_be_overtaken for held in queue):
            self._inner.send(to, frames, timeout_s)
            for held in queue:
                held.due = 0.0  # overtaken: free to go
            self._release()
            return
        wait_s = self._max_delay_s * (fate.random() if happens["delay"] else float(happens["reorder"]))
        copies: list[Buffer] = [bytes(frame) for frame in frames]
        overtaken = happens["reorder"] and not happens["delay"]
        self._held.setdefault(to, []).append(_Held(copies, time.monotonic() + wait_s, overtaken))

    def _release(self, *, everything: bool = False) -> None:
        """Send what is due, in order; only a message that may be overtaken lets later ones by."""
        for to, queue in self._held.items():
            now = time.monotonic()
            stay: list[_Held] = []
            blocked = False
            for held in queue:
                if blocked or (held.due > now and not everything) or not self._try_inner(to, held):
                    stay.append(held)
                    blocked = blocked or not held.may_be_overtaken
            queue[:] = stay

    def _try_inner(self, to: str, held: _Held) -> bool:
        """Send a held message; False says that its queue is full. A broken link loses it, as it would on its way."""
        try:
            self._inner.send(to, held.frames, timeout_s=0.001)
        except PeerTimeout:
            return False
        except WireError:
            pass
        return True


def _damaged(frames: Sequence[Buffer], fate: random.Random) -> list[Buffer]:
    """A copy with one byte changed, in one of the frames that have any."""
    copies = [bytearray(frame) for frame in frames]
    chosen = fate.choice([copy for copy in copies if copy])
    chosen[fate.randrange(len(chosen))] ^= fate.randint(1, 255)
    return list(copies)

"""A transport that misbehaves on purpose, the same way for the same seed.

It wraps any other one and spoils what is sent through it: loses, delays, doubles, swaps and damages messages, and
cuts the link. Every send draws as many random numbers as any other, so what happens to the n-th message for one
reason does not change with the rate of another.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heterofed.errors import ConfigError, PeerGone, PeerTimeout, WireError
from heterofed.wire.transport import Buffer, Delivery, Transport

_AT_ONCE_S = 1e-6
"""As a timeout of the inner transport: do not wait. 0 would wait for ever."""


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
        cut: probability that the link breaks when the message is to be sent.
        cut_after: the link breaks at the send after this many; None never breaks it.
        mend_after_s: a broken link is whole again after so many seconds; None: when `mend()` is called.
        clock: what delays and breaks are measured by, in seconds.

    Raises:
        ConfigError: a probability is not between 0 and 1, or a number is negative.
    """

    intact = False

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
        cut: float = 0.0,
        cut_after: int | None = None,
        mend_after_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = {
            "drop": drop,
            "delay": delay,
            "duplicate": duplicate,
            "reorder": reorder,
            "corrupt": corrupt,
            "cut": cut,
        }
        for name, rate in self._rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"{name} is {rate}", expected="a probability, 0 to 1")
        if min(max_delay_s, cut_after or 0, mend_after_s or 0.0) < 0:
            raise ConfigError("max_delay_s, cut_after or mend_after_s is negative", expected="0 or more")
        self.party = inner.party
        self.faults: Counter[str] = Counter()
        """How often each fault has happened so far, by the name of its argument."""
        self._inner = inner
        self._random = random.Random(seed)  # noqa: S311  # faults must be the same again, not secret
        self._max_delay_s = max_delay_s
        self._cut_after = cut_after
        self._mend_after_s = mend_after_s
        self._clock = clock
        self._sends = 0
        self._cut_at: float | None = None
        self._held: dict[str, list[_Held]] = {}

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`; and what may go wrong, does."""
        if self._cut_after is not None and self._sends >= self._cut_after:
            self._cut_after = None
            self.cut()
        self._refuse_cut(to)
        self._sends += 1
        happens = {name: self._random.random() < rate for name, rate in self._rates.items()}
        fate = random.Random(self._random.getrandbits(64))  # noqa: S311  # faults must be the same again, not secret
        if happens.pop("cut"):
            self.cut()
            self._refuse_cut(to)
        if happens["drop"]:
            self.faults["drop"] += 1
            return
        self.faults.update(name for name, true in happens.items() if true)
        if happens["corrupt"]:
            frames = _damaged(frames, fate)
        self._pass_on(to, frames, timeout_s, happens, fate)
        if happens["duplicate"]:
            with contextlib.suppress(PeerTimeout):  # the message was sent; only its double was not
                self._pass_on(to, frames, _AT_ONCE_S, happens, fate)

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`; nothing arrives while the link is cut."""
        deadline = self._clock() + timeout_s
        while True:
            self._release()
            now = self._clock()
            left_s = max(0.0, deadline - now)
            due_s = min((queue[0].due for queue in self._held.values() if queue), default=deadline) - now
            delivery = self._inner.receive(max(0.001, min(left_s, due_s)) if left_s else 0.0)
            if delivery is not None and not self._is_cut():
                return delivery
            if left_s == 0:
                return None

    def expect_soon(self, soon: bool) -> None:
        """See `Transport.expect_soon`."""
        self._inner.expect_soon(soon)

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`; a cut link is down for every party."""
        self._release()
        inner = self._inner.down_for(party)
        if not self._is_cut() or self._cut_at is None:
            return inner
        return max(inner, self._clock() - self._cut_at, 1e-9)  # 0.0 would say that it is up

    def close(self, linger_s: float = 2.0) -> None:
        """See `Transport.close`. What is still held back is sent first."""
        self._release(everything=True)
        self._inner.close(linger_s)

    def cut(self) -> None:
        """Break the link: sends fail, arrivals vanish, and what is held back is lost."""
        self.faults["cut"] += 1
        self._cut_at = self._clock()
        self._held.clear()

    def mend(self) -> None:
        """Repair a cut link. What was lost stays lost."""
        self._cut_at = None

    def _is_cut(self) -> bool:
        if self._cut_at is None:
            return False
        if self._mend_after_s is not None and self._clock() - self._cut_at >= self._mend_after_s:
            self.mend()
        return self._cut_at is not None

    def _refuse_cut(self, to: str) -> None:
        if self._is_cut():
            raise PeerGone(f"the link to {to} was cut on purpose", party=self.party)

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
        self._held.setdefault(to, []).append(_Held(copies, self._clock() + wait_s, overtaken))

    def _release(self, *, everything: bool = False) -> None:
        """Send what is due, in order; only a message that may be overtaken lets later ones by."""
        for to, queue in self._held.items():
            now = self._clock()
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

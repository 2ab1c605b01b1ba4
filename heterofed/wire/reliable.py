"""Every message arrives, once, in order and undamaged, whatever the transport below loses; or its receiver restarted.

Messages are numbered and kept until the peer has handed them out. In lock-step traffic that costs each a small frame:
every message acknowledges what came before it. Only when an answer is overdue, a PROBE asks what has come; the ACK that
answers it says what is missing, and that is repeated. `conversation` has the rules, this module the waiting. Nothing
happens by itself: all of it is done inside the calls.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from itertools import repeat

from heterofed.errors import ConfigError, PeerGone, PeerRestarted, PeerTimeout, WireError
from heterofed.wire.conversation import Conversation, Limits
from heterofed.wire.headers import Flaw, unpack
from heterofed.wire.parts import frame_sizes
from heterofed.wire.transport import Buffer, Delivery, Transport

LOOK_EVERY_S = 0.1
"""How often, at least, to look at the links and at what is overdue."""

GONE_AFTER_S = 1.0
"""An end that closes does not wait for a party whose link is down for so long."""

_INCARNATION_BYTES = 8

_AT_ONCE_S = 1e-6
"""As a timeout of the inner transport: do not wait. 0 would wait for ever."""

_ROOM_S = 0.02
"""For how long to wait for room in the inner queue before looking at what arrives."""

_FIRST_SEND_S = 1.0
"""The same for the first message: a transport that is still connecting takes that long to put it on its way."""

_IN_A_ROW = 64
"""So many arrivals are taken in past a deadline, and no more: a peer that never stops may not hold us."""

logger = logging.getLogger(__name__)


class ReliableTransport(Transport):
    """Wraps a transport so that nothing is lost, doubled or swapped between two ends that both do.

    A link that is down is no error here: what is sent is kept, and leaves when the link is back.

    Args:
        inner: the transport that does the work; closed with this one. Both ends must be `intact`, or neither.
        window_messages: how many messages to (from) one party may be unacknowledged (unread).
        window_bytes: how many bytes; one message of any size may always. Enough for 1 Gbit/s over 100 ms; with more, a
            sender that is ahead only takes more memory, which is slower.
        first_probe_s: how long an acknowledgement may take before we ask for it; then twice as long, and so on.
        most_probe_s: the longest pause between two such questions: a peer may compute for minutes without reading.
        max_message_bytes: larger messages are not sent. The inner transport needs `HEADER_BYTES` more.
        clock: what pauses and timeouts are measured by, in seconds.

    Raises:
        ConfigError: these limits do not fit together.
    """

    intact = True

    def __init__(
        self,
        inner: Transport,
        *,
        window_messages: int = 64,
        window_bytes: int = 32 << 20,
        first_probe_s: float = 0.5,
        most_probe_s: float = 60.0,
        max_message_bytes: int = 1 << 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if window_messages < 1 or window_bytes < 1 or not 0 < first_probe_s <= most_probe_s:
            raise ConfigError(
                "the limits of a reliable transport do not fit together",
                party=inner.party,
                expected="a window of 1 or more, and 0 < first_probe_s <= most_probe_s",
            )
        self.party = inner.party
        self.malformed: Counter[str] = Counter()
        """How often each party sent what is no message of this transport."""

        self.damaged: Counter[str] = Counter()
        """How often a message of each party came damaged; it was dropped, and is repeated."""

        self._inner = inner
        self._limits = Limits(window_messages, window_bytes, first_probe_s, most_probe_s)
        self._look_every_s = min(LOOK_EVERY_S, first_probe_s)
        self._look_at = -math.inf
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._sealed = not inner.intact
        self._ours = secrets.token_bytes(_INCARNATION_BYTES)
        self._conversations: dict[str, Conversation] = {}
        self._ready: deque[Conversation] = deque()
        """Whose turn it is to hand out a message; who has none any more is passed over."""

        self._restarted: deque[str] = deque()
        self._closed = False

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """See `Transport.send`. Waits while the window to that party or the queue below is full, and reads meanwhile.

        Raises:
            PeerGone: this party never had a link.
            PeerTimeout: there was no room; nothing was sent.
            PeerRestarted: see `receive`; nothing was sent.
            PeerRefused: the other end told us to go away.
            WireError: this end is closed.
        """
        kept = self._inner.keep(frames)
        size = sum(map(len, kept))
        if not kept or not kept[0] or size > self._max_message_bytes:
            frame_sizes(frames, self._max_message_bytes)  # says what is wrong
        peer = self._conversations.get(to) or self._conversation(to)
        now = self._clock()
        deadline = now + timeout_s if timeout_s > 0 else math.inf
        while True:
            if self._restarted:
                self._raise_restarted()
            if now >= self._look_at:
                self._look(now)
            if not peer.has_room(size):
                self._take_next(deadline, now)
            elif self._send_on(peer, kept, size, deadline - now, now):
                return
            else:
                self._take_what_is_here(now)
            if now >= deadline:
                raise PeerTimeout(
                    f"the queue to {to} was full for {timeout_s:g} s ({peer.unacknowledged} messages not yet taken)",
                    party=self.party,
                    advice=f"See what {to} does.",
                )
            now = self._clock()

    def receive(self, timeout_s: float) -> Delivery | None:
        """See `Transport.receive`. Waiting is also when everything overdue is asked for and repeated.

        Raises:
            PeerRestarted: a party is not the process any more that it was. Both streams with it are empty and begin
                again: what it had not acknowledged is forgotten, what of it was not handed out is dropped. Once for
                each restart.
            PeerRefused: the other end told us to go away.
            WireError: this end is closed.
        """
        now = self._clock()
        deadline = now + timeout_s
        late = 0
        while True:
            if self._restarted:
                self._raise_restarted()
            while self._ready:
                delivery = self._ready.popleft().hand_out()
                if delivery is not None:
                    return delivery
            if late > _IN_A_ROW:
                return None
            if now >= self._look_at:
                self._look(now)
            came = self._inner.receive(self._patience_s(deadline, now))
            now = self._clock()
            if came is not None:
                peer = self._conversations.get(came.sender)
                usual = peer.pass_on(came.frames, now) if peer is not None and not self._sealed else None
                if usual is not None:
                    return usual
                self._take(came, now)
            if now >= deadline:
                late = late + 1 if came is not None else _IN_A_ROW + 1

    def expect_soon(self, soon: bool) -> None:
        """See `Transport.expect_soon`."""
        self._inner.expect_soon(soon)

    def down_for(self, party: str) -> float:
        """See `Transport.down_for`."""
        down_s = self._inner.down_for(party)
        peer = self._conversations.get(party)
        if peer is not None:
            peer.note_link(self._clock(), down_s)
        return down_s

    def flush(self, timeout_s: float, parties: Collection[str] | None = None) -> bool:
        """Wait until these parties (None: all) have handed out what was sent to them. Arrivals are taken in meanwhile.

        Returns:
            False if that was not so within `timeout_s` seconds (0: only look), or if one of them was restarted, which
            the next `receive` or `send` raises.
        """
        return self._flush(timeout_s, self._conversations if parties is None else parties)

    def restart(self) -> None:
        """Begin again as if this process had been started anew: forget what was sent and what came, and say so.

        Every party known so far is told until it has understood; its `receive` then raises `PeerRestarted`.
        """
        now = self._clock()
        self._ours = secrets.token_bytes(_INCARNATION_BYTES)
        self._restarted.clear()
        for peer in self._conversations.values():
            peer.begin_again(self._ours, now)

    def close(self, linger_s: float = 2.0) -> None:
        """See `Transport.close`. Waits for acknowledgements, but of nobody whose link is down for long."""
        if self._closed:
            return
        self._closed = True
        deadline = self._clock() + linger_s
        try:
            for peer in self._conversations.values():
                peer.give_last_word()
            self._flush(linger_s, self._conversations, longest_down_s=GONE_AFTER_S)
        except WireError as error:
            logger.debug("%s: closed without the last acknowledgements: %s", self.party, error)
        finally:
            self._ready.clear()
            self._restarted.clear()
            self._inner.close(max(0.0, deadline - self._clock()))

    def _conversation(self, party: str) -> Conversation:
        peer = self._conversations.get(party)
        if peer is None:
            peer = Conversation(party, self._ours, self._limits, sealed=self._sealed, say=self._say)
            self._conversations[party] = peer
        return peer

    def _send_on(self, peer: Conversation, frames: list[Buffer], size: int, left_s: float, now: float) -> bool:
        """Send a message; False if the queue below is full, and then it has no number."""
        patience_s = _ROOM_S if peer.met else _FIRST_SEND_S
        try:
            self._inner.send(peer.party, peer.numbered(frames), max(_AT_ONCE_S, min(left_s, patience_s)))
        except PeerTimeout:
            return False
        except PeerGone:
            if not peer.met and self._inner.down_for(peer.party) == 0:
                raise
            peer.is_down = True
        peer.sent(frames, size, now)
        return True

    def _say(self, party: str, frames: Sequence[Buffer]) -> bool:
        try:
            self._inner.send(party, frames, _AT_ONCE_S)
        except PeerTimeout:
            return False
        except PeerGone:
            self._conversations[party].is_down = True  # maybe for a moment that no look sees
            return False
        return True

    def _look(self, now: float) -> None:
        self._look_at = now + self._look_every_s
        for party, peer in self._conversations.items():
            peer.look(now, self._inner.down_for(party))

    def _flush(self, timeout_s: float, parties: Collection[str], longest_down_s: float = math.inf) -> bool:
        now = self._clock()
        deadline = now + timeout_s
        peers = [peer for party, peer in self._conversations.items() if party in parties]
        if timeout_s > 0:
            for peer in peers:
                peer.ask(now)
        while not any(peer.party in self._restarted for peer in peers):
            if not any(p.unacknowledged and self._inner.down_for(p.party) <= longest_down_s for p in peers):
                return True
            if now >= deadline:
                return False
            for peer in peers:
                peer.hurry(now)
            if now >= self._look_at:
                self._look(now)
            self._take_next(deadline, now)
            now = self._clock()
        return False

    def _raise_restarted(self) -> None:
        raise PeerRestarted(
            "was started anew, so the session with it is over",
            party=self._restarted.popleft(),
            advice="Parties that recover open another session.",
        )

    def _patience_s(self, deadline: float, now: float) -> float:
        """How long to wait for what comes: until the deadline, or until there is something to look at."""
        # Not until the next look exactly: a transport is quicker if it is given the same time again.
        return max(0.0, min(deadline - now, self._look_every_s))

    def _take_next(self, deadline: float, now: float) -> bool:
        """Take in what comes next; False if nothing did."""
        delivery = self._inner.receive(self._patience_s(deadline, now))
        if delivery is not None:
            self._take(delivery, self._clock())
        return delivery is not None

    def _take(self, delivery: Delivery, now: float) -> None:
        peer = self._conversation(delivery.sender)
        frames = delivery.frames
        header = unpack(frames, must_be_sealed=self._sealed)
        more = header if isinstance(header, Flaw) else peer.take_in(header, frames[1:], now)
        if isinstance(more, Flaw):
            self._note_flaw(peer.party, more)
        elif more:
            self._ready.extend(repeat(peer, more))
        if peer.restarted:
            peer.restarted = False
            if peer.party not in self._restarted:
                self._restarted.append(peer.party)

    def _take_what_is_here(self, now: float) -> None:
        for _ in range(_IN_A_ROW):
            if not self._take_next(now, now):
                return

    def _note_flaw(self, party: str, flaw: Flaw) -> None:
        counts = self.damaged if flaw is Flaw.DAMAGED else self.malformed
        counts[party] += 1
        if counts[party] == 1:
            logger.warning(
                "%s: something from %s was %s, and was dropped. If nothing works, check that both run the same version",
                self.party,
                party,
                flaw.value,
            )

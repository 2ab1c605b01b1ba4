"""One end's conversation with one party: two numbered streams, two incarnations, and what is overdue. It never waits.

Each end has an incarnation, drawn anew when its process starts and when it begins again, and says it in every message.
One that replaces a known one is believed when it answers a HELLO with the number that was drawn for it. Whoever can do
that lives now, so nothing left over from an older process is ever taken for a restart:

    A  DATA 0, from a to nobody known           ->  B   knows a from here on
    A  <-  DATA 0, from b to a, handed 1            B
    (A's process is started anew)
    A' DATA 0, from a' to nobody known          ->  B   is a' there?
    A' <-  HELLO asks 71, from b to a'              B
    A' HELLO answers 71; PROBE 1, from a' to b  ->  B   it is: both streams begin again
    A' <-  ACK: 0 up to 1 is missing                B
    A' DATA 0, from a' to b                     ->  B
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heterofed.wire.headers import UNKNOWN, Flaw, Header, Kind, pack, usual, usual_header, usual_numbers
from heterofed.wire.streams import FIRST, FIRST_AGAIN, Incoming, Outgoing
from heterofed.wire.transport import Buffer, Delivery

ASK_PAUSE_S = 0.005
"""How soon to ask again for what a gap lacks; after that twice as long, and so on."""

ACK_MESSAGES = 16
ACK_BYTES = 8 << 20
"""After so much was handed out without a word to its sender, it gets one of its own."""

RETIRED_KEPT = 1000

_NEVER = math.inf
_NO_NUMBER = -1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What both ends of a conversation keep to; `ReliableTransport` explains them."""

    window_messages: int
    window_bytes: int
    first_probe_s: float
    most_probe_s: float


SILENT_S = 10.0
"""After so long without a word a party is asked whether it is still the one it was; then after twice as long."""

MOST_SILENT_S = 160.0
"""The longest pause between two such questions: a party may compute for long, and they lie unread meanwhile."""


class Conversation:
    """What an end says to and hears from one party. Pauses are in seconds; `now` is always the caller's clock.

    Args:
        party: feature key of the other end.
        ours: our incarnation.
        limits: of the windows and pauses.
        sealed: whether messages carry a checksum.
        say: sends frames to the party if that is possible at once, and says whether it was.
    """

    def __init__(
        self, party: str, ours: bytes, limits: Limits, *, sealed: bool, say: Callable[[str, Sequence[Buffer]], bool]
    ) -> None:
        self.party = party
        self.met = False
        """Whether anything came from there, or went there."""

        self.is_down = False
        """Whether the link was down when it was last looked at or used."""

        self.restarted = False
        """Set when the streams began again because the other end is another process; reset by who reports it."""

        self._ours = ours
        self._theirs = UNKNOWN
        self._knows_us = False
        """Whether it has ever spoken to us in particular; so does one that answers us."""

        self._retired: deque[bytes] = deque(maxlen=RETIRED_KEPT)
        self._limits = limits
        self._ack_messages = max(1, min(ACK_MESSAGES, limits.window_messages // 2))
        self._ack_bytes = max(1, min(ACK_BYTES, limits.window_bytes // 2))
        self._sealed = sealed
        self._say = say
        self._question = _drawn()
        self._questioned_at = -math.inf
        self._probe_at = _NEVER
        self._probe_pause_s = limits.first_probe_s
        self._silent_at = _NEVER
        self._silent_pause_s = SILENT_S
        self._is_new = False
        """Whether we began again and the party has not shown yet that it knows."""

        self._begin_streams()

    # What we send

    def has_room(self, size: int) -> bool:
        """Whether the window has room for another message of `size` bytes."""
        outgoing, most = self._outgoing, self._limits
        waiting = outgoing.next - outgoing.first
        return waiting == 0 or (waiting < most.window_messages and outgoing.bytes + size <= most.window_bytes)

    @property
    def unacknowledged(self) -> int:
        """How many messages were sent and not handed out at the other end, as far as we know."""
        return len(self._outgoing)

    def numbered(self, frames: list[Buffer]) -> list[Buffer]:
        """Return the next message, to be sent; it has no number before `sent` is called."""
        number, incoming = self._outgoing.next, self._incoming
        if self._sealed:
            return [self._header(Kind.DATA, number, frames), *frames]
        return [usual_header(self._we_begin, number, incoming.handed, incoming.received), *frames]

    def sent(self, frames: list[Buffer], size: int, now: float) -> None:
        """Keep a message that was just sent, until it is acknowledged."""
        outgoing = self._outgoing
        if outgoing.first == outgoing.next:
            self._probe_at = now + self._limits.first_probe_s
        self.met = True
        outgoing.add(frames, size)
        self._told()

    def give_last_word(self) -> None:
        """Acknowledge what was handed out, before this end closes."""
        if self._untold_messages:
            self._acknowledge()

    # What is due

    def look(self, now: float, down_s: float) -> None:
        """Do what is due, with a link that is down for so long (0.0: up)."""
        self.note_link(now, down_s)
        if now >= self._probe_at and (self._outgoing or self._is_new):
            self._probe(now)
        elif now >= self._silent_at and not (self._outgoing or self._is_new or self.is_down):
            # Nothing of ours is under way, so nothing else would show that the party is another process by now, which
            # waits for a word of ours: its restart may have been too quick for anybody to see the link down.
            self._silent_at = now + self._silent_pause_s
            self._silent_pause_s = min(2 * self._silent_pause_s, MOST_SILENT_S)
            self._say(self.party, [self._header(Kind.PROBE, self._outgoing.next)])

    def note_link(self, now: float, down_s: float) -> None:
        """Note whether the link is up; when it is up again, ask at once what has come."""
        if down_s > 0:
            self.is_down = True
        elif self.is_down:
            self.is_down = False
            self._probe_pause_s = self._limits.first_probe_s
            self._probe(now)

    def ask(self, now: float) -> None:
        """Ask what has come, if that matters and the party was not asked since it was last heard."""
        if self._outgoing and self._probe_pause_s == self._limits.first_probe_s:
            self._probe(now)

    def hurry(self, now: float) -> None:
        """Ask before long, however often the party has not answered: we do not stay for ever."""
        self._probe_at = min(self._probe_at, now + self._limits.first_probe_s)

    def begin_again(self, ours: bytes, now: float) -> None:
        """Forget both streams; tell the party, which knows us by another incarnation, until it has understood."""
        self._ours = ours
        self._begin_streams()
        if self.met:
            self._is_new = True
            self._probe_pause_s = self._limits.first_probe_s
            self._probe(now)

    # What comes

    def hand_out(self) -> Delivery | None:
        """Return the next message that came in order, if there is one."""
        if not self._incoming.unread:
            return None
        frames, size = self._incoming.hand_out()
        self._note_handed_out(size)
        return Delivery(self.party, frames)

    def _note_handed_out(self, size: int) -> None:
        self._untold_messages += 1
        self._untold_bytes += size
        if (
            self._untold_messages >= self._ack_messages
            or self._untold_bytes >= self._ack_bytes
            or self._incoming.handed == self._tell_at
        ):
            self._acknowledge()

    def pass_on(self, frames: Sequence[Buffer], now: float) -> Delivery | None:
        """Take in and hand out what came, if it is the message awaited and nothing is special about it.

        None: nothing was done, `take_in` is to look at it. This does the same in a third of the time; nearly every
        message is of this kind.
        """
        numbers = usual_numbers(frames, self._they_begin)
        if numbers is None:
            return None
        number, handed, _ = numbers
        if handed > self._outgoing.next or not self._incoming.pass_on(number):
            return None
        self._heard(now)
        self._is_new = False
        self._knows_us = True
        self._note_acknowledged(handed, now)
        payload = frames[1:]
        self._note_handed_out(_size(payload))
        return Delivery(self.party, payload)

    def _heard(self, now: float) -> None:
        self.met = True
        self._probe_pause_s = self._limits.first_probe_s
        self._silent_pause_s = SILENT_S
        self._silent_at = now + SILENT_S

    def take_in(self, header: Header, payload: Sequence[Buffer], now: float) -> int | Flaw:
        """Act on what came. Returns how many more messages can be handed out now, or why this was no message."""
        addressed = header.receiver == self._ours
        if header.sender != self._theirs and header.sender in self._retired:
            return 0
        if not addressed and header.receiver != UNKNOWN:
            self._question_it(header.sender, now)  # meant for one that we are not any more: let it know
            return 0
        if header.sender != self._theirs and not self._believe(header, now):
            return 0
        self._heard(now)
        if header.kind == Kind.HELLO:
            self._take_hello(header, now)
            return 0
        if addressed:
            self._is_new = False
            self._knows_us = True
        elif self._knows_us:
            return 0  # left over: who has once known us, always says to whom it speaks
        if header.handed > self._outgoing.next:
            return Flaw.MALFORMED
        self._note_acknowledged(header.handed, now)
        if header.kind == Kind.ACK:
            self._repeat(header.received, header.number)
            return 0
        if header.number >= FIRST_AGAIN > self._incoming.received:
            # A stream to us in particular: what came before, to nobody in particular, was left over from another.
            self.restarted |= self._incoming.handed > FIRST
            self._incoming.begin_again()
        if header.kind == Kind.PROBE:
            self._answer(header.number)
            return 0
        more = self._incoming.take(header.number, payload, _size(payload))
        self._ask_for_missing(now)
        return more

    # Incarnations

    def _believe(self, header: Header, now: float) -> bool:
        """Whether another incarnation than the known one is there: the first that comes, or one that answered."""
        if self._theirs == UNKNOWN:
            self._theirs = header.sender
            self._know_beginnings()
            return True
        is_hello = header.kind == Kind.HELLO
        if is_hello and header.handed == self._question:
            logger.info("%s was started anew", self.party)
            self._retired.append(self._theirs)
            self._theirs = header.sender
            self._question = _drawn()
            self.restarted = True
            self._begin_streams()
            return True
        if is_hello and header.number:
            self._hello(header.sender, self._question, header.number)
        else:
            self._question_it(header.sender, now)
        return False

    def _know_beginnings(self) -> None:
        """Note how headers begin; to be called when either incarnation changes."""
        self._we_begin, self._they_begin = usual(self._ours, self._theirs), usual(self._theirs, self._ours)

    def _begin_streams(self) -> None:
        self._know_beginnings()
        self._outgoing = Outgoing(FIRST if self._theirs == UNKNOWN else FIRST_AGAIN)
        self._incoming = Incoming(self._limits.window_messages, self._limits.window_bytes)
        self._tell_at = _NO_NUMBER
        self._asked_for = _NO_NUMBER
        self._asked_at = -math.inf
        self._ask_pause_s = ASK_PAUSE_S
        self._told()

    def _question_it(self, to: bytes, now: float) -> None:
        if now - self._questioned_at >= min(0.1, self._limits.first_probe_s):
            self._questioned_at = now
            self._hello(to, self._question)

    def _hello(self, to: bytes, question: int, answer: int = 0) -> None:
        header = (Kind.HELLO, self._ours, to, question, answer, 0)
        self._say(self.party, [pack(header, () if self._sealed else None)])

    def _take_hello(self, header: Header, now: float) -> None:
        if header.number:
            self._hello(header.sender, 0, header.number)
            if self._outgoing or self._is_new:
                self._probe(now)  # it may have dropped what came before it knew us

    # Acknowledgements

    def _header(self, kind: Kind, number: int, payload: Sequence[Buffer] = ()) -> bytes:
        incoming = self._incoming
        header = (kind, self._ours, self._theirs, number, incoming.handed, incoming.received)
        return pack(header, payload if self._sealed else None)

    def _told(self) -> None:
        self._untold_messages = self._untold_bytes = 0

    def _acknowledge(self, missing_until: int = FIRST) -> None:
        if self._say(self.party, [self._header(Kind.ACK, missing_until)]):
            self._told()

    def _probe(self, now: float) -> None:
        self._probe_pause_s = min(2 * self._probe_pause_s, self._limits.most_probe_s)
        self._probe_at = now + self._probe_pause_s
        self._say(self.party, [self._header(Kind.PROBE, self._outgoing.next)])

    def _answer(self, sent: int) -> None:
        """Answer a PROBE now, and once more when everything that had been sent by then is handed out."""
        incoming = self._incoming
        if incoming.handed < sent:
            self._tell_at = sent
        room_ends = incoming.handed + self._limits.window_messages  # what is beyond would be dropped again
        self._acknowledge(min(sent, room_ends, sent if incoming.gap_ends is None else incoming.gap_ends))

    def _note_acknowledged(self, handed: int, now: float) -> None:
        if self._outgoing.first != self._outgoing.next:
            progress = self._outgoing.acknowledge(handed)
            next_probe_at = now + self._limits.first_probe_s
            self._probe_at = next_probe_at if progress else min(self._probe_at, next_probe_at)

    def _repeat(self, start: int, stop: int) -> None:
        for number, frames in self._outgoing.between(start, stop):
            if not self._say(self.party, [self._header(Kind.DATA, number, frames), *frames]):
                break  # it is asked for again

    def _ask_for_missing(self, now: float) -> None:
        gap_ends = self._incoming.gap_ends
        if gap_ends is None:
            return
        if self._incoming.received != self._asked_for:
            self._asked_for = self._incoming.received
            self._ask_pause_s = ASK_PAUSE_S
        elif now - self._asked_at < self._ask_pause_s:
            return
        else:
            self._ask_pause_s *= 2
        self._asked_at = now
        self._acknowledge(gap_ends)


def _drawn() -> int:
    return 1 + secrets.randbits(63)  # 0 would be no question


def _size(frames: Sequence[Buffer]) -> int:
    return sum(map(len, frames))  # a transport hands out bytes, or memory of them

"""The quick way for usual messages does what the careful one does, whatever comes in whatever order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from heterofed.wire.conversation import Conversation, Limits
from heterofed.wire.headers import HEADER_BYTES, UNKNOWN, Flaw, Header, Kind, pack, unpack, usual, usual_numbers
from heterofed.wire.streams import FIRST_AGAIN, Incoming, Outgoing
from heterofed.wire.transport import Buffer

OURS, BEFORE, THEIRS, OTHER = b"ours....", b"before..", b"theirs..", b"another."
LIMITS = Limits(window_messages=6, window_bytes=100, first_probe_s=0.5, most_probe_s=60.0)


class Twin:
    """A conversation, and what came out of it."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.said: list[list[bytes]] = []
        self.heard: list[list[bytes] | str] = []
        self.talk = Conversation("bank", OURS, LIMITS, sealed=False, say=self.say)
        self.talk._question = 71

    def say(self, party: str, frames: Sequence[Buffer]) -> bool:
        self.said.append([bytes(frame) for frame in frames])
        return len(self.said) % 7 != 0  # now and then there is no room below

    def come(self, frames: Sequence[Buffer], now: float) -> None:
        delivery = self.talk.pass_on(frames, now) if self.quick else None
        if delivery is not None:
            self.heard.append([bytes(frame) for frame in delivery.frames])
            return
        header = unpack(frames, must_be_sealed=False)
        more = header if isinstance(header, Flaw) else self.talk.take_in(header, frames[1:], now)
        if isinstance(more, Flaw):
            self.heard.append(more.value)
        self.read(1)

    def read(self, most: int = 100) -> None:
        for _ in range(most):
            delivery = self.talk.hand_out()
            if delivery is None:
                return
            self.heard.append([bytes(frame) for frame in delivery.frames])

    def state(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self.talk).items() if name not in ("_say", "_question")}
        for name, value in state.items():
            if isinstance(value, Incoming | Outgoing):
                state[name] = dict(vars(value))
        return state


def drawn(dice: random.Random, talk: Conversation, senders: Sequence[bytes]) -> list[bytes]:
    """A frame sequence, mostly the one that is awaited."""
    odd = dice.random() < 0.3
    awaited = talk._incoming.received
    header = Header(
        dice.choice([Kind.DATA, Kind.DATA, Kind.ACK, Kind.PROBE, Kind.HELLO]) if odd else Kind.DATA,
        dice.choice(senders) if odd else senders[0],
        dice.choice([OURS, OURS, UNKNOWN, OTHER]) if odd else OURS,
        awaited + dice.choice([0, 0, 1, 2, 5, 9, -1, FIRST_AGAIN]) if odd else awaited,
        max(0, talk._outgoing.next - dice.choice([0, 1, 3]) + (odd and dice.random() < 0.2)),
        dice.choice([0, 1, 2]),
    )
    header = header._replace(number=header.number % (1 << 64), handed=header.handed % (1 << 64))
    payload = [] if odd and dice.random() < 0.3 else [b"x" * dice.choice([0, 1, 30, 150] if odd else [1, 30])]
    frames = [pack(header, payload if dice.random() < 0.1 else None), *payload]
    if odd and dice.random() < 0.2:
        frames[0] = dice.choice([frames[0][:-1], frames[0] + b"x", b"", bytes(HEADER_BYTES)])
    return frames


@pytest.mark.parametrize("seed", range(300))
def test_the_quick_way_and_the_careful_one_come_to_the_same(seed: int) -> None:
    dice = random.Random(seed)
    quick, careful = Twin(quick=True), Twin(quick=False)
    senders = [THEIRS, BEFORE, UNKNOWN]
    now = 100.0
    for _ in range(60):
        now += dice.choice([0.0, 0.01, 0.2, 30.0])
        doing, size = dice.random(), dice.choice([1, 40])
        frames = drawn(dice, careful.talk, senders)
        read = dice.random() < 0.5
        for each in (quick, careful):
            if doing < 0.3:
                if each.talk.has_room(size):
                    each.talk.numbered([b"y" * size])
                    each.talk.sent([b"y" * size], size, now)
            elif doing < 0.4:
                each.talk.look(now, dice.choice([0.0]) if doing < 0.37 else 1.0)
            elif doing < 0.41:
                each.talk.begin_again(b"again..." if doing < 0.405 else OURS, now)
                each.talk._question = 71
            else:
                each.come(frames, now)
            if read:
                each.read()
        assert quick.state() == careful.state()
        assert quick.said == careful.said
    for each in (quick, careful):
        each.read()
    assert quick.heard == careful.heard


def test_most_messages_go_the_quick_way() -> None:
    twin = Twin(quick=True)
    twin.come([pack((Kind.DATA, THEIRS, UNKNOWN, 0, 0, 0)), b"the first of all"], 1.0)
    twin.read()
    for number in (1, 2, 3):
        frames = [pack((Kind.DATA, THEIRS, OURS, number, 0, 0)), b"header", b"tensor"]
        delivery = twin.talk.pass_on(frames, 1.0)
        assert delivery is not None
        assert (delivery.sender, list(delivery.frames)) == ("bank", [b"header", b"tensor"])


def test_only_a_whole_header_with_content_behind_it_is_usual() -> None:
    beginning = usual(THEIRS, OURS)
    header = pack((Kind.DATA, THEIRS, OURS, 7, 5, 6))
    assert usual_numbers([header, b"x"], beginning) == (7, 5, 6)
    for frames in ([], [header], [header, b""], [header + b"x", b"x"], [header[:-1], b"x"], [b"", b"x"]):
        assert usual_numbers(frames, beginning) is None
    assert usual_numbers([pack((Kind.DATA, THEIRS, OURS, 7, 5, 6), [b"x"]), b"x"], beginning) is None, "sealed"
    assert usual_numbers([pack((Kind.ACK, THEIRS, OURS, 7, 5, 6)), b"x"], beginning) is None
    nobody = pack((Kind.DATA, UNKNOWN, OURS, 7, 5, 6))
    assert usual_numbers([nobody, b"x"], usual(UNKNOWN, OURS)) is None, "who has no name is nobody"

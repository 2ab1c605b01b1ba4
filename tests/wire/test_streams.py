"""The numbering of one direction, and the header that carries it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.wire.headers import HEADER_BYTES, UNKNOWN, Flaw, Header, Kind, pack, unpack
from heterofed.wire.streams import FIRST_AGAIN, Incoming, Outgoing

HEADER = Header(Kind.PROBE, b"sender..", b"receiver", 7, 5, 6)
DATA = HEADER._replace(kind=Kind.DATA)


def taken(incoming: Incoming) -> list[bytes]:
    return [bytes(incoming.hand_out()[0][0]) for _ in range(incoming.unread)]


def test_a_header_is_small_and_says_the_same_at_the_other_end() -> None:
    assert len(pack(HEADER)) == HEADER_BYTES < 64
    assert unpack([pack(HEADER)], must_be_sealed=False) == HEADER
    assert unpack([memoryview(bytearray(pack(DATA))), b"content"], must_be_sealed=False) == DATA


def test_without_a_seal_there_is_no_checksum() -> None:
    assert pack(HEADER)[4:8] == bytes(4)
    assert unpack([pack(HEADER)], must_be_sealed=True) is Flaw.DAMAGED


@given(at=st.integers(0, HEADER_BYTES + 9), flip=st.integers(1, 255))
@settings(max_examples=50, deadline=None)  # a busy machine is no failure
def test_a_sealed_message_with_one_changed_byte_is_damaged(at: int, flip: int) -> None:
    content = [b"content", b"", b"end"]
    frames = [bytearray(pack(DATA, content)), *map(bytearray, content)]
    assert unpack(frames, must_be_sealed=True) == DATA
    for frame in frames:
        if at < len(frame):
            frame[at] ^= flip
            break
        at -= len(frame)
    assert unpack(frames, must_be_sealed=True) is Flaw.DAMAGED


def test_a_checksum_is_checked_where_none_is_needed_too() -> None:
    assert unpack([pack(DATA, [b"content"]), b"contend"], must_be_sealed=False) is Flaw.DAMAGED


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"x"],
        [pack(HEADER)[:-1]],
        [pack(HEADER) + b"x"],
        [b"\2" + pack(HEADER)[1:]],
        [pack(HEADER._replace(kind=0))],
        [pack(HEADER._replace(kind=5))],
        [pack(HEADER._replace(sender=UNKNOWN))],
        [pack(DATA)],
        [pack(DATA), b""],
        [pack(DATA), b"", b"content"],
        [pack(HEADER), b"content"],
        [memoryview(b"abcdefgh").cast("I")],
    ],
)
def test_what_is_no_message_is_malformed(frames: list[bytes]) -> None:
    assert unpack(frames, must_be_sealed=False) is Flaw.MALFORMED


@given(st.lists(st.binary(max_size=70), max_size=3), st.booleans())
@settings(max_examples=50, deadline=None)  # a busy machine is no failure
def test_reading_a_header_never_raises(frames: list[bytes], sealed: bool) -> None:
    assert unpack(frames, must_be_sealed=sealed) is not None


def test_what_is_sent_is_kept_until_it_is_acknowledged() -> None:
    outgoing = Outgoing()
    for n in range(5):
        outgoing.add([b"%d" % n], 10)
    assert (len(outgoing), outgoing.bytes, outgoing.next) == (5, 50, 5)
    assert outgoing.acknowledge(2)
    assert not outgoing.acknowledge(2)
    assert not outgoing.acknowledge(1)
    assert (len(outgoing), outgoing.bytes) == (3, 30)
    assert list(outgoing.between(0, 99)) == [(2, [b"2"]), (3, [b"3"]), (4, [b"4"])]
    assert list(outgoing.between(3, 4)) == [(3, [b"3"])]
    assert list(outgoing.between(4, 3)) == []


def test_a_stream_that_begins_again_shares_no_number_with_the_first() -> None:
    outgoing = Outgoing(FIRST_AGAIN)
    outgoing.add([b"x"], 1)
    assert not outgoing.acknowledge(1000)
    assert list(outgoing.between(0, 1000)) == []
    assert outgoing.acknowledge(FIRST_AGAIN + 1)


@given(st.lists(st.integers(0, 20), max_size=200))
@settings(max_examples=100, deadline=None)  # a busy machine is no failure
def test_messages_are_handed_out_once_and_in_order_however_they_come(numbers: list[int]) -> None:
    incoming = Incoming(most_messages=8, most_bytes=1000)
    out: list[bytes] = []
    ready = 0
    for number in numbers:
        ready += incoming.take(number, [b"%d" % number], 1)
        assert incoming.unread == ready <= 8
        if number % 3 == 0:
            out += taken(incoming)
            ready = 0
        assert incoming.received - incoming.handed == incoming.unread
        assert incoming.gap_ends is None or incoming.gap_ends > incoming.received
    out += taken(incoming)
    assert out == [b"%d" % n for n in range(len(out))]
    assert incoming.handed == incoming.received == len(out)


def test_a_gap_ends_where_something_came_too_early() -> None:
    incoming = Incoming(8, 1000)
    assert incoming.gap_ends is None
    assert [incoming.take(n, [b"%d" % n], 1) for n in (3, 5, 3)] == [0, 0, 0]
    assert incoming.gap_ends == 3
    assert [incoming.take(n, [b"%d" % n], 1) for n in (0, 2, 1)] == [1, 0, 3]
    assert incoming.gap_ends == 5
    assert incoming.take(4, [b"4"], 1) == 2
    assert incoming.gap_ends is None
    assert taken(incoming) == [b"%d" % n for n in range(6)]


def test_what_does_not_fit_the_window_is_dropped() -> None:
    incoming = Incoming(most_messages=3, most_bytes=1000)
    assert [incoming.take(n, [b"x"], 1) for n in (3, 0, 1, 2, 3)] == [0, 1, 1, 1, 0]
    incoming.hand_out()
    assert incoming.take(3, [b"x"], 1) == 1
    assert incoming.take(1 << 62, [b"x"], 1) == 0
    assert incoming.gap_ends is None


def test_bytes_are_bounded_too_but_for_one_message_of_any_size() -> None:
    incoming = Incoming(most_messages=100, most_bytes=100)
    assert incoming.take(0, [b"huge"], 5000) == 1
    assert incoming.take(1, [b"x"], 1) == 0
    incoming.hand_out()
    assert [incoming.take(1, [b"x"], 60), incoming.take(2, [b"x"], 41), incoming.take(2, [b"x"], 40)] == [1, 0, 1]


def test_what_came_too_early_counts_once_and_until_it_is_handed_out() -> None:
    incoming = Incoming(most_messages=100, most_bytes=100)
    for _ in range(3):
        assert incoming.take(3, [b"3"], 40) == 0
    assert incoming.take(2, [b"2"], 61) == 0
    assert incoming.gap_ends == 3
    assert incoming.take(2, [b"2"], 60) == 0
    assert incoming.gap_ends == 2
    assert [incoming.take(0, [b"0"], 0), incoming.take(1, [b"1"], 0)] == [1, 3]
    taken(incoming)
    assert [incoming.take(5, [b"5"], 100), incoming.gap_ends] == [0, 5]


def test_what_came_too_early_makes_room_for_what_is_awaited() -> None:
    incoming = Incoming(most_messages=100, most_bytes=100)
    assert [incoming.take(2, [b"x"], 60), incoming.take(3, [b"x"], 60)] == [0, 0]
    assert incoming.take(0, [b"x"], 80) == 1
    assert incoming.gap_ends is None
    assert [incoming.take(1, [b"x"], 10), incoming.take(2, [b"x"], 10)] == [1, 1]


def test_beginning_again_drops_everything() -> None:
    incoming = Incoming(4, 10)
    incoming.take(0, [b"old"], 10)
    incoming.take(2, [b"old"], 0)
    incoming.begin_again()
    assert (incoming.unread, incoming.gap_ends) == (0, None)
    assert incoming.take(1, [b"old"], 1) == 0
    assert incoming.take(FIRST_AGAIN, [b"new"], 10) == 1
    assert taken(incoming) == [b"new"]

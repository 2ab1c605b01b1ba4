"""Joining and cutting: any sequence survives, and no sequence of parts raises."""

from __future__ import annotations

import struct

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.wire.parts import (
    JOIN_BYTES,
    MAX_FRAMES,
    PIECE_BYTES,
    SMALL_BYTES,
    Cut,
    Part,
    Signal,
    from_parts,
    keep,
    to_parts,
)
from heterofed.wire.transport import Buffer

LIMIT = 1 << 23
SIZES = (
    st.integers(0, 40)
    | st.integers(SMALL_BYTES - 1, SMALL_BYTES + 1)
    | st.integers(JOIN_BYTES - 9, JOIN_BYTES + 2)
    | st.integers(PIECE_BYTES - 2, PIECE_BYTES + 2)
    | st.sampled_from([2 * PIECE_BYTES, 700_000])
)


def content(part: Part) -> bytes:
    return part.bytes if isinstance(part, zmq.Frame) else bytes(part)


def carried(parts: list[Part]) -> list[memoryview]:
    """What comes out at the other end."""
    return [memoryview(bytearray(content(part))) for part in parts]


def received(parts: list[Part], limit: int = LIMIT) -> list[bytes]:
    frames = from_parts(carried(parts), limit)
    assert not isinstance(frames, Signal)
    return [bytes(frame) for frame in frames]


@given(st.lists(SIZES, max_size=5), st.integers(1, 255), st.booleans())
def test_any_frame_sequence_survives_the_way_through_its_parts(sizes: list[int], fill: int, kept: bool) -> None:
    frames = [b"head", *(bytes([fill + n & 255]) * size for n, size in enumerate(sizes))]
    sent = to_parts(keep(frames) if kept else frames, LIMIT)
    assert all(len(content(part)) <= PIECE_BYTES for part in sent)
    assert received(sent) == frames


def test_a_small_sequence_is_one_part_and_its_last_frame_is_where_that_begins() -> None:
    parts = to_parts([b"number", b"header", b"tensor"], LIMIT)
    assert [content(part)[:18] for part in parts] == [b"tensorheadernumber"]
    assert len(content(parts[0])) == 18 + 5


def test_of_a_large_sequence_only_the_big_frames_are_parts_of_their_own() -> None:
    parts = to_parts(
        [b"number", b"header", bytes(PIECE_BYTES + 1), b"s" * SMALL_BYTES, b"m" * (SMALL_BYTES + 1)], LIMIT
    )
    assert [len(content(part)) for part in parts[1:]] == [PIECE_BYTES, 1, SMALL_BYTES + 1]
    assert content(parts[0]).startswith(b"s" * SMALL_BYTES + b"headernumber")


def test_a_frame_of_one_piece_is_not_copied_when_it_comes() -> None:
    parts = carried(to_parts([b"head", bytes(PIECE_BYTES)], LIMIT))
    frames = from_parts(parts, LIMIT)
    assert not isinstance(frames, Signal)
    memoryview(frames[1])[:5] = b"again"
    assert bytes(parts[1][:5]) == b"again"


def test_a_kept_frame_is_copied_once_however_often_it_is_sent() -> None:
    memory = bytearray(b"a" * (PIECE_BYTES + 7))
    kept = keep([b"head", memory])
    memory[:] = b"z" * len(memory)
    first, second = to_parts(kept, LIMIT), to_parts([b"another head", kept[1]], LIMIT)
    assert first[1:] == second[1:] != []
    assert all(isinstance(part, zmq.Frame) for part in first[1:])
    assert received(second) == [b"another head", b"a" * len(memory)]
    assert len(kept[1]) == len(memory)


def test_small_frames_are_kept_as_bytes() -> None:
    frames: list[Buffer] = [b"a", bytearray(b"bb"), memoryview(bytearray(12)).cast("I"), bytearray(JOIN_BYTES)]
    assert keep(frames) == [b"a", b"bb", bytes(12), bytes(JOIN_BYTES)]
    assert isinstance(keep([bytearray(JOIN_BYTES + 1)])[0], Cut)


@pytest.mark.parametrize("size", [8, 2 * JOIN_BYTES])
def test_memory_with_gaps_is_not_kept(size: int) -> None:
    with pytest.raises(ConfigError, match="gaps"):
        keep([memoryview(bytearray(2 * size))[::2]])


TAILS = st.sampled_from([b"\x01", b"\x00\x01\x02", b"\x02\x00", struct.pack("!QBB", 600_000, 1, 0), b"\x00"])


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(TAILS, max_size=2))
def test_no_parts_raise(parts: list[bytes], tails: list[bytes]) -> None:
    spoilt = [part + tail for part, tail in zip(parts, [*tails, *parts], strict=False)]
    for made in (parts, spoilt, [b"", *parts]):
        taken = from_parts([memoryview(part) for part in made], 50)
        if not isinstance(taken, Signal):
            assert len(taken[0]) > 0
            assert sum(map(len, taken)) <= 50


def test_every_signal_survives_and_is_told_from_a_message() -> None:
    for signal in Signal:
        assert from_parts(carried(signal.parts), LIMIT) is signal


def test_a_sequence_over_the_limit_of_the_receiver_is_noise() -> None:
    for frames in ([b"abc"], [b"a", b"bc"], [b"abc", b"d" * (JOIN_BYTES + 1)]):
        size = sum(map(len, frames))
        assert from_parts(carried(to_parts(frames, LIMIT)), size - 1) is Signal.NOISE
        assert received(to_parts(frames, LIMIT), size) == frames


WHOLE = struct.pack("!2HB", 4, 6, 3)
"""The end of a part with three frames, of 4, 6 and any number of bytes."""


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"", b"", b""],
        [WHOLE],
        [b"123456789" + WHOLE],
        [b"headblobs" + struct.pack("!2HB", 0, 4, 3)],
        [b"something" + WHOLE, b"more"],
        [b"headblobs" + struct.pack("!2HB", 4, 9, 3)],
        [b"\x03"],
        [b"\x00"],
        [b"\x00\x00"],
        [b"\xff\x00"],
        [b"head" + struct.pack("!QQBB", 4, 1 << 62, 2, 0), b"x"],
        [b"head" + struct.pack("!QQBB", 4, 300, 2, 0), b"x" * 299],
        [b"head" + struct.pack("!QQBB", 4, 300, 2, 0), b"x" * 300, b"x"],
        [b"head" + struct.pack("!QQBB", 4, 300, 2, 0)],
        [b"hea" + struct.pack("!QQBB", 4, 300, 2, 0), b"x" * 300],
        [b"headd" + struct.pack("!QQBB", 4, 300, 2, 0), b"x" * 300],
        [struct.pack("!QBB", 0, 1, 0)],
        [b"x" * 300 + struct.pack("!QBB", 300, 1, 0)],
    ],
)
def test_sizes_that_do_not_fit_are_noise(parts: list[bytes]) -> None:
    assert from_parts([memoryview(part) for part in parts], LIMIT) is Signal.NOISE


def test_as_many_frames_as_are_allowed_fit_and_one_more_is_refused() -> None:
    for size in (1, SMALL_BYTES, SMALL_BYTES + 1):
        frames = [bytes([n]) * size for n in range(MAX_FRAMES)]
        sent = to_parts(frames, LIMIT)
        assert len(content(sent[0])) <= PIECE_BYTES
        assert received(sent) == frames
    with pytest.raises(ConfigError, match="256 frames"):
        to_parts([b"x"] * (MAX_FRAMES + 1), LIMIT)

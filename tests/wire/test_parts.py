"""Cutting and joining: any sequence survives, and no sequence of parts raises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heterofed.wire import parts as module
from heterofed.wire.parts import PIECE_BYTES, Signal, from_parts, to_parts

LIMIT = 1 << 22
SIZES = st.integers(0, 40) | st.integers(PIECE_BYTES - 2, PIECE_BYTES + 2) | st.sampled_from([2 * PIECE_BYTES, 700_000])


@given(st.lists(SIZES, max_size=5), st.integers(1, 255))
def test_any_frame_sequence_survives_the_way_through_its_parts(sizes: list[int], fill: int) -> None:
    frames = [b"head", *(bytes([fill]) * size for size in sizes)]
    sent = to_parts(frames, LIMIT)
    assert all(memoryview(part).nbytes <= PIECE_BYTES for part in sent)
    received = from_parts([memoryview(bytes(part)) for part in sent], LIMIT)
    assert not isinstance(received, Signal)
    assert [bytes(frame) for frame in received] == frames


@given(st.lists(st.binary(max_size=20), max_size=6), st.booleans())
def test_no_parts_raise(tail: list[bytes], pieces: bool) -> None:
    start = [b"", b"pieces"] if pieces else []
    from_parts([memoryview(part) for part in [*start, *tail]], 50)


def test_every_signal_survives_and_is_told_from_a_message() -> None:
    for signal in Signal:
        assert from_parts([memoryview(bytes(part)) for part in signal.parts], LIMIT) is signal


def test_a_sequence_over_the_limit_of_the_receiver_is_noise() -> None:
    assert from_parts([memoryview(b"abc")], 3) == [b"abc"]
    assert from_parts([memoryview(b"abc"), memoryview(b"d")], 3) is Signal.NOISE
    large = [memoryview(bytes(part)) for part in to_parts([b"x" * (PIECE_BYTES + 1)], LIMIT)]
    assert from_parts(large, PIECE_BYTES) is Signal.NOISE
    assert not isinstance(from_parts(large, PIECE_BYTES + 1), Signal)


def test_a_sequence_of_too_many_frames_is_noise() -> None:
    assert from_parts([memoryview(b"x")] * (module.MAX_FRAMES + 1), LIMIT) is Signal.NOISE

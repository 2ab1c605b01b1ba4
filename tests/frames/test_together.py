"""Several messages travel as one and come apart again; what only looks like it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterofed.errors import FrameError
from heterofed.frames.codec import MAX_FRAMES, Codec
from heterofed.frames.messages import MOST_AHEAD, Embedding, Gradient, Proceed
from heterofed.frames.together import join, split
from tests.frames.examples import example

messages_of_frames = st.lists(
    st.lists(st.binary(min_size=1, max_size=9).filter(lambda each: each[0] != 0xC1), min_size=1, max_size=MAX_FRAMES),
    min_size=1,
    max_size=MOST_AHEAD,
)


@given(messages_of_frames)
def test_messages_come_apart_as_they_were_joined(messages: list[list[bytes]]) -> None:
    assert [list(each) for each in split(join(messages))] == messages


def test_a_message_alone_travels_as_it_is() -> None:
    frames = Codec().encode(example(Embedding))

    assert join([frames]) == frames
    assert list(split(frames)[0]) == frames


def test_no_message_of_ours_begins_as_several_do() -> None:
    for kind in (Embedding, Gradient, Proceed):
        assert Codec().encode(example(kind))[0][0] != 0xC1


def test_the_bytes_of_two_messages_in_one_stay_as_they_are() -> None:
    assert join([[b"a", b"b"], [b"c"]]) == [b"\xc1\x02\x01", b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([b"\xc1"], "sent 0 messages in 0 frames"),
        ([b"\xc1\x01", b"a"], "sent 1 messages in 1 frames"),
        ([b"\xc1\x01\x01", b"a"], "sent 2 messages in 1 frames"),
        ([b"\xc1\x01\x00", b"a"], "sent 2 messages in 1 frames"),
        ([b"\xc1\x01\xff", b"a"], "sent 2 messages in 1 frames"),
        ([b"\xc1" + bytes(MOST_AHEAD + 1)], f"sent {MOST_AHEAD + 1} messages in one; expected at most {MOST_AHEAD}"),
    ],
)
def test_counts_that_do_not_fit_are_refused(frames: list[bytes], text: str) -> None:
    with pytest.raises(FrameError, match=text):
        split(frames)


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_whatever_comes_is_taken_apart_or_refused(frames: list[bytes]) -> None:
    try:
        found = split(frames)
    except FrameError:
        return
    assert all(found) or found == [frames]

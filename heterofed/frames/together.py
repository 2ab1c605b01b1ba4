"""Several messages <-> the frames of one, for links on which a message costs more than its bytes.

    [ 0xC1, count 0, count 1, … ]    how many frames each message has; msgpack never begins with 0xC1
    [ header of message 0 ]
    [ blob of message 0 ]
    [ header of message 1 ]
    …

A message that goes alone stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from heterofed.errors import FrameError
from heterofed.frames.codec import MAX_FRAMES, Frame
from heterofed.frames.messages import MOST_AHEAD

_MARK = 0xC1


def join(messages: Sequence[Sequence[Frame]]) -> list[Frame]:
    """Return the frames of several messages, each as `Codec.encode` gave it, as one sequence.

    Args:
        messages: 1 to `MOST_AHEAD` of them; a single one stays as it is.
    """
    if len(messages) == 1:
        return list(messages[0])
    counts = bytes([_MARK, *(len(frames) for frames in messages)])
    return [counts, *(frame for frames in messages for frame in frames)]


def split(frames: Sequence[Frame]) -> list[Sequence[Frame]]:
    """Return the frames of each message in a sequence; a message that came alone is the only one.

    Raises:
        FrameError: the counts are beyond the limits or do not fit the frames.
    """
    if not frames or len(frames[0]) == 0 or frames[0][0] != _MARK:
        return [frames]
    first = frames[0]
    if len(first) > 1 + MOST_AHEAD:
        raise FrameError(f"sent {len(first) - 1} messages in one", expected=f"at most {MOST_AHEAD}")
    counts = bytes(first)[1:]
    if len(counts) < 2 or not all(1 <= each <= MAX_FRAMES for each in counts) or sum(counts) != len(frames) - 1:
        raise FrameError(
            f"sent {len(counts)} messages in {len(frames) - 1} frames", expected="as many as their counts say"
        )
    messages: list[Sequence[Frame]] = []
    at = 1
    for count in counts:
        messages.append(frames[at : at + count])
        at += count
    return messages

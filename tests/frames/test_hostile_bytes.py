"""Whatever a peer sends, `decode` returns a message or raises FrameError, and never reserves memory on its word."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import FrameError
from heterofed.frames.codec import MAX_FRAMES, MAX_HEADER_BYTES, MAX_PLAIN_BYTES, Codec, Frame
from heterofed.frames.forms import Blob, Int8Tensor, RawTensor, TopTensor
from heterofed.frames.messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    BatchPlan,
    CheckIn,
    Embedding,
    Gradient,
    Message,
    PairingKey,
    PairingKeys,
    PsiPart,
    Welcome,
)
from heterofed.frames.precision import Precision, unpack_as
from tests.chaos.corpus.mutations import Mutator
from tests.frames.examples import ALL_TYPES, DIGEST, example, in_other_forms, one_of_each

MEMORY_BYTES = 1 << 20
"""Far more than any header below needs, far less than what they ask for."""

AGREED = {RawTensor: None, Int8Tensor: Precision.parse("int8"), TopTensor: Precision.parse("topk:0.5")}

EVERY = [*one_of_each(), *in_other_forms()]

packed = msgspec.msgpack.encode
FOUR = b"\x00\x00\x80?"  # 1.0 as float32


def embedding(
    dtype: object = "float32",
    shape: object = (1, 1),
    blob: object = 0,
    *,
    round_: object = 1,
    batch: object = 0,
    rows: object = 1,
    digest: object = DIGEST,
) -> bytes:
    """Return the header of an embedding, by default of one that is right."""
    return packed(["Embedding", round_, batch, rows, digest, ["raw", dtype, shape, blob]])


def spoilt(kind: type[Message], **fields: object) -> bytes:
    """Return the header of a message that is right but for these fields."""
    names = list(kind.__struct_fields__)
    values: list[object] = msgspec.msgpack.decode(Codec().encode(example(kind))[0])
    for name, value in fields.items():
        values[1 + names.index(name)] = value
    return packed(values)


def decoded_or_refused(frames: Sequence[Frame]) -> AnyMessage | None:
    """Return the message or None; any exception but FrameError fails the test."""
    try:
        return Codec().decode(frames)
    except FrameError as error:
        assert str(error).isprintable()
        return None


def refused(frames: Sequence[Frame]) -> str:
    """Return the text of the FrameError; fails the test when there is none or when it took much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(FrameError) as caught:
            Codec().decode(frames)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_headers_that_the_cases_below_spoil_are_right() -> None:
    assert Codec().decode([embedding(), FOUR])
    assert Codec().decode([spoilt(CheckIn)]) == example(CheckIn)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_header_cut_at_any_byte_is_refused(message: AnyMessage) -> None:
    header, *blobs = Codec().encode(message)

    for end in range(len(header)):
        with pytest.raises(FrameError):
            Codec().decode([header[:end], *blobs])


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_header_with_a_byte_too_many_is_refused(message: AnyMessage) -> None:
    header, *blobs = Codec().encode(message)

    with pytest.raises(FrameError, match="trailing"):
        Codec().decode([bytes(header) + b"\x00", *blobs])


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_blob_cut_at_any_byte_is_refused_where_its_length_is_declared(message: AnyMessage) -> None:
    header, *blobs = Codec().encode(message)
    if not hasattr(message, "values"):
        return  # PSI parts are checked by psi

    for at, blob in enumerate(blobs):
        for end in range(memoryview(blob).nbytes):
            with pytest.raises(FrameError):
                Codec().decode([header, *blobs[:at], bytes(blob)[:end], *blobs[at + 1 :]])


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_flipped_bit_gives_a_message_or_a_frame_error(message: AnyMessage) -> None:
    header, *blobs = Codec().encode(message)

    for bit in range(8 * len(header)):
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << bit % 8
        decoded_or_refused([bytes(flipped), *blobs])


@pytest.mark.parametrize("seed", range(20))
def test_several_flipped_bytes_give_a_message_or_a_frame_error(seed: int) -> None:
    dice = random.Random(seed)
    for message in one_of_each():
        header, *blobs = Codec().encode(message)
        spoilt = bytearray(header)
        for _ in range(dice.randint(2, 6)):
            spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
        decoded_or_refused([bytes(spoilt), *blobs])


@settings(max_examples=50, deadline=None)  # a busy machine is no failure
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_random_bytes_give_a_message_or_a_frame_error(frames: list[bytes]) -> None:
    decoded_or_refused(frames)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=50, deadline=None)  # a busy machine is no failure
@given(st.sampled_from(ALL_TYPES), st.lists(json_like, max_size=8), st.lists(st.binary(max_size=16), max_size=3))
def test_wrong_fields_under_a_right_name_give_a_message_or_a_frame_error(
    kind: type[AnyMessage], fields: list[object], blobs: list[bytes]
) -> None:
    try:
        header = packed([kind.__name__, *fields])
    except UnicodeEncodeError:  # surrogates: nobody can send them either
        return
    decoded_or_refused([header, *blobs])


def test_no_frame_at_all_is_refused() -> None:
    assert refused([]) == f"sent 0 frames; expected 1 to {MAX_FRAMES}."


def test_an_empty_header_is_refused() -> None:
    assert "truncated" in refused([b""])


def test_more_frames_than_any_message_has_are_refused() -> None:
    assert refused([embedding(), *[FOUR] * MAX_FRAMES]) == f"sent {MAX_FRAMES + 1} frames; expected 1 to {MAX_FRAMES}."


def test_a_missing_blob_is_refused() -> None:
    assert "a blob that is not there" in refused([embedding()])


def test_a_blob_that_the_header_does_not_name_is_refused() -> None:
    assert refused([embedding(), FOUR, FOUR]) == "sent 2 blobs; expected 1, as its header says."
    assert refused([packed(["StartTest", 1]), b""]) == "sent 1 blobs; expected 0, as its header says."


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_a_blob_longer_or_shorter_than_the_shape_is_refused(size: int) -> None:
    assert f"does not fit {size} bytes" in refused([embedding(), bytes(size)])


@pytest.mark.parametrize("number", [1, -1, 2**40, False, 0.0, None, "0", b"0", [0], {"0": 0}], ids=repr)
def test_a_blob_by_another_number_than_its_place_is_refused(number: object) -> None:
    assert "a blob that is not there" in refused([embedding(blob=number), FOUR])


@pytest.mark.parametrize("dtype", ["int64", "float", "FLOAT32", "torch.float32", "", "object", "x" * 60000])
def test_a_dtype_that_may_not_cross_is_refused(dtype: str) -> None:
    text = refused([embedding(dtype), FOUR])

    assert "may not cross" in text
    assert len(text) < 500


@pytest.mark.parametrize("dtype", [None, 1, b"float32", ["float32"]], ids=repr)
def test_a_dtype_that_is_no_text_is_refused(dtype: object) -> None:
    refused([embedding(dtype), FOUR])


@pytest.mark.parametrize(
    "shape",
    [
        [0, 1],
        [1, 0],
        [-1, -1],
        [1, -1],
        [1],
        [],
        [1] * 9,
        [1] * 30000,
        [2, 1],
        [1, 2],
        [2**53, 1],
        [2**53] * 8,
        [2**63, 2],
        [2**64 - 1, 2**64 - 1],
        [1.0, 1],
        [True, 1],
        ["1", 1],
        1,
        None,
        {"1": 1},
    ],
    ids=lambda shape: repr(shape)[:30],
)
def test_a_shape_that_does_not_fit_is_refused(shape: object) -> None:
    assert len(refused([embedding(shape=shape), FOUR])) < 500


def test_rows_that_are_not_those_of_the_tensor_are_refused() -> None:
    assert "2 rows declared, 1 sent" in refused([embedding(rows=2), FOUR])


@pytest.mark.parametrize(
    "header",
    [
        embedding(round_=0),
        embedding(round_=2**53 + 1),
        embedding(batch=-1),
        embedding(digest=bytes(33)),
        embedding(digest="text"),
        spoilt(CheckIn, task_id=""),
        spoilt(CheckIn, feature_key="x" * 65),
        spoilt(CheckIn, nonce=bytes(15)),
        spoilt(CheckIn, trainable=1),
        spoilt(CheckIn, matching=["md5", "both", True]),
        spoilt(Welcome, session=bytes(17)),
        spoilt(Welcome, parties=["host", ""]),
        spoilt(Welcome, calculation_timeout_s=-1.0),
        spoilt(Welcome, calculation_timeout_s=float("nan")),
        spoilt(PairingKey, public=bytes(31)),
        spoilt(PairingKeys, publics=[bytes(32), bytes(33)]),
        spoilt(BatchPlan, seed=2**32),
        spoilt(BatchPlan, batches=2**53 + 1),
        spoilt(Gradient, loss="0.5"),
        packed(["Abort", "c1", "OutputError", "x" * 2001]),
        packed(["StartTest"]),
        packed(["StartTest", 1, 2]),
        packed({"type": "StartTest", "round": 1}),
        packed(["Message"]),
        packed(["RawTensor", "float32", [1, 1], 0]),
        packed(["raw", "float32", [1, 1], 0]),
        packed(["Embedding", 1, 0, 1, DIGEST, ["float32", [1, 1], 0]]),
        packed([]),
        packed(None),
    ],
    ids=lambda header: repr(header)[:40],
)
def test_a_field_outside_its_limits_is_refused(header: bytes) -> None:
    assert f"expected a message of protocol version {PROTOCOL_VERSION}" in refused([header])


def test_an_unknown_name_is_refused_without_repeating_it() -> None:
    text = refused([packed(["\x1b[31mEvil\n", 1])])

    assert "an unknown kind of message" in text
    assert "Evil" not in text


@pytest.mark.parametrize("size", [10**7, 2**28 - 1, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("marker", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"], ids=["array", "map", "text", "bytes"])
def test_a_length_that_is_only_claimed_reserves_no_memory(size: int, marker: bytes) -> None:
    claim = marker + struct.pack(">I", size) + b"\x01" * 16
    name, digest = packed("Embedding"), packed(DIGEST)
    start = b"\x96" + name + b"\x01\x00\x01"

    refused([claim])
    refused([b"\x92" + packed("PsiPart") + claim, FOUR])
    refused([start + claim, FOUR])
    refused([start + digest + b"\x94" + claim, FOUR])
    refused([start + digest + b"\x94" + packed("raw") + claim, FOUR])
    refused([start + digest + b"\x94" + packed("raw") + packed("float32") + claim, FOUR])
    refused([start + digest + b"\x94" + packed("raw") + packed("float32") + packed([1, 1]) + claim, FOUR])


@pytest.mark.parametrize("before", [b"", b"\x92" + packed("PsiPart")], ids=["from the start", "in the place of a blob"])
@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1a"], ids=["arrays", "maps"])
def test_deeply_nested_headers_are_refused(before: bytes, nest: bytes) -> None:
    limit = sys.getrecursionlimit()

    refused([before + nest * (60000 // len(nest)) + b"\x01", FOUR])

    assert sys.getrecursionlimit() == limit


def test_a_header_above_the_limit_is_refused_unread() -> None:
    header = packed(["Abort", "c1", "OutputError", "x" * MAX_HEADER_BYTES])

    assert refused([header]) == f"sent a header of {len(header)} bytes; expected at most {MAX_HEADER_BYTES}."


def test_a_message_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(FrameError, match=r"a message of \d+ bytes; expected at most 1000\. Use smaller batches"):
        Codec(max_bytes=1000).decode([b"\xc1", bytes(1000)])


def test_a_message_without_a_tensor_has_a_limit_of_its_own() -> None:
    header = packed(["PsiPart", 0])
    most = bytes(MAX_PLAIN_BYTES - len(header))

    assert Codec().decode([header, most])
    assert refused([header, most + b"x"]) == (
        f"a message of {MAX_PLAIN_BYTES + 1} bytes without a tensor; expected at most {MAX_PLAIN_BYTES}. "
        "Check that all parties run the same version of heterofed."
    )
    with pytest.raises(FrameError, match=r"a message of \d+ bytes without a tensor"):
        Codec().encode(PsiPart(Blob(most + b"x")))


def test_a_tensor_may_be_larger_than_other_messages() -> None:
    rows = MAX_PLAIN_BYTES
    message = Codec().decode([embedding(shape=[rows, 1], rows=rows), bytes(4 * rows)])

    assert isinstance(message, Embedding)


@pytest.mark.parametrize("many", [[], {}, "", b"", None, 1, 0.5, "x", bytes(16), bytes(32)], ids=repr)
@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_header_of_many_things_takes_little_more_than_its_size(message: AnyMessage, many: object) -> None:
    """In the place of any field; 80 bytes for each of the header are what an object of one byte may take."""
    header, *blobs = Codec().encode(message)
    fields = msgspec.msgpack.decode(header)
    for at in range(1, len(fields)):
        crowded = packed([*fields[:at], [many] * (60000 // len(packed(many))), *fields[at + 1 :]])
        tracemalloc.start()
        try:
            decoded_or_refused([crowded, *blobs])
            assert tracemalloc.get_traced_memory()[1] < 80 * MAX_HEADER_BYTES
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("seed", range(3))
def test_a_seeded_corpus_of_spoilt_messages_gives_messages_or_frame_errors(seed: int) -> None:
    """As in the chaos run; `tests/protocol/test_hostile_sessions.py` lets sessions receive them too."""
    valid = [[bytes(frame) for frame in Codec().encode(message)] for message in EVERY]
    makes = Mutator(valid, seed)
    codec = Codec()

    taken = 0
    for _ in range(3000):
        for frames in makes.sequence([makes.moment([valid])]):
            try:
                message = codec.decode(frames)
            except FrameError:
                continue
            taken += 1
            codec.encode(message)  # what we take we could say
            if isinstance(message, Embedding | Gradient):
                with suppress(FrameError):
                    assert unpack_as(message.values, AGREED[type(message.values)]).shape == message.values.shape
    assert taken > 100


def test_the_size_of_a_frame_is_counted_in_bytes_and_not_in_items() -> None:
    wide: Any = memoryview(bytearray(4000)).cast("d")  # 500 items

    with pytest.raises(FrameError, match="a message of 4001 bytes"):
        Codec(max_bytes=1000).decode([b"\xc1", wide])


def test_text_that_is_no_utf8_is_refused() -> None:
    refused([b"\x92\xa2\xff\xff\x01"])
    refused([b"\x94" + packed("Abort") + b"\xa2\xff\xff" + packed("E") + packed("r")])

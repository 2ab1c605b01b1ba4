"""A tensor's form says what fits its bytes, or is not made: from a peer's bytes least of all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import FrameError
from heterofed.frames.codec import Codec
from heterofed.frames.forms import MOST_LEFT_OUT, Blob, Int8Tensor, RawTensor, TopTensor, WireTensor, index_bytes
from heterofed.frames.messages import Gradient

packed = msgspec.msgpack.encode

INT8 = Int8Tensor((2, 3), Blob(bytes(range(6))), Blob(b"\x80\x3f\x00\x40"))
TOP = TopTensor("float32", (2, 3), 1, Blob(b"\x00\x02"), Blob(b"\x00\x00\x80?\x00\x00\x00@"))


def gradient(*values: object) -> bytes:
    """Return the header of a gradient with this tensor."""
    return packed(["Gradient", 1, 0, None, False, list(values)])


def arrived(header: bytes, *blobs: bytes) -> WireTensor:
    message = Codec().decode([header, *blobs])
    assert isinstance(message, Gradient)
    return message.values


def refused(header: bytes, *blobs: bytes) -> str:
    with pytest.raises(FrameError) as caught:
        Codec().decode([header, *blobs])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_the_bytes_of_an_int8_tensor_stay_as_they_are() -> None:
    header, *blobs = Codec().encode(Gradient(1, 0, None, False, INT8))

    assert bytes(header).hex() == "96a84772616469656e740100c0c2" + "94a4696e7438" + "920203" + "0001"
    assert blobs == [bytes(range(6)), b"\x80\x3f\x00\x40"]
    assert arrived(bytes(header), *map(bytes, blobs)) == INT8


def test_the_bytes_of_the_largest_numbers_stay_as_they_are() -> None:
    header, *blobs = Codec().encode(Gradient(1, 0, None, False, TOP))

    assert bytes(header).hex() == (
        "96a84772616469656e740100c0c2" + "96a3746f70" + "a7666c6f61743332" + "920203" + "01" + "0001"
    )
    assert blobs == [b"\x00\x02", b"\x00\x00\x80?\x00\x00\x00@"]
    assert arrived(bytes(header), *map(bytes, blobs)) == TOP


def test_the_headers_that_the_cases_below_spoil_are_right() -> None:
    assert arrived(gradient("int8", [2, 3], 0, 1), bytes(6), bytes(4))
    assert arrived(gradient("top", "float32", [2, 3], 1, 0, 1), bytes(2), bytes(8))


def test_int8_needs_a_byte_for_each_number_and_a_scale_for_each_row() -> None:
    assert "shape (2, 3) of int8 does not fit 5 bytes" in refused(gradient("int8", [2, 3], 0, 1), bytes(5), bytes(4))
    assert "shape (2, 3) of int8 does not fit 7 bytes" in refused(gradient("int8", [2, 3], 0, 1), bytes(7), bytes(4))
    assert "scales of 2 rows do not fit 2 bytes" in refused(gradient("int8", [2, 3], 0, 1), bytes(6), bytes(2))
    assert "scales of 2 rows do not fit 12 bytes" in refused(gradient("int8", [2, 3], 0, 1), bytes(6), bytes(12))


@pytest.mark.parametrize(
    ("count", "indices", "numbers", "text"),
    [
        (1, 3, 8, "2 indices do not fit 3 bytes"),
        (1, 8, 8, "2 indices do not fit 8 bytes"),
        (1, 2, 4, "2 numbers of float32 do not fit 4 bytes"),
        (1, 2, 12, "2 numbers of float32 do not fit 12 bytes"),
        (2, 2, 8, "4 indices do not fit 2 bytes"),
        (4, 8, 32, "4 numbers of rows of 3"),
        (2**53, 2, 8, f"{2**53} numbers of rows of 3"),
    ],
)
def test_the_largest_numbers_need_as_many_indices_as_numbers(count: int, indices: int, numbers: int, text: str) -> None:
    assert text in refused(gradient("top", "float32", [2, 3], count, 0, 1), bytes(indices), bytes(numbers))


@pytest.mark.parametrize("dtype", ["float64", "int8", "uint8", "", "x" * 60000])
def test_the_largest_numbers_are_of_a_dtype_that_torch_can_put_back(dtype: str) -> None:
    assert "may not cross" in refused(gradient("top", dtype, [2, 3], 1, 0, 1), bytes(2), bytes(8))


def test_a_few_numbers_cannot_claim_a_large_tensor() -> None:
    most = gradient("top", "float32", [1, MOST_LEFT_OUT], 1, 0, 1)
    more = gradient("top", "float32", [1, MOST_LEFT_OUT + 1], 1, 0, 1)

    assert arrived(most, bytes(2), bytes(4))
    assert "1 numbers of rows of 1001" in refused(more, bytes(2), bytes(4))
    refused(gradient("top", "float32", [1, *[2**53] * 7], 2**53, 0, 1), bytes(4), bytes(4))
    refused(gradient("int8", [2**53] * 8, 0, 1), bytes(4), bytes(4))


@pytest.mark.parametrize(("indices", "numbers"), [(0, 0), (1, 0), (1, 1), (0, 2), (-1, 0), (None, 1)])
def test_blobs_come_in_the_order_of_the_fields(indices: object, numbers: object) -> None:
    header = gradient("top", "float32", [2, 4], 1, indices, numbers)

    assert "a blob that is not there" in refused(header, bytes(8), bytes(8))


@pytest.mark.parametrize(
    "values",
    [
        ["evil", [1, 1], 0],
        ["float32", [1, 1], 0],
        ["Int8Tensor", [1, 1], 0, 1],
        [0, [1, 1], 0, 1],
        [],
        None,
        {"type": "int8"},
        ["int8", [1, 1], 0],
        ["int8", [1, 1], 0, 1, 2],
        ["int8", [1], 0, 1],
        ["int8", [0, 1], 0, 1],
        ["int8", "float32", [1, 1], 0, 1],
        ["top", [1, 1], 1, 0, 1],
        ["top", "float32", [1, 1], 0, 0, 1],
        ["top", "float32", [1, 1], -1, 0, 1],
        ["top", "float32", [1, 1], 1.0, 0, 1],
        ["top", "float32", [1] * 9, 1, 0, 1],
    ],
    ids=lambda values: repr(values)[:40],
)
def test_what_is_no_form_is_refused(values: object) -> None:
    text = refused(packed(["Gradient", 1, 0, None, False, values]), bytes(1), bytes(2))

    assert "bytes that are no message of ours" in text
    assert "evil" not in text


def test_the_smallest_integer_that_counts_a_row_holds_its_indices() -> None:
    assert [index_bytes(each) for each in (1, 256, 257, 65536, 65537, 2**32)] == [1, 1, 2, 2, 4, 4]
    with pytest.raises(ValueError, match="rows of 4294967297 numbers"):
        index_bytes(2**32 + 1)


def test_a_raw_tensor_says_that_it_is_one() -> None:
    header, _ = Codec().encode(Gradient(1, 0, None, False, RawTensor("float32", (1, 1), Blob(bytes(4)))))

    assert msgspec.msgpack.decode(header)[5] == ["raw", "float32", [1, 1], 0]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from(["float32", "x"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)  # a busy machine is no failure
@given(
    st.sampled_from(["raw", "int8", "top"]),
    st.lists(json_like, max_size=6),
    st.lists(st.binary(max_size=8), max_size=3),
)
def test_any_fields_under_a_right_tag_give_a_form_or_a_frame_error(
    tag: str, fields: list[object], blobs: list[bytes]
) -> None:
    try:
        Codec().decode([gradient(tag, *fields), *blobs])
    except FrameError as error:
        assert str(error).isprintable()

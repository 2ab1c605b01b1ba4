"""A tensor crosses as exactly as was agreed: within the bounds that are promised, and in no other way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heterofed.errors import ConfigError, EmbeddingError, FrameError, TrainingDiverged
from heterofed.frames.codec import Codec
from heterofed.frames.forms import MOST_LEFT_OUT, Blob, Int8Tensor, RawTensor, TopTensor, WireTensor
from heterofed.frames.messages import Gradient
from heterofed.frames.precision import Precision, left_out, pack_as, unpack_as
from heterofed.frames.tensors import pack

EVERY = ["float32", "float16", "bfloat16", "int8", "topk:0.1", "topk:0.5"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

LARGEST = 2.0**127
"""Half of the largest float32."""


def travelled(wire: WireTensor) -> WireTensor:
    """Return a tensor's form after a way through the codec, as bytes that nobody else holds."""
    message = Codec().decode([bytes(each) for each in Codec().encode(Gradient(1, 0, None, False, wire))])
    assert isinstance(message, Gradient)
    return message.values


def crossed(values: Tensor, text: str | None, dtype: torch.dtype | None = None) -> Tensor:
    precision = Precision.parse(text) if text else None
    return unpack_as(travelled(pack_as(values, precision)), precision, dtype)


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors(most: float = LARGEST) -> st.SearchStrategy[Tensor]:
    """Tensors of a few rows, of numbers of any size that float32 has up to this one."""
    numbers = st.floats(-most, most, width=32) | st.floats(-1, 1, width=32) | st.just(0.0)
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 9))
    return shapes.flatmap(
        lambda shape: st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)).map(
            lambda made: torch.tensor(made, dtype=torch.float32).view(shape)
        )
    )


def refused_to_cross(values: Tensor, text: str) -> str:
    with pytest.raises(TrainingDiverged) as caught:
        pack_as(values, Precision.parse(text))
    return str(caught.value)


def refused(wire: WireTensor, text: str | None) -> str:
    with pytest.raises(FrameError) as caught:
        unpack_as(wire, Precision.parse(text) if text else None)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*EVERY, "topk:0.001", "topk:0.999", "topk:0.3333333333333333"])
def test_the_text_of_a_precision_gives_it_back(text: str) -> None:
    precision = Precision.parse(text)

    assert str(precision) == text
    assert Precision.parse(str(precision)) == precision


def test_other_ways_to_write_a_share_mean_the_same() -> None:
    assert str(Precision.parse("topk:.10")) == "topk:0.1"
    assert str(Precision.parse("topk:1e-1")) == "topk:0.1"


@pytest.mark.parametrize(
    "text",
    ["", "float", "Float16", "float64", "int4", "int8:0.1", "float16:", "topk", "topk:", "topk:x", "topk:0", "topk:1",
     "topk:0.0009", "topk:-0.1", "topk:nan", "topk:inf", "topk:0.1:2", "x" * 500, None, 8, 0.1, torch.float16],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_what_is_no_precision_is_named_with_its_argument(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"^embedding_precision is .*expected one of float32, float16, .*topk:0\.1"):
        Precision.parse(text, "embedding_precision")


def test_the_error_about_a_precision_says_what_was_given() -> None:
    with pytest.raises(ConfigError) as caught:
        Precision.parse("fp16", "gradient_precision")

    assert str(caught.value) == (
        "gradient_precision is 'fp16'; expected one of float32, float16, bfloat16, int8, "
        'or "topk:0.1" with a share from 0.001 to below 1.'
    )


@pytest.mark.parametrize(
    ("text", "width", "kept"),
    [("topk:0.1", 1, 1), ("topk:0.1", 10, 1), ("topk:0.1", 11, 2), ("topk:0.1", 1024, 103), ("topk:0.07", 100, 7),
     ("topk:0.999", 3, 3), ("topk:0.001", 1000, 1), ("topk:0.001", 1001, 2), ("int8", 7, 7)],
)  # fmt: skip
def test_a_share_of_a_row_is_rounded_up(text: str, width: int, kept: int) -> None:
    assert Precision.parse(text).kept(width) == kept


@given(st.floats(1 / MOST_LEFT_OUT, 1, exclude_max=True), st.integers(1, 2**32))
def test_every_share_keeps_as_much_as_a_form_must_hold(share: float, width: int) -> None:
    kept = Precision("topk", share).kept(width)

    assert 1 <= kept <= width <= MOST_LEFT_OUT * kept


# --- what arrives -----------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)  # a busy machine is no failure
@given(tensors())
def test_float32_arrives_as_it_was(values: Tensor) -> None:
    assert torch.equal(crossed(values, "float32"), values)
    assert torch.equal(crossed(values, None), values)


@settings(max_examples=100, deadline=None)
@given(tensors(65504))
def test_float16_is_within_a_2048th(values: Tensor) -> None:
    arrived = crossed(values, "float16", torch.float32)

    assert ((arrived - values).abs() <= (values.abs() / 2048).clamp(min=2**-25)).all()


@settings(max_examples=100, deadline=None)
@given(tensors())
def test_bfloat16_is_within_a_256th(values: Tensor) -> None:
    arrived = crossed(values, "bfloat16", torch.float32)

    assert ((arrived - values).abs() <= (values.abs() / 256).clamp(min=2**-134)).all()


@settings(max_examples=300, deadline=None)
@given(tensors())
@example(torch.tensor([[LARGEST, -LARGEST, 1.0], [0.0, 0.0, 0.0], [2**-149, 0.0, -(2**-149)]]))
@example(torch.tensor([[127.0, 126.5, 0.5]]))
def test_int8_is_within_half_a_step_and_a_252nd_of_the_rows_largest(values: Tensor) -> None:
    wire = pack_as(values, Precision.parse("int8"))
    assert isinstance(wire, Int8Tensor)
    scales = torch.frombuffer(bytearray(wire.scales.data), dtype=torch.bfloat16).double()[:, None]

    error = (crossed(values, "int8").double() - values.double()).abs()

    largest = values.double().abs().amax(dim=1, keepdim=True)
    assert (error <= scales / 2 * (1 + 1e-6)).all()
    assert (error <= (largest / 252).clamp(min=2**-127)).all()
    assert (127 * scales >= largest * (1 - 1e-6)).all(), "a number beyond the last step"


@settings(max_examples=200, deadline=None)
@given(tensors(), st.sampled_from(["topk:0.1", "topk:0.4", "topk:0.9"]))
def test_topk_brings_the_largest_of_each_row_as_they_are(values: Tensor, text: str) -> None:
    kept = Precision.parse(text).kept(values.shape[1])

    arrived = crossed(values, text)

    there = arrived != 0
    assert (there.sum(dim=1) <= kept).all()
    assert torch.equal(arrived[there], values[there])
    # What did not come is no larger than what came, and nothing that should have come is missing.
    sorted_by_size = values.abs().sort(dim=1, descending=True).values
    assert torch.equal(arrived.abs().sort(dim=1, descending=True).values[:, :kept], sorted_by_size[:, :kept])


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("shape", [(1, 1), (128, 10), (7, 3, 5), (2, 300), (2, 70_000), (2,) * 8], ids=str)
def test_every_shape_arrives(shape: tuple[int, ...], text: str) -> None:
    values = random(shape)

    arrived = crossed(values, text, torch.float32)

    assert arrived.shape == shape
    if "topk" not in text:
        torch.testing.assert_close(arrived, values, rtol=1 / 128, atol=values.abs().max().item() / 252)
    else:
        rows, whole = arrived.reshape(shape[0], -1), values.reshape(shape[0], -1)
        assert torch.equal(rows[rows != 0], whole[rows != 0])
        assert ((rows != 0).sum(dim=1) == Precision.parse(text).kept(whole.shape[1])).all()


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("wanted", DTYPES, ids=str)
@pytest.mark.parametrize("sent", DTYPES, ids=str)
def test_every_dtype_arrives_as_the_one_that_is_wanted(sent: torch.dtype, wanted: torch.dtype, text: str) -> None:
    values = random((4, 6), sent)

    arrived = crossed(values, text, wanted)

    assert arrived.dtype is wanted
    close = crossed(values.float(), text, torch.float32)
    torch.testing.assert_close(arrived.float(), close, rtol=1 / 64, atol=1e-6)


def test_without_a_wanted_dtype_numbers_stay_as_they_crossed() -> None:
    values = random((4, 6), torch.float64)

    assert [crossed(values, each).dtype for each in (None, "float32", "float16", "bfloat16", "int8", "topk:0.5")] == [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
    assert crossed(values.to(torch.bfloat16), "topk:0.5").dtype is torch.bfloat16


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize(
    "values",
    [random((6, 4)).t(), random((6, 4))[::2, 1:3], torch.ones(1, 1).expand(3, 4), random((2, 3, 4)).transpose(1, 2)],
    ids=["transposed", "strided", "expanded", "inner transposed"],
)
def test_memory_with_gaps_arrives_as_the_tensor_reads(values: Tensor, text: str) -> None:
    assert torch.equal(crossed(values, text), crossed(values.clone(memory_format=torch.contiguous_format), text))


@pytest.mark.parametrize("text", EVERY)
def test_a_tensor_inside_a_graph_travels_without_it(text: str) -> None:
    weights = nn.Parameter(random((2, 2)))

    assert torch.equal(crossed(weights * 2, text), crossed((weights * 2).detach(), text))
    assert not crossed(weights * 2, text).requires_grad


@pytest.mark.parametrize("text", EVERY)
def test_packing_changes_nothing_at_home(text: str) -> None:
    values = random((5, 7))
    before = values.clone()

    wire = pack_as(values, Precision.parse(text))
    left_out(values, wire)
    unpack_as(wire, Precision.parse(text), torch.float32)

    assert torch.equal(values, before)


def test_a_row_without_a_number_is_all_zero() -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, -1.0]])

    assert torch.equal(crossed(values, "int8")[0], torch.zeros(2))
    assert torch.equal(crossed(values, "topk:0.5")[0], torch.zeros(2))


def test_rows_do_not_disturb_each_other() -> None:
    values = torch.tensor([[1e-6, -2e-6, 3e-6], [1e6, 2e6, -3e6]])

    torch.testing.assert_close(crossed(values, "int8"), values, rtol=0.02, atol=0)


def test_all_of_a_first_index_shares_one_scale() -> None:
    wire = pack_as(random((3, 4, 5)), Precision.parse("int8"))

    assert isinstance(wire, Int8Tensor)
    assert wire.scales.nbytes == 2 * 3


# --- the bytes --------------------------------------------------------------------------------------------------------


def test_the_bytes_of_int8_stay_as_they_are() -> None:
    values = torch.tensor([[127.0, -63.5, 0.4, 0.6], [1.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])

    wire = pack_as(values, Precision.parse("int8"))

    assert isinstance(wire, Int8Tensor)
    assert np.frombuffer(wire.data.data, np.int8).tolist() == [127, -64, 0, 1, 126, -126, 63, 0, 0, 0, 0, 0]
    assert bytes(wire.scales.data).hex() == "803f" + "023c" + "8000"  # 1, a little more than 1/127, 2^-126


def test_the_bytes_of_the_largest_numbers_stay_as_they_are() -> None:
    values = torch.tensor([[0.5, -3.0, 2.0, 0.25], [0.0, 1.0, 0.0, -2.0]])

    wire = pack_as(values, Precision.parse("topk:0.5"))

    assert isinstance(wire, TopTensor)
    assert (wire.dtype, wire.count) == ("float32", 2)
    assert bytes(wire.indices.data) == bytes([1, 2, 1, 3])
    assert np.frombuffer(wire.numbers.data, "<f4").tolist() == [-3.0, 2.0, 1.0, -2.0]


@pytest.mark.parametrize(("width", "size"), [(256, 1), (257, 2), (65536, 2), (65537, 4)])
def test_indices_are_the_smallest_integers_that_hold_them(width: int, size: int) -> None:
    values = torch.zeros(1, width)
    values[0, -1] = 7

    wire = pack_as(values, Precision.parse("topk:0.001"))

    assert isinstance(wire, TopTensor)
    assert wire.indices.nbytes == size * wire.count
    assert torch.equal(unpack_as(wire, Precision.parse("topk:0.001")), values)


@pytest.mark.parametrize(
    ("text", "width", "size"),
    [("float16", 10, 20), ("bfloat16", 10, 20), ("int8", 10, 12), ("int8", 1024, 1026), ("topk:0.1", 10, 5),
     ("topk:0.1", 1024, 6 * 103)],
)  # fmt: skip
def test_a_row_has_as_many_bytes_as_the_table_says(text: str, width: int, size: int) -> None:
    _, *blobs = Codec().encode(Gradient(1, 0, None, False, pack_as(random((128, width)), Precision.parse(text))))

    assert sum(memoryview(each).nbytes for each in blobs) == 128 * size


@pytest.mark.parametrize("text", EVERY)
def test_the_header_stays_under_128_bytes(text: str) -> None:
    values = pack_as(random((4096, 1024)), Precision.parse(text))

    assert len(Codec().encode(Gradient(100_000, 100_000, 0.25, False, values))[0]) < 128


def test_its_own_dtype_is_sent_and_received_without_a_copy() -> None:
    values = random((4, 3))
    wire = pack_as(values, Precision.parse("float32"))

    assert isinstance(wire, RawTensor)
    assert np.shares_memory(np.asarray(wire.data.data), values.numpy())
    arrived = unpack_as(wire, Precision.parse("float32"), torch.float32)
    assert np.shares_memory(arrived.numpy(), values.numpy())


# --- what cannot cross ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e6, LARGEST])
def test_a_number_beyond_float16_is_refused_with_advice(value: float) -> None:
    assert refused_to_cross(torch.tensor([[0.0, value]]), "float16") == (
        "a number is too large to cross as float16; expected numbers of at most 65504. "
        "Choose bfloat16, which has the range of float32; or lower the learning rate."
    )


def test_the_largest_number_of_float16_crosses() -> None:
    values = torch.tensor([[65504.0, -65519.0]])

    assert crossed(values, "float16").tolist() == [[65504.0, -65504.0]]


@pytest.mark.parametrize("text", ["float32", "float16", "bfloat16"])
def test_what_is_not_finite_crosses_as_that_where_the_dtype_has_it(text: str) -> None:
    """Whether it may is asked of embeddings and gradients, not here."""
    arrived = crossed(torch.tensor([[math.nan, 1.0]]), text)
    infinite = crossed(torch.tensor([[-math.inf, 1.0]]), text)

    assert arrived[0].isnan().tolist() == [True, False]
    assert infinite[0].tolist() == [-math.inf, 1.0]


@pytest.mark.parametrize("text", ["int8", "topk:0.5"])
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_has_no_step_and_no_place_among_the_largest(
    value: float, text: str, dtype: torch.dtype
) -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, value], [5.0, 6.0]], dtype=dtype)

    assert refused_to_cross(values, text) == (
        f"numbers that are NaN or infinite cannot cross as {text}; expected finite numbers. "
        "Lower the learning rate, or check the inputs for NaN."
    )


@pytest.mark.parametrize("text", EVERY)
def test_what_no_form_describes_is_refused_as_without_a_precision(text: str) -> None:
    precision = Precision.parse(text)

    with pytest.raises(EmbeddingError, match=r"a tensor of torch\.int64; expected one of float16"):
        pack_as(torch.zeros(2, 2, dtype=torch.int64), precision)
    for shape in ((), (3,), (0, 3), (3, 0)):
        with pytest.raises(EmbeddingError, match=r"a tensor of shape .*expected \(rows, width, …\)"):
            pack_as(torch.zeros(shape), precision)


# --- what a peer may send ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [None, *EVERY])
@pytest.mark.parametrize("agreed", EVERY)
def test_another_form_than_was_agreed_is_refused_by_both_names(agreed: str, sent: str | None) -> None:
    wire = pack_as(random((2, 20), torch.float64), Precision.parse(sent) if sent else None)
    if agreed == sent:
        assert unpack_as(wire, Precision.parse(agreed)).shape == (2, 20)
        return

    form = {None: "float64", "topk:0.1": "topk with 2 of 20 numbers", "topk:0.5": "topk with 10 of 20 numbers"}
    assert refused(wire, agreed).startswith(f"sent a tensor as {form.get(sent, sent)}")
    assert f"expected {agreed}, as was agreed" in refused(wire, agreed)


def test_rows_of_indices_are_not_taken_for_whole_ones() -> None:
    """A `topk` that leaves nothing out is still no int8, of which as many numbers cross."""
    wire = TopTensor("float32", (1, 2), 2, Blob(bytes([0, 1])), Blob(bytes(8)))

    for agreed in ("int8", "float32", None):
        assert "sent a tensor as topk with 2 of 2 numbers a row" in refused(wire, agreed)


@pytest.mark.parametrize("sent", ["int8", "topk:0.5"])
def test_without_a_precision_only_raw_tensors_are_taken(sent: str) -> None:
    wire = pack_as(random((2, 20)), Precision.parse(sent))

    assert "expected its own dtype as it is, since no precision was agreed on" in refused(wire, None)


@pytest.mark.parametrize(
    "scale",
    [math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 2.0**-127],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_scale_that_nobody_packs_is_refused(scale: float, place: int) -> None:
    scales = torch.ones(3, dtype=torch.bfloat16)
    scales[place] = scale
    wire = Int8Tensor((3, 2), Blob(bytes(6)), Blob(bytes(scales.view(torch.uint8).numpy())))

    assert "sent a tensor with scales that are negative, zero or not finite" in refused(wire, "int8")


@pytest.mark.parametrize(
    "indices",
    [[0, 4, 1, 2], [0, 255, 0, 1], [0, 1, 3, 4], [1, 0, 0, 1], [0, 1, 2, 2], [0, 0, 0, 1], [0, 1, 3, 0]],
    ids=str,
)
def test_indices_that_nobody_packs_are_refused(indices: list[int]) -> None:
    wire = TopTensor("float32", (2, 4), 2, Blob(bytes(indices)), Blob(bytes(16)))

    assert "sent a tensor with indices that are beyond the row or do not rise" in refused(wire, "topk:0.5")


def test_large_unsigned_indices_are_not_taken_for_negative_ones() -> None:
    wire = pack_as(torch.eye(2, 70_000), Precision.parse("topk:0.001"))
    assert isinstance(wire, TopTensor)
    indices = np.frombuffer(bytes(wire.indices.data), "<u4").reshape(2, -1).copy()
    indices[0, -1] = 2**32 - 1

    spoilt = TopTensor(wire.dtype, wire.shape, wire.count, Blob(indices.tobytes()), wire.numbers)

    assert "beyond the row" in refused(spoilt, "topk:0.001")


def test_a_tensor_that_no_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    wire = pack_as(random((2, 20)), Precision.parse("topk:0.5"))
    monkeypatch.setattr(torch, "zeros", full)

    assert "sent a tensor of (2, 20) that cannot be unpacked" in refused(wire, "topk:0.5")


@pytest.mark.parametrize("field", ["data", "scales"])
def test_a_tampered_int8_is_a_frame_error(field: str) -> None:
    wire = pack_as(random((2, 20)), Precision.parse("int8"))
    getattr(wire, field).data = bytes(3)

    assert "sent a tensor of (2, 20) that cannot be unpacked" in refused(wire, "int8")


@pytest.mark.parametrize("field", ["indices", "numbers"])
def test_tampered_largest_numbers_are_a_frame_error(field: str) -> None:
    wire = pack_as(random((2, 20)), Precision.parse("topk:0.5"))
    getattr(wire, field).data = bytes(3)

    assert "sent a tensor of (2, 20) that cannot be unpacked" in refused(wire, "topk:0.5")


forms = st.sampled_from(["int8", "topk:0.3"])


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), forms, st.data())
def test_any_bytes_of_the_right_size_are_unpacked_or_a_frame_error(
    rows: int, width: int, text: str, data: st.DataObject
) -> None:
    precision = Precision.parse(text)
    count = precision.kept(width)
    wire: WireTensor
    if text == "int8":
        wire = Int8Tensor(
            (rows, width),
            Blob(data.draw(st.binary(min_size=rows * width, max_size=rows * width))),
            Blob(data.draw(st.binary(min_size=2 * rows, max_size=2 * rows))),
        )
    else:
        many = rows * count
        low = st.lists(st.integers(0, width), min_size=many, max_size=many).map(bytes)
        wire = TopTensor(
            "float32",
            (rows, width),
            count,
            Blob(data.draw(st.binary(min_size=many, max_size=many) | low)),
            Blob(data.draw(st.binary(min_size=4 * many, max_size=4 * many))),
        )
    try:
        arrived = unpack_as(wire, precision, torch.float32)
    except FrameError as error:
        assert str(error).isprintable()
    else:
        assert arrived.shape == (rows, width)


# --- what is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, *EVERY])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_arrives_and_what_is_left_out_make_the_whole(text: str | None, dtype: torch.dtype) -> None:
    values = random((5, 3, 4), dtype)
    precision = Precision.parse(text) if text else None

    wire = pack_as(values, precision)
    left = left_out(values, wire)

    assert left.dtype is torch.float32
    torch.testing.assert_close(left + unpack_as(wire, precision, torch.float32), values.float(), rtol=1e-6, atol=1e-6)


def test_topk_leaves_out_what_it_does_not_send_and_nothing_else() -> None:
    values = torch.tensor([[0.5, -3.0, 2.0, 0.25]])

    left = left_out(values, pack_as(values, Precision.parse("topk:0.5")))

    assert left.tolist() == [[0.5, 0.0, 0.0, 0.25]]
    assert Precision.parse("topk:0.5").leaves_out
    assert not Precision.parse("int8").leaves_out


def test_the_largest_of_a_tensor_without_a_copy_is_left_alone() -> None:
    values = random((4, 3))

    assert torch.equal(left_out(values, pack(values)), torch.zeros(4, 3))

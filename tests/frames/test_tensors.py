"""Tensors cross the wire bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heterofed.errors import EmbeddingError, FrameError
from heterofed.frames.codec import Codec
from heterofed.frames.forms import DTYPE_BYTES, MAX_DIMENSIONS, Blob, RawTensor
from heterofed.frames.messages import Embedding, Gradient
from heterofed.frames.tensors import TORCH_DTYPES, pack, unpack

DTYPES = list(TORCH_DTYPES.values())


def travelled(values: Tensor) -> Tensor:
    """Return a tensor after a way through the codec, as bytes that nobody else holds."""
    frames = Codec().encode(Gradient(1, 0, None, False, pack(values)))
    decoded = Codec().decode([bytes(each) for each in frames])
    assert isinstance(decoded, Gradient)
    assert isinstance(decoded.values, RawTensor)
    return unpack(decoded.values)


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Compare as bytes: NaN equals itself and -0.0 differs from 0.0."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (128, 10), (7, 3, 5), (2,) * MAX_DIMENSIONS], ids=str)
def test_every_dtype_and_shape_arrives_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = random(shape, dtype)

    assert same_bits(travelled(values), values)


@settings(max_examples=50, deadline=None)  # a busy machine is no failure
@given(st.sampled_from(DTYPES), st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_bits_arrive_as_they_are(dtype: torch.dtype, rows: int, width: int, source: object) -> None:
    size = rows * width * dtype.itemsize
    raw = bytearray(source.randbytes(size))  # type: ignore[attr-defined]  # a random.Random that Hypothesis replays

    values = torch.frombuffer(raw, dtype=dtype).view(rows, width)

    assert same_bits(travelled(values), values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_numbers_arrive_as_they_are(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal / 2
    values = torch.tensor([[float("nan"), float("inf"), -float("inf"), -0.0, tiny]], dtype=dtype)

    assert same_bits(travelled(values), values)


@pytest.mark.parametrize(
    "values",
    [random((6, 4), torch.float32).t(), random((6, 4), torch.float32)[::2, 1:3], torch.ones(1, 1).expand(3, 4)],
    ids=["transposed", "strided", "expanded"],
)
def test_memory_with_gaps_arrives_as_the_tensor_reads(values: Tensor) -> None:
    assert same_bits(travelled(values), values)


def test_a_tensor_inside_a_graph_travels_without_it() -> None:
    weights = nn.Parameter(random((2, 2), torch.float32))
    values = weights * 2

    arrived = travelled(values)

    assert same_bits(arrived, values.detach())
    assert not arrived.requires_grad
    assert values.requires_grad


def test_a_contiguous_tensor_is_packed_without_a_copy() -> None:
    values = random((4, 3), torch.float64)

    raw = pack(values)

    assert np.shares_memory(np.asarray(raw.data.data), values.numpy())
    assert raw.data.nbytes == 4 * 3 * 8


def test_a_tensor_is_unpacked_without_a_copy_where_the_memory_may_be_written() -> None:
    memory = bytearray(2 * 3 * 4)

    values = unpack(RawTensor("float32", (2, 3), Blob(memory)))
    memory[:4] = np.float32(7).tobytes()

    assert values[0, 0].item() == 7


def test_a_tensor_from_read_only_memory_can_be_written_to_without_touching_it() -> None:
    memory = bytes(2 * 3 * 4)

    unpack(RawTensor("float32", (2, 3), Blob(memory))).fill_(1)

    assert memory == bytes(24)


def test_a_tensor_from_memory_at_an_odd_address_is_right() -> None:
    values = random((3, 2), torch.float64)
    memory = bytearray(1) + bytearray(pack(values).data.data)

    assert same_bits(unpack(RawTensor("float64", (3, 2), Blob(memoryview(memory)[1:]))), values)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_other_dtypes_may_not_cross(dtype: torch.dtype) -> None:
    with pytest.raises(EmbeddingError, match=rf"a tensor of {dtype}; expected one of float16, bfloat16"):
        pack(torch.zeros(2, 2, dtype=dtype))


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0)], ids=str)
def test_tensors_without_rows_and_width_may_not_cross(shape: tuple[int, ...]) -> None:
    with pytest.raises(EmbeddingError, match=r"a tensor of shape .*expected \(rows, width, …\)"):
        pack(torch.zeros(shape))


def test_a_raw_tensor_cannot_be_made_of_parts_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="does not fit 20 bytes"):
        RawTensor("float32", (2, 3), Blob(bytes(20)))
    with pytest.raises(ValueError, match="dtype 'int64' may not cross"):
        RawTensor("int64", (2, 3), Blob(bytes(48)))


def test_an_embedding_cannot_declare_other_rows_than_it_has() -> None:
    with pytest.raises(ValueError, match="3 rows declared, 2 sent"):
        Embedding(1, 0, 3, b"", pack(torch.zeros(2, 2)))


def test_unpacking_a_tampered_tensor_is_a_frame_error() -> None:
    raw = RawTensor("float32", (2, 3), Blob(bytes(24)))
    raw.data.data = bytes(20)

    with pytest.raises(FrameError, match=r"a tensor of float32 \(2, 3\) in 20 bytes"):
        unpack(raw)


def test_the_table_of_dtypes_says_the_size_that_torch_uses() -> None:
    assert {name: dtype.itemsize for name, dtype in TORCH_DTYPES.items()} == DTYPE_BYTES

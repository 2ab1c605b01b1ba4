"""How exactly a tensor crosses the wire: fewer bits for each number, or fewer numbers.

| precision               | bytes of a row of width w       | what arrives                                            |
|-------------------------|---------------------------------|---------------------------------------------------------|
| `float32`               | 4 w                             | what was sent                                           |
| `float16`               | 2 w                             | 11 bits of it: within 1/2048; refuses beyond 65504      |
| `bfloat16`              | 2 w                             | 8 bits of it: within 1/256, of any size                 |
| `int8`                  | w + 2                           | within 1/252 of the row's largest number, of any size   |
| `topk:0.1`              | (4 + 1, 2 or 4) w / 10          | the largest tenth of each row; the others are 0         |

`int8` rounds to the nearest of 255 steps between minus and plus the row's largest magnitude; its scale, the length of a
step, is rounded up to a bfloat16, so that no number lies beyond the last step. `topk` rounds nothing, and is meant to
go with an `ErrorFeedback`, which sends later what was left out now (`heterofed/features/feedback.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heterofed.errors import ConfigError, FrameError, TrainingDiverged
from heterofed.frames.forms import (
    MOST_LEFT_OUT,
    TOP_DTYPES,
    Blob,
    Int8Tensor,
    RawTensor,
    TopTensor,
    WireTensor,
    index_bytes,
)
from heterofed.frames.tensors import DTYPE_NAMES, TORCH_DTYPES, blob_of, check_crosses, flat_of, pack, unpack

CASTS = ("float32", "float16", "bfloat16")
TOP = "topk"

LARGEST_FLOAT16 = 65504.0
_ROUNDS_TO_INFINITY = 65520.0  # half a step beyond the largest float16

_STEPS = 127
_LEAST_SCALE, _BEYOND_SCALES = 0x0080, 0x7F80  # bits of bfloat16: 2^-126, the smallest normal number, and infinity

_INDEX_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}


@dataclass(frozen=True)
class Precision:
    """One way of crossing, the same at both ends; made by `parse`, and `str` gives the text back."""

    name: str
    """`float32`, `float16`, `bfloat16`, `int8` or `topk`."""

    share: float = 1.0
    """How much of each row crosses; less than 1 only with `topk`."""

    @classmethod
    def parse(cls, text: str, argument: str = "precision") -> Precision:
        """Return the precision of this text.

        Args:
            text: `float32`, `float16`, `bfloat16`, `int8`, or `topk:` and a share of each row from 0.001 to below 1.
            argument: what the text is of, for the error.

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(text, str):
            name, colon, share = text.partition(":")
            if not colon and name in (*CASTS, "int8"):
                return cls(name)
            if name == TOP and (found := _share_of(share)) is not None:
                return cls(TOP, found)
        raise ConfigError(
            f"{argument} is {text if text is None else str(text)[:64]!r}",
            expected=f'one of {", ".join(CASTS)}, int8, or "topk:0.1" with a share from {1 / MOST_LEFT_OUT} to below 1',
        )

    def __str__(self) -> str:
        return f"{TOP}:{self.share!r}" if self.leaves_out else self.name

    @property
    def leaves_out(self) -> bool:
        """Whether numbers are left out, so that an `ErrorFeedback` has something to keep."""
        return self.name == TOP

    def kept(self, width: int) -> int:
        """Return how many numbers of a row of this width cross: its share, rounded up."""
        return min(width, math.ceil(self.share * width - 1e-9))  # 0.07 * 100 is a little more than 7

    def describes(self, wire: WireTensor) -> bool:
        """Whether a tensor crossed as was agreed."""
        if isinstance(wire, TopTensor):
            return self.leaves_out and wire.count == self.kept(wire.width)
        return self.name == ("int8" if isinstance(wire, Int8Tensor) else wire.dtype)


def pack_as(tensor: Tensor, precision: Precision | None) -> WireTensor:
    """Describe a tensor of shape (rows, width, …) for the wire.

    Where its own dtype crosses, the bytes are a view of its memory as with `pack`; else they are new.

    Args:
        tensor: floating point, on any device, in a graph or not.
        precision: None: its own dtype.

    Raises:
        EmbeddingError: as `pack`.
        TrainingDiverged: it holds what this precision cannot carry: with float16 a number beyond 65504, with int8 and
            topk one that is NaN or infinite.
    """
    if precision is None:
        return pack(tensor)
    check_crosses(tensor)
    tensor = tensor.detach()
    if precision.leaves_out:
        return _top(tensor, precision)
    if precision.name == "int8":
        return _int8(tensor)
    dtype = TORCH_DTYPES[precision.name]
    if dtype is torch.float16 and tensor.dtype is not dtype:
        _check_fits_float16(tensor)
    return pack(tensor.to(dtype, memory_format=torch.contiguous_format))


def unpack_as(wire: WireTensor, precision: Precision | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return the tensor on the CPU; it shares the message's memory where nothing has to be computed.

    Args:
        wire: as it came.
        precision: what was agreed on; None: each tensor crosses in its own dtype, whichever that is.
        dtype: of the result; None: that in which the numbers crossed, or float32 for int8.

    Raises:
        FrameError: it crossed otherwise than was agreed, or holds what nobody packs.
    """
    if precision is None:
        agreed, expected = isinstance(wire, RawTensor), "its own dtype as it is, since no precision was agreed on"
    else:
        agreed, expected = precision.describes(wire), f"{precision}, as was agreed"
    if not agreed:
        raise FrameError(f"sent a tensor as {form_of(wire)}", expected=expected)
    try:
        tensor = _unpacked(wire)
        return tensor if dtype is None else tensor.to(dtype)
    except (ValueError, RuntimeError, MemoryError):  # torch names neither party nor reason
        raise FrameError(f"sent a tensor of {wire.shape} that cannot be unpacked") from None


def left_out(tensor: Tensor, wire: WireTensor) -> Tensor:
    """Return what the other end does not get: the tensor less what it will unpack; float32 on the CPU, a new tensor."""
    return tensor.detach().to("cpu", torch.float32) - _unpacked(wire).to(torch.float32)


def form_of(wire: WireTensor) -> str:
    """Return how a tensor crossed, for texts."""
    if isinstance(wire, TopTensor):
        return f"{TOP} with {wire.count} of {wire.width} numbers a row"
    return "int8" if isinstance(wire, Int8Tensor) else wire.dtype


def _unpacked(wire: WireTensor) -> Tensor:
    if isinstance(wire, RawTensor):
        return unpack(wire)
    return _from_int8(wire) if isinstance(wire, Int8Tensor) else _from_top(wire)


def _largest(tensor: Tensor) -> float:
    """Return the largest magnitude; NaN if there is one. isfinite() of all would take ten times as long."""
    least, most = torch.aminmax(tensor)
    return max(-least.item(), most.item())


# --- fewer bits -------------------------------------------------------------------------------------------------------


def _check_fits_float16(tensor: Tensor) -> None:
    # What is infinite already, or NaN, crosses as that: whether it may is asked elsewhere.
    if _ROUNDS_TO_INFINITY <= _largest(tensor) < math.inf:
        raise TrainingDiverged(
            "a number is too large to cross as float16",
            expected=f"numbers of at most {LARGEST_FLOAT16:.0f}",
            advice="Choose bfloat16, which has the range of float32; or lower the learning rate.",
        )


def _int8(tensor: Tensor) -> Int8Tensor:
    """Round to the nearest step: the error is at most half a scale, and the scale at most 1.008/127 of the largest."""
    rows = tensor.reshape(tensor.shape[0], -1).to(torch.float32)
    largest = rows.abs().amax(dim=1).numpy(force=True)  # a few numbers: quicker in numpy
    if not largest.max() < math.inf:
        raise _not_finite("int8")
    bits = (largest / np.float32(_STEPS)).view(np.uint32)
    bits += 0xFFFF  # up to the next bfloat16
    bits >>= 16
    np.maximum(bits, _LEAST_SCALE, out=bits)
    scales = torch.from_numpy((bits << 16).view(np.float32)).unsqueeze_(1).to(rows.device)
    steps = (rows / scales).round_().to(torch.int8)
    return Int8Tensor(tuple(tensor.shape), blob_of(steps), Blob(bits.astype("<u2").data.cast("B")))


def _from_int8(wire: Int8Tensor) -> Tensor:
    bits = flat_of(wire.scales, torch.int16)
    least, most = torch.aminmax(bits)
    if least.item() < _LEAST_SCALE or most.item() >= _BEYOND_SCALES:
        raise _unfit("scales that are negative, zero or not finite")
    steps = flat_of(wire.data, torch.int8).view(wire.shape[0], -1)
    return steps.to(torch.float32).mul_(bits.view(torch.bfloat16).to(torch.float32).unsqueeze_(1)).view(wire.shape)


# --- fewer numbers ----------------------------------------------------------------------------------------------------


def _top(tensor: Tensor, precision: Precision) -> TopTensor:
    rows = tensor.reshape(tensor.shape[0], -1).to("cpu")
    if DTYPE_NAMES[rows.dtype] not in TOP_DTYPES:
        rows = rows.to(torch.float32)
    width = rows.shape[1]
    count = precision.kept(width)
    magnitudes = rows.abs().to(torch.float32).numpy()
    # numpy finds the largest of a row of 1024 five times as fast as torch.topk does; NaN counts as the largest of all.
    largest = np.argpartition(magnitudes, width - count, axis=1)[:, width - count :]
    indices = np.sort(largest.astype(_INDEX_DTYPES[index_bytes(width)]), axis=1)
    numbers = rows.gather(1, torch.from_numpy(indices.astype(np.int64)))
    if not _largest(numbers) < math.inf:
        raise _not_finite(str(precision))
    return TopTensor(
        DTYPE_NAMES[rows.dtype],
        tuple(tensor.shape),
        count,
        Blob(indices.data.cast("B")),
        blob_of(numbers),
    )


def _from_top(wire: TopTensor) -> Tensor:
    rows, width = wire.shape[0], wire.width
    indices = np.frombuffer(wire.indices.data, _INDEX_DTYPES[index_bytes(width)]).reshape(rows, wire.count)
    if not (indices[:, -1] < width).all() or not (indices[:, 1:] > indices[:, :-1]).all():
        raise _unfit("indices that are beyond the row or do not rise")
    numbers = flat_of(wire.numbers, TORCH_DTYPES[wire.dtype]).view(rows, wire.count)
    whole = torch.zeros(rows, width, dtype=numbers.dtype)
    return whole.scatter_(1, torch.from_numpy(indices.astype(np.int64)), numbers).view(wire.shape)


# --- errors -----------------------------------------------------------------------------------------------------------


def _share_of(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 1 / MOST_LEFT_OUT <= share < 1 else None


def _not_finite(precision: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"numbers that are NaN or infinite cannot cross as {precision}",
        expected="finite numbers",
        advice="Lower the learning rate, or check the inputs for NaN.",
    )


def _unfit(what: str) -> FrameError:
    return FrameError(
        f"sent a tensor with {what}",
        expected="a tensor that heterofed has packed",
        advice="Check that all parties run the same version of heterofed.",
    )

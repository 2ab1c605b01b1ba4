"""torch.Tensor <-> RawTensor: raw bytes with dtype and shape, without a copy where the memory allows."""

from __future__ import annotations

import sys

import numpy as np
import torch

from heterofed.errors import EmbeddingError, FrameError
from heterofed.frames.forms import DTYPE_BYTES, Blob, RawTensor

if sys.byteorder != "little":  # pragma: no cover - no big-endian machine runs torch today
    raise ImportError("heterofed sends tensors as the little-endian bytes they are in memory")

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}

_NUMPY_DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")}
"""Through numpy, a tensor is made of memory in half the time."""


def pack(tensor: torch.Tensor) -> RawTensor:
    """Describe a tensor of shape (rows, width, …) for the wire.

    The bytes are a view of the tensor's own memory when it is contiguous and on the CPU: do not change it in place
    while it travels.

    Raises:
        EmbeddingError: its dtype may not cross, it has fewer than 2 dimensions, or it is empty.
    """
    check_crosses(tensor)
    return RawTensor(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), blob_of(tensor))


def unpack(raw: RawTensor) -> torch.Tensor:
    """Return the tensor on the CPU; it shares the message's memory where that may be written to.

    Raises:
        FrameError: the parts contradict each other (cannot happen to a decoded message).
    """
    try:
        dtype = _NUMPY_DTYPES.get(raw.dtype)
        if dtype is None:
            return flat_of(raw.data, TORCH_DTYPES[raw.dtype]).view(raw.shape)
        return torch.from_numpy(np.ndarray(raw.shape, dtype, writable(raw.data)))
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise FrameError(f"a tensor of {raw.dtype} {raw.shape} in {raw.data.nbytes} bytes") from None


def check_crosses(tensor: torch.Tensor) -> None:
    """Refuse what cannot be described for the wire.

    Raises:
        EmbeddingError: as `pack`.
    """
    if tensor.dtype not in DTYPE_NAMES:
        raise EmbeddingError(f"a tensor of {tensor.dtype}", expected="one of " + ", ".join(DTYPE_BYTES))
    if tensor.dim() < 2 or tensor.numel() == 0:
        raise EmbeddingError(
            f"a tensor of shape {tuple(tensor.shape)}", expected="(rows, width, …) with at least one element"
        )


def blob_of(tensor: torch.Tensor) -> Blob:
    """Return the row-major bytes of a tensor, those of its own memory where `pack` says so."""
    here = on_cpu(tensor).contiguous()
    if here.dtype is torch.bfloat16:
        here = here.view(torch.int16)  # numpy has no such numbers
    return Blob(here.numpy().data.cast("B"))


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's numbers on the CPU; those of a GPU come through pinned memory, and are waited for once."""
    tensor = tensor.detach()
    if tensor.is_cpu:
        return tensor
    if not tensor.is_cuda:
        return tensor.to("cpu")
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return here


def flat_of(blob: Blob, dtype: torch.dtype) -> torch.Tensor:
    """Return the numbers in a blob, in one dimension; its own memory where that may be written to.

    Raises:
        ValueError: it is not a whole number of them.
    """
    return torch.frombuffer(writable(blob), dtype=dtype)


def writable(blob: Blob) -> bytearray | memoryview:
    """Return a blob's own memory where that may be written to, else a copy: torch has no read-only tensors."""
    data = blob.data
    return bytearray(data) if isinstance(data, bytes) or (isinstance(data, memoryview) and data.readonly) else data

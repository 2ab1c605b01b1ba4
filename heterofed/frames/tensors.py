"""torch.Tensor <-> RawTensor: raw bytes with dtype and shape, without a copy where the memory allows."""

from __future__ import annotations

import sys

import torch

from heterofed.errors import EmbeddingError, FrameError
from heterofed.frames.messages import DTYPE_BYTES, Blob, RawTensor

if sys.byteorder != "little":  # pragma: no cover - no big-endian machine runs torch today
    raise ImportError("heterofed sends tensors as the little-endian bytes they are in memory")

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def pack(tensor: torch.Tensor) -> RawTensor:
    """Describe a tensor of shape (rows, width, …) for the wire.

    The bytes are a view of the tensor's own memory when it is contiguous and on the CPU: do not change it in place
    while it travels.

    Raises:
        EmbeddingError: its dtype may not cross, it has fewer than 2 dimensions, or it is empty.
    """
    name = DTYPE_NAMES.get(tensor.dtype)
    if name is None:
        raise EmbeddingError(f"a tensor of {tensor.dtype}", expected="one of " + ", ".join(DTYPE_BYTES))
    if tensor.dim() < 2 or tensor.numel() == 0:
        raise EmbeddingError(
            f"a tensor of shape {tuple(tensor.shape)}", expected="(rows, width, …) with at least one element"
        )
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    return RawTensor(name, tuple(tensor.shape), Blob(flat.view(torch.uint8).numpy().data))


def unpack(raw: RawTensor) -> torch.Tensor:
    """Return the tensor on the CPU; it shares the message's memory where that may be written to.

    Raises:
        FrameError: the parts contradict each other (cannot happen to a decoded message).
    """
    data = raw.data.data
    if memoryview(data).readonly:
        data = bytearray(data)  # torch has no read-only tensors
    try:
        return torch.frombuffer(data, dtype=TORCH_DTYPES[raw.dtype]).view(raw.shape)
    except (KeyError, ValueError, RuntimeError):
        raise FrameError(f"a tensor of {raw.dtype} {raw.shape} in {raw.data.nbytes} bytes") from None

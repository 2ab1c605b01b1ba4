"""A folder in torchvision's MNIST layout with a few random pictures, so that tests need no data and no network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def idx_bytes(values: Tensor) -> bytes:
    """Bytes as an idx file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + values.to(torch.uint8).numpy().tobytes()


def write_tiny_mnist(root: Path, train: int = 30, test: int = 10) -> None:
    """Write root/MNIST/raw/*-ubyte; the same pictures every time."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    for part, count in (("train", train), ("t10k", test)):
        images = torch.randint(256, (count, 28, 28), generator=random)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(torch.arange(count) % 10))

"""What the process does once that all workers of a benchmark are forked from: the slow imports."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn
from torch.optim import SGD

import heterofed

torch.set_num_threads(1)  # a thread that is running now would be missing in the processes forked from here
SGD(nn.Linear(1, 1).parameters(), lr=0.1)  # the first optimizer of a process imports what takes seconds
with suppress(ImportError):
    import torchvision.datasets  # noqa: F401 - reads MNIST

__all__ = ["heterofed"]

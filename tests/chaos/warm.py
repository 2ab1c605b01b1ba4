"""What the process does once that all parties of the chaos run are forked from: the slow imports."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

import tests.chaos.parties as parties

torch.set_num_threads(1)  # a thread that is running now would be missing in the processes forked from here
for make in (SGD, Adam):  # the first optimizer of a process imports what takes seconds
    StepLR(make(nn.Linear(1, 1).parameters(), lr=0.1), 1)

__all__ = ["parties"]

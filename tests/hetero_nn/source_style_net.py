"""The feature network that both source-style scripts use."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class HalfNet(nn.Module):
    """Half of a digit, (rows, 1, 28, 14) -> (rows, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, (5, 3))
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.drop = nn.Dropout2d()
        self.fc1 = nn.Linear(80, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.view(-1, 80))), training=self.training)
        out: Tensor = self.fc2(x)
        return out

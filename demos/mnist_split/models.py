"""The networks of the digits demo, and how each party trains its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from heterofed.errors import ConfigError

from .data import MEAN, STD

M = TypeVar("M", bound=nn.Module)

EMBEDDING_WIDTH = 10
"""Numbers in one party's embedding of one picture."""

HALF = 14
"""Width of the stripe that the network is made for, in pixels; a narrower one is filled up to it."""

_PAPER = (0 - MEAN) / STD  # an empty pixel, normalised


class ConvNet(nn.Module):
    """A party's feature model: its stripe of a picture, (rows, 1, 28, width) -> (rows, 10).

    Stripes narrower than 14 columns are filled up with empty paper at the right, so every party of three to nine has
    the same network as each party of two.

    Args:
        width: of the stripe, in pixels.
        dropout: False leaves dropout out; then nothing in the training is random but the first weights.
    """

    def __init__(self, width: int = HALF, dropout: bool = True) -> None:
        super().__init__()
        self.width = width
        share = 0.5 if dropout else 0.0
        self.conv1 = nn.Conv2d(in_channels=1, out_channels=10, kernel_size=(5, 3))
        self.conv2 = nn.Conv2d(in_channels=10, out_channels=20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d(share)
        # 28 x 14 -> conv1 24 x 12 -> pool 12 x 6 -> conv2 8 x 2 -> pool 4 x 1, in 20 channels: 80 numbers.
        columns = ((max(width, HALF) - 2) // 2 - 4) // 2
        self.fc1 = nn.Linear(in_features=20 * 4 * columns, out_features=50)
        self.fc1_drop = nn.Dropout(share)
        self.fc2 = nn.Linear(in_features=50, out_features=EMBEDDING_WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the embeddings of some pictures.

        Raises:
            ConfigError: the stripe has another width than the network.
        """
        if images.shape[-1] != self.width:
            raise ConfigError(f"a stripe of {images.shape[-1]} columns", expected=f"{self.width}, as the network has")
        x = functional.pad(images, (0, HALF - self.width), value=_PAPER) if self.width < HALF else images
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = functional.relu(self.fc1(x.flatten(start_dim=1)))
        embeddings: Tensor = self.fc2(self.fc1_drop(x))
        return embeddings


class InferModule(nn.Module):
    """The host's infer model: the fused embeddings, (rows, inputs) -> log-probabilities of the digits, (rows, 10)."""

    def __init__(self, inputs: int = 2 * EMBEDDING_WIDTH) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 10)

    def forward(self, fused: Tensor) -> Tensor:
        """Compute log-probabilities."""
        return functional.log_softmax(self.linear(fused), dim=-1)


def loss_of(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of a batch, a scalar."""
    return functional.nll_loss(log_probabilities, labels)


def host_feature_optimizer(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Return what trains the host's feature model."""
    return optim.SGD(parameters, lr=0.01, momentum=0.5)


def infer_optimizer(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Return what trains the infer model."""
    return optim.SGD(parameters, lr=0.01, momentum=0.1)


def collaborator_feature_optimizer(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Return what trains a collaborator's feature model."""
    return optim.SGD(parameters, lr=0.01, momentum=0.1)


def seeded(make: Callable[[], M], seed: int) -> M:
    """Build a model whose first weights depend on the seed alone; torch's random state stays as it was.

    Not while another thread draws from torch's random state: there is one for all threads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()

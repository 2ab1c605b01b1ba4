"""The same network in one process, with all the data in one place: what the federated run has to equal, bit for bit.

A federated run can be held against it if party *i* builds its model with `seeded(..., seed + i)`, the infer model is
built with `seeded(..., seed + 1000)`, and the rows of each round go in the order that is given here. Where there is
dropout, party *i* draws from a random stream of its own that starts as after `torch.manual_seed(seed + i)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .data import Digits, column_bounds, column_slice
from .models import (
    EMBEDDING_WIDTH,
    ConvNet,
    InferModule,
    collaborator_feature_optimizer,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
    seeded,
)

RowOrder = Callable[[int], Sequence[int]]
"""Round, counted from 1 -> the training rows in the order in which they are taken."""

INFER_SEED = 1000
"""Added to the seed for the infer model."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a training gave."""

    accuracies: tuple[float, ...]
    """After each round: the share of test pictures that were read rightly, 0 to 1."""

    losses: tuple[float, ...]
    """Of each round: the mean over its training pictures."""

    feature_models: tuple[ConvNet, ...]
    """One for each party, the host's first."""

    infer_model: InferModule


def train_unsplit(
    digits: Digits,
    *,
    rounds: int,
    batch_size: int,
    seed: int,
    parties: int = 2,
    dropout: bool = True,
    shuffle_order: RowOrder | None = None,
) -> Result:
    """Train on all stripes at once.

    Args:
        digits: what to train and test on.
        rounds: passes over the training pictures.
        batch_size: rows of one step; the last batch of a round may be smaller.
        seed: of all first weights (see the top of this page).
        parties: number of stripes.
        dropout: as in `ConvNet`.
        shuffle_order: the training rows of each round; by default as they come.
    """
    return _train(digits, range(parties), parties, rounds, batch_size, seed, dropout, shuffle_order)


def train_one_half(
    digits: Digits,
    *,
    rounds: int,
    batch_size: int,
    seed: int,
    parties: int = 2,
    dropout: bool = True,
    shuffle_order: RowOrder | None = None,
) -> Result:
    """Train the host alone, on its own stripe: what it could do without the others. Arguments as `train_unsplit`."""
    return _train(digits, range(1), parties, rounds, batch_size, seed, dropout, shuffle_order)


def _train(
    digits: Digits,
    members: range,
    parties: int,
    rounds: int,
    batch_size: int,
    seed: int,
    dropout: bool,
    shuffle_order: RowOrder | None,
) -> Result:
    stripes = [column_slice(digits.train_images, i, parties).contiguous() for i in members]
    test_stripes = [column_slice(digits.test_images, i, parties).contiguous() for i in members]
    widths = [end - first for first, end in (column_bounds(i, parties) for i in members)]
    models = [seeded(partial(ConvNet, widths[i], dropout), seed + i) for i in members]
    infer_model = seeded(partial(InferModule, EMBEDDING_WIDTH * len(members)), seed + INFER_SEED)
    optimizers = [
        (collaborator_feature_optimizer if i else host_feature_optimizer)(model.parameters())
        for i, model in enumerate(models)
    ] + [infer_optimizer(infer_model.parameters())]
    streams = [_RandomStream(seed + i) for i in members]

    accuracies, losses = [], []
    for round_number in range(1, rounds + 1):
        rows = torch.as_tensor(shuffle_order(round_number) if shuffle_order else range(len(digits.train_labels)))
        total = 0.0
        for batch in torch.split(rows, batch_size):
            embeddings = []
            for model, stripe, stream in zip(models, stripes, streams, strict=True):
                with stream.in_use():
                    embeddings.append(model(stripe[batch]))
            loss = loss_of(infer_model(torch.cat(embeddings, dim=1)), digits.train_labels[batch])
            for optimizer in optimizers:
                optimizer.zero_grad()
            torch.autograd.backward(loss)
            for optimizer in optimizers:
                optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(rows))
        accuracies.append(_accuracy(models, infer_model, test_stripes, digits.test_labels, batch_size))
    return Result(tuple(accuracies), tuple(losses), tuple(models), infer_model)


@torch.no_grad()
def _accuracy(
    models: Sequence[ConvNet], infer_model: InferModule, stripes: Sequence[Tensor], labels: Tensor, batch_size: int
) -> float:
    for model in models:
        model.eval()
    right = 0
    for batch in torch.split(torch.arange(len(labels)), batch_size):
        fused = torch.cat([model(stripe[batch]) for model, stripe in zip(models, stripes, strict=True)], dim=1)
        right += int((infer_model(fused).argmax(dim=1) == labels[batch]).sum())
    for model in models:
        model.train()
    return right / len(labels)


class _RandomStream:
    """torch's random state as one party's process would have it."""

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()

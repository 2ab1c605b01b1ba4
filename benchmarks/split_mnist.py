"""Split-MNIST as the benchmarks have it: data, networks, parties, and the bare work that a round asks for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn, optim

from demos.mnist_split.collaborator import DemoCollaborator
from demos.mnist_split.data import SIZE, Digits, column_slice, load_digits, sample_ids
from demos.mnist_split.host import DemoHost
from demos.mnist_split.models import (
    EMBEDDING_WIDTH,
    HALF,
    ConvNet,
    InferModule,
    collaborator_feature_optimizer,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
    seeded,
)
from demos.mnist_split.options import rows_of
from psi.bench_processes import hear, say

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Setup:
    """What every contender works on."""

    data_dir: str | None
    """As `load_digits` wants it; None: random pictures."""
    train: int
    test: int
    batch_size: int
    width: int
    """Numbers in an embedding."""

    def digits(self) -> Digits:
        """Load the pictures, or draw them."""
        if self.data_dir is not None:
            return load_digits(self.data_dir, train=self.train, test=self.test)
        drawn = torch.Generator().manual_seed(0)
        images = torch.randn(self.train + self.test, 1, SIZE, SIZE, generator=drawn)
        labels = torch.randint(10, (len(images),), generator=drawn)
        first = self.train
        return Digits(images[:first], labels[:first], images[first:], labels[first:], "random pictures", "")

    @property
    def batches(self) -> int:
        """Batches of a round."""
        return -(-self.train // self.batch_size)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tensors that have to cross in a round, both ways together."""
        return 2 * self.train * self.width * FLOAT_BYTES


# --- the networks and the parties -----------------------------------------------------------------------------------


def feature_model(width: int, seed: int) -> nn.Module:
    """The demo's feature model, with embeddings of another width if that is asked for."""
    model = seeded(partial(ConvNet, HALF), seed)
    if width != EMBEDDING_WIDTH:
        model.fc2 = seeded(partial(nn.Linear, model.fc2.in_features, width), seed)
    return model


class RoundHost(DemoHost):
    """The demo's host."""

    def __init__(self, setup: Setup, **kwargs: Any) -> None:
        super().__init__(setup.digits(), **kwargs)
        self.width = setup.width

    def make_feature_model(self) -> nn.Module:
        """Stripe -> embedding (rows, width)."""
        return feature_model(self.width, self.seed)

    def make_infer_model(self) -> nn.Module:
        """Both embeddings -> log-probabilities (rows, 10)."""
        return InferModule(2 * self.width)


class RoundCollaborator(DemoCollaborator):
    """The demo's collaborator."""

    def __init__(self, setup: Setup, **kwargs: Any) -> None:
        super().__init__(setup.digits(), **kwargs)
        self.width = setup.width

    def make_feature_model(self) -> nn.Module:
        """Stripe -> embedding (rows, width)."""
        return feature_model(self.width, self.seed + self.part)


def shuffled_ids(setup: Setup, digits: Digits) -> list[list[str]]:
    """Return the ids of a round's batches in a random order, the same everywhere."""
    ids = sample_ids(digits)[: setup.train]
    ids = [ids[place] for place in torch.randperm(len(ids), generator=torch.Generator().manual_seed(0)).tolist()]
    return [ids[at : at + setup.batch_size] for at in range(0, len(ids), setup.batch_size)]


# --- the floor ------------------------------------------------------------------------------------------------------


def work_alone(pipe: Connection, setup: Setup, is_host: bool) -> None:
    """One party's share of the work, without the other: the work of a worker. Says when each pass began and ended."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = setup.digits()
    images = column_slice(digits.train_images, 0 if is_host else 1, 2).contiguous()
    batches = shuffled_ids(setup, digits)
    ready = torch.randn(setup.batch_size, setup.width)
    model = feature_model(setup.width, 0)
    model.train()
    if is_host:
        one_pass = partial(_host_alone, model, digits.train_labels, 0.01 * ready)
    else:
        one_pass = partial(_collaborator_alone, model, 0.01 * ready)
    while hear(pipe):
        began = time.perf_counter()
        one_pass(images, batches, digits)
        say(pipe, began=began, ended=time.perf_counter())


def _collaborator_alone(
    model: nn.Module, gradient: Tensor, images: Tensor, batches: Sequence[list[str]], digits: Digits
) -> None:
    optimizer = collaborator_feature_optimizer(model.parameters())
    for ids in batches:
        embedding = model(images[rows_of(ids, digits)])
        optimizer.zero_grad()
        torch.autograd.backward(embedding, gradient[: len(ids)])
        optimizer.step()


def _host_alone(
    model: nn.Module, labels: Tensor, received: Tensor, images: Tensor, batches: Sequence[list[str]], digits: Digits
) -> None:
    infer = InferModule(2 * received.shape[1])
    optimizers = [infer_optimizer(infer.parameters()), host_feature_optimizer(model.parameters())]
    for ids in batches:
        rows = rows_of(ids, digits)
        inputs, truth = images[rows], labels[rows]
        leaf = received[: len(ids)].detach().requires_grad_()
        own = model(inputs)
        for each in optimizers:
            each.zero_grad()
        torch.autograd.backward(loss_of(infer(torch.cat([own, leaf], dim=1)), truth))
        for each in optimizers:
            each.step()


# --- the unsplit network --------------------------------------------------------------------------------------------


def work_unsplit(pipe: Connection, setup: Setup) -> None:
    """The whole network in one process: the work of a worker. It is told the number of threads."""
    torch.manual_seed(0)
    digits = setup.digits()
    stripes = [column_slice(digits.train_images, part, 2).contiguous() for part in range(2)]
    rows = torch.randperm(setup.train, generator=torch.Generator().manual_seed(0))
    models = [feature_model(setup.width, part) for part in range(2)]
    infer = InferModule(2 * setup.width)
    optimizers: list[optim.Optimizer] = [
        host_feature_optimizer(models[0].parameters()),
        collaborator_feature_optimizer(models[1].parameters()),
        infer_optimizer(infer.parameters()),
    ]
    while told := hear(pipe):
        torch.set_num_threads(told["threads"])
        began = time.perf_counter()
        for batch in torch.split(rows, setup.batch_size):
            fused = torch.cat([model(stripe[batch]) for model, stripe in zip(models, stripes, strict=True)], dim=1)
            loss = loss_of(infer(fused), digits.train_labels[batch])
            for each in optimizers:
                each.zero_grad()
            torch.autograd.backward(loss)
            for each in optimizers:
                each.step()
        say(pipe, seconds=time.perf_counter() - began)

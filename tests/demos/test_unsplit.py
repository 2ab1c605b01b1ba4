from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from demos.mnist_split.data import Digits, column_slice, load_digits
from demos.mnist_split.models import (
    ConvNet,
    InferModule,
    collaborator_feature_optimizer,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
    seeded,
)
from demos.mnist_split.unsplit import Result, train_one_half, train_unsplit
from tests.demos.tiny_mnist import write_tiny_mnist


@pytest.fixture
def digits(tmp_path: Path) -> Digits:
    write_tiny_mnist(tmp_path)
    return load_digits(str(tmp_path))


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def same_models(one: Result, other: Result) -> bool:
    pairs = zip((*one.feature_models, one.infer_model), (*other.feature_models, other.infer_model), strict=True)
    return all(same_bits(*pair) for pair in pairs)


def shuffled(round_number: int) -> list[int]:
    order: list[int] = torch.randperm(30, generator=torch.Generator().manual_seed(round_number)).tolist()
    return order


class SplitParty:
    """One party of a split run, with a random state of its own, as in its own process."""

    def __init__(self, index: int, parties: int, seed: int, digits: Digits) -> None:
        self.stripe = column_slice(digits.train_images, index, parties)
        self.model = seeded(partial(ConvNet, self.stripe.shape[3]), seed + index)
        make_optimizer = collaborator_feature_optimizer if index else host_feature_optimizer
        self.optimizer = make_optimizer(self.model.parameters())
        self.random_state = torch.Generator().manual_seed(seed + index).get_state()
        self.embedding = torch.empty(0)

    def forward(self, rows: Tensor) -> Tensor:
        torch.set_rng_state(self.random_state)
        self.embedding = self.model(self.stripe[rows])
        self.random_state = torch.get_rng_state()
        return self.embedding.detach().clone()

    def backward(self, gradient: Tensor | None) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(self.embedding, gradient)
        self.optimizer.step()


@pytest.mark.parametrize("parties", [2, 3])
def test_a_run_that_is_really_split_gives_the_same_bits(parties: int, digits: Digits) -> None:
    seed = 11
    members = [SplitParty(index, parties, seed, digits) for index in range(parties)]
    infer_model = seeded(lambda: InferModule(10 * parties), seed + 1000)
    optimizer = infer_optimizer(infer_model.parameters())
    for round_number in (1, 2):
        for rows in torch.split(torch.tensor(shuffled(round_number)), 8):
            leaves = [member.forward(rows).requires_grad_() for member in members]
            loss = loss_of(infer_model(torch.cat(leaves, dim=1)), digits.train_labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            for member, leaf in zip(members, leaves, strict=True):
                member.backward(leaf.grad)

    result = train_unsplit(digits, rounds=2, batch_size=8, seed=seed, parties=parties, shuffle_order=shuffled)
    assert same_bits(result.infer_model, infer_model)
    assert len(result.feature_models) == parties
    assert all(same_bits(a, b.model) for a, b in zip(result.feature_models, members, strict=True))


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(digits: Digits) -> None:
    run = partial(train_unsplit, digits, rounds=2, batch_size=8)
    state = torch.get_rng_state()
    one = run(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = run(seed=1), run(seed=2)
    assert same_models(one, again)
    assert (one.losses, one.accuracies) == (again.losses, again.accuracies)
    assert not same_models(one, other)


def test_rows_go_in_the_order_that_is_given_and_as_they_come_without_one(digits: Digits) -> None:
    run = partial(train_unsplit, digits, rounds=2, batch_size=8, seed=1, dropout=False)
    asked: list[int] = []

    def as_they_come(round_number: int) -> range:
        asked.append(round_number)
        return range(30)

    assert same_models(run(), run(shuffle_order=as_they_come))
    assert asked == [1, 2]
    assert not same_models(run(), run(shuffle_order=shuffled))


def test_dropout_can_be_left_out(digits: Digits) -> None:
    run = partial(train_unsplit, digits, rounds=1, batch_size=8, seed=1)
    assert not same_models(run(dropout=True), run(dropout=False))


def test_every_round_is_measured_in_test_mode_and_training_goes_on_in_train_mode(digits: Digits) -> None:
    result = train_unsplit(digits, rounds=3, batch_size=30, seed=1)
    assert len(result.accuracies) == len(result.losses) == 3
    assert all(0 <= accuracy <= 1 for accuracy in result.accuracies)
    assert all(model.training for model in result.feature_models)
    for model in result.feature_models:
        model.eval()
    with torch.no_grad():
        stripes = [column_slice(digits.test_images, i, 2) for i in range(2)]
        embeddings = [model(stripe) for model, stripe in zip(result.feature_models, stripes, strict=True)]
        answers = result.infer_model(torch.cat(embeddings, dim=1)).argmax(dim=1)
    assert result.accuracies[-1] == (answers == digits.test_labels).double().mean().item()


def test_one_half_is_the_host_alone_from_the_same_first_weights(digits: Digits) -> None:
    half = train_one_half(digits, rounds=1, batch_size=8, seed=1)
    assert len(half.feature_models) == 1
    assert half.infer_model.linear.in_features == 10
    blind = replace(digits, train_images=digits.train_images.clone())
    blind.train_images[..., 14:] = 0
    assert same_models(half, train_one_half(blind, rounds=1, batch_size=8, seed=1))
    first = train_one_half(digits, rounds=0, batch_size=8, seed=1)
    assert same_bits(first.feature_models[0], seeded(ConvNet, 1))


def test_it_learns() -> None:
    digits = load_digits("sklearn", train=200, test=100)
    result = train_unsplit(digits, rounds=25, batch_size=10, seed=0, dropout=False)
    assert result.losses[-1] < 0.5 * result.losses[0]
    assert result.accuracies[-1] > 0.6

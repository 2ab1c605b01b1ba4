from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from demos.mnist_split.data import column_slice
from demos.mnist_split.models import (
    ConvNet,
    InferModule,
    collaborator_feature_optimizer,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
    seeded,
)
from heterofed.errors import ConfigError


class PublishedNet(nn.Module):
    """The tutorial's network as its text describes it, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, (5, 3))
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.fc1 = nn.Linear(80, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(functional.dropout2d(self.conv2(x), 0.5, self.training), 2))
        x = functional.dropout(functional.relu(self.fc1(x.reshape(-1, 80))), 0.5, self.training)
        out: Tensor = self.fc2(x)
        return out


@pytest.mark.parametrize("training", [True, False])
def test_for_a_half_the_network_is_the_published_one_to_the_bit(training: bool) -> None:
    ours, published = seeded(ConvNet, 3).train(training), seeded(PublishedNet, 3).train(training)
    assert ours.state_dict().keys() == published.state_dict().keys()
    images = torch.randn(5, 1, 28, 14)
    torch.manual_seed(1)
    expected = published(images)
    torch.manual_seed(1)
    assert torch.equal(ours(images), expected)


def test_without_dropout_training_is_not_random() -> None:
    model = ConvNet(dropout=False).train()
    images = torch.randn(5, 1, 28, 14)
    before = torch.get_rng_state()
    assert torch.equal(model(images), model(images))
    assert torch.equal(torch.get_rng_state(), before)
    dropping = ConvNet().train()
    assert not torch.equal(dropping(images), dropping(images))


@pytest.mark.parametrize("parts", range(1, 10))
def test_every_stripe_of_one_to_nine_parties_has_a_network_that_learns_from_it(parts: int) -> None:
    images = torch.randn(2, 1, 28, 28)
    for part in range(parts):
        stripe = column_slice(images, part, parts).requires_grad_()
        model = seeded(partial(ConvNet, stripe.shape[3], dropout=False), 0)
        embeddings = model(stripe)
        assert embeddings.shape == (2, 10)
        embeddings.square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert stripe.grad is not None
        assert stripe.grad.abs().sum() > 0


def test_a_narrow_stripe_is_seen_as_on_empty_paper() -> None:
    narrow, half = seeded(lambda: ConvNet(4, dropout=False), 0), seeded(lambda: ConvNet(14, dropout=False), 0)
    stripe = torch.randn(2, 1, 28, 4)
    paper = torch.full((2, 1, 28, 10), (0 - 0.1307) / 0.3081)
    assert torch.equal(narrow(stripe), half(torch.cat([stripe, paper], dim=3)))


def test_a_stripe_of_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="a stripe of 13 columns; expected 14"):
        ConvNet()(torch.zeros(1, 1, 28, 13))


def test_the_infer_model_gives_log_probabilities_and_the_loss_their_mean() -> None:
    out = InferModule(20)(torch.randn(4, 20))
    assert torch.allclose(out.exp().sum(dim=1), torch.ones(4))
    labels = torch.tensor([0, 1, 2, 3])
    assert loss_of(out, labels).item() == pytest.approx(-out[torch.arange(4), labels].mean().item())
    assert InferModule().linear.in_features == 20


def test_first_weights_depend_on_the_seed_alone_and_the_random_state_stays() -> None:
    before = torch.get_rng_state()
    one = seeded(ConvNet, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    same, other = seeded(ConvNet, 5).state_dict(), seeded(ConvNet, 6).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fc1.weight"], other["fc1.weight"])


def test_each_optimizer_has_the_published_rate_and_momentum() -> None:
    model = nn.Linear(1, 1)
    makers = (host_feature_optimizer, infer_optimizer, collaborator_feature_optimizer)
    found = [make(model.parameters()).param_groups[0] for make in makers]
    assert [(group["lr"], group["momentum"]) for group in found] == [(0.01, 0.5), (0.01, 0.1), (0.01, 0.1)]

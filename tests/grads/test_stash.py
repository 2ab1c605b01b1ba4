"""A graph keeps the weights that it was made with, while the model's own move on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from heterofed.grads.stash import stashed_weights


class Tied(nn.Module):
    """Uses one weight twice, once turned around, and a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.bias = nn.Parameter(torch.randn(2, 6))

    def forward(self, rows: Tensor) -> Tensor:
        """Compute (rows, 6)."""
        return torch.tanh(self.one(rows) @ self.one.weight.t() + self.bias[1]) * self.bias[0]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6), nn.Softmax(1)),
    "normalised": lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.PReLU(), nn.LayerNorm(6)),
    "convolved": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(12, 6)
    ),
    "recurrent": lambda: nn.GRU(6, 6, batch_first=True),
    "tied": Tied,
}


def output_of(model: nn.Module, rows: Tensor) -> Tensor:
    out = model(rows.unsqueeze(1))[0].squeeze(1) if isinstance(model, nn.GRU) else model(rows)
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_the_gradient_is_that_of_the_weights_of_the_forward_pass(name: str, optimizer: type[Optimizer]) -> None:
    torch.manual_seed(0)
    model, rows, gradient = MODELS[name](), torch.randn(5, 6), torch.randn(5, 6)
    as_it_was = copy.deepcopy(model)
    with stashed_weights(model):
        embedding = output_of(model, rows)

    move(model, optimizer)
    model.zero_grad()
    embedding.backward(gradient)

    output_of(as_it_was, rows).backward(gradient)
    for (key, mine), theirs in zip(model.named_parameters(), as_it_was.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad), key
        assert not torch.equal(mine, theirs), "the weights moved"


def test_without_it_autograd_refuses_weights_that_have_changed() -> None:
    model = MODELS["linear"]()
    embedding = output_of(model, torch.randn(5, 6))
    move(model, SGD)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        embedding.backward(torch.randn(5, 6))


def move(model: nn.Module, optimizer: type[Optimizer]) -> None:
    for each in model.parameters():
        each.grad = torch.randn_like(each)
    optimizer(model.parameters(), lr=0.1).step()  # type: ignore[call-arg]  # those named here have a learning rate

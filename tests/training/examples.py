"""Small models and data that several tests of local training use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.training.context import Context
from heterofed.training.local import LocalConfig, LocalTrainer, RoutineConfig

ROUTINE_TRIGGERS = (
    "on_fit_start",
    "on_epoch_start",
    "on_batch_start",
    "on_batch_forward",
    "on_batch_exchange",
    "on_batch_backward",
    "on_optimizer_step",
    "on_batch_end",
    "on_epoch_end",
    "on_fit_end",
)


def rows(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return points of two classes that a line divides."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return {"x": x, "y": (x.sum(dim=1) > 0).long()}


def splits() -> dict[str, Any]:
    """Return 20 rows to train on, 6 to validate and 9 to test."""
    return {"train": rows(20), "val": rows(6, seed=1), "test": rows(9, seed=2)}


def network(seed: int = 0, *, dropout: float = 0.3) -> nn.Sequential:
    """Return a network with all that makes training and evaluation differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, 2))


def momentum(parameters: Any) -> torch.optim.Optimizer:
    """Return an optimizer with a memory."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def config(**changes: Any) -> LocalConfig:
    """Return: batches of 8 in the order of the rows, with momentum."""
    values: dict[str, Any] = {"train": RoutineConfig(optimizer=momentum), "batch_size": 8, "shuffle": False, "seed": 1}
    return LocalConfig(**{**values, **changes})


def trainer(model: nn.Module | None = None, data: Mapping[str, Any] | None = None, **changes: Any) -> LocalTrainer:
    """Return a trainer of `network` on `splits` with `config`."""
    return LocalTrainer(
        network() if model is None else model, splits() if data is None else data, config=config(**changes)
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all that a model holds, buffers too."""
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def chunks(data: Mapping[str, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches in the order of the rows."""
    yield from zip(data["x"].split(size), data["y"].split(size), strict=True)


def calls(of: LocalTrainer, register: str, **arguments: Any) -> list[str]:
    """Return a list that fills with the trigger's name at every trigger of a routine."""
    seen: list[str] = []

    def noting(name: str) -> Any:
        def note(ctx: Context) -> None:
            seen.append(name)

        return note

    for name in ROUTINE_TRIGGERS:
        getattr(of, register)(noting(name), name, **arguments)
    return seen


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: on rows this few, several only wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Trainers small enough to watch every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from heterofed.training.context import Context, CtxVar
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import ALL_TRIGGERS, LIFECYCLE, RUN_TRIGGERS


class Counting(Trainer):
    """Runs `per_round` batches a round, each an int, with a model that nobody trains."""

    def __init__(self, per_round: int = 2, **kwargs: Any) -> None:
        super().__init__({"only": nn.Linear(1, 1)}, {}, **kwargs)
        self.per_round = per_round

    def batches(self, epoch: int) -> Iterator[Any]:
        yield from range(self.per_round)


class Learning(Trainer):
    """Learns a sum of 4 numbers from batches that depend only on their number in the round."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        per_round: int = 5,
        lr: float = 0.1,
        models: int = 1,
        optimizer: type[Optimizer] = SGD,
    ) -> None:
        torch.manual_seed(3)
        made = {f"model{number}": nn.Linear(4, 1) for number in range(models)}
        options: dict[str, Any] = {"lr": lr, **({"momentum": 0.9} if optimizer is SGD else {})}
        steps = {name: optimizer(model.parameters(), **options) for name, model in made.items()}
        super().__init__(made, steps, checkpoint_folder=folder)
        self.per_round = per_round

    def batches(self, epoch: int) -> Iterator[Any]:
        for number in range(self.per_round):
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(number))

    def run_step(self) -> None:
        rows = self.ctx.data_batch
        predicted = sum(model(rows) for model in self.models.values())
        loss = (predicted - rows.sum(1, keepdim=True)).square().mean()
        self.ctx.loss_batch = CtxVar(loss, LIFECYCLE.BATCH)
        self.ctx.batch_size = CtxVar(len(rows), LIFECYCLE.BATCH)
        self.storage.put_scalar("loss", loss)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        self.before_optimizer_step()
        for optimizer in self.optimizers.values():
            optimizer.step()

    def weights(self) -> list[list[float]]:
        """Return every parameter, to compare bits."""
        return [each.flatten().tolist() for model in self.models.values() for each in model.parameters()]


def record(trainer: Trainer, seen: list[str]) -> None:
    """Let every trigger of every mode append its name; those of evaluation with a mark."""

    def noting(name: str) -> Callable[[Context], None]:
        return lambda ctx: seen.append(name)

    for trigger in ALL_TRIGGERS:
        trainer.register_hook_in_train(noting(trigger), trigger)
        if trigger not in RUN_TRIGGERS:
            trainer.register_hook_in_eval(noting(f"eval:{trigger}"), trigger)
            trainer.register_hook_in_ft(noting(f"ft:{trigger}"), trigger)

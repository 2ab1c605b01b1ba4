"""What a `LocalTrainer` can be told: how much each kind of routine trains, with which optimizer, on which batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from heterofed.checks import as_count
from heterofed.errors import ConfigError
from heterofed.metrics.calculator import MetricCalculator
from heterofed.training.context import Context
from heterofed.training.triggers import MODE


def sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return plain gradient descent with a learning rate of 0.1, the optimizer of a routine that names none."""
    return torch.optim.SGD(parameters, lr=0.1)


@dataclass(frozen=True, kw_only=True)
class RoutineConfig:
    """How much a routine of training or fine-tuning trains, and with what.

    Args:
        local_update_steps: so many passes over the rows, or so many steps of the optimizer.
        batch_or_epoch: the unit of that: "epoch" for passes, "batch" for steps.
        optimizer: takes the model's parameters and returns the optimizer.
        scheduler: takes the optimizer and returns a schedule of its learning rate; None: the rate stays.
        schedule_every: when the schedule steps: "batch", after each step of the optimizer, or "round", after a routine.
        fresh_optimizer: whether each routine starts with a new optimizer and schedule, as in FederatedScope, instead
            of going on with momentum and learning rate where the last routine left off.

    Raises:
        ConfigError: one of these cannot be.
    """

    local_update_steps: int = 1
    batch_or_epoch: Literal["batch", "epoch"] = "epoch"
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = sgd
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    schedule_every: Literal["batch", "round"] = "batch"
    fresh_optimizer: bool = False

    def __post_init__(self) -> None:
        as_count("local_update_steps", self.local_update_steps, 1)
        _one_of("batch_or_epoch", self.batch_or_epoch, ("batch", "epoch"))
        _one_of("schedule_every", self.schedule_every, ("batch", "round"))
        _callable("optimizer", self.optimizer)
        _callable("scheduler", self.scheduler, or_none=True)
        _flag("fresh_optimizer", self.fresh_optimizer)


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """How a `LocalTrainer` trains and evaluates.

    Args:
        train, finetune: what these two kinds of routine do; each has an optimizer of its own.
        batch_size: rows of a batch. A DataLoader that is given as data has its own.
        drop_last: whether a smaller batch at the end of a pass is left out, in evaluation too.
        shuffle: whether rows come in a new order in each pass of training or fine-tuning.
        seed: decides these orders; None: drawn once from torch's generator.
        criterion: takes what the model gives and the labels and returns the loss, a mean over the batch.
        regularizer: takes ctx and returns what is added to the loss, times `regularizer_mu`.
        grad_clip: largest norm of the gradients; below or equal to 0: any.
        grad_accum_count: batches whose mean gradient makes one step of the optimizer; `local_update_steps` of "batch"
            are steps, so many times as many batches.
        metrics: what is computed besides loss, avg_loss and total; names of `heterofed.metrics.calculator`.
        task: "classification" or "regression".
        local_param: parameters with one of these texts in their name stay here: they are neither sent nor updated.
        share_non_trainable_para: whether buffers and frozen parameters are sent and updated too.
        use_diff: whether train() evaluates "val" before and after, and adds val_total, val_avg_loss_before and
            val_avg_loss_after to its metrics.
        count_flops: whether to count the forward pass's operations: ctx.flops_per_sample and ctx.total_flops.
        data_para_device_ids: GPUs to spread each batch over.
        discharge: whether the model goes back to the CPU after each routine.

    Raises:
        ConfigError: one of these cannot be.
    """

    train: RoutineConfig = field(default_factory=RoutineConfig)
    finetune: RoutineConfig = field(default_factory=RoutineConfig)
    batch_size: int = 64
    drop_last: bool = False
    shuffle: bool = True
    seed: int | None = None
    criterion: Callable[[Any, Any], Tensor] = field(default_factory=nn.CrossEntropyLoss)
    regularizer: Callable[[Context], Tensor] | None = None
    regularizer_mu: float = 0.0
    grad_clip: float = -1.0
    grad_accum_count: int = 1
    metrics: tuple[str, ...] | str = ("acc",)
    task: str = "classification"
    local_param: tuple[str, ...] = ()
    share_non_trainable_para: bool = False
    use_diff: bool = False
    count_flops: bool = False
    data_para_device_ids: tuple[int, ...] = ()
    discharge: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "finetune"):
            if not isinstance(getattr(self, name), RoutineConfig):
                raise ConfigError(f"{name} is a {type(getattr(self, name)).__name__}", expected="a RoutineConfig")
        for each in fields(self):
            if each.type == "bool":
                _flag(each.name, getattr(self, each.name))
        as_count("batch_size", self.batch_size, 1)
        as_count("grad_accum_count", self.grad_accum_count, 1)
        if self.seed is not None:
            as_count("seed", self.seed, 0)
        _callable("criterion", self.criterion)
        _callable("regularizer", self.regularizer, or_none=True)
        if self.regularizer is not None and not self.regularizer_mu:
            raise ConfigError("there is a regularizer, but regularizer_mu is 0", expected="its weight, not 0")
        for name in ("regularizer_mu", "grad_clip"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int | float):
                raise ConfigError(f"{name} is {getattr(self, name)!r}", expected="a number")
        if isinstance(self.local_param, str) or not all(isinstance(each, str) and each for each in self.local_param):
            raise ConfigError("local_param is no tuple of texts", expected='for example ("bn", "head.")')
        MetricCalculator(self.metrics, task=self.task)  # knows which there are

    def routine(self, mode: str | None) -> RoutineConfig:
        """Return what a mode of learning does."""
        return self.finetune if mode == MODE.FINETUNE else self.train


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}", expected=" or ".join(f'"{each}"' for each in known))


def _callable(name: str, value: object, *, or_none: bool = False) -> None:
    if not callable(value) and not (or_none and value is None):
        raise ConfigError(f"{name} is a {type(value).__name__}", expected="a function" + " or None" * or_none)


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}", expected="True or False")

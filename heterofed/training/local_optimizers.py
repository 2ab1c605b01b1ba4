"""The optimizers of a local trainer: one for training and one for fine-tuning of each model, with their schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from heterofed.errors import ConfigError
from heterofed.training.local_config import LocalConfig
from heterofed.training.triggers import MODE


def name_in(mode: str, index: int) -> str:
    """Return under which name the optimizer of a model is kept; that of training has its model's name."""
    kind = "finetune" if mode == MODE.FINETUNE else "model"
    return kind if index == 0 else f"{kind}_{index}"


class RoutineOptimizers:
    """Makes and keeps them.

    Args:
        models: name -> model, named as `name_in` does.
        config: says what to make.

    Raises:
        ConfigError: they cannot be made for these models.
    """

    def __init__(self, models: Mapping[str, nn.Module], config: LocalConfig) -> None:
        self._models = list(models.values())
        self._config = config
        self.optimizers: dict[str, Optimizer] = {}
        self.schedulers: dict[str, LRScheduler | None] = {}

    def make_all(self) -> None:
        """Make them for every model."""
        for mode in MODE.LEARNING:
            for index in range(len(self._models)):
                self._make(mode, index)

    def of_training(self) -> list[Optimizer | None]:
        """Return that of training of each model."""
        return [self.optimizers.get(name_in(MODE.TRAIN, index)) for index in range(len(self._models))]

    def of_routine(self, mode: str, index: int, *, resumed: bool) -> tuple[Optimizer, LRScheduler | None]:
        """Return what a routine that begins, or is resumed, uses for a model: new ones if it is to have them."""
        name = name_in(mode, index)
        if name not in self.optimizers or (self._config.routine(mode).fresh_optimizer and not resumed):
            self._make(mode, index)
        _follow(self.optimizers[name])
        return self.optimizers[name], self.schedulers[name]

    def _make(self, mode: str, index: int) -> None:
        own, name = self._config.routine(mode), name_in(mode, index)
        optimizer = _made("optimizer", Optimizer, own.optimizer, self._models[index].parameters())
        scheduler = None if own.scheduler is None else _made("scheduler", LRScheduler, own.scheduler, optimizer)
        self.optimizers[name], self.schedulers[name] = optimizer, scheduler

    def schedules(self) -> dict[str, Any]:
        """Return the states of the schedules; those of the optimizers are a part of checkpoints themselves."""
        return {name: each.state_dict() for name, each in self.schedulers.items() if each is not None}

    def load_schedules(self, states: Mapping[str, Any]) -> None:
        """Take what `schedules` gave."""
        for name, state in states.items():
            scheduler = self.schedulers.get(name)
            if scheduler is not None:
                scheduler.load_state_dict(state)


def _made(what: str, kind: type[Any], make: Callable[[Any], Any], argument: Any) -> Any:
    try:
        made = make(argument)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the {what} of the configuration cannot be made: {error}") from error
    if not isinstance(made, kind):
        raise ConfigError(
            f"the {what} of the configuration gave a {type(made).__name__}", expected=f"a {kind.__name__}"
        )
    return made


def _follow(optimizer: Optimizer) -> None:
    """Put an optimizer's memory where its parameters are: a checkpoint may have been loaded before these moved."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.device != parameter.device:
                state[name] = value.to(parameter.device)

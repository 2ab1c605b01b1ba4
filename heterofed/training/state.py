"""What a checkpoint of a trainer holds, part by part: each part is one file of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heterofed.metrics.progress import logger
from heterofed.training.checkpoint import Group, Stateful
from heterofed.training.generators import RandomGenerators

if TYPE_CHECKING:
    from heterofed.training.trainer import Trainer


KEPT_VALUES = 100
"""How many values of each series a checkpoint keeps: enough for every median that a writer shows."""


def parts_of(trainer: Trainer) -> dict[str, Stateful]:
    """Return the parts in the order in which they are loaded.

    Schedules come before optimizers: to make one changes its optimizer's learning rate, which is then put right.
    """
    return {
        "model": Group(trainer.models),
        "lr_scheduler": HookStates(trainer, "lr_scheduler"),
        "optimizer": Group(trainer.optimizers),
        "trainer": Place(trainer),
        "rng": RandomGenerators(),
    }


class HookStates:
    """The states of those hooks that belong to one part.

    Args:
        trainer: whose hooks.
        part: `HookBase.part` of those hooks.
    """

    def __init__(self, trainer: Trainer, part: str) -> None:
        self._hooks = {name: hook for name, hook in trainer.hooks.items() if hook.part == part}

    def state_dict(self) -> dict[str, Any]:
        """Return name -> state of each hook that has any."""
        states = {name: hook.state_dict() for name, hook in self._hooks.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each hook its state; one that is not registered any more draws a warning."""
        for name, each in state.items():
            if name in self._hooks:
                self._hooks[name].load_state_dict(each)
            else:
                logger.warning("the checkpoint has a state of the hook %s, which is not registered now", name)


class Place:
    """Where in its run a trainer is, what it measured, and what its hooks remember."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._hooks = HookStates(trainer, "trainer")

    def state_dict(self) -> dict[str, Any]:
        """Return it in plain types."""
        trainer = self._trainer
        return {
            "iter": trainer.iter,
            "round": trainer.round,
            "done_in_routine": trainer.done_in_routine,
            "samples": trainer.storage.samples,
            "hooks": self._hooks.state_dict(),
            "storage": trainer.storage.state_dict(keep=KEPT_VALUES),
            "own": trainer.own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the trainer there."""
        trainer = self._trainer
        trainer.storage.load_state_dict(state["storage"])
        trainer.storage.samples = state["samples"]
        trainer.resume_at(iteration=state["iter"], round_=state["round"], done_in_routine=state["done_in_routine"])
        trainer.load_own_state(state["own"])
        self._hooks.load_state_dict(state["hooks"])

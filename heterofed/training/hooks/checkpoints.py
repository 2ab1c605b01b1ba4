"""Hooks that say when checkpoints are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from heterofed.errors import ConfigError
from heterofed.metrics.calculator import direction_of
from heterofed.metrics.progress import logger
from heterofed.training.hooks.cadence import Latest, PeriodicHook


class PeriodicCheckpointer(PeriodicHook):
    """Writes a checkpoint, model_0000019, after every so many batches or rounds, and model_final after a good end.

    Args:
        period: after how many; 0: only model_final.
        every: "batch" or "round".
        final: whether to write model_final. A run that has one is over and is not resumed.

    Raises:
        ConfigError: an argument is none of these; (when the run begins) the trainer has no folder for checkpoints.
    """

    def __init__(self, period: int = 1, every: str = "batch", final: bool = True) -> None:
        super().__init__(period, every)
        self._final = final

    def before_train(self) -> None:
        """Find out now whether there is a folder, rather than after an hour."""
        _ = self.trainer.checkpointer

    def act(self) -> None:
        """Ask for a checkpoint; it is written when all hooks are done."""
        self.trainer.request_checkpoint()

    def after_train(self) -> None:
        """Ask for the last one, unless the run failed."""
        if self._final and self.trainer.run_ok:
            self.trainer.request_checkpoint("model_final")


class BestCheckpointer(PeriodicHook):
    """Writes a checkpoint whenever a scalar is better than ever before. Register it after what measures the scalar.

    Only finite values count, each only once. The best value is part of every checkpoint, so a resumed run knows it.

    Args:
        metric: the scalar's name in the storage, for example "test_results/accuracy".
        mode: "max" or "min": what is better; by default what the metric's name tells, else "max".
        name: of the checkpoint.
        every: look at the scalar after each "batch" or "round", and once more at a good end.
        period: look only after every so many of them.

    Attributes:
        best: the best value, None before the first finite one.
        best_iteration: the batch it was measured at.
        improved: whether the last look found a better one.

    Raises:
        ConfigError: an argument is none of these; (when the run begins) the trainer has no folder for checkpoints.
    """

    def __init__(
        self, metric: str, mode: str | None = None, name: str = "model_best", every: str = "batch", period: int = 1
    ) -> None:
        super().__init__(period, every)
        if mode is None:
            mode = "min" if direction_of(metric) is False else "max"
        if mode not in ("max", "min"):
            raise ConfigError(f"mode is {mode!r}", expected='"max" or "min"')
        # Two of these may watch two scalars, but not write one checkpoint: that would be two hooks of one name.
        self.name = "BestCheckpointer" if name == "model_best" else f"BestCheckpointer({name})"
        self.best: float | None = None
        self.best_iteration: int | None = None
        self.improved = False
        self._mode = mode
        self._checkpoint = name
        self._latest = Latest(metric, self.name)

    def before_train(self) -> None:
        """Find out now whether there is a folder, rather than after the first test."""
        self.improved = False
        _ = self.trainer.checkpointer

    def act(self) -> None:
        """Look at the scalar; ask for a checkpoint if it is better."""
        self.improved = False
        new = self._latest.look(self.trainer.storage)
        if new is None or not math.isfinite(new[0]):
            return
        value, iteration = new
        if self.best is not None and not (value > self.best if self._mode == "max" else value < self.best):
            return
        before = "the first" if self.best is None else f"{self.best:.6g} before"
        logger.info("%s is %.6g, %s: %s", self._latest.metric, value, before, self._checkpoint)
        self.best, self.best_iteration, self.improved = value, iteration, True
        self.trainer.request_checkpoint(self._checkpoint, tag=False)

    def after_train(self) -> None:
        """Look at what was measured at the end of a good run."""
        if self.trainer.run_ok:
            self.act()

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and where it was."""
        return {"best": self.best, "best_iteration": self.best_iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.best, self.best_iteration = state["best"], state["best_iteration"]

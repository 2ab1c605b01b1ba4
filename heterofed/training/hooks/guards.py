"""Hooks that look after the numbers: none that is NaN or infinite, no gradient that is too large."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from heterofed.errors import ConfigError, TrainingDiverged
from heterofed.finite import all_finite
from heterofed.training.hooks.base import HookBase


class NaNGuard(HookBase):
    """Ends the run at the first batch whose loss or gradients are NaN or infinite.

    The gradients are looked at before the optimizer applies them, so the parameters are still good then.

    Args:
        parameters: look at the parameters after each batch too.
        gradients: look at the gradients before each step.
    """

    def __init__(self, parameters: bool = False, *, gradients: bool = True) -> None:
        self._parameters = parameters
        self._gradients = gradients

    def before_optimizer_step(self) -> None:
        """Look at the gradients.

        Raises:
            TrainingDiverged: one is not finite.
        """
        if self._gradients and not all_finite(
            each.grad for model in self.trainer.models.values() for each in model.parameters() if each.grad is not None
        ):
            self._diverged("a gradient")

    def after_step(self) -> None:
        """Look at the loss, `ctx.loss_batch`, if this trainer knows one.

        Raises:
            TrainingDiverged: it is not finite.
        """
        loss = self.trainer.ctx.get("loss_batch")
        if loss is not None and not (all_finite([loss]) if isinstance(loss, Tensor) else math.isfinite(loss)):
            self._diverged("the loss")
        if self._parameters and not all_finite(
            each for model in self.trainer.models.values() for each in model.parameters()
        ):
            self._diverged("a parameter")

    def _diverged(self, what: str) -> None:
        trainer = self.trainer
        raise TrainingDiverged(
            f"{what} is NaN or infinite in batch {trainer.ctx.get('cur_batch_i', 0)} of round {trainer.current_round} "
            f"(iteration {trainer.iter})",
            expected="finite numbers",
            advice="Lower the learning rate, clip gradients, or check the inputs and labels for NaN.",
        )


class GradientClipper(HookBase):
    """Limits the gradients of all models together before each step. Scalar: `grad_norm`, the norm before that.

    Args:
        max_norm: all gradients are scaled by one factor so that their norm is at most this; infinity only measures.
        norm_type: which norm; infinity for the largest absolute value.
        value: limit each element to [-value, value] after that.

    Raises:
        ConfigError: one of them is not above 0.
    """

    def __init__(self, max_norm: float, norm_type: float = 2.0, value: float | None = None) -> None:
        for name, number in (("max_norm", max_norm), ("norm_type", norm_type), ("value", value)):
            if number is not None and not number > 0:
                raise ConfigError(f"{name} is {number!r}", expected="a number above 0")
        self._max_norm = float(max_norm)
        self._norm_type = float(norm_type)
        self._value = value

    def before_optimizer_step(self) -> None:
        """Measure, record and clip."""
        trainer = self.trainer
        found = {
            id(each): each for model in trainer.models.values() for each in model.parameters() if each.grad is not None
        }  # by identity: what two models share counts once
        parameters = list(found.values())
        if not parameters:
            return
        norm = clip_grad_norm_(parameters, self._max_norm, self._norm_type)
        trainer.storage.put_scalar("grad_norm", norm)
        if self._value is not None:
            clip_grad_value_(parameters, self._value)

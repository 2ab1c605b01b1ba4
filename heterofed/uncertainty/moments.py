"""SWAG's moments: where the weights were after each round, as a normal distribution to draw weights from.

Source: Maddox et al., "A Simple Baseline for Bayesian Uncertainty in Deep Learning" (NeurIPS 2019), the diagonal form.
That one treats every weight by itself. So each party of a split network keeps the moments of its own part and draws
from them alone: with a shared seed the parties' draws belong together, and no weight ever leaves its party.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.checks import check_count
from heterofed.errors import ConfigError, DataError
from heterofed.training.hooks import HookBase


class SwagMoments:
    """The mean and the mean square of a model's parameters over several moments of its training.

    Both are kept as float64: the variance is a small difference of two large numbers.

    Attributes:
        collected: how often the weights were looked at.
        first: name of a parameter -> the mean of its values.
        second: name of a parameter -> the mean of their squares.
    """

    def __init__(self) -> None:
        self.collected = 0
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    def collect(self, model: nn.Module) -> None:
        """Add the weights of a model as they are now.

        Raises:
            ConfigError: it has other parameters than the model before.
        """
        now = {name: each.detach().double().cpu() for name, each in _weights(model).items()}
        if self.collected:
            self._check_fits(now)
        count = self.collected
        for name, value in now.items():
            square = value.square()
            self.first[name] = value if not count else (self.first[name] * count + value) / (count + 1)
            self.second[name] = square if not count else (self.second[name] * count + square) / (count + 1)
        self.collected += 1

    def std(self) -> dict[str, Tensor]:
        """Return name -> the standard deviation of each weight; 0 where rounding would make it imaginary."""
        return {name: (self.second[name] - first.square()).clamp(min=0.0).sqrt() for name, first in self.first.items()}

    def sample(self, seed: int, draw: int, part: str = "") -> dict[str, Tensor]:
        """Draw weights.

        Args:
            seed: shared by all parts of a network, so that the same call gives the same network again.
            draw: number of the prediction; each one has weights of its own.
            part: which part of a network this is, a party's feature key for example: two parts of one shape must not
                draw alike.

        Returns:
            name of a parameter -> float64 weights.

        Raises:
            ConfigError: nothing was collected.
        """
        if not self.collected:
            raise ConfigError("SWAG has no moments to draw from", expected="one round or more with SwagHook")
        generator = torch.Generator().manual_seed(seed_of(seed, draw, part))
        std = self.std()
        return {
            name: first + std[name] * torch.randn(first.shape, generator=generator, dtype=torch.float64)
            for name, first in sorted(self.first.items())
        }

    @contextmanager
    def drawn(self, model: nn.Module, seed: int, draw: int, part: str = "") -> Iterator[nn.Module]:
        """Let a model have drawn weights inside the body, and its own ones again afterwards.

        Its buffers (BatchNorm's statistics) stay those of the model.

        Raises:
            ConfigError: nothing was collected, or the model has other parameters.
        """
        drawn = self.sample(seed, draw, part)
        weights = _weights(model)
        self._check_fits(weights)
        before = {name: each.detach().clone() for name, each in weights.items()}
        try:
            _put(weights, drawn)
            yield model
        finally:
            _put(weights, before)

    def _check_fits(self, weights: Mapping[str, Tensor]) -> None:
        shapes = {name: each.shape for name, each in weights.items()}
        if shapes != {name: each.shape for name, each in self.first.items()}:
            raise ConfigError(
                "the moments of SWAG are those of other parameters", expected="the model that they were collected of"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"collected": self.collected, "first": dict(self.first), "second": dict(self.second)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave.

        Raises:
            DataError: it is not of that form; nothing has changed.
        """
        collected, first, second = state.get("collected"), state.get("first"), state.get("second")
        if not isinstance(collected, int) or not isinstance(first, Mapping) or not isinstance(second, Mapping):
            raise DataError("it holds no moments of SWAG", expected="what SwagMoments.state_dict() returns")
        if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
            raise DataError("the moments of SWAG do not fit each other", expected="what SwagMoments wrote")
        self.collected = collected
        self.first = {name: each.double() for name, each in first.items()}
        self.second = {name: each.double() for name, each in second.items()}


class SwagHook(HookBase):
    """Collects the moments of a trainer's models after each round, and keeps them in its checkpoints.

    At a party: `return [*super().build_hooks(), SwagHook(from_round=5)]`; afterwards `hook.moments["feature"]`, and at
    the host `hook.moments["infer"]` besides.

    Args:
        from_round: the first round to collect after: the weights should have come to rest by then.

    Attributes:
        moments: name of a model -> its moments.

    Raises:
        ConfigError: the round is below 1.
    """

    def __init__(self, from_round: int = 1) -> None:
        check_count("from_round", from_round, 1)
        self.from_round = from_round
        self.moments: dict[str, SwagMoments] = {}

    def before_train(self) -> None:
        """Forget a run before, unless this one goes on with it."""
        if self.trainer.iter == 0:
            self.moments = {}

    def after_round(self) -> None:
        """Collect."""
        if self.trainer.current_round < self.from_round:
            return
        for name, model in self.trainer.models.items():
            self.moments.setdefault(name, SwagMoments()).collect(model)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments."""
        # Never empty, or a run that goes back to its start would keep the moments of rounds that come again.
        return {"moments": {name: each.state_dict() for name, each in self.moments.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the moments of a checkpoint."""
        loaded: dict[str, SwagMoments] = {}
        for name, each in state["moments"].items():
            loaded[name] = SwagMoments()
            loaded[name].load_state_dict(each)
        self.moments = loaded


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in model.named_parameters() if each.is_floating_point()}


def _put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, each in weights.items():
            each.copy_(values[name])


def seed_of(seed: int, draw: int, part: str) -> int:
    """Return a seed of 63 bits in which neither the draw nor the part can be taken for another one.

    Raises:
        ConfigError: a number is below 0 or above 2^63 - 1.
    """
    if not 0 <= seed < 2**63 or not 0 <= draw < 2**63:
        raise ConfigError(f"the seed is {seed} and the draw {draw}", expected="0 to 2^63 - 1 both")
    digest = hashlib.sha256(struct.pack(">QQ", seed, draw) + part.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

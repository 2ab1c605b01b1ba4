"""The weighted mean of models of one architecture, and the mean of several models' outputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.errors import ConfigError


def weighted_mean(states: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """Return the weighted mean of state dicts; the given ones stay as they are.

    What is no floating-point or complex tensor (a counter of BatchNorm, an extra state) cannot be averaged and is
    taken from the state of the greatest weight, the first of equals. The sums are those of float64.

    Args:
        states: of models of one architecture.
        weights: one for each, 0 or more, for example how many samples it was trained on.

    Raises:
        ConfigError: there is no state, their names or shapes differ, or the weights cannot be.
    """
    if not states or len(states) != len(weights):
        raise ConfigError(f"{len(states)} models and {len(weights)} weights", expected="one weight for each model")
    if any(not math.isfinite(each) or each < 0 for each in weights) or not sum(weights) > 0:
        raise ConfigError(
            "the weights of the models cannot be averaged with", expected="numbers, 0 or more, not all of them 0"
        )
    first, total = states[0], float(sum(weights))
    for place, each in enumerate(states[1:], start=2):
        _check_alike(first, each, place)
    heaviest = states[max(range(len(weights)), key=lambda index: weights[index])]
    mean: dict[str, Any] = {}
    for name, value in first.items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            mean[name] = copy.deepcopy(heaviest[name])
            continue
        wide = torch.promote_types(value.dtype, torch.float64)
        added = torch.zeros_like(value, dtype=wide)
        for state, weight in zip(states, weights, strict=True):
            if weight:  # a model of weight 0 says nothing, also where it holds a NaN
                added.add_(state[name].detach().to(device=value.device, dtype=wide), alpha=float(weight) / total)
        mean[name] = added.to(value.dtype)
    return mean


def _check_alike(first: Mapping[str, Any], other: Mapping[str, Any], place: int) -> None:
    different = sorted(first.keys() ^ other.keys())
    if different:
        raise ConfigError(
            f"model {place} and the first one differ in {', '.join(different[:5])}",
            expected="models of one architecture",
        )
    for name, value in first.items():
        mine, theirs = getattr(value, "shape", None), getattr(other[name], "shape", None)
        if mine != theirs:
            raise ConfigError(
                f"{name} is {_shown(theirs)} in model {place} and {_shown(mine)} in the first",
                expected="models of one architecture",
            )


def _shown(shape: Any) -> str:
    return "no tensor" if shape is None else str(tuple(shape))


def aggregate(models: Sequence[nn.Module], sample_sizes: Sequence[float]) -> nn.Module:
    """Return a new model: the mean of models of one architecture, weighted by their samples. They stay as they are.

    Raises:
        ConfigError: as `weighted_mean`.
    """
    state = weighted_mean([each.state_dict() for each in models], sample_sizes)
    mean = copy.deepcopy(models[0])
    mean.load_state_dict(state)
    return mean


class MeanModel(nn.Module):
    """Gives the mean of several models' outputs.

    Args:
        models: one or more.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        if not models:
            raise ConfigError("an ensemble of no models", expected="one or more")
        self.models = nn.ModuleList(models)

    def forward(self, *inputs: Any) -> Tensor:
        """Return the mean of the outputs."""
        return torch.stack([each(*inputs) for each in self.models]).mean(dim=0)

"""What several predictions of the same rows say together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heterofed.errors import ConfigError

_ROUNDING = 1e-4
"""How far scores may be from 0 to 1, and their sum from 1, to count as probabilities: float32 and half precision."""


@dataclass(frozen=True)
class Spread:
    """How far several predictions of the same rows are apart. (rows, classes) or (rows,) each."""

    variance: Tensor
    """(rows, classes): mean squared distance from the mean of the predictions."""

    std: Tensor
    """(rows, classes): its root."""

    predictive_entropy: Tensor | None = None
    """(rows,) in nats: the entropy of the mean prediction, all there is to be unsure of. None: no probabilities."""

    expected_entropy: Tensor | None = None
    """(rows,) in nats: the mean entropy of the predictions, what more data would not take away."""

    mutual_info: Tensor | None = None
    """(rows,) in nats: the difference, what the models do not know; 0 where all of them agree."""

    def to_json(self) -> dict[str, object]:
        """Return plain lists and numbers; what is infinite or NaN becomes None, which JSON can hold."""
        return {name: None if each is None else _plain(each.tolist()) for name, each in vars(self).items()}


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def interpret(outputs: Tensor) -> Spread:
    """Say how far predictions are apart, and, where they are probabilities, what the models do not know.

    The entropies are those of Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning" (ICML 2018).

    Args:
        outputs: (N, rows, classes), N predictions of the same rows; one column of probabilities is that of two classes.

    Raises:
        ConfigError: it is not of this form, or there is no prediction.
    """
    if outputs.ndim != 3 or not outputs.shape[0] or not outputs.shape[2] or not outputs.is_floating_point():
        raise ConfigError(
            f"predictions of shape {tuple(outputs.shape)} and {outputs.dtype} cannot be interpreted",
            expected="floating-point numbers of shape (predictions, rows, classes)",
        )
    wide = outputs.detach().double()
    variance = wide.var(dim=0, correction=0)
    probabilities = _as_probabilities(wide)
    if probabilities is None:
        return Spread(variance, variance.sqrt())
    predictive = _entropy(probabilities.mean(dim=0))
    expected = _entropy(probabilities).mean(dim=0)
    # Jensen's inequality: never negative but for rounding.
    return Spread(variance, variance.sqrt(), predictive, expected, (predictive - expected).clamp(min=0.0))


def _as_probabilities(outputs: Tensor) -> Tensor | None:
    """Return (N, rows, two or more classes) of probabilities, or None where the outputs are none."""
    if not outputs.numel() or outputs.min() < -_ROUNDING or outputs.max() > 1 + _ROUNDING or outputs.isnan().any():
        return None
    inside = outputs.clamp(0.0, 1.0)
    if outputs.shape[2] == 1:
        return torch.cat([1 - inside, inside], dim=2)
    sums = inside.sum(dim=2, keepdim=True)
    if (sums - 1).abs().max() > _ROUNDING * outputs.shape[2]:
        return None  # several yes-or-no answers, say: an entropy over them would mean nothing
    return inside / sums


def _entropy(probabilities: Tensor) -> Tensor:
    summed: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return summed

"""Several predictions of the same rows: by dropout, by an ensemble, or with weights that SWAG draws."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from heterofed.checks import check_count
from heterofed.errors import ConfigError
from heterofed.training.evaluating import evaluating
from heterofed.uncertainty.moments import SwagMoments
from heterofed.uncertainty.spread import Spread, interpret

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""The layers that are switched on for predictions by dropout."""


class Uncertainty(ABC):
    """Makes N predictions of the same rows; the models are in evaluation mode and without gradients meanwhile.

    Args:
        models: one model, or name -> part of a split network.
        forward: turns inputs into scores with these models; by default the one model does.
        n: how many predictions.
        softmax: whether `forward` gives logits (rows, classes), to be made probabilities.

    Raises:
        ConfigError: `n` is below 1, there is no model, or there are several and no `forward`.
    """

    def __init__(
        self,
        models: nn.Module | Mapping[str, nn.Module],
        forward: Callable[[Any], Tensor] | None = None,
        *,
        n: int = 10,
        softmax: bool = False,
    ) -> None:
        check_count("n", n, 1)
        self.models = {"": models} if isinstance(models, nn.Module) else dict(models)
        if not self.models or (forward is None and len(self.models) > 1):
            raise ConfigError(
                f"{len(self.models)} models and no function that joins them",
                expected="one model, or forward=… that makes predictions with all of them",
            )
        self._forward = forward if forward is not None else next(iter(self.models.values()))
        self.n = n
        self.softmax = softmax

    def outputs(self, inputs: Any) -> Tensor:
        """Return all predictions, (N, rows, classes).

        Raises:
            ConfigError: a prediction has another shape than (rows, classes).
        """
        with torch.no_grad(), evaluating(self.models.values()):
            return torch.stack([self._scores(each) for each in self._each(inputs)])

    def prediction(self, inputs: Any) -> tuple[Tensor, Spread]:
        """Return the mean prediction, (rows, classes), and how far the single ones are apart.

        Raises:
            ConfigError: as `outputs`.
        """
        outputs = self.outputs(inputs)
        return outputs.mean(dim=0), interpret(outputs)

    @abstractmethod
    def _each(self, inputs: Any) -> Iterator[Tensor]:
        """Yield what the network gives, prediction by prediction."""

    def _scores(self, output: Tensor) -> Tensor:
        if output.ndim != 2:
            raise ConfigError(f"a prediction is of shape {tuple(output.shape)}", expected="(rows, classes)")
        return output.softmax(dim=1) if self.softmax else output


class NoUncertainty(Uncertainty):
    """One prediction."""

    def __init__(
        self,
        models: nn.Module | Mapping[str, nn.Module],
        forward: Callable[[Any], Tensor] | None = None,
        *,
        softmax: bool = False,
    ) -> None:
        super().__init__(models, forward, n=1, softmax=softmax)

    def _each(self, inputs: Any) -> Iterator[Tensor]:
        yield self._forward(inputs)


class MCDropout(Uncertainty):
    """N passes with dropout switched on.

    Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation" (ICML 2016).

    Args:
        models, forward, n, softmax: as in `Uncertainty`.
        seed: of the units that are dropped, so that the same call gives the same predictions; None: another every time.
            The generators of the process go on afterwards as if nothing had been drawn.

    Raises:
        ConfigError: as `Uncertainty`; or no model has a layer of dropout, so that all predictions would be equal.
    """

    def __init__(
        self,
        models: nn.Module | Mapping[str, nn.Module],
        forward: Callable[[Any], Tensor] | None = None,
        *,
        n: int = 10,
        softmax: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(models, forward, n=n, softmax=softmax)
        self._dropout = [
            layer for model in self.models.values() for layer in model.modules() if isinstance(layer, DROPOUT)
        ]
        if not any(layer.p > 0 for layer in self._dropout):
            raise ConfigError(
                "no model has dropout, so all predictions would be the same",
                expected="a layer of nn.Dropout with p > 0",
                advice="Train with dropout, or use an ensemble or SWAG.",
            )
        self._seed = seed

    def _each(self, inputs: Any) -> Iterator[Tensor]:
        for layer in self._dropout:
            layer.train()
        with torch.random.fork_rng():
            if self._seed is not None:
                torch.manual_seed(self._seed)
            else:
                torch.manual_seed(secrets.randbits(63))
            yield from [self._forward(inputs) for _ in range(self.n)]


class Ensemble(Uncertainty):
    """One prediction of each of several networks.

    Source: Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"
    (NeurIPS 2017).

    Args:
        members: the networks: models, or functions that turn inputs into scores with the models of `parts`.
        parts: the models that such functions use.
        softmax: as in `Uncertainty`.

    Raises:
        ConfigError: there is no member.
    """

    def __init__(
        self,
        members: Sequence[nn.Module | Callable[[Any], Tensor]],
        parts: Mapping[str, nn.Module] | None = None,
        *,
        softmax: bool = False,
    ) -> None:
        if not members:
            raise ConfigError("an ensemble of no networks", expected="one or more")
        own = {f"member {index}": each for index, each in enumerate(members) if isinstance(each, nn.Module)}
        super().__init__({**own, **(parts or {})} or nn.Identity(), members[0], n=len(members), softmax=softmax)
        self._members = tuple(members)

    def _each(self, inputs: Any) -> Iterator[Tensor]:
        for member in self._members:
            yield member(inputs)


class SWAG(Uncertainty):
    """N passes, each with weights drawn anew.

    Args:
        models, forward, n, softmax: as in `Uncertainty`.
        moments: of the one model, or name -> moments of that part; a part without moments keeps its weights.
        seed: shared by all parts; the same seed gives the same predictions.

    Raises:
        ConfigError: as `Uncertainty`; or no part has moments that differ, so that all predictions would be equal.
    """

    def __init__(
        self,
        models: nn.Module | Mapping[str, nn.Module],
        moments: SwagMoments | Mapping[str, SwagMoments],
        forward: Callable[[Any], Tensor] | None = None,
        *,
        seed: int,
        n: int = 10,
        softmax: bool = False,
    ) -> None:
        super().__init__(models, forward, n=n, softmax=softmax)
        self._moments = {"": moments} if isinstance(moments, SwagMoments) else dict(moments)
        unknown = sorted(self._moments.keys() - self.models.keys())
        if unknown:
            raise ConfigError(
                f"there are moments of {', '.join(map(repr, unknown))}", expected=f"of {', '.join(self.models)}"
            )
        if not any(each.any() for moments_ in self._moments.values() for each in moments_.std().values()):
            raise ConfigError(
                "the moments of SWAG do not spread, so all predictions would be the same",
                expected="the moments of two rounds or more, in which weights moved",
            )
        self._seed = seed

    def _each(self, inputs: Any) -> Iterator[Tensor]:
        for draw in range(self.n):
            with ExitStack() as drawn:
                for name, moments in self._moments.items():
                    drawn.enter_context(moments.drawn(self.models[name], self._seed, draw, name))
                yield self._forward(inputs)

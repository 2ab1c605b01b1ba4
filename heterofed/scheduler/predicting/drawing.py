"""A party's models as one draw has them, for the spread of predictions: other weights, or units that dropout drops.

The host names the draw, each party makes its own part of it. What a party draws depends on the seed, the number of the
draw, the party and its weights, and where units are dropped on the ids of the batch; on nothing that was asked before.
Its weights are in it so that the host cannot know what was drawn: an embedding under noise that one knows, asked for
again and again, tells of the rows what the embedding hides. Of Linear(n, k), say, each of the n features up to a scale.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from heterofed.errors import ConfigError
from heterofed.frames.messages import Draw
from heterofed.grads.cut_layer import device_of
from heterofed.training.devices import portable
from heterofed.uncertainty import SwagMoments
from heterofed.uncertainty.moments import seed_of
from heterofed.uncertainty.predictions import DROPOUT

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

_ONE_AT_A_TIME = threading.Lock()
"""Dropout draws from the process's generators, which parties of one process share."""


class Drawing:
    """Lets a party's models be as a draw has them, and as they were again afterwards.

    Args:
        party: whose.
        moments: gives what its run has collected, by the name of the model; called when it is first wanted.
    """

    def __init__(self, party: Scheduler, moments: Callable[[], Mapping[str, SwagMoments]]) -> None:
        self._party = party
        self._find_moments = moments
        self._moments: Mapping[str, SwagMoments] | None = None
        self._parts: dict[str, str] = {}

    def check(self, draw: Draw | None) -> None:
        """Check that this party can make a draw.

        Raises:
            ConfigError: it has no moments to draw weights from.
        """
        if draw is None or draw.method != "swag":
            return
        if self._moments is None:
            self._moments = self._find_moments()
        if missing := sorted(self._party._kept_models().keys() - self._moments.keys()):
            raise ConfigError(
                f"SWAG is asked for, but the run of {self._party.feature_key} has kept no moments of its "
                f"{' and '.join(missing)} model",
                party=self._party.feature_key,
                expected="moments at every party",
                advice="Train in a task that collects them: `heterofed task create --uncertainty swag`.",
            )

    @contextmanager
    def drawn(self, draw: Draw | None) -> Iterator[None]:
        """Let the models be as a draw has them inside the body; None: as they are.

        Raises:
            ConfigError: as `check`; or the moments are those of another model.
        """
        self.check(draw)
        models = self._party._kept_models()
        with ExitStack() as afterwards:
            if draw is not None:
                self._parts = self._parts or {name: part_of(self._called(name), each) for name, each in models.items()}
                if draw.method == "mc_dropout":
                    afterwards.enter_context(_dropping(list(models.values())))
                for name, moments in (self._moments or {}).items() if draw.method == "swag" else ():
                    afterwards.enter_context(moments.drawn(models[name], draw.seed, draw.number, self._parts[name]))
            yield

    def units(self, draw: Draw | None, name: str, ids: Sequence[str]) -> AbstractContextManager[None]:
        """Return the context of one model's forward pass over a batch, inside the body of `drawn`.

        Args:
            draw: the same.
            name: of the model: "feature" or "infer".
            ids: of the batch.
        """
        if draw is None or draw.method != "mc_dropout":
            return nullcontext()
        batch = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        seed = seed_of(draw.seed, draw.number, f"{self._parts[name]} {batch}")
        return _generators_at(seed, device_of(self._party._kept_models()[name]))

    def _called(self, name: str) -> str:
        return self._party.feature_key if name == "feature" else name


def part_of(name: str, model: nn.Module) -> str:
    """Return what a part of a network is called where it draws: its name and a digest of its weights.

    Args:
        name: the feature key of a feature model's party, or "infer".
        model: that part, with its own weights.
    """
    state = hashlib.sha256()
    for key, value in sorted(portable(model.state_dict()).items()):
        state.update(f"\n{key} ".encode())
        if isinstance(value, torch.Tensor):
            state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{name} {state.hexdigest()}"


@contextmanager
def _dropping(models: Sequence[nn.Module]) -> Iterator[None]:
    """Switch the layers of dropout on."""
    layers = [layer for model in models for layer in model.modules() if isinstance(layer, DROPOUT)]
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training


@contextmanager
def _generators_at(seed: int, device: torch.device) -> Iterator[None]:
    """Let the generators that dropout draws from begin with a seed; afterwards they go on as if nothing was drawn."""
    with _ONE_AT_A_TIME:
        generators = [torch.default_generator]
        if device.type == "cuda":
            generators.append(torch.cuda.default_generators[device.index])
        before = [each.get_state() for each in generators]
        try:
            for each in generators:
                each.manual_seed(seed)
            yield
        finally:
            for each, state in zip(generators, before, strict=True):
                each.set_state(state)

"""The default networks of table parties, and those that users name instead.

    feature model   inputs -> hidden -> … -> width, a ReLU behind each layer: the embedding
    infer model     all embeddings side by side -> top -> …, a ReLU behind each, -> outputs: what the loss takes

Weights are drawn from a seed, a party's name and a model's name, and from nothing else: the same three give the same
bits in any process. A seed that others can guess tells them the weights that a party begins with, from which its first
embedding says more about its rows than it should; so seeds are drawn from the system unless they are given.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from heterofed.checks import check_count
from heterofed.errors import ConfigError
from heterofed.named import find_callable

MakeModel: TypeAlias = Callable[[int], nn.Module]
"""Number of inputs -> feature model."""

NAMELESS = ""
"""In the place of the name of a function that has none by which it can be imported."""

HIDDEN = (32,)
WIDTH = 16
TOP = (16,)


def feature_layers(inputs: int, hidden: Sequence[int], width: int) -> nn.Module:
    """Return the default feature model: (rows, inputs) -> (rows, width)."""
    return nn.Sequential(*_layers([inputs, *hidden, width]))


def infer_layers(inputs: int, top: Sequence[int], outputs: int) -> nn.Module:
    """Return the default infer model: (rows, inputs) -> (rows, outputs)."""
    last = top[-1] if top else inputs
    return nn.Sequential(*_layers([inputs, *top]), nn.Linear(last, outputs))


def new_seed(seed: int | None) -> int:
    """Return a seed for weights: the given one, or one that nobody can guess.

    Raises:
        ConfigError: it is no whole number from 0 to 2**32 - 1.
    """
    check_count("seed", seed, 0, 2**32 - 1, or_none="a random one")
    return secrets.randbits(63) if seed is None else seed


def seeded(make: Callable[[], nn.Module], seed: int, party: str, name: str) -> nn.Module:
    """Return a model whose first weights depend on the last three arguments; torch's generator stays where it was."""
    digest = hashlib.blake2b(f"{seed}/{party}/{name}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)
        return make()


def width_of(model: nn.Module, inputs: int) -> int:
    """Return how many numbers a feature model gives for a row.

    Raises:
        ConfigError: it does not turn (rows, inputs) into (rows, width).
    """
    was_training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output: Any = model.eval()(torch.zeros(2, inputs, device=_device_of(model)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"the feature model does not take {inputs} numbers a row: {type(error).__name__}",
            expected="a torch.nn.Module that turns (rows, inputs) into (rows, width)",
        ) from error
    finally:
        model.train(was_training)
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != 2:
        raise ConfigError(
            f"the feature model gave {_form_of(output)} for 2 rows", expected="a tensor of shape (rows, width)"
        )
    return int(output.shape[1])


def maker_of(named: MakeModel | str | None) -> MakeModel | None:
    """Return the function that makes a user's feature model; a text "package.module:name" is imported.

    Raises:
        ConfigError: there is no such module or function.
    """
    if named is None or callable(named):
        return named
    return find_callable(named, expected="a function that returns a torch.nn.Module")


def name_of(make: MakeModel | str | None) -> str | None:
    """Return the text by which `maker_of` finds this very function in a later process.

    Returns:
        "package.module:name"; `NAMELESS` of what no such text finds, such as a lambda, a partial, a function inside of
        another one or one of the script that runs; None of None.
    """
    if make is None or isinstance(make, str):
        return make
    module, name = getattr(make, "__module__", None), getattr(make, "__qualname__", None)
    if not module or not name or module == "__main__":  # in a later process, that is another script
        return NAMELESS
    try:
        found = find_callable(f"{module}:{name}", expected="a function")
    except ConfigError:
        return NAMELESS
    return f"{module}:{name}" if found == make else NAMELESS  # two accesses to a class method are equal, no more


def check_sizes(**sizes: Sequence[int]) -> None:
    """Refuse layers that are no layers.

    Raises:
        ConfigError: a size is no whole number of 1 or more.
    """
    for name, given in sizes.items():
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ConfigError(f"{name} is {given!r}", expected="the sizes of layers, for example (32, 16)")
        for each in given:
            check_count(f"a layer of {name}", each, 1)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers


def _device_of(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _form_of(output: object) -> str:
    return f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__

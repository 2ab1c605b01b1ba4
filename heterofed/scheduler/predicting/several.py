"""Several predictions of the same rows at a host: which draws are made of them, and what they say together."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from heterofed.checks import check_count
from heterofed.errors import ConfigError
from heterofed.frames.messages import Draw, DrawMethod
from heterofed.metrics.progress import logger
from heterofed.uncertainty import Spread, interpret

ROWS_OF_A_DRAW = 2048
"""So many rows are asked for with one draw before the next draw; what is kept of them is one output for each draw."""

MOST_SEED = 2**63 - 1

Several: TypeAlias = tuple[Tensor, Spread]
"""The mean of the predictions, and how far they are apart."""


def choose_draws(method: DrawMethod, draws: int, seed: int | None) -> list[Draw]:
    """Return the draws that a user wants.

    Raises:
        ConfigError: an argument cannot work.
    """
    if method not in get_args(DrawMethod):
        raise ConfigError(
            f"the method is {method!r}",
            expected=" or ".join(map(repr, get_args(DrawMethod))),
            advice="An ensemble takes several runs: predict with each, and stack the predictions.",
        )
    check_count("draws", draws, 2)
    check_count("seed", seed, 0, MOST_SEED, or_none="another one every time")
    chosen = secrets.randbits(63) if seed is None else seed
    return [Draw(method, chosen, number) for number in range(draws)]


def checked_output(values: Any, rows: int) -> Tensor:
    """Return what `predict_a_batch` gave, if a spread can be said of it.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(values, Tensor) and values.is_floating_point() and values.ndim in (1, 2) and len(values) == rows:
        return values
    found = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
    raise ConfigError(
        f"predict_a_batch() gave {found} for {rows} rows",
        expected="a tensor of floating-point numbers, (rows,) or (rows, classes), for their spread",
    )


def say_together(outputs: Sequence[Tensor]) -> Several:
    """Return the mean of the predictions of some rows, and how far they are apart.

    Args:
        outputs: one for each draw, (rows,) or (rows, classes) each.
    """
    stacked = torch.stack(list(outputs))
    mean = stacked.double().mean(dim=0).to(stacked.dtype)  # that of equal numbers is that number
    return mean, interpret(stacked.unsqueeze(2) if stacked.ndim == 2 else stacked)


def warn_if_equal(outputs: Sequence[Sequence[Tensor]]) -> None:
    """Tell that all draws gave the same, which looks as if the network were sure.

    Args:
        outputs: for each batch one for each draw.
    """
    if all(torch.equal(batch[0], each) for batch in outputs for each in batch[1:]):
        logger.warning(
            "all predictions of the first rows are the same, so their spread is 0: no party has a layer of dropout "
            "with p > 0, or moments of two rounds or more in which weights moved"
        )

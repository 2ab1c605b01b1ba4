"""Models that evaluate for a while, and are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(models: Iterable[nn.Module]) -> Iterator[None]:
    """Let models evaluate inside the body; afterwards each of their parts is in the mode that it was in."""
    listed = list(models)
    before = [(part, part.training) for model in listed for part in model.modules()]
    try:
        for model in listed:
            model.eval()
        yield
    finally:
        for part, training in before:
            part.training = training

"""Graphs that outlive the weights they were made with.

Where several batches are in flight, an optimizer steps between a batch's forward and its backward pass. Autograd keeps
the parameters themselves for the backward pass and would refuse them once they have changed; here it keeps copies, so
that a gradient is that of the weights with which the embedding was made (weight stashing: Narayanan et al., PipeDream,
SOSP 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def stashed_weights(model: nn.Module) -> Iterator[None]:
    """Let graphs made in the body keep copies of this model's parameters where they need them.

    It costs the memory of the parameters for every graph. Everything else that a graph keeps stays as it is, so what it
    was made of must not change in place.
    """
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def pack(kept: Tensor) -> Tensor:
        return kept.detach().clone() if kept.untyped_storage().data_ptr() in own else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, _as_it_is):
        yield


def _as_it_is(kept: Tensor) -> Tensor:
    return kept

"""The host's `self.optimizer`: one handle on every optimizer of its side."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer


class OptimizerFacade:
    """Clears and applies the gradients of the infer model and then of the host's own feature model.

    The collaborators' optimizers are their own; they step when their gradient arrives.

    Args:
        optimizers: in the order in which they act.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = tuple(optimizers)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients of this side."""
        for each in self.optimizers:
            each.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Update all parameters of this side."""
        for each in self.optimizers:
            each.step()

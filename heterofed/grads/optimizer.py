"""The host's `self.optimizer`: one handle on every optimizer of its side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.optim import Optimizer


class OptimizerFacade:
    """Clears and applies the gradients of the infer model and then of the host's own feature model.

    The collaborators' optimizers are their own; they step when their gradient arrives.

    Args:
        optimizers: in the order in which they act.
        before_step: called before parameters change, when the gradients are there.

    Attributes:
        frozen: True in a round in which this side's models stay as they are; then `step` does nothing.
    """

    def __init__(self, optimizers: Sequence[Optimizer], before_step: Callable[[], object] = lambda: None) -> None:
        self.optimizers = tuple(optimizers)
        self.frozen = False
        self._before_step = before_step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients of this side."""
        for each in self.optimizers:
            each.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Update all parameters of this side."""
        if self.frozen:
            return
        self._before_step()
        for each in self.optimizers:
            each.step()

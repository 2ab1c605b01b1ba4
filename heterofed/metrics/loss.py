"""The loss that a round's progress shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from heterofed.errors import TrainingDiverged


@dataclass
class MeanLoss:
    """The mean of the losses that `train_a_batch` returned in a round, weighted by rows."""

    total: float = 0.0
    rows: int = 0
    last: float = math.nan
    """The loss added last; NaN before the first."""

    @property
    def value(self) -> float | None:
        """The mean; None before the first loss."""
        return self.total / self.rows if self.rows else None

    def add(self, loss: object, rows: int) -> bool:
        """Take the loss of a batch and return True; anything that is no single number is ignored: False.

        Raises:
            TrainingDiverged: it is NaN or infinite.
        """
        if isinstance(loss, Tensor) and loss.numel() == 1:
            loss = loss.item()
        if isinstance(loss, bool) or not isinstance(loss, int | float):
            return False
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss is {loss}",
                expected="a finite number",
                advice="Lower the learning rate, or check the inputs and labels for NaN.",
            )
        self.last = float(loss)
        self.total += loss * rows
        self.rows += rows
        return True

    def show(self, mean: float | None) -> None:
        """Take another party's word for the mean; None and what is no finite number change nothing."""
        if mean is not None and math.isfinite(mean):
            self.total, self.rows, self.last = mean, 1, mean

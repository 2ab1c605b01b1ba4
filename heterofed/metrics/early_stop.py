"""When to stop because a value, as a validation loss, does not get better any more."""

from __future__ import annotations

import math
import operator
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from heterofed.errors import ConfigError


class EarlyStop:
    """Says after each value whether it is time to stop.

    With mode "best", it is time once `patience` values in a row were no improvement on the best one so far. With mode
    "mean", it is time once a value is no improvement on the mean of the `patience` values before it. To improve means
    to be better by at least `delta`, so with delta 0 an equal value improves. A value that is NaN or infinite never
    does, and `patience` such values in a row are enough in either mode.

    Each answer is about the value just given: who goes on after a True hears False again when the values improve.

    Args:
        patience: as above; 0 switches it off, and the answer is always False.
        delta: at least 0, in the unit of the values.
        mode: "best" or "mean".
        larger_is_better: True for accuracies, False for losses.

    Raises:
        ConfigError: an argument is none of the above.
    """

    def __init__(
        self, patience: int = 5, delta: float = 0.0, mode: str = "best", larger_is_better: bool = False
    ) -> None:
        if not _is_count(patience):
            raise ConfigError(f"patience is {patience!r}", expected="a whole number, 0 to switch early stopping off")
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 <= delta < math.inf:
            raise ConfigError(f"delta is {delta!r}", expected="a finite number, at least 0")
        if mode not in ("best", "mean"):
            raise ConfigError(f"mode is {mode!r}", expected='"best" or "mean"')
        if not isinstance(larger_is_better, bool):
            raise ConfigError(
                f"larger_is_better is {larger_is_better!r}",
                expected="True or False",
                advice="Name a metric that has a better and a worse.",
            )
        self.patience = operator.index(patience)
        self.delta = float(delta)
        self.mode = mode
        self.larger_is_better = larger_is_better
        self.best: float | None = None
        """The value that last counted as the best, None before the first finite one."""
        self.without_improvement = 0
        """Values in a row that were no improvement."""
        self.stopped = False
        """The last answer of `track`."""
        self._before: deque[float] = deque(maxlen=self.patience)

    def track(self, value: Any) -> bool:
        """Take the next value and return whether to stop.

        Args:
            value: a number, or a tensor or array of one element.

        Raises:
            TypeError: it is none of these.
        """
        number = _number(value)
        reference = self.best if self.mode == "best" else self._mean()
        improved = math.isfinite(number) and (reference is None or self._improves(number, reference, self.delta))
        self.without_improvement = 0 if improved else self.without_improvement + 1
        stop = self.without_improvement >= self.patience
        if self.mode == "best":
            self.best = number if improved else self.best
        else:
            stop = stop or (reference is not None and not improved)
            if math.isfinite(number):  # a NaN among them would be the mean for as long as it stays
                self._before.append(number)
                if self.best is None or self._improves(number, self.best, 0.0):
                    self.best = number
        self.stopped = self.patience > 0 and stop
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here, as plain numbers and lists."""
        return {
            "best": self.best,
            "without_improvement": self.without_improvement,
            "stopped": self.stopped,
            "before": list(self._before),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. With a smaller patience than it was made with, the newest values are kept.

        Raises:
            ConfigError: it is no state of an EarlyStop; nothing has changed then.
        """
        try:
            best = None if state["best"] is None else float(state["best"])
            without = operator.index(state["without_improvement"])
            stopped = bool(state["stopped"])
            before = [float(value) for value in state["before"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "this is no state of an EarlyStop",
                expected="what its state_dict() returned",
                advice="Load a checkpoint that was saved with early stopping on.",
            ) from error
        self.best, self.without_improvement, self.stopped = best, without, stopped
        self._before = deque(before, maxlen=self.patience)

    def _improves(self, value: float, reference: float, delta: float) -> bool:
        return value >= reference + delta if self.larger_is_better else value <= reference - delta

    def _mean(self) -> float | None:
        """Return the mean of the last `patience` values, None before there are so many."""
        if self.patience == 0 or len(self._before) < self.patience:
            return None
        return statistics.mean(self._before)  # exact, so equal values are no worse than their mean


def _number(value: Any) -> float:
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (RuntimeError, ValueError) as error:  # torch's and numpy's word for more than one element
            raise TypeError(f"an early stop got a {type(value).__name__} of several elements") from error
    if isinstance(value, int | float):
        return float(value)
    raise TypeError(f"an early stop got {type(value).__name__}; it follows one number")


def _is_count(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= 0
    except TypeError:
        return False

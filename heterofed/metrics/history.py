"""One series of numbers and the batches they belong to, the newest of them kept."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from heterofed.errors import ConfigError


class HistoryBuffer:
    """The newest values of one series, 16 bytes each; appending takes the same short time at any length.

    Args:
        max_length: how many values are kept; the oldest go first.

    Raises:
        ConfigError: `max_length` is below 1.
    """

    __slots__ = ("_count", "_head", "_iterations", "_max_length", "_total", "_values")

    def __init__(self, max_length: int = 10_000) -> None:
        if max_length < 1:
            raise ConfigError(f"a history of {max_length} values", expected="a max_length of 1 or more")
        self._max_length = max_length
        self._values = array("d")
        self._iterations = array("q")
        self._head = 0  # once the ring is full: where the oldest value is, and the next one goes
        self._count = 0
        self._total = 0.0

    def update(self, value: float, iteration: int | None = None) -> None:
        """Append a value; without `iteration` it is numbered by how many came before it."""
        value = float(value)
        number = self._count if iteration is None else iteration
        values = self._values
        if len(values) < self._max_length:
            self._iterations.append(number)  # first: it may refuse, and then nothing is stored
            values.append(value)
        else:
            head = self._head
            self._iterations[head] = number
            values[head] = value
            self._head = (head + 1) % self._max_length
        self._count += 1
        self._total += value

    def __len__(self) -> int:
        return len(self._values)

    @property
    def count(self) -> int:
        """How many values ever came, those no longer kept included."""
        return self._count

    @property
    def latest_iteration(self) -> int:
        """The iteration of the newest value. Raises IndexError when there is none."""
        return self._iterations[self._newest_at()]

    def latest(self) -> float:
        """Return the newest value. Raises IndexError when there is none."""
        return self._values[self._newest_at()]

    def median(self, window_size: int) -> float:
        """Return the median of the newest `window_size` values, NaN if one of them is. Raises as `avg`."""
        window = sorted(self._window(window_size))
        if any(value != value for value in window):
            return float("nan")
        middle = len(window) // 2
        return window[middle] if len(window) % 2 else (window[middle - 1] + window[middle]) / 2

    def avg(self, window_size: int) -> float:
        """Return the mean of the newest `window_size` values.

        Raises:
            ConfigError: the window is below 1.
            IndexError: there is no value.
        """
        window = self._window(window_size)
        return sum(window) / len(window)

    def global_avg(self) -> float:
        """Return the mean of all values that ever came. Raises IndexError when there is none."""
        self._newest_at()
        return self._total / self._count

    def values(self) -> list[tuple[float, int]]:
        """Return what is kept as (value, iteration), oldest first."""
        return self.recent(len(self))

    def recent(self, number: int) -> list[tuple[float, int]]:
        """Return the newest `number` values, or all that are kept if these are fewer, oldest first."""
        return list(zip(self._tail(self._values, number), self._tail(self._iterations, number), strict=True))

    def state_dict(self, keep: int = 1000) -> dict[str, Any]:
        """Return the newest `keep` values, the count and the sum, as plain numbers and lists."""
        return {
            "values": self._tail(self._values, keep).tolist(),
            "iterations": self._tail(self._iterations, keep).tolist(),
            "count": self._count,
            "total": self._total,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` saw, as far as it fits."""
        self._values = array("d", state["values"][-self._max_length :])
        self._iterations = array("q", state["iterations"][-self._max_length :])
        self._head = 0
        self._count, self._total = state["count"], state["total"]

    def _newest_at(self) -> int:
        if not self._values:
            raise IndexError("this history holds no value yet")
        return self._head - 1  # -1, the last, while the ring is not full

    def _window(self, size: int) -> array[float]:
        if size < 1:
            raise ConfigError(f"a window of {size} values", expected="a window_size of 1 or more")
        self._newest_at()
        return self._tail(self._values, size)

    def _tail(self, column: array[Any], number: int) -> array[Any]:
        end = self._head or len(column)
        if number <= end:
            return column[end - number : end]
        return column[max(end, len(column) - (number - end)) :] + column[:end]

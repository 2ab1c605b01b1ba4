"""Where a run's measurements go: named series of numbers that writers, hooks and plots read.

    with EventStorage() as storage:
        for batch in batches:
            storage.iter = batch.number
            get_event_storage().put_scalar("loss", loss)      # from anywhere below this frame

Who measures does not know who shows: `put_*` on one side, `EventWriter` (writers.py) on the other. The interface is
that of LiBai's and detectron2's EventStorage.
"""

from __future__ import annotations

import bisect
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from heterofed.errors import ConfigError
from heterofed.metrics.history import HistoryBuffer

KEPT_PICTURES = 100
"""How many images, and how many histograms, wait for a writer; older ones are dropped."""

LINE_KEYS = frozenset({"iteration", "round"})
"""What every line of metrics.json says of itself; no scalar can have these names."""

_ACTIVE: ContextVar[tuple[EventStorage, ...]] = ContextVar("heterofed_event_storages", default=())


class StoredImage(NamedTuple):
    """A picture that waits for a writer."""

    name: str
    image: NDArray[Any]
    """(channels, height, width) or (height, width); uint8 from 0 to 255, or floats from 0 to 1."""
    iteration: int


class StoredHistogram(NamedTuple):
    """A distribution that waits for a writer: what of it is finite."""

    name: str
    counts: NDArray[np.int64]
    """(bins,) values in each bin."""
    edges: NDArray[np.float64]
    """(bins + 1,) borders of the bins, ascending."""
    total: float
    squares: float
    """Sum of the values, and of their squares."""
    iteration: int


class EventStorage:
    """All series of one party's run, and where the run is.

    As a context manager it becomes what `get_event_storage` returns, in this thread and context only.

    Args:
        start_iter: the iteration that the run begins with.
        reporter: feature key of the party that measures.
    """

    def __init__(self, start_iter: int = 0, reporter: str = "") -> None:
        self.reporter = reporter
        self.samples = 0
        """Rows trained so far."""
        self._iter = start_iter
        self._round = 0
        self._round_starts: list[int] = []  # the first iteration of each round that began, ascending
        self._round_numbers: list[int] = []  # and that round
        self._prefix = ""
        self._histories: dict[str, HistoryBuffer] = {}
        self._hints: dict[str, bool] = {}
        self._images: deque[StoredImage] = deque(maxlen=KEPT_PICTURES)
        self._histograms: deque[StoredHistogram] = deque(maxlen=KEPT_PICTURES)

    # -- where the run is --

    @property
    def iter(self) -> int:
        """Number of the batch that was last begun, from 0. Set it as the batch begins."""
        return self._iter

    @iter.setter
    def iter(self, number: int) -> None:
        self._iter = int(number)
        if not self._round_numbers or self._round_numbers[-1] != self._round:
            while self._round_starts and self._round_starts[-1] >= self._iter:
                self._round_starts.pop()
                self._round_numbers.pop()
            self._round_starts.append(self._iter)
            self._round_numbers.append(self._round)

    def step(self) -> None:
        """Begin the next iteration."""
        self.iter = self._iter + 1

    @property
    def round(self) -> int:
        """The current round, from 1; 0 before the first. It holds for the batches that begin after it was set."""
        return self._round

    @round.setter
    def round(self, number: int) -> None:
        self._round = int(number)
        if self._round_starts and self._round_starts[-1] == self._iter and self._round_numbers[-1] == 0:
            self._round_numbers[-1] = self._round  # the first batch was begun before anyone spoke of rounds

    def round_at(self, iteration: int) -> int:
        """Return the round that the batch `iteration` belongs to."""
        if not self._round_starts:
            return self._round
        return self._round_numbers[max(bisect.bisect_right(self._round_starts, iteration) - 1, 0)]

    # -- what is measured --

    def put_scalar(self, name: str, value: object, smoothing_hint: bool = True) -> None:
        """Append a number to the series `name` at the current iteration.

        Args:
            name: the series, below the open `name_scope`s.
            value: a number, a bool, or a tensor or array of one element. NaN and infinity are stored as they are.
            smoothing_hint: whether readers should show a median over the last values rather than the newest; the
                same at every call for one series.

        Raises:
            TypeError: `value` is none of these, or `name` is no string.
            ConfigError: the hint changed, or the name is one of LINE_KEYS or empty. Nothing is stored.
        """
        if self._prefix:
            name = self._prefix + name
        number = value if type(value) is float else _number(name, value)
        if self._hints.get(name) is not smoothing_hint:
            self._check(name, smoothing_hint)
            self._begin(name, smoothing_hint)
        self._histories[name].update(number, self._iter)

    def put_scalars(
        self, scalars: Mapping[str, object] | None = None, /, *, smoothing_hint: bool = True, **named: object
    ) -> None:
        """Append to several series, or to none of them when one is wrong.

        Args:
            scalars: for names that are no identifiers: `put_scalars({"test_results/accuracy": 0.9})`.
            smoothing_hint: as in `put_scalar`, for all of them.
            named: for those that are: `put_scalars(loss=0.3, lr=0.1)`.

        Raises:
            TypeError, ConfigError: as `put_scalar` does.
        """
        both = {**(scalars or {}), **named}
        numbers = {name: _number(self._prefix + name, value) for name, value in both.items()}
        for name in numbers:
            self._check(self._prefix + name, smoothing_hint)
        for name, number in numbers.items():
            self.put_scalar(name, number, smoothing_hint)

    def put_image(self, name: str, image: object) -> None:
        """Keep a copy of a picture for the next writer that shows pictures.

        Args:
            name: as in `put_scalar`.
            image: tensor or array, (channels, height, width) with 1, 3 or 4 channels, or (height, width); uint8 from 0
                to 255, or floats from 0 to 1.

        Raises:
            ConfigError: it has another shape.
        """
        name, pixels = self._prefix + name, _array(image)
        if pixels.ndim not in (2, 3) or pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[0] not in (1, 3, 4)):
            raise ConfigError(
                f"image {name!r} has shape {pixels.shape}",
                expected="(height, width), or (channels, height, width) with 1, 3 or 4 channels",
            )
        self._images.append(StoredImage(name, pixels, self._iter))

    def put_histogram(self, name: str, values: object, bins: int = 64) -> None:
        """Keep the distribution of a tensor's or array's values for the next writer that shows histograms.

        Values that are NaN or infinite are left out; nothing is kept when none is left.

        Raises:
            ConfigError: `bins` is below 1.
        """
        if bins < 1:
            raise ConfigError(f"histogram {self._prefix + name!r} with {bins} bins", expected="1 or more")
        numbers = _array(values).astype(np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            counts, edges = np.histogram(finite, bins=bins)
            with np.errstate(over="ignore"):
                sums = float(finite.sum()), float(np.square(finite).sum())
            kept = StoredHistogram(self._prefix + name, counts.astype(np.int64), edges, *sums, self._iter)
            self._histograms.append(kept)

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put "`name`/" before every name inside the `with` block; scopes nest: "outer/inner/loss"."""
        before = self._prefix
        self._prefix = f"{before}{name.rstrip('/')}/"
        try:
            yield
        finally:
            self._prefix = before

    # -- what was measured --

    def history(self, name: str) -> HistoryBuffer:
        """Return the series of this full name. Raises KeyError, which names those that exist."""
        history = self._histories.get(name)
        if history is None:
            raise KeyError(f"no scalar {name!r} was put; there are: {', '.join(sorted(self._histories)) or 'none'}")
        return history

    def histories(self) -> dict[str, HistoryBuffer]:
        """Return every series by name."""
        return dict(self._histories)

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return the newest (value, iteration) of every series."""
        return {name: (series.latest(), series.latest_iteration) for name, series in self._histories.items()}

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Return as `latest`, with the median of the last `window_size` values where the hint asks for it."""
        return {
            name: (series.median(window_size) if self._hints[name] else series.latest(), series.latest_iteration)
            for name, series in self._histories.items()
        }

    def smoothing_hints(self) -> dict[str, bool]:
        """Return the hint of every series."""
        return dict(self._hints)

    def round_of(self, name: str) -> int:
        """Return the round of the newest value of a series. Raises KeyError as `history`."""
        return self.round_at(self.history(name).latest_iteration)

    @property
    def images(self) -> list[StoredImage]:
        """The newest KEPT_PICTURES images that were not cleared, oldest first."""
        return list(self._images)

    @property
    def histograms(self) -> list[StoredHistogram]:
        """The newest KEPT_PICTURES histograms that were not cleared, oldest first."""
        return list(self._histograms)

    def clear_images(self) -> None:
        """Forget the images; whoever has shown them calls this."""
        self._images.clear()

    def clear_histograms(self) -> None:
        """Forget the histograms; whoever has shown them calls this."""
        self._histograms.clear()

    # -- checkpoints, and being the active one --

    def state_dict(self, keep: int = 1000) -> dict[str, Any]:
        """Return the position and the newest `keep` values of every series, as plain numbers, lists and dicts.

        Raises:
            ConfigError: `keep` is below 1.
        """
        if keep < 1:
            raise ConfigError(f"a state with {keep} values of each scalar", expected="1 or more")
        return {
            "iter": self._iter,
            "round": self._round,
            "samples": self.samples,
            "round_starts": self._round_starts[-keep:],
            "round_numbers": self._round_numbers[-keep:],
            "hints": dict(self._hints),
            "histories": {name: series.state_dict(keep) for name, series in self._histories.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` saw; what was put since is forgotten."""
        histories = {name: HistoryBuffer() for name in state["histories"]}
        for name, series in histories.items():
            series.load_state_dict(state["histories"][name])
        self._histories, self._hints = histories, {name: bool(state["hints"][name]) for name in histories}
        self._iter, self._round, self.samples = state["iter"], state["round"], state["samples"]
        self._round_starts, self._round_numbers = list(state["round_starts"]), list(state["round_numbers"])

    def __enter__(self) -> Self:
        _ACTIVE.set((*_ACTIVE.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        stack = _ACTIVE.get()
        if not stack or stack[-1] is not self:
            raise ConfigError(
                "an EventStorage was left that is not the one entered last in this thread",
                advice="Use `with EventStorage() as storage:`, and leave inner storages before outer ones.",
            )
        _ACTIVE.set(stack[:-1])

    def _check(self, name: str, smoothing_hint: bool) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a scalar is a string, not {type(name).__name__}")
        hint = self._hints.get(name)
        if hint is None and (not name or name in LINE_KEYS):
            raise ConfigError(
                f"{name!r} cannot name a scalar",
                advice=f"Choose another name than {' and '.join(sorted(LINE_KEYS))}: lines of metrics.json hold these.",
            )
        if hint is not None and hint is not bool(smoothing_hint):
            raise ConfigError(
                f"scalar {name!r} came with smoothing_hint={bool(smoothing_hint)}",
                expected=f"smoothing_hint={hint}, as at its first value",
            )

    def _begin(self, name: str, smoothing_hint: bool) -> None:
        if name not in self._histories:
            self._histories[name] = HistoryBuffer()
            self._hints[name] = bool(smoothing_hint)


def get_event_storage() -> EventStorage:
    """Return the innermost storage whose `with` block this code runs in.

    Raises:
        ConfigError: there is none in this thread and context.
    """
    storage = active_event_storage()
    if storage is None:
        raise ConfigError(
            "there is no EventStorage in this thread",
            advice="Call this inside `with EventStorage():`, as Trainer.train does; a new thread enters it on its own.",
        )
    return storage


def active_event_storage() -> EventStorage | None:
    """Return what `get_event_storage` does, or None where there is none."""
    stack = _ACTIVE.get()
    return stack[-1] if stack else None


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise TypeError(f"scalar {name!r} got an integer that is too large for a float") from None
    torch = sys.modules.get("torch")  # a tensor is here only if its library is; it takes seconds to load
    if torch is not None and isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(f"scalar {name!r} got a tensor of shape {tuple(value.shape)}; it holds one number")
        return _number(name, value.item())
    if isinstance(value, np.ndarray | np.generic):
        if value.size != 1:
            raise TypeError(f"scalar {name!r} got an array of shape {value.shape}; it holds one number")
        return _number(name, value.item())
    raise TypeError(f"scalar {name!r} got {type(value).__name__}; it holds numbers, or tensors and arrays of one")


def _array(values: Any) -> NDArray[Any]:
    """Return a copy of a tensor's or array's values that keeps no graph alive."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy has no bfloat16
    return np.array(values)

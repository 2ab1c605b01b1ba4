"""The batches of a test as `test()` gets them: two lists that fill themselves while they are read."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import index
from typing import Any, Generic, NoReturn, SupportsIndex, TypeVar, overload

import numpy as np
from torch import Tensor

from heterofed.errors import BatchesPassed

T = TypeVar("T")

TRIM_EVERY = 1 << 26
"""After how many bytes of embeddings memory goes back to the system."""


class BatchStream:
    """Runs batches of a test as they are asked for, and keeps those that have passed while they fit.

    Of its two lists the larger one is let go first, as a whole, and the other is kept as long as it fits alone: labels
    are small and mostly wanted once more at the end.

    Args:
        steps: runs a batch at each `next` and gives its embeddings, feature key -> (rows, width, …), and labels.
        batches: how many there are; None: that is known when the last one has passed.
        keep_bytes: how much to keep besides the batch at hand.
    """

    def __init__(self, steps: Iterator[tuple[dict[str, Tensor], Any]], batches: int | None, keep_bytes: int) -> None:
        self.batches = batches
        self.made = 0
        self._since_trim = 0
        self._steps: Iterator[tuple[dict[str, Tensor], Any]] | None = steps
        self._keep_bytes = keep_bytes
        self._columns: tuple[_Column, _Column] = (_Column(), _Column())

    @property
    def projections(self) -> StreamedBatches[dict[str, Tensor]]:
        """The embeddings of each batch."""
        return StreamedBatches(self, 0)

    @property
    def labels(self) -> StreamedBatches[Any]:
        """The labels of each batch."""
        return StreamedBatches(self, 1)

    def reach(self, batch: int | None) -> bool:
        """Run batches up to this one, or all of them; return whether it is there.

        Raises:
            BatchesPassed: the test is over, and it had not asked for this batch.
            Exception: what a batch raises.
        """
        while batch is None or batch >= self.made:
            if self._steps is None:
                if self.batches == self.made:
                    return False
                raise self._passed("was not asked for while test() ran", "lists that are read inside test()", "")
            try:
                pair = next(self._steps)
            except StopIteration:
                self.batches, self._steps = self.made, None
                return False
            self.made += 1
            for column, value in zip(self._columns, pair, strict=True):
                column.take(value)
            while sum(column.size for column in self._columns) > self._keep_bytes:
                max(self._columns, key=lambda column: column.size).let_go()
            self._since_trim += bytes_of(pair[0])
            if self._since_trim >= TRIM_EVERY:
                self._since_trim = 0
                _trim()
        return True

    def get(self, which: int, batch: int) -> Any:
        """Return what a batch that was reached has in one of the lists.

        Raises:
            BatchesPassed: it was not kept.
        """
        column = self._columns[which]
        if column.kept is not None:
            return column.kept[batch]
        if batch == self.made - 1:
            return column.at_hand
        raise self._passed(
            f"has passed and was not kept: they are more than {self._keep_bytes} bytes",
            "one pass over both lists, for projection, labels in zip(batched_feature_projections, batched_labels)",
            "Read each batch while it is at hand, or raise HETEROFED_TEST_KEEP_BYTES (test_keep_bytes).",
        )

    def count(self) -> int:
        """Return how many batches there are; if need be by running all of them."""
        if self.batches is None:
            self.reach(None)
        return self.made if self.batches is None else self.batches

    def end(self) -> None:
        """Run no batch any more, as the test is over; what is kept can still be read."""
        self._steps = None
        for column in self._columns:
            column.at_hand = None

    @staticmethod
    def _passed(what: str, expected: str, advice: str) -> BatchesPassed:
        return BatchesPassed(f"a batch of the test {what}", expected=expected, advice=advice or None)


class _Column:
    """What one of the two lists keeps."""

    def __init__(self) -> None:
        self.kept: list[Any] | None = []
        """From the first batch on; None once they were too much."""
        self.size = 0
        """Bytes of what is kept."""
        self.at_hand: Any = None

    def take(self, value: Any) -> None:
        """Take the next batch."""
        self.at_hand = value
        if self.kept is not None:
            self.kept.append(value)
            self.size += bytes_of(value)

    def let_go(self) -> None:
        """Keep nothing but the batch at hand."""
        self.kept, self.size = None, 0


class _Elsewhere:
    """Stands inside a `StreamedBatches` for its batches, so that torch asks where it would look for tensors."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, `torch.cat` for example, with the batches.

        Raises:
            TypeError: the batches were taken out of their list in a way that leaves them behind.
        """
        given = [*args, *(kwargs or {}).values()]
        if not any(isinstance(each, StreamedBatches) for each in given):
            raise TypeError("expected list(batches) of the batches of a test")
        named = {name: _as_list(each) for name, each in (kwargs or {}).items()}
        return function(*map(_as_list, args), **named)


def _as_list(value: Any) -> Any:
    return value.copy() if isinstance(value, StreamedBatches) else value


_ELSEWHERE = _Elsewhere()


class StreamedBatches(list[T], Generic[T]):
    """A list with one entry for each batch of a test, which is exchanged with the other parties when it is asked for.

    What reads a list reads it: loops, `zip`, `len`, indices, slices, `list`, `torch.cat`. Two of them that belong
    together, read in step, need no more memory than the batch at hand; batches that have passed can be read again as
    long as all of them take no more than `test_keep_bytes`. It cannot be changed.

    Args:
        stream: runs the batches.
        which: 0: their embeddings, 1: their labels.
    """

    __hash__ = None  # as of a list

    def __init__(self, stream: BatchStream, which: int) -> None:
        super().__init__([_ELSEWHERE])  # type: ignore[list-item]  # for code in C, which looks past our methods
        self._stream = stream
        self._which = which

    def __iter__(self) -> Iterator[T]:
        batch = 0
        while self._stream.reach(batch):
            yield self._stream.get(self._which, batch)
            batch += 1

    def __len__(self) -> int:
        return self._stream.count()

    def __bool__(self) -> bool:
        return self._stream.reach(0)

    @overload
    def __getitem__(self, key: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> list[T]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> T | list[T]:
        if isinstance(key, slice):
            return [self[batch] for batch in self._within(key)]
        batch = index(key)
        if batch < 0:
            batch += len(self)
        known = self._stream.batches
        if batch < 0 or (known is not None and batch >= known) or not self._stream.reach(batch):
            raise IndexError("the test has no such batch")
        found: T = self._stream.get(self._which, batch)
        return found

    def _within(self, key: slice) -> range:
        """Return the batches of a slice; those that it does not need to count with are not run."""
        bounds = [None if each is None else index(each) for each in (key.start, key.stop)]
        step = 1 if key.step is None else index(key.step)
        stop = bounds[1]
        if stop is None or step < 1 or any(each is not None and each < 0 for each in bounds):
            return range(*key.indices(len(self)))
        known = self._stream.batches
        if known is None and not self._stream.reach(stop - 1):
            known = self._stream.made
        return range(*key.indices(stop if known is None else known))

    def __reversed__(self) -> Iterator[T]:
        return reversed(self.copy())

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)

    def index(self, value: T, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize, /) -> int:
        """Return the place of a value, as `list.index`."""
        return self.copy().index(value, start, stop)

    def count(self, value: T, /) -> int:
        """Return how often a value is there, as `list.count`."""
        return self.copy().count(value)

    def copy(self) -> list[T]:
        """Return a list of all batches."""
        return list(iter(self))  # list(self) would ask for the length first, which may not be known yet

    def __eq__(self, other: object) -> bool:
        return bool(self.copy() == _as_list(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: list[T]) -> bool:
        return bool(self.copy() < _as_list(other))

    def __le__(self, other: list[T]) -> bool:
        return bool(self.copy() <= _as_list(other))

    def __gt__(self, other: list[T]) -> bool:
        return bool(self.copy() > _as_list(other))

    def __ge__(self, other: list[T]) -> bool:
        return bool(self.copy() >= _as_list(other))

    def __add__(self, other: Any) -> Any:
        mine = self.copy()
        return mine + _as_list(other)

    def __radd__(self, other: Any) -> Any:
        mine = self.copy()
        return other + mine

    def __mul__(self, times: SupportsIndex) -> list[T]:
        return self.copy() * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        known = self._stream.batches
        return f"<{self._stream.made} of {'?' if known is None else known} batches of a test so far>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (self.copy(),)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("the batches of a test cannot be changed; list(batches) makes a list that can")

    append = extend = insert = pop = remove = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


def _trim() -> None:
    """Give free memory back to the system, where the C library can.

    The little that is kept of each batch, labels or predictions, comes to lie where large tensors have been, and large
    ones do not fit there any more: a test of a million rows of width 64 took 90 to 560 MB so, and 30 to 170 with this.
    """
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if give_back is not None:
            give_back(0)


def kept(value: Any) -> Any:
    """Return a batch's embedding or labels as they stay when the user's code uses its memory again."""
    if isinstance(value, Tensor):
        return value.clone()
    return copy.deepcopy(value)


def bytes_of(value: Any) -> int:
    """Return about how much memory a batch takes: its tensors and arrays, and whatever else it is made of."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sys.getsizeof(value) + _sum(value.keys()) + _sum(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return sys.getsizeof(value) + _sum(value)
    return sys.getsizeof(value)


def _sum(values: Iterable[Any]) -> int:
    return sum(bytes_of(each) for each in values)

"""A party's local rows: how many there are in each split, how many batches that makes, and loaders that never end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from heterofed.checks import as_count
from heterofed.errors import ConfigError

USUAL_SPLITS = ("train", "val", "test")
"""The splits that `parse_data` always tells about, present or not."""

Batch = TypeVar("Batch", covariant=True)


class NoBatches(ConfigError, RuntimeError):
    """The rows that are there make no batch, so a loop over them would do nothing or never end."""


class BatchCounts(NamedTuple):
    """How a routine walks its rows: `epochs` passes of `per_epoch` batches, the last pass cut after `last_epoch`."""

    per_epoch: int
    last_epoch: int
    epochs: int
    total: int


def parse_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a context holds about each split: `{split}_data`, `{split}_loader` and `num_{split}_data`.

    Args:
        data: split name -> a Dataset, a DataLoader, a dict of arrays with the labels as "y" (and the inputs as "x"),
            or None. "train", "val" and "test" are told about in any case; other names are taken too.

    Returns:
        For each split: the data (None where a loader was given), the loader (None where data were given), and the
        number of rows of one pass, which for a loader with a sampler is the number that the sampler draws.

    Raises:
        TypeError: `data` is no mapping, or a split is none of the above.
        ConfigError: a split has no length, as an IterableDataset; "x" and "y" differ in length; or the names of two
            splits collide in the result.
    """
    if not isinstance(data, Mapping):
        raise TypeError(
            f"Type of data should be dict, not {type(data).__name__}: "
            'give {"train": ..., "test": ...} of Dataset, DataLoader or {"x": ..., "y": ...}.'
        )
    parsed: dict[str, Any] = {}
    for split in dict.fromkeys((*USUAL_SPLITS, *data)):
        if not isinstance(split, str) or not split:
            raise TypeError(f"the name of a split must be a non-empty string, not {split!r}")
        fields = {f"{split}_data": None, f"{split}_loader": None, f"num_{split}_data": 0}
        taken = sorted(fields.keys() & parsed.keys())
        if taken:
            raise ConfigError(
                f"the split {split!r} would overwrite {taken[0]!r} of another split", advice="Rename one of the two."
            )
        value = data.get(split)
        if value is not None:
            fields[f"{split}_loader" if isinstance(value, DataLoader) else f"{split}_data"] = value
            fields[f"num_{split}_data"] = _rows_of(split, value)
        parsed.update(fields)
    return parsed


def calculate_batch_epoch_num(
    steps: int, batch_or_epoch: str, num_data: int, batch_size: int, drop_last: bool
) -> BatchCounts:
    """Return how many batches and passes a training routine makes.

    Args:
        steps: how much to train, at least 1: so many passes, or so many batches.
        batch_or_epoch: the unit of `steps`, "batch" or "epoch".
        num_data: rows of one pass.
        batch_size: rows of a batch, at least 1.
        drop_last: whether a smaller batch at the end of a pass is left out.

    Returns:
        (batches of a pass, batches of the last pass, passes, batches in all). With "batch", a pass never has more
        batches than `steps`.

    Raises:
        NoBatches: (a RuntimeError) the rows make no batch.
        ConfigError: an argument is none of the above.
    """
    steps = as_count("steps", steps, 1)
    num_data = as_count("num_data", num_data, 0)
    batch_size = as_count("batch_size", batch_size, 1)
    if batch_or_epoch not in ("batch", "epoch"):
        raise ConfigError(f"batch_or_epoch is {batch_or_epoch!r}", expected='"batch" or "epoch"')
    if not isinstance(drop_last, bool):
        raise ConfigError(f"drop_last is {type(drop_last).__name__}", expected="True or False")

    per_epoch = num_data // batch_size + int(not drop_last and num_data % batch_size > 0)
    if per_epoch == 0:
        raise _no_batches(num_data, batch_size)
    if batch_or_epoch == "epoch":
        return BatchCounts(per_epoch, per_epoch, steps, steps * per_epoch)
    per_epoch = min(per_epoch, steps)
    epochs = -(-steps // per_epoch)
    return BatchCounts(per_epoch, steps % per_epoch or per_epoch, epochs, steps)


def loader_of(
    data: Dataset[Any] | Mapping[str, Any],
    batch_size: int,
    shuffle: bool = False,
    drop_last: bool = False,
    generator: torch.Generator | None = None,
) -> DataLoader[Any]:
    """Return a loader over a Dataset, or over {"x": inputs, "y": labels}, whose batches are then [x, y] tensors.

    Args:
        data: "x" and "y" are tensors, arrays or lists with one row per sample, copied only if they must be.
        batch_size: rows of a batch.
        shuffle: whether each pass has an order of its own.
        drop_last: whether a smaller batch at the end is left out.
        generator: draws the orders, so that they can be repeated; torch's global one by default.

    Raises:
        TypeError: `data` is neither, or "x" or "y" cannot become a tensor.
        ConfigError: "x" and "y" differ in length, an argument cannot work, or rows that come one by one (an
            IterableDataset) should be shuffled.
    """
    batch_size = as_count("batch_size", batch_size, 1)
    if isinstance(data, Mapping):
        _rows_of("data", data)
        return DataLoader(
            _Rows(_tensor(data, "x"), _tensor(data, "y")),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            generator=generator,
            collate_fn=_as_it_is,
        )
    if not isinstance(data, Dataset):
        raise TypeError(f'{type(data).__name__} is not supported: a loader is made of a Dataset or {{"x": …, "y": …}}.')
    if isinstance(data, IterableDataset) and shuffle:
        raise ConfigError(
            f"{type(data).__name__} gives its rows one by one and cannot be shuffled",
            advice="Leave out shuffle, or shuffle inside the dataset.",
        )
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, generator=generator)


class ReIterator(Generic[Batch]):
    """An iterator over a loader that starts again at its end, so that the loop decides when to stop.

    A pass begins at the first `next` of it and not before: making one, or `reset()`, draws no random numbers.

    Raises:
        ConfigError: `loader` can be read only once, as a generator.
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        if isinstance(loader, Iterator):
            raise ConfigError(
                f"a {type(loader).__name__} can be read only once",
                expected="something that can be read again and again, as a DataLoader or a list",
            )
        self.loader = loader
        self._pass: Iterator[Batch] | None = None

    def __iter__(self) -> ReIterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return the next batch, the first one again after the last.

        Raises:
            NoBatches: (a RuntimeError) the loader gives none at all.
        """
        if self._pass is not None:
            for batch in self._pass:
                return batch
        self._pass = iter(self.loader)
        for batch in self._pass:
            return batch
        raise NoBatches(
            f"The number of batch is 0: the {type(self.loader).__name__} gave nothing",
            advice="Check that its data are not empty, and batch_size and drop_last if it has these.",
        )

    def reset(self) -> None:
        """Begin a new pass with the next batch."""
        self._pass = None


class _Rows(Dataset[list[Tensor]]):
    """Inputs and labels by row. A whole batch is indexed at once, which is what makes loading a table quick."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.tensors = (x, y)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, row: int) -> list[Tensor]:
        return [tensor[row] for tensor in self.tensors]

    def __getitems__(self, rows: Sequence[int]) -> list[Tensor]:
        chosen = torch.as_tensor(rows)
        return [tensor[chosen] for tensor in self.tensors]


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


def _rows_of(split: str, value: object) -> int:
    """Return the rows that one pass over a split has."""
    if isinstance(value, DataLoader):
        # a sampler may draw fewer rows, or more, than the dataset has; behind a user's own batches it means nothing
        own_batches = value.batch_sampler is not None and type(value.batch_sampler) is not BatchSampler
        drawn = None if own_batches or isinstance(value.dataset, IterableDataset) else _length(value.sampler)
        rows = _length(value.dataset) if drawn is None else drawn
    elif isinstance(value, Mapping):
        if "y" not in value:
            raise TypeError(f'{split}: a dict of arrays needs the labels under "y"; it has {sorted(map(str, value))}.')
        rows = _sized(split, value, "y")
        if "x" in value and _sized(split, value, "x") != rows:
            raise ConfigError(
                f'{split}: "x" has {_sized(split, value, "x")} rows and "y" has {rows}', expected="one label per row"
            )
    elif isinstance(value, Dataset):
        rows = _length(value)
    else:
        raise TypeError(
            f"{split}: type {type(value).__name__} is not supported: "
            'give a Dataset, a DataLoader, a dict of arrays with "y", or None.'
        )
    if rows is None:
        inner = value.dataset if isinstance(value, DataLoader) else value
        raise ConfigError(
            f"{split}: {type(inner).__name__} has no length, so its batches cannot be counted",
            expected="a dataset that knows how many rows it has",
            advice="Give it a __len__, or use a map-style Dataset.",
        )
    return rows


def _length(thing: object) -> int | None:
    """Return its length, None where it has none; torch's IterableDataset says so with a TypeError of its own."""
    try:
        return len(thing) if isinstance(thing, Sized) else None
    except (TypeError, NotImplementedError):
        return None


def _sized(split: str, arrays: Mapping[str, Any], key: str) -> int:
    length = None if isinstance(arrays[key], str | bytes) else _length(arrays[key])
    if length is None:
        raise TypeError(f'{split}: "{key}" is {type(arrays[key]).__name__}; rows are an array, a tensor or a list.')
    return length


def _tensor(arrays: Mapping[str, Any], key: str) -> Tensor:
    if key not in arrays:
        raise TypeError(f'a dict of arrays needs "x" and "y"; it has {sorted(map(str, arrays))}.')
    given = arrays[key]
    if isinstance(given, Tensor):
        return given
    try:
        rows = np.ascontiguousarray(given)
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # torch warns of what is read-only
    except (TypeError, ValueError) as error:
        raise TypeError(
            f'"{key}" ({type(given).__name__}) cannot become a tensor: rows are numbers, equally many in each.'
        ) from error


def _no_batches(num_data: int, batch_size: int) -> NoBatches:
    if num_data == 0:
        return NoBatches("The number of batch is 0: there are no rows", advice="Give this split some data.")
    return NoBatches(
        f"The number of batch is 0: {num_data} rows do not fill one batch of {batch_size} and drop_last is set",
        advice=f"Set drop_last=False, or a batch_size of at most {num_data}.",
    )

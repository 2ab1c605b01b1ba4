"""Metric tables: a set of columns is declared on a method, filled row by row, and written as one CSV file.

    @register_metrics(name="test_results", keys=["loss", "accuracy"])      # declares; nothing happens yet
    def test(self, ...):
        self.get_metrics("test_results").append_metrics_item({"loss": loss, "accuracy": accuracy})

A cell is a plain Python value the moment it is stored, so a table keeps no tensor (and no graph behind it) alive.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import numpy as np

from heterofed.files import write_whole

Cell = int | float | str | bool | None
"""What a table holds in one row under one header."""

P = ParamSpec("P")
R = TypeVar("R")

_DECLARED = "__metric_sets__"
_UNSAFE_IN_FILE_NAMES = frozenset('/\\<>:"|?*')
_LONGEST_NAME = 100  # leaves room for ".csv" and a temporary suffix under the 255 bytes of most file systems


class MetricsTable:
    """Rows under fixed headers, in the order they were appended.

    Args:
        headers: the column names; any iterable of distinct, non-empty strings, but not one string.

    Raises:
        TypeError: `headers` is a string, is not iterable, or holds something that is not a string.
        ValueError: there is no header, one is empty, or one comes twice.
    """

    def __init__(self, headers: Iterable[str]) -> None:
        if isinstance(headers, str | bytes) or not isinstance(headers, Iterable):
            raise TypeError(f"headers must be an iterable of strings, not {type(headers).__name__}")
        self._headers = tuple(headers)
        for header in self._headers:
            if not isinstance(header, str):
                raise TypeError(f"a header must be a string, not {type(header).__name__}")
        _check_distinct("headers", self._headers)
        self._rows: list[tuple[Cell, ...]] = []
        self._also: Callable[[str, int | float], object] = lambda header, value: None
        self._told: Callable[[int, dict[str, Cell]], object] = lambda row, values: None

    def report_to(self, take: Callable[[str, int | float], object]) -> None:
        """Have every number that is appended from now on given to `take` too, with its header."""
        self._also = take

    def tell(self, take: Callable[[int, dict[str, Cell]], object]) -> None:
        """Have every row that is appended from now on given to `take` too, with its place from 0."""
        self._told = take

    @property
    def headers(self) -> tuple[str, ...]:
        """The column names, in the order of the CSV file."""
        return self._headers

    def append_metrics_item(self, item: Mapping[str, object]) -> None:
        """Append one row.

        Args:
            item: exactly the headers, each with a number, a string, a bool, None, or a tensor or array of one element.

        Raises:
            TypeError: a header is missing, a key is unexpected, or a value is none of these. The table is unchanged.
        """
        self._append([self._row(item)])

    def append_metrics_list(self, items: Iterable[Mapping[str, object]]) -> None:
        """Append several rows, or none of them when one is wrong.

        Raises:
            TypeError: as `append_metrics_item` says, for any of the rows.
        """
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
            raise TypeError(f"items must be an iterable of mappings, not {type(items).__name__}")
        self._append([self._row(item) for item in items])

    def _append(self, rows: list[tuple[Cell, ...]]) -> None:
        first = len(self._rows)
        self._rows.extend(rows)
        for place, row in enumerate(rows, start=first):
            self._told(place, dict(zip(self._headers, row, strict=True)))
        for row in rows:
            for header, value in zip(self._headers, row, strict=True):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._also(header, value)

    def trace(self) -> Iterator[dict[str, Cell]]:
        """Yield each row as a new dict of Python values."""
        for row in tuple(self._rows):
            yield dict(zip(self._headers, row, strict=True))

    def rows(self) -> list[list[Cell]]:
        """Return all rows as lists of cells, in the order of the headers: what a checkpoint keeps."""
        return [list(row) for row in self._rows]

    def replace_rows(self, rows: Iterable[Iterable[Cell]]) -> None:
        """Put rows in the place of all that are there; nobody else is told of them.

        Raises:
            TypeError: a row has another number of cells than there are headers. The table is unchanged.
        """
        taken = [tuple(row) for row in rows]
        if any(len(row) != len(self._headers) for row in taken):
            raise TypeError(f"every row must have {len(self._headers)} cells, one for each header")
        self._rows = taken

    def __len__(self) -> int:
        return len(self._rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the header and every row as UTF-8 CSV, whole or not at all; None becomes an empty cell.

        Raises:
            OutputError: the file cannot be written; what was there before is untouched.
        """

        def fill(file: BinaryIO) -> None:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(self._headers)
            writer.writerows(self._rows)
            text.flush()
            text.detach()  # the file is closed by who opened it

        write_whole(Path(path), fill)

    def _row(self, item: Mapping[str, object]) -> tuple[Cell, ...]:
        if not isinstance(item, Mapping):
            raise TypeError(f"a row must be a mapping, not {type(item).__name__}")
        missing = [header for header in self._headers if header not in item]
        unexpected = [key for key in item if key not in self._headers]
        if missing or unexpected:
            faults = [f"missing {missing}"] * bool(missing) + [f"unexpected {unexpected}"] * bool(unexpected)
            raise TypeError(f"a row has exactly the headers {list(self._headers)}: {', '.join(faults)}")
        return tuple(_cell(header, item[header]) for header in self._headers)


def register_metrics(name: str, keys: Iterable[str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a set of metrics on a method of a scheduler; may be stacked, one decorator for each set.

    The declaration is read with `declared_metrics` when a scheduler is made, so `get_metrics(name)` works at once.

    Args:
        name: name of the set, which is also the name of its CSV file.
        keys: the columns.

    Raises:
        ValueError: `name` is no safe file name, `keys` are not distinct non-empty strings, or the method has
            already declared other keys under this name.
        RuntimeError: (when the method is called) its first argument has no `get_metrics`.
    """
    _check_set_name(name)
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise ValueError(f"metric set {name!r}: keys must be an iterable of strings, not {type(keys).__name__}")
    columns = tuple(keys)
    if not all(isinstance(column, str) for column in columns):
        raise ValueError(f"metric set {name!r}: every key must be a string")
    _check_distinct(f"keys of metric set {name!r}", columns)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if not callable(function):
            raise TypeError("register_metrics decorates a method; put it below @classmethod and the like")
        declared = dict(getattr(function, _DECLARED, {}))
        _declare(declared, name, columns, where=getattr(function, "__qualname__", repr(function)))

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if not args or not hasattr(args[0], "get_metrics"):
                raise RuntimeError(
                    f"{getattr(function, '__qualname__', function)} declares the metric set {name!r}, but was not "
                    "called on a scheduler: its first argument has no get_metrics()"
                )
            return function(*args, **kwargs)

        setattr(checked, _DECLARED, declared)
        return checked

    return decorate


def declared_metrics(cls: type) -> dict[str, tuple[str, ...]]:
    """Collect what the methods of a class and of its bases declare: name of the set -> its keys.

    A subclass that overrides a method without the decorator keeps the declaration of its base; one that declares
    the same name again replaces it.

    Raises:
        ValueError: two methods of one class declare the same name with different keys.
    """
    collected: dict[str, tuple[str, ...]] = {}
    for owner in reversed(cls.__mro__):
        own: dict[str, tuple[str, ...]] = {}
        for member in vars(owner).values():
            function = getattr(member, "__func__", member)  # inside a classmethod or staticmethod
            for name, keys in getattr(function, _DECLARED, {}).items():
                _declare(own, name, keys, where=owner.__qualname__)
        collected.update(own)
    return collected


def _declare(sets: dict[str, tuple[str, ...]], name: str, keys: tuple[str, ...], *, where: str) -> None:
    if sets.setdefault(name, keys) != keys:
        raise ValueError(
            f"{where} declares the metric set {name!r} twice with different keys: {list(sets[name])} and {list(keys)}"
        )


def _check_set_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError("the name of a metric set must be a non-empty string")
    unsafe = _UNSAFE_IN_FILE_NAMES.intersection(name) or name[0] == "." or name[-1] in ". " or name != name.strip()
    if unsafe or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"{name[:_LONGEST_NAME]!r} cannot name a metric set: it becomes a file name, so at most {_LONGEST_NAME} "
            'bytes, no /\\<>:"|?* or control characters, no dot in front, no dot or space at the end'
        )


def _check_distinct(what: str, names: tuple[str, ...]) -> None:
    if not names or not all(names):
        raise ValueError(f"{what}: at least one is needed and none may be empty")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what}: {twice} given more than once")


def _cell(header: str, value: object) -> Cell:
    torch = sys.modules.get("torch")  # a tensor is here only if its library is; it takes seconds to load
    if torch is not None and isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(f"{header!r} got a tensor of shape {tuple(value.shape)}; a cell holds one number")
        value = value.item()
    elif isinstance(value, np.ndarray | np.generic):
        if value.size != 1:
            raise TypeError(f"{header!r} got an array of shape {value.shape}; a cell holds one number")
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{header!r} got {type(value).__name__}; a cell holds a number, a string, a bool or None")

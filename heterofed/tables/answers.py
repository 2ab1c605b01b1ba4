"""Label columns as Python values, and the kind of task that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import pandas as pd

from heterofed.errors import ConfigError, DataError
from heterofed.tables.values import LARGEST, Cells, Series, cells_of

Task = Literal["binary", "multiclass", "regression", "multilabel"]
AskedTask = Literal["binary", "multiclass", "regression", "multilabel", "classification"]
"""What a user may say; "classification" is binary or multiclass."""

Label = bool | int | float | str
"""A class as it stood in the label column; a whole number of a text is a number."""

MAX_CLASSES = 20
"""Whole numbers with more distinct values are taken for quantities, unless the task is given."""


def check_task(task: str | None, names: Sequence[str]) -> None:
    """Refuse a task that there is not, or that does not go with so many label columns.

    Raises:
        ConfigError: it is such.
    """
    if task is not None and task not in get_args(AskedTask):
        raise ConfigError(f"the task is {task!r}", expected=f"one of {', '.join(get_args(AskedTask))}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{len(names)} label columns are named", expected="one or more, each once")
    if len(names) > 1 and task not in (None, "multilabel"):
        raise ConfigError(f"{len(names)} label columns are named for a {task} task", expected="one, or multilabel")


def task_of(frame: pd.DataFrame, names: Sequence[str], asked: AskedTask | None) -> tuple[Task, list[Any]]:
    """Return the kind of task, and the labels as `labels_of` returns them for it.

    Raises:
        DataError: labels are missing or do not fit the task, or there are fewer than two distinct ones.
    """
    task = _task(frame, names, asked)
    found = labels_of(frame, names, task)
    distinct = 2 if task == "multilabel" else len(set(found))
    if distinct < 2:
        raise DataError(
            f"the label column {names[0]!r} has {distinct} distinct values in {len(frame)} rows",
            expected="two or more: there is nothing to learn from one",
        )
    return task, found


def _task(frame: pd.DataFrame, names: Sequence[str], asked: AskedTask | None) -> Task:
    if asked in ("multilabel", "regression"):
        return asked
    if len(names) > 1:
        return "multilabel"
    cells = cells_of(frame[names[0]])
    kinds = len(cells.values)
    if cells.storage == "other" or _is_list_text(cells):
        if asked is None:
            return "multilabel"
        what = "has cells that are lists"
    elif asked == "multiclass" or (asked == "classification" and kinds != 2):
        return "multiclass"
    elif kinds == 2:
        return "binary"
    elif asked is None:
        return "regression" if _are_quantities(cells) else "multiclass"
    else:
        what = f"has {kinds} distinct values"
    raise DataError(
        f"the label column {names[0]!r} {what}, which is no {asked} task",
        expected="two values for a binary task, and single ones for a classification",
    )


def labels_of(frame: pd.DataFrame, names: Sequence[str], task: Task) -> list[Any]:
    """Return one label for each row: a class, a finite number, or for multilabel a list of 0 and 1.

    Raises:
        DataError: a column is not there, or labels are missing or of another kind; with the count.
    """
    lacking = [each for each in names if each not in frame.columns]
    if lacking:
        raise DataError(f"the table lacks the label column {lacking[0]!r}", expected="the column of the training")
    if task == "multilabel" and len(names) == 1:
        return _lists(frame[names[0]], names[0])
    columns = []
    for name in names:
        cells = cells_of(frame[name])
        gone = int(cells.missing.sum())
        if gone:
            raise _wrong(name, gone, cells.rows, "missing", "a label in every row")
        values: list[Any]
        if task == "multilabel":
            fit = ~np.isnan(cells.booleans)
            values = [int(each) if not math.isnan(each) else 0 for each in cells.booleans]
            expected = "1 or 0, or the like"
        elif task == "regression":
            fit = np.abs(cells.numbers) <= LARGEST
            values = list(cells.numbers.tolist())
            expected = "finite numbers"
        else:
            fit = np.full(len(cells.values), cells.storage in ("text", "number", "boolean"))
            values = list(_classes(cells)) if fit.all() else [0] * len(fit)
            expected = "texts, numbers or booleans"
        if not fit.all():
            raise _wrong(name, int(cells.counts[~fit].sum()), cells.rows, f"no labels of a {task} task", expected)
        columns.append([values[code] for code in cells.codes])
    return columns[0] if task != "multilabel" else [list(row) for row in zip(*columns, strict=True)]


def text_of(label: Label) -> str:
    """Return a class as a text that is the same for 1, 1.0 and True's number."""
    if isinstance(label, str):
        return label
    return str(int(label)) if label == int(label) else repr(float(label))


def list_width(values: Sequence[Any]) -> int:
    """Return how many labels each list has; -1 where they differ."""
    widths = {len(each) for each in values}
    return widths.pop() if len(widths) == 1 else -1


def _classes(cells: Cells) -> list[Label]:
    numbers = cells.numbers
    if cells.storage == "boolean":
        return [bool(each) for each in cells.values]
    if np.isfinite(numbers).all() and not cells.codes_with_zeros.any():
        return [int(each) if each == int(each) else float(each) for each in numbers.tolist()]
    return list(cells.texts)


def _are_quantities(cells: Cells) -> bool:
    numbers = cells.numbers
    if cells.storage not in ("text", "number") or not np.isfinite(numbers).all() or cells.codes_with_zeros.any():
        return False
    return len(np.unique(numbers)) > MAX_CLASSES or bool((numbers != np.floor(numbers)).any())


def _is_list_text(cells: Cells) -> bool:
    return cells.storage == "text" and len(cells.values) > 0 and all(each[:1] == "[" for each in cells.values)


def _lists(column: Series, name: str) -> list[list[int]]:
    found: list[list[int]] = []
    wrong = 0
    for each in column:
        values = _list(each)
        if values is None:
            wrong += 1
        else:
            found.append(values)
    if wrong or list_width(found) < 1:
        wrong = wrong or len(found)
        raise _wrong(name, wrong, len(column), "no lists of one length of 0 and 1", "lists such as [0, 1, 1]")
    return found


def _list(cell: object) -> list[int] | None:
    if isinstance(cell, str):
        try:
            cell = msgspec.json.decode(cell)
        except msgspec.MsgspecError:
            return None
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, list | tuple) or not all(isinstance(each, bool | int | float) for each in cell):
        return None
    return [int(each) for each in cell] if all(each in (0, 1) for each in cell) else None


def _wrong(name: str, count: int, rows: int, what: str, expected: str) -> DataError:
    return DataError(
        f"the label column {name!r} has {count} of {rows} cells that are {what}",
        expected=expected,
        advice="Correct the column, or say which task it is for.",
    )

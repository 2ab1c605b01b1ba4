"""What is to be predicted: the kind of task, the classes, and labels as an array. At the host only.

How the kind of task is recognised; the first line that fits holds:

    multilabel    several label columns, or cells that are lists of 0 and 1 such as [0, 1, 1]
    binary        two distinct values, of whatever type
    multiclass    texts; or whole numbers with at most 20 distinct values
    regression    any other numbers

    labels as an array:  binary (rows, 1) of 0 and 1 · multiclass (rows,) of int64 from 0 · multilabel (rows, labels) of
    0 and 1 · regression (rows, 1), standardised; all but the classes are float32
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from heterofed.errors import ConfigError, DataError
from heterofed.sealed import unsealed
from heterofed.tables.answers import AskedTask, Label, Task, check_task, labels_of, task_of, text_of
from heterofed.tables.encoders import Finite, Scale
from heterofed.tables.fitted import Fitted
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.sums import Moments
from heterofed.tables.values import cells_of

VERSION: Final = 1

Unlabelled = Literal["refuse", "drop"]
"""What to do with rows that have no label."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="label-encoder"):
    version: Literal[1]
    task: Task
    columns: tuple[str, ...]
    classes: tuple[Label, ...]
    """Of binary and multiclass, in the order of their numbers; of multilabel the names of the labels."""
    counts: tuple[_Count, ...]
    """Rows of each class; of multilabel the rows that have each label."""
    rows: _Count
    mean: Finite
    scale: Scale


class LabelEncoder(Fitted[_Saved]):
    """Turns label columns into an array and back; made by `fit`, `from_json` or `load`."""

    _called = "the label encoder"

    @classmethod
    def fit(
        cls,
        rows: pd.DataFrame | Iterable[pd.DataFrame],
        columns: str | Sequence[str],
        *,
        task: AskedTask | None = None,
        positive: Label | None = None,
        classes: Sequence[Label] | None = None,
        standardise: bool = True,
    ) -> LabelEncoder:
        """Fit to labelled rows.

        Args:
            rows: a frame, or its chunks, for example `table.chunks(train_ids, label_columns)`. A class that is not
                there is refused later.
            columns: the label column, or several of a multilabel task.
            task: the kind, where the rule of this module would come to another; "classification" leaves the choice
                between binary and multiclass to the number of classes.
            positive: of two classes the one that counts as 1; by default the later in order.
            classes: all that there can be, in the order of their numbers, where these rows may lack some; `task` has
                to say which kind of classification it is.
            standardise: whether the values of a regression get mean 0 and standard deviation 1; `decode` undoes it.

        Raises:
            ConfigError: the task does not fit the arguments.
            DataError: labels are missing or do not fit the task, or there are fewer than two distinct ones.
        """
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        check_task(task, names)
        frames = [rows[list(names)]] if isinstance(rows, pd.DataFrame) else [each[list(names)] for each in rows]
        whole = pd.concat(frames) if frames else pd.DataFrame(columns=list(names))
        if classes is not None and task in ("binary", "multiclass"):
            return cls(_with_classes(whole, names, task, tuple(classes)))
        kind, found = task_of(whole, names, task)
        if kind == "regression":
            return cls(_fitted_numbers(names, found, standardise))
        if kind == "multilabel":
            table = np.asarray(found)
            places_of_one = tuple(f"{names[0]} {number}" for number in range(table.shape[1]))
            labels: tuple[Label, ...] = names if len(names) > 1 else places_of_one
            counts = tuple(int(each) for each in table.sum(axis=0))
            return cls(_Saved(VERSION, kind, names, labels, counts, len(table), 0.0, 1.0))
        distinct, places = np.unique(np.asarray(found), return_inverse=True)
        known: list[Label] = list(distinct.tolist())
        counts = np.bincount(places.reshape(-1)).tolist()
        if positive is not None:
            if len(known) != 2 or positive not in known:
                raise ConfigError(
                    f"the positive class is named, and is none of the {len(known)} classes",
                    expected="one of two classes, of the type that they have",
                )
            if known[0] == positive:
                known.reverse()
                counts.reverse()
        return cls(_Saved(VERSION, kind, names, tuple(known), tuple(counts), len(places), 0.0, 1.0))

    def __repr__(self) -> str:
        return f"LabelEncoder({self.task}, {len(self.columns)} columns)"

    @property
    def task(self) -> Task:
        """The kind of task."""
        return self._saved.task

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns."""
        return self._saved.columns

    @property
    def classes(self) -> tuple[Label, ...]:
        """The classes in the order of their numbers; of multilabel the names of the labels; of regression none."""
        return self._saved.classes

    @property
    def counts(self) -> tuple[int, ...]:
        """How many rows each had."""
        return self._saved.counts

    @property
    def mean(self) -> float:
        """What a standardised 0 of a regression is in its label's unit; 0 for other tasks."""
        return self._saved.mean

    @property
    def scale(self) -> float:
        """How much a standardised 1 of a regression is in its label's unit; 1 for other tasks."""
        return self._saved.scale

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for a row: 1, the classes of a multiclass task, or the labels."""
        return len(self.classes) if self.task in ("multiclass", "multilabel") else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the labels of one row."""
        return () if self.task == "multiclass" else (self.outputs,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return np.dtype(np.int64 if self.task == "multiclass" else np.float32)

    def transform(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        """Return the labels of rows as an array, see this module's header.

        Raises:
            DataError: a label is missing, of another kind, or of a class that `fit` did not see; with the count.
        """
        found = labels_of(frame, self.columns, self.task)
        if self.task == "regression":
            numbers = (np.asarray(found, dtype=np.float64) - self._saved.mean) / self._saved.scale
            return numbers.astype(np.float32)[:, None]
        if self.task == "multilabel":
            table = np.asarray(found, dtype=np.float32)
            if table.shape[1:] != self.shape and len(table):
                raise DataError(f"the labels have {table.shape[1]} columns", expected=f"{self.outputs}, as in training")
            return table.reshape(len(frame), self.outputs)
        places = {text_of(each): place for place, each in enumerate(self.classes)}
        numbered = np.fromiter((places.get(text_of(each), -1) for each in found), np.int64, len(found))
        new = int((numbered < 0).sum())
        if new:
            raise DataError(
                f"{new} of {len(found)} labels are of a class that training did not have",
                expected=f"one of its {len(self.classes)} classes",
                advice="Correct the label column, or train with rows of every class.",
            )
        return numbered if self.task == "multiclass" else numbered.astype(np.float32)[:, None]

    def decode(self, predictions: npt.ArrayLike, *, threshold: float = 0.5) -> list[Any]:
        """Return for each row what a person would call its prediction.

        Args:
            predictions: binary: the probability of the second class, (rows,) or (rows, 1); multiclass: a score for
                each class, (rows, classes); multilabel: a probability for each label, (rows, labels); regression: what
                the model gave, (rows,) or (rows, 1).
            threshold: probability above which a row is of the second class, or has a label.

        Returns:
            Classes as they stood in the label column; numbers in its unit; for multilabel a list of 0 and 1 a row.

        Raises:
            ConfigError: the shape is another.
        """
        values = np.asarray(predictions, dtype=np.float64)
        table = values[:, None] if values.ndim == 1 and self.outputs == 1 else values
        if table.ndim != 2 or table.shape[1] != self.outputs:
            raise ConfigError(f"predictions are of shape {values.shape}", expected=f"(rows, {self.outputs})")
        if self.task == "regression":
            return [float(each) for each in table[:, 0] * self._saved.scale + self._saved.mean]
        if self.task == "multilabel":
            return [[int(each > threshold) for each in row] for row in table]
        chosen = table.argmax(axis=1) if self.task == "multiclass" else (table[:, 0] > threshold).astype(np.int64)
        return [self.classes[each] for each in chosen]

    def class_weights(self) -> npt.NDArray[np.float32]:
        """Return weights under which every class counts the same.

        Binary and multilabel: one for each output, rows without it over rows with it, as `BCEWithLogitsLoss` takes
        them for `pos_weight`. Multiclass: one for each class, rows / (classes x rows of the class), as
        `CrossEntropyLoss` takes them for `weight`. Of a class without rows, and of regression: 1.
        """
        if self.task == "regression":
            return np.ones(1, dtype=np.float32)
        counts = np.asarray(self.counts[1:] if self.task == "binary" else self.counts, dtype=np.float64)
        few = np.maximum(counts, 1)
        weights = (self._saved.rows - counts) / few
        if self.task == "multiclass":
            weights = self._saved.rows / (len(counts) * few)
        return np.where((counts > 0) & (weights > 0), weights, 1).astype(np.float32)

    @classmethod
    def _unsealed(cls, text: str | bytes, name: str) -> _Saved:
        saved = unsealed(text, _Saved, name)
        classes = len(saved.classes)
        wanted = {"binary": classes == 2, "regression": classes == 0}.get(saved.task, classes > 0)
        if not saved.columns or not wanted or len(saved.counts) != classes or len(set(saved.classes)) != classes:
            raise DataError(f"{name} does not have the classes of a {saved.task} task")
        return saved

    def describe(self) -> list[tuple[str, ...]]:
        """Return a table of texts, header first: the classes and their rows. For the host's own eyes."""
        if self.task == "regression":
            low = f"mean {self._saved.mean:.6g}, standard deviation {self._saved.scale:.6g}"
            return [("label", "rows"), (low, str(self._saved.rows))]
        share = max(self._saved.rows, 1)
        return [
            ("label", "rows"),
            *(
                (text_of(each), f"{count} ({count / share:.1%})")
                for each, count in zip(self.classes, self.counts, strict=True)
            ),
        ]


def labelled_ids(table: OrderedTable, columns: str | Sequence[str], policy: Unlabelled = "refuse") -> list[str]:
    """Return the ids of the rows that have all their labels, in the order of the table.

    Raises:
        ConfigError: there is no such policy.
        DataError: rows have no label and are not to be dropped, or no row has one; with the count.
    """
    if policy not in ("refuse", "drop"):
        raise ConfigError(f"unlabelled is {policy!r}", expected="'refuse' or 'drop'")
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    kept: list[str] = []
    for chunk in table.chunks(columns=names):
        missing = np.logical_or.reduce([cells_of(chunk[each]).missing for each in names])
        kept += [str(each) for each in chunk.index[~missing]]
    lacking = len(table) - len(kept)
    if lacking and (policy == "refuse" or not kept):
        raise DataError(
            f"{lacking} of {len(table)} rows of {table.name} have no label in {', '.join(names)}",
            expected="a label in every row",
            advice="Fill them in, or let these rows be left out with unlabelled='drop'.",
        )
    return kept


def _with_classes(
    frame: pd.DataFrame, names: tuple[str, ...], task: Literal["binary", "multiclass"], classes: tuple[Label, ...]
) -> _Saved:
    """Return the counts of classes that are known, some of which the rows may not have."""
    saved = _Saved(VERSION, task, names, classes, (0,) * len(classes), 0, 0.0, 1.0)
    places = LabelEncoder(saved).transform(frame).reshape(-1).astype(np.int64)
    counts = np.bincount(places, minlength=len(classes)).tolist()
    return _Saved(VERSION, task, names, classes, tuple(counts), len(places), 0.0, 1.0)


def _fitted_numbers(names: tuple[str, ...], found: Any, standardise: bool) -> _Saved:
    moments = Moments()
    moments.add(np.asarray(found, dtype=np.float64))
    mean, scale = (moments.mean, moments.deviation or 1.0) if standardise else (0.0, 1.0)
    return _Saved(VERSION, "regression", names, (), (), moments.count, mean, scale)

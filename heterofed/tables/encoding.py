"""From the rows of a table to an array that a model takes, by what was fitted on the train ids only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from heterofed.errors import ConfigError, DataError
from heterofed.sealed import unsealed
from heterofed.tables.columns import Columns, FeatureKind
from heterofed.tables.encoders import AnyEncoder, Categorical, Fitting, Unseen
from heterofed.tables.fitted import Fitted
from heterofed.tables.values import cells_of
from heterofed.words import some_of

VERSION: Final = 1
"""Of the JSON form; another one is refused."""

MAX_KINDS = 32
"""How many categories of a column get a column of their own by default."""


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="table-encoder"):
    version: Literal[1]
    rows: Annotated[int, msgspec.Meta(ge=0)]
    unseen: Unseen
    columns: tuple[AnyEncoder, ...]


class TableEncoder(Fitted[_Saved]):
    """Turns rows into an array (rows, width) of float32; made by `fit`, `from_json` or `load`.

    Equal encoders give equal bits for a row, whatever the other rows are.
    """

    _called = "the table encoder"

    @classmethod
    def fit(
        cls,
        rows: pd.DataFrame | Iterable[pd.DataFrame],
        columns: Columns | Mapping[str, FeatureKind],
        *,
        unseen: Unseen = "refuse",
        max_kinds: int = MAX_KINDS,
        standardise: bool = True,
    ) -> TableEncoder:
        """Fit every feature column to the rows of the train ids.

        Cut into other chunks, or in another order, the rows give the same bits.

        Args:
            rows: a frame, or its chunks: `table.chunks(train_ids)`.
            columns: what `recognise` found, or name -> kind.
            unseen: what to make later of a category that is not in these rows: "refuse" it, with a count, or let it
                be one of the "other" ones. A category that is missing in these rows but not in others of the same
                table counts as such.
            max_kinds: the most frequent categories that get a column of their own; the others share one.
            standardise: whether numbers and days get mean 0 and standard deviation 1.

        Raises:
            ConfigError: no column is a feature, or an argument is out of range.
            DataError: a column has a problem, cells that are not of its kind, or there are no rows.
        """
        if max_kinds < 1:
            raise ConfigError(f"max_kinds is {max_kinds}", expected="1 or more")
        _check_unseen(unseen)
        if isinstance(columns, Columns):
            columns.refuse_problems()
            columns = columns.features
        if not columns:
            raise ConfigError(
                "no column of the table is a feature",
                expected="at least one that is numeric, categorical, boolean or a date",
                advice="See what was found of the columns, and correct it with kinds.",
            )
        fittings = {
            name: Fitting(name, kind, max_kinds=max_kinds, standardise=standardise) for name, kind in columns.items()
        }
        count = 0
        for chunk in [rows] if isinstance(rows, pd.DataFrame) else rows:
            _refuse_lack(chunk, list(fittings))
            for name, fitting in fittings.items():
                fitting.add(cells_of(chunk[name]))
            count += len(chunk)
        if not count:
            raise DataError("there are no rows to fit the columns to", expected="at least one train id")
        return cls(_Saved(VERSION, count, unseen, tuple(each.fitted() for each in fittings.values())))

    def __repr__(self) -> str:
        return f"TableEncoder({len(self.columns)} columns, width {self.width})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that it reads."""
        return tuple(each.name for each in self._saved.columns)

    @property
    def kinds(self) -> dict[str, FeatureKind]:
        """Name -> kind of these."""
        return {each.name: each.kind for each in self._saved.columns}

    @property
    def unseen(self) -> Unseen:
        """What it makes of a category that training did not have."""
        return self._saved.unseen

    def with_unseen(self, unseen: Unseen) -> TableEncoder:
        """Return an encoder that is fitted to the same rows and makes this of a category that they did not have.

        Raises:
            ConfigError: there is no such policy.
        """
        _check_unseen(unseen)
        return TableEncoder(msgspec.structs.replace(self._saved, unseen=unseen))

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of the array is; they hold no values of categories."""
        return tuple(name for each in self._saved.columns for name in each.names)

    @property
    def width(self) -> int:
        """Columns of the array."""
        return sum(each.width for each in self._saved.columns)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.width,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return np.dtype(np.float32)

    def transform(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Return rows as an array (rows, width), in their order; columns that are not needed may be there.

        Raises:
            DataError: a column is not there, or cells cannot be used; the text has their count.
        """
        _refuse_lack(frame, self.columns)
        result = np.empty((len(frame), self.width), dtype=np.float32)
        start = 0
        for each in self._saved.columns:
            with np.errstate(over="ignore"):
                encoded = each.encode(cells_of(frame[each.name]), self._saved.unseen)
            if np.abs(encoded).max(initial=0) > np.finfo(np.float32).max:
                raise DataError(
                    f"column {each.name!r} has numbers too far from those of training", expected="numbers like those"
                )
            result[:, start : start + each.width] = encoded
            start += each.width
        return result

    @classmethod
    def _unsealed(cls, text: str | bytes, name: str) -> _Saved:
        saved = unsealed(text, _Saved, name)
        names = [each.name for each in saved.columns]
        categories = [[*each.values, *each.rare] for each in saved.columns if isinstance(each, Categorical)]
        if not names or any(len(set(each)) < len(each) for each in (names, *categories)):
            raise DataError(f"{name} names no columns, or a column or category twice")
        return saved

    def describe(self) -> list[tuple[str, ...]]:
        """Return a table of texts for a model card, header first: columns and what becomes of them, but no values."""
        rows: list[tuple[str, ...]] = [("column", "kind", "becomes", "missing cells")]
        for each in self._saved.columns:
            becomes = {
                "numeric": "a standardised number",
                "boolean": "1 or 0",
                "date": "a standardised day, sine and cosine of month and weekday",
                "categorical": f"one of {each.width - each.has_missing} columns is 1",
            }[each.kind]
            rows.append((each.name, each.kind, becomes, "told by a column" if each.has_missing else "none in training"))
        return rows


def _check_unseen(unseen: str) -> None:
    if unseen not in ("refuse", "other"):
        raise ConfigError(f"unseen is {unseen!r}", expected="'refuse' or 'other'")


def _refuse_lack(frame: pd.DataFrame, names: Iterable[str]) -> None:
    wanted = list(names)
    lacking = [each for each in wanted if each not in frame.columns]
    if lacking:
        raise DataError(
            f"the table lacks {len(lacking)} of the {len(wanted)} columns that the model takes: {some_of(lacking)}",
            expected="the columns of the table that it was trained on",
        )

"""How each kind of column becomes numbers: what is fitted, and what it makes of new rows.

    numeric       (x - mean) / deviation; missing: as the mean
    boolean       1 or 0; missing: the share of 1
    categorical   a column of 0 and 1 for each of the most frequent values; one more for all others, if training had any
    date          days since 1970 as a numeric; sine and cosine of month and weekday; missing: the mean, and 0 for these

A column that had missing cells in training gets one more, which is 1 where the cell is missing. Where training had
none, a missing cell of a new row is like the mean, or like no category. Fractions of a day count in the days.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from heterofed.errors import DataError
from heterofed.tables.columns import EXPECTED, FeatureKind
from heterofed.tables.sums import Moments
from heterofed.tables.values import LARGEST, Bools, Cells, Floats

Unseen = Literal["refuse", "other"]
"""What to make of a category that training did not have: an error, or one of the others."""

Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e300)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

DAY_US = 86_400_000_000
"""Microseconds of a day."""


class Encoder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one column was fitted to."""

    name: str
    has_missing: bool
    """Whether a column tells where a cell is missing."""

    kind: ClassVar[FeatureKind]

    @property
    def names(self) -> list[str]:
        """What each column of the result is; no values of categories."""
        return [*self._names(), *([f"{self.name} is missing"] if self.has_missing else [])]

    @property
    def width(self) -> int:
        """Columns of the result."""
        return len(self.names)

    def encode(self, cells: Cells, unseen: Unseen) -> Floats:
        """Return the cells as an array (rows, width).

        Raises:
            DataError: some are not of this kind, or a category is new and may not be; the text has their count.
        """
        parts = [self._encode(cells, unseen)]
        if self.has_missing:
            parts.append(cells.missing[:, None].astype(np.float64))
        return np.concatenate(parts, axis=1)

    @abstractmethod  # for the type checker: a struct of msgspec cannot be an ABC
    def _names(self) -> list[str]: ...

    @abstractmethod
    def _encode(self, cells: Cells, unseen: Unseen) -> Floats: ...


class Numeric(Encoder, frozen=True, tag="numeric"):
    """Standardised numbers."""

    mean: Finite
    scale: Scale
    """Standard deviation; 1 where all numbers are the same."""
    fill: Finite
    """What a missing cell becomes: the mean, after the other two."""

    kind = "numeric"

    def _names(self) -> list[str]:
        return [self.name]

    def _encode(self, cells: Cells, unseen: Unseen) -> Floats:
        numbers = (numbers_of(cells, self.name) - self.mean) / self.scale
        return cells.spread(numbers, self.fill)[:, None]


class Boolean(Encoder, frozen=True, tag="boolean"):
    """Yes and no."""

    share: Share
    """Of the 1 in training."""

    kind = "boolean"

    def _names(self) -> list[str]:
        return [self.name]

    def _encode(self, cells: Cells, unseen: Unseen) -> Floats:
        return cells.spread(booleans_of(cells, self.name), self.share)[:, None]


class Categorical(Encoder, frozen=True, tag="categorical"):
    """One column for each frequent value."""

    values: tuple[str, ...]
    """The frequent ones, sorted."""
    rare: tuple[str, ...]
    """Those that training had besides, sorted; they share the last column."""

    kind = "categorical"

    def _names(self) -> list[str]:
        names = [f"{self.name} is kind {number}" for number in range(1, len(self.values) + 1)]
        return [*names, *([f"{self.name} is another kind"] if self.rare else [])]

    def _encode(self, cells: Cells, unseen: Unseen) -> Floats:
        places = {each: place for place, each in enumerate(self.values)}
        other = len(self.values)
        places.update(dict.fromkeys(self.rare, other))
        if cells.storage == "other":
            raise misfit(cells, np.zeros(len(cells.values), dtype=bool), self.name, "categorical")
        found = np.fromiter((places.get(each, -1) for each in cells.texts), np.int64, len(cells.values))
        new = found < 0
        if new.any() and unseen == "refuse":
            raise DataError(
                f"column {self.name!r} has {int(new.sum())} categories, in {int(cells.counts[new].sum())} of "
                f"{cells.rows} rows, that training did not have",
                expected=f"those {len(places)} that it had",
                advice="Correct them, or let them count as others with unseen='other'.",
            )
        found[new] = other
        # without a column for others, another category is a row of zeros; a missing cell is one anyway
        table = np.eye(other + 1)[:, : other + bool(self.rare)]
        none = np.zeros((1, table.shape[1]))
        return np.asarray(np.concatenate([table[found], none])[cells.codes])


class Date(Encoder, frozen=True, tag="date"):
    """Days, and where in the year and in the week they are."""

    mean: Finite
    """Days since 1970-01-01."""
    scale: Scale
    fill: Finite

    kind = "date"

    def _names(self) -> list[str]:
        circles = ("month sin", "month cos", "weekday sin", "weekday cos")
        return [self.name, *(f"{self.name}, {each}" for each in circles)]

    def _encode(self, cells: Cells, unseen: Unseen) -> Floats:
        days = days_of(cells, self.name)
        moments = cells.moments
        month = moments.astype("datetime64[M]").astype(np.int64) % 12
        weekday = np.floor(days).astype(np.int64) + 3  # 1970-01-01 was a Thursday
        turns = 2 * np.pi * np.stack([month / 12, weekday % 7 / 7])
        scaled = cells.spread((days - self.mean) / self.scale, self.fill)
        circles = [each for turn in turns for each in (np.sin(turn), np.cos(turn))]
        return np.stack([scaled, *(cells.spread(each, 0.0) for each in circles)], axis=1)


AnyEncoder = Numeric | Boolean | Categorical | Date


class Fitting:
    """Fits one column to the rows of any number of chunks. Order and size of the chunks change no bit of the result.

    Args:
        name: of the column.
        kind: what it is.
        max_kinds: how many categories get a column of their own.
        standardise: whether to fit mean and deviation; otherwise 0 and 1, which leave numbers as they are.
    """

    def __init__(self, name: str, kind: FeatureKind, *, max_kinds: int, standardise: bool) -> None:
        self._name = name
        self._kind = kind
        self._max_kinds = max_kinds
        self._standardise = standardise
        self._missing = False
        self._moments = Moments()
        self._counts: Counter[str] = Counter()

    def add(self, cells: Cells) -> None:
        """Take a chunk into account.

        Raises:
            DataError: some cells are not of the kind; the text has their count.
        """
        self._missing = self._missing or bool(cells.missing.any())
        if self._kind == "categorical":
            if cells.storage == "other":
                raise misfit(cells, np.zeros(len(cells.values), dtype=bool), self._name, "categorical")
            for text, count in zip(cells.texts, cells.counts, strict=True):
                self._counts[text] += int(count)
            return
        values = {"numeric": numbers_of, "boolean": booleans_of, "date": days_of}[self._kind](cells, self._name)
        self._moments.add(values[cells.codes[~cells.missing]])

    def fitted(self) -> AnyEncoder:
        """Return what all the chunks make together."""
        name, missing = self._name, self._missing
        if self._kind == "categorical":
            # equally frequent ones by their text, so that the result does not depend on the order of the rows
            ranked = sorted(self._counts, key=lambda each: (-self._counts[each], each))
            frequent, rare = ranked[: self._max_kinds], ranked[self._max_kinds :]
            return Categorical(name, missing, tuple(sorted(frequent)), tuple(sorted(rare)))
        if self._kind == "boolean":
            return Boolean(name, missing, self._moments.mean)
        mean, scale, fill = self._moments.mean, self._moments.deviation or 1.0, 0.0
        if not self._standardise:
            mean, scale, fill = 0.0, 1.0, mean
        kind = Numeric if self._kind == "numeric" else Date
        return kind(name, missing, mean, scale, fill)


def numbers_of(cells: Cells, name: str) -> Floats:
    """Return the distinct values as finite numbers.

    Raises:
        DataError: some are none, infinite or beyond `LARGEST`.
    """
    fit = np.abs(cells.numbers) <= LARGEST  # NaN is not
    if not fit.all():
        raise misfit(cells, fit, name, "numeric")
    return cells.numbers


def booleans_of(cells: Cells, name: str) -> Floats:
    """Return the distinct values as 1 and 0.

    Raises:
        DataError: some are neither.
    """
    fit = ~np.isnan(cells.booleans)
    if not fit.all():
        raise misfit(cells, fit, name, "boolean")
    return cells.booleans


def days_of(cells: Cells, name: str) -> Floats:
    """Return the distinct values as days since 1970-01-01, with fractions.

    Raises:
        DataError: some are no dates of the one form.
    """
    fit = ~np.isnat(cells.moments)
    if not fit.all():
        raise misfit(cells, fit, name, "date")
    return np.asarray(cells.moments.astype(np.int64) / DAY_US, dtype=np.float64)


def misfit(cells: Cells, fit: Bools, name: str, kind: FeatureKind) -> DataError:
    """Return the error for values that are not of the kind that their column was in training."""
    noun, form = EXPECTED[kind]
    return DataError(
        f"column {name!r} has {int(cells.counts[~fit].sum())} of {cells.rows} cells that are no {noun}",
        expected=form,
        advice="Correct these or leave their cells empty.",
    )

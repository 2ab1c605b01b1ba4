"""What is counted of a column while its rows pass by, whatever kind it turns out to be."""

from __future__ import annotations

import numpy as np

from heterofed.tables.values import LARGEST, Bools, Cells, Floats

MOST_COUNTED = 1000
"""Distinct values that are counted; a column with more just has many."""


class Profile:
    """Counts of one column. Chunks may come in any order and size: the counts are the same."""

    def __init__(self) -> None:
        self.rows = 0
        self.missing = 0
        self.numbers = 0
        """Cells that can be read as numbers; the same for the next ones."""
        self.booleans = 0
        self.dates = 0
        self.dates_otherwise = 0
        """Texts that look like dates of another form than `values.DATE_FORM`."""
        self.numbers_with_comma = 0
        self.codes_with_zeros = 0
        """Texts of digits that begin with a zero."""
        self.unbounded = 0
        """Infinite numbers, and those beyond `values.LARGEST`."""
        self.fractions = 0
        """Numbers that are not whole."""
        self.low, self.high = np.inf, -np.inf
        self.first, self.last = np.datetime64("NaT", "us"), np.datetime64("NaT", "us")
        self.storages: set[str] = set()
        self.distinct: set[str] = set()
        """At most `MOST_COUNTED` + 1 of the distinct values, as texts."""

    @property
    def present(self) -> int:
        """Cells that have a value."""
        return self.rows - self.missing

    @property
    def has_many_kinds(self) -> bool:
        """Whether there are more than `MOST_COUNTED`."""
        return len(self.distinct) > MOST_COUNTED

    def add(self, cells: Cells) -> None:
        """Count the cells of a chunk."""
        self.rows += cells.rows
        self.missing += int(cells.missing.sum())
        if not len(cells.values):
            return
        self.storages.add(cells.storage)
        if cells.storage == "other":
            return
        self._add_numbers(cells.numbers, cells)
        self.booleans += _count(cells, ~np.isnan(cells.booleans))
        self.numbers_with_comma += _count(cells, cells.numbers_with_comma)
        self.codes_with_zeros += _count(cells, cells.codes_with_zeros)
        dated = ~np.isnat(cells.moments)
        self.dates += _count(cells, dated)
        self.dates_otherwise += _count(cells, cells.dates_otherwise)
        if dated.any():
            self.first = np.fmin(self.first, cells.moments[dated].min())
            self.last = np.fmax(self.last, cells.moments[dated].max())
        for text in cells.walk_texts():
            if self.has_many_kinds:
                break
            self.distinct.add(text)

    def _add_numbers(self, numbers: Floats, cells: Cells) -> None:
        found = ~np.isnan(numbers)
        self.numbers += _count(cells, found)
        bounded = found & (np.abs(numbers) <= LARGEST)
        self.unbounded += _count(cells, found & ~bounded)
        if bounded.any():
            self.fractions += _count(cells, bounded & (numbers != np.floor(numbers)))
            self.low = min(self.low, float(numbers[bounded].min()))
            self.high = max(self.high, float(numbers[bounded].max()))


def _count(cells: Cells, of_values: Bools) -> int:
    return int(cells.counts[of_values].sum())

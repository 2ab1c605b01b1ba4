"""The cells of a column as texts, numbers, moments or yes and no, however the file stores them.

A cell of a CSV is text; Parquet, Feather and data frames have types of their own. All of them are read here once for
each distinct value of a chunk, so that a column means the same wherever it comes from: the category 7 is "7" in each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Series: TypeAlias = "pd.Series[Any]"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Datetimes = npt.NDArray[np.datetime64]

MISSING_TEXTS = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT", "NULL", "null", "None", "?"}
)  # fmt: skip
"""Texts that stand for nothing in a column, white space around them aside. An id column has its own rule."""

LARGEST = 1e150
"""Numbers beyond it count as infinite: their squares, which a standard deviation needs, would be."""

DATE_FORM = "2024-01-31, or 2024-01-31T09:05:00 with a fraction of a second or a time zone where there is one"

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:Z|([+-])(\d\d):?(\d\d))?)?", re.ASCII
)
_DATE_OTHERWISE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}([T ].*)?")
_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")
_CODE = re.compile(r"[+-]?0\d+")

WHOLE_WITH_POINT = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")
"""A whole number with a fraction that is none, as "7.0"; its group is the number."""

TRUE_TEXTS, FALSE_TEXTS = ("true", "t", "yes", "y"), ("false", "f", "no", "n")
"""Texts that stand for yes and for no, in small letters."""

_BOOLEANS = {**dict.fromkeys(TRUE_TEXTS, 1.0), **dict.fromkeys(FALSE_TEXTS, 0.0)}

Storage = Literal["text", "number", "boolean", "date", "nothing", "other"]
"""How a file stores a column. "nothing": no value to tell by; "other": lists, bytes, or several of these mixed."""

_INFERRED: dict[str, Storage] = {
    "string": "text",
    "empty": "nothing",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "boolean": "boolean",
    "date": "date",
    "datetime": "date",
    "datetime64": "date",
}
"""What pandas says of a column of Python objects."""


def storage_of(column: Series) -> Storage:
    """Return how a column is stored, by its type, or by its values where the type is `object`."""
    dtype = column.dtype
    if isinstance(dtype, pd.StringDtype):
        return "text"
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_complex_dtype(dtype):
        return "other"
    if pd.api.types.is_numeric_dtype(dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date"
    if dtype != np.dtype(object):
        return "other"
    return _INFERRED.get(pd.api.types.infer_dtype(column, skipna=True), "other")


@dataclass(frozen=True)
class Cells:
    """The cells of one column of one chunk: its distinct values, and where they stand.

    What is asked of the values (`numbers`, `texts`, …) comes as one entry for each distinct value; `spread` makes it
    one for each row.
    """

    storage: Storage
    values: Series
    """The distinct values, without what is missing; texts without the white space around them."""
    codes: Ints
    """For each row its place in `values`; -1 where the cell is missing."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.codes)

    @cached_property
    def missing(self) -> Bools:
        """Which rows have no value."""
        return self.codes < 0

    @cached_property
    def counts(self) -> Ints:
        """How many rows each distinct value has."""
        return np.bincount(self.codes[~self.missing], minlength=len(self.values)).astype(np.int64)

    def spread(self, of_values: npt.NDArray[Any], missing: Any) -> npt.NDArray[Any]:
        """Return for each row the entry of its value, or `missing` where it has none."""
        return np.append(of_values, np.array([missing], dtype=of_values.dtype))[self.codes]

    @cached_property
    def numbers(self) -> Floats:
        """The values as numbers; NaN where a value is none. Infinite ones are there as such."""
        if self.storage == "text":
            # pandas knows quickly which are numbers, but not every version rounds them as Python does
            parsed = pd.to_numeric(self.values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            found = ~np.isnan(parsed)
            result = np.full(len(found), np.nan)
            result[found] = self.values.to_numpy()[found].astype(np.float64)
            return result
        if self.storage in ("number", "boolean"):
            return np.asarray(self.values.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
        return np.full(len(self.values), np.nan)

    @cached_property
    def texts(self) -> list[str]:
        """The values as the names of categories; a whole number is written alike whether it is 7, 7.0 or "7.0"."""
        return list(self.walk_texts())

    def walk_texts(self) -> Iterator[str]:
        """Yield what is in `texts`, for those who need only some."""
        if self.storage == "text":
            for each in self.values:
                found = WHOLE_WITH_POINT.fullmatch(each) if each[-1] == "0" else None
                yield found[1] if found else each
        elif self.storage == "number":
            for each in self.values:
                yield str(int(each)) if each == each // 1 else repr(float(each))
        else:
            yield from map(str, self.moments if self.storage == "date" else self.values)

    @cached_property
    def moments(self) -> Datetimes:
        """The values as UTC moments to the microsecond; NaT where a value is no date of the form `DATE_FORM`."""
        none = np.full(len(self.values), np.datetime64("NaT", "us"))
        if self.storage == "text":
            texts = self.values.to_numpy()
            for place in self._words:
                if (found := _DATE.fullmatch(texts[place])) and (moment := _of_text(found)) is not None:
                    none[place] = moment
        elif self.storage == "date" and self.values.dtype == np.dtype(object):
            none[:] = [_of_date(each) for each in self.values]
        elif self.storage == "date":
            aware: Any = self.values
            none[:] = (aware.dt.tz_convert(None) if aware.dt.tz is not None else aware).to_numpy("datetime64[us]")
        return none

    @cached_property
    def booleans(self) -> Floats:
        """The values as 1 (true, yes, 1) or 0 (false, no, 0), in any case of letters; NaN where a value is neither."""
        numbers = self.numbers
        found = np.where((numbers == 0) | (numbers == 1), numbers, np.nan)
        if self.storage == "text":
            texts = self.values.to_numpy()
            for place in self._words:
                found[place] = _BOOLEANS.get(texts[place].lower(), np.nan)
        return found

    @cached_property
    def codes_with_zeros(self) -> Bools:
        """Which values are digits after a zero, as postal codes are: "007" is no 7."""
        if self.storage != "text":
            return self._fullmatch(_CODE, [])
        return self._fullmatch(_CODE, [place for place, each in enumerate(self.values) if each[0] in "0+-"])

    @cached_property
    def numbers_with_comma(self) -> Bools:
        """Which values look like numbers with a decimal comma, as 1.000,5 does."""
        return self._fullmatch(_COMMA, self._words)

    @cached_property
    def dates_otherwise(self) -> Bools:
        """Which values look like dates of another form, as 31.01.2024 does."""
        return self._fullmatch(_DATE_OTHERWISE, self._words) & np.isnat(self.moments)

    @cached_property
    def _words(self) -> list[int]:
        """Places of the texts that are no numbers, which are few where a column is numeric."""
        return np.flatnonzero(np.isnan(self.numbers)).tolist() if self.storage == "text" else []

    def _fullmatch(self, pattern: re.Pattern[str], places: list[int]) -> Bools:
        found = np.zeros(len(self.values), dtype=bool)
        texts = self.values.to_numpy()
        found[[place for place in places if pattern.fullmatch(texts[place])]] = True
        return found


def cells_of(column: Series) -> Cells:
    """Return the cells of a column of a chunk."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.ArrowDtype):
        column = column.astype(object)
    storage = storage_of(column)
    if storage == "other":
        present = ~column.isna().to_numpy(dtype=bool)
        codes = np.where(present, np.cumsum(present) - 1, -1)  # lists cannot be compared: each counts as one value
        return Cells(storage, column[present].reset_index(drop=True), codes.astype(np.int64))
    if storage != "text":
        codes, values = pd.factorize(column)
        return Cells(storage, pd.Series(values), np.asarray(codes, dtype=np.int64))
    codes, found = pd.factorize(column)
    raw = np.asarray(found, dtype=object)  # Arrow's texts are slow to walk through one by one
    clean = [None if (text := each.strip()) in MISSING_TEXTS else text for each in raw]
    if clean != raw.tolist():
        inner, distinct = pd.factorize(np.array(clean, dtype=object))
        codes, raw = np.append(inner, -1)[codes], np.asarray(distinct, dtype=object)
    return Cells("text", pd.Series(raw, dtype=object), np.asarray(codes, dtype=np.int64))


def _of_text(found: re.Match[str]) -> np.datetime64 | None:
    """Return the UTC moment of a text that has the form of one; None where there is no such day or time."""
    *numbers, fraction, sign, hours, minutes = found.groups()
    try:
        year, month, day, hour, minute, second = (int(each or 0) for each in numbers)
        moment = datetime(year, month, day, hour, minute, second, int(f"{fraction or 0:0<6}"[:6]))
        east = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        return np.datetime64(moment + east if sign == "-" else moment - east, "us")
    except (ValueError, OverflowError):
        return None


def _of_date(value: date) -> np.datetime64:
    """Return a day's beginning, or a moment in UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)
    return np.datetime64(value, "us")

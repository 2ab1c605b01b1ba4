"""One text form for ids that tables hold as numbers, dates or bytes, so that 7 and "7" meet or fail loudly.

    str              Unicode normal form C, without the white space around it; never read as a number: "007" stays
    bytes            UTF-8, then as str
    int              decimal digits: 7 -> "7", -7 -> "-7"
    float            a whole number whose neighbours the float can still tell apart (below 2^53; float32 2^24, float16
                     2^11) as an int: 7.0 -> "7"
    Decimal          a whole number as an int: Decimal("7.00") -> "7"
    date             2024-01-31
    datetime         2024-01-31T09:05:00, with a fraction of a second only where there is one (09:05:00.25); with a time
                     zone as UTC: 2024-01-31T08:05:00Z; at midnight too, so it never meets a date by accident
    UUID             lower-case, with hyphens

numpy's numbers, text, bytes and datetime64 count as these (datetime64 in days is a date). Refused: bool, what is
missing (None, NaN, NaT, pandas.NA), a float or Decimal with a fraction, and any other type.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import singledispatch
from typing import Any
from uuid import UUID

import numpy as np

from psi.errors import BadIds
from psi.ids import as_list, is_encodable

LONGEST_INT = 2048
"""Bits. Python refuses to write ints beyond a limit of digits that a process can set to 640, about 2126 bits."""

MISSING = "are missing (None, NaN or NaT): drop these rows"
BOOL = "are bools, which are no ids"
LONG = f"are ints of more than {LONGEST_INT} bits"
FRACTION = (
    "are floats that are not whole or too large to be exact (pandas turns a column of ints with missing values to "
    "floats: read it as str or 'Int64')"
)
DECIMAL_FRACTION = "are Decimals that are not whole, or of too many digits"
NOT_UTF8 = "are bytes that are not UTF-8: decode them as what they are"
UNWRITABLE = "hold characters that UTF-8 cannot write"
EMPTY = "are empty, or nothing but white space"
DATES = "are dates or times outside the years 1 to 9999, or of a unit other than days to nanoseconds"

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?")


class _Refused(Exception):
    """A value has no text form; the argument says why, as the end of a sentence that begins with a count."""


def normalise_ids(values: Iterable[object]) -> list[str]:
    """Return the text of every value by the table in this module's header, in the order given.

    It only converts, one text for one value, so that a table can take the result as its id column:
    `table["id"] = psi.normalise_ids(table["id"])`. Two values may give one text (7 and "7"): repeats are refused later,
    where a run begins. Its own results stay as they are when they go through it again.

    Args:
        values: a list, tuple or other collection, a numpy array of one dimension, a pandas Series or Index.

    Raises:
        BadIds: the values are one string or no column, or some have no text form; counts by kind, never a value.
    """
    column = _column(values)
    texts: list[str] = []
    faults: Counter[str] = Counter()
    for each in column:
        try:
            texts.append(_text(each))
        except _Refused as refusal:
            faults[str(refusal)] += 1
    if faults:
        counts = "; ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
        raise BadIds(f"of {len(column)} ids {counts}. Expected text, whole numbers, dates, UTF-8 bytes or UUIDs.")
    return texts


def _column(values: object) -> list[Any]:
    pandas = sys.modules.get("pandas")  # not imported here: without it nothing can be a Series
    if pandas is not None and isinstance(values, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        values = values.to_numpy()
    if type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind not in "iuUSO":
        return list(values)  # tolist would hide that a float was a float32, and turn datetime64 into ints
    return as_list(values)


@singledispatch
def _text(value: object) -> str:
    pandas = sys.modules.get("pandas")
    if value is None or value is np.ma.masked or (pandas is not None and value is pandas.NA):
        raise _Refused(MISSING)
    raise _Refused(f"are of type {type(value).__name__}, which has no text form here: convert them to str")


# for numpy a span of time is an integer, for us no id
_text.register(np.timedelta64)(_text.dispatch(object))


@_text.register(str)
def _of_str(value: str) -> str:
    text = str.__str__(value).strip()
    if not text:
        raise _Refused(EMPTY)
    if text.isascii():
        return text
    if not is_encodable(text):
        raise _Refused(UNWRITABLE)
    return unicodedata.normalize("NFC", text)


@_text.register(bytes)
@_text.register(bytearray)
def _of_bytes(value: bytes | bytearray) -> str:
    try:
        return _of_str(bytes(value).decode())
    except UnicodeDecodeError:
        raise _Refused(NOT_UTF8) from None


@_text.register(int)
@_text.register(np.integer)
def _of_int(value: int | np.integer[Any]) -> str:
    number = int(value)
    if number.bit_length() > LONGEST_INT:
        raise _Refused(LONG)
    return str(number)


@_text.register(bool)
@_text.register(np.bool_)
def _of_bool(value: bool | np.bool_) -> str:
    raise _Refused(BOOL)


@_text.register(float)
@_text.register(np.floating)
def _of_float(value: float | np.floating[Any]) -> str:
    if value != value:
        raise _Refused(MISSING)
    digits = np.finfo(type(value)).nmant + 1 if isinstance(value, np.floating) else 53
    # from 2^53 on a float64 may be a neighbour of the number that was meant
    if not abs(value) < 2 ** min(digits, 53) or value != int(value):
        raise _Refused(FRACTION)
    return str(int(value))


@_text.register(Decimal)
def _of_decimal(value: Decimal) -> str:
    if value.is_nan():
        raise _Refused(MISSING)
    # adjusted() is the power of ten of the first digit: int(Decimal("1E+999999")) would fill the memory
    if not value.is_finite() or (value and not 0 <= value.adjusted() <= 600):
        raise _Refused(DECIMAL_FRACTION)
    number = int(value) if value else 0
    if number != value:
        raise _Refused(DECIMAL_FRACTION)
    return _of_int(number)


@_text.register(date)
def _of_date(value: date) -> str:
    return value.isoformat()


@_text.register(datetime)
def _of_datetime(value: datetime) -> str:
    """Timestamps of pandas are datetimes with nanoseconds; its NaT is a datetime that differs from itself."""
    if value != value:
        raise _Refused(MISSING)
    try:
        aware = value.utcoffset() is not None
        moment = value.astimezone(timezone.utc).replace(tzinfo=None) if aware else value.replace(tzinfo=None)
    except (ArithmeticError, ValueError, NotImplementedError):  # beyond year 9999 in UTC, or an unfinished tzinfo
        raise _Refused(DATES) from None
    nanoseconds = 1000 * moment.microsecond + getattr(moment, "nanosecond", 0)
    whole = f"{moment.year:04}-{moment.month:02}-{moment.day:02}T{moment:%H:%M:%S}"
    return _trimmed(f"{whole}.{nanoseconds:09}") + ("Z" if aware else "")


@_text.register(np.datetime64)
def _of_datetime64(value: np.datetime64) -> str:
    if np.isnat(value):
        raise _Refused(MISSING)
    unit, _ = np.datetime_data(value)
    if unit == "D" and isinstance(day := value.item(), date):
        return _of_date(day)
    if unit in ("h", "m", "s", "ms", "us", "ns"):
        text = str(np.datetime_as_string(value, unit="s") if unit in "hm" else np.datetime_as_string(value))
        if _MOMENT.fullmatch(text):
            return _trimmed(text)
    raise _Refused(DATES)


@_text.register(UUID)
def _of_uuid(value: UUID) -> str:
    return str(value)


def _trimmed(moment: str) -> str:
    """Without the zeros that end a fraction: half a second is .5 whatever clock it was read from."""
    return moment.rstrip("0").rstrip(".") if "." in moment else moment

"""The id column of a table in the one text form that the parties compare, or a refusal that counts and never shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd

import psi
from heterofed.errors import ConfigError, DataError
from heterofed.tables.values import WHOLE_WITH_POINT, Bools, Ints, Series
from heterofed.words import some_of

Duplicates = Literal["refuse", "first", "last"]
"""What to do where an id stands in several rows: end with an error, or keep the first or the last of them."""

MissingIds = Literal["refuse", "drop"]
"""What to do with rows that have no id."""

DecimalIds = Literal["refuse", "whole", "text"]
"""What to make of an id that is the text "7.0": an error, the id 7, or the text as it stands."""

_FAMILIES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool, np.bool_), "booleans"),
    ((str,), "texts"),
    ((int, float, np.number, Decimal), "numbers"),
    ((date, np.datetime64), "dates"),
    ((bytes, bytearray), "bytes"),
)


@dataclass(frozen=True)
class Identities:
    """The ids of a table whose rows were all looked at."""

    ids: list[str]
    """The ids that are kept, unique, in the order of the rows."""
    rows: Ints
    """The numbers of their rows in the file, from 0, ascending."""
    total: int
    """Rows of the file."""
    missing: int
    """Rows without an id, which were left out."""
    repeated: int
    """Rows that were left out because another row has the same id."""


def check_policies(duplicates: str, missing_ids: str, decimal_ids: str) -> None:
    """Refuse a policy that there is not.

    Raises:
        ConfigError: one of the words is none of its own.
    """
    for name, given, known in (
        ("duplicates", duplicates, ("refuse", "first", "last")),
        ("missing_ids", missing_ids, ("refuse", "drop")),
        ("decimal_ids", decimal_ids, ("refuse", "whole", "text")),
    ):
        if given not in known:
            raise ConfigError(f"{name} is {given!r}", expected=f"one of {', '.join(known)}")


def find_id_column(columns: Sequence[str], wanted: str | None, name: str) -> str:
    """Return the name of the id column; the only column where none is named.

    Raises:
        DataError: there is none of that name, or none was named and there are several.
    """
    if wanted is None and len(columns) == 1:
        return columns[0]
    if wanted is not None and wanted in columns:
        return wanted
    advice = "Name the id column."
    if len(columns) == 1 and (found := [each for each in ";\t|" if each in columns[0]]):
        advice = f"The header has {found[0]!r} and no comma: write the file with commas between the columns."
    what = f"{name} has no id column {wanted!r}" if wanted is not None else f"{name} has {len(columns)} columns"
    raise DataError(what, expected=f"one of {some_of(columns)}", advice=advice)


def raw_ids(column: Series) -> list[Any]:
    """Return the cells of an id column as they stand there, None where there is none; text "NA" is an id."""
    missing = column.isna().to_numpy(dtype=bool)
    if isinstance(column.dtype, pd.CategoricalDtype | pd.ArrowDtype):
        column = column.astype(object)
    return [
        None if gone or (isinstance(each, str) and not each.strip()) else each
        for each, gone in zip(column, missing, strict=True)
    ]


def identities(
    cells: Sequence[Any],
    *,
    name: str,
    column: str,
    duplicates: Duplicates = "refuse",
    missing_ids: MissingIds = "refuse",
    decimal_ids: DecimalIds = "refuse",
) -> Identities:
    """Return the ids of a table in their one text form, by the rules of `psi.normalise_ids`.

    Args:
        cells: what `raw_ids` gave, of all rows.
        name: of the table, for errors.
        column: of the ids, for errors.
        duplicates: what to do with an id that stands in several rows.
        missing_ids: what to do with a row without an id.
        decimal_ids: what to do with the text "7.0", which pandas makes of 7 when it writes a column of whole numbers
            some of which are missing.

    Raises:
        ConfigError: there is no such policy.
        DataError: ids are missing, repeated, of mixed types or without a text form. The text has counts, never an id.
    """
    check_policies(duplicates, missing_ids, decimal_ids)
    where = f"the id column {column!r} of {name}"
    present = np.fromiter((each is not None for each in cells), bool, len(cells))
    missing = int((~present).sum())
    if missing and missing_ids == "refuse":
        raise DataError(
            f"{where} has no id in {missing} of {len(cells)} rows",
            expected="an id in every row",
            advice="Fill them in, or let these rows be left out with missing_ids='drop'.",
        )
    given = [each for each in cells if each is not None]
    if not given:
        raise DataError(f"{where} holds no ids", expected="at least one row with an id")
    texts = id_texts(given, where, decimal_ids)
    kept = _kept(texts, duplicates)
    repeated = int((~kept).sum())
    if repeated and duplicates == "refuse":
        raise DataError(
            f"{where} repeats an id in {repeated} of {len(cells)} rows",
            expected="every id once",
            advice="Merge the rows that share an id, or keep one of them with duplicates='first' or 'last'.",
        )
    rows = np.flatnonzero(present)[kept]
    ids = [text for text, keep in zip(texts, kept, strict=True) if keep]
    return Identities(ids, rows.astype(np.int64), len(cells), missing, repeated)


def id_texts(given: list[Any], where: str, decimal_ids: DecimalIds) -> list[str]:
    """Return the text of every id, in the order given; repeats are as they are.

    Args:
        given: what `raw_ids` gave, without None.
        where: what errors call the column.
        decimal_ids: as for `identities`.

    Raises:
        DataError: ids are of mixed types or without a text form. The text has counts, never an id.
    """
    families = Counter(_family(each) for each in given)
    if len(families) > 1:
        counts = ", ".join(f"{count} {family}" for family, count in sorted(families.items()))
        raise DataError(
            f"{where} holds ids of mixed types: {counts}",
            expected="one type, for example text",
            advice="Convert the column as a whole, for example with str; then 7 and '7' are one id.",
        )
    if "texts" in families and decimal_ids != "text":
        decimal = sum(1 for each in given if WHOLE_WITH_POINT.fullmatch(each.strip()))
        if decimal and decimal_ids == "refuse":
            raise DataError(
                f"{where} holds {decimal} of {len(given)} ids that are whole numbers written with a decimal point, "
                "which would not meet the same numbers without one",
                expected="7, not 7.0",
                advice="Write them as whole numbers, or say decimal_ids='whole' (7.0 is 7) or 'text' (it is not).",
            )
        if decimal:
            given = [found[1] if (found := WHOLE_WITH_POINT.fullmatch(each.strip())) else each for each in given]
    try:
        return psi.normalise_ids(given)
    except psi.BadIds as error:
        raise DataError(f"{where} cannot be used: {error}") from None


def _family(value: object) -> str:
    for types, family in _FAMILIES:
        if isinstance(value, types):
            return family
    return f"of type {type(value).__name__}"


def _kept(texts: list[str], duplicates: Duplicates) -> Bools:
    """Return which are the only, the first or the last of their kind."""
    count = len(texts)
    places = {}
    for place in range(count) if duplicates == "last" else range(count - 1, -1, -1):
        places[texts[place]] = place
    kept = np.zeros(count, dtype=bool)
    kept[np.fromiter(places.values(), np.int64, len(places))] = True
    return kept

"""The ids that predictions are asked for, out of a file, in the order in which they stand there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heterofed.errors import DataError
from heterofed.features.idfile import CSV_SUFFIXES, TABLE_SUFFIXES, TEXT_SUFFIXES, read_column

if TYPE_CHECKING:
    import pandas as pd

DecimalIds = Literal["refuse", "whole", "text"]


def is_table(path: Path) -> bool:
    """Whether a file is read as a table, and not as a text with one id per line."""
    name = path.name.lower()
    return any(name.endswith(each) for each in TABLE_SUFFIXES | CSV_SUFFIXES)


def asked_ids(path: Path, column: str | None, decimal_ids: DecimalIds = "refuse") -> list[str]:
    """Return the ids of a file in their one text form, in its order; an id may come twice.

    Args:
        path: a table, which is read in chunks, or a text with one id per line.
        column: the id column of a table; not needed if it is the only one.
        decimal_ids: what to make of the text "7.0".

    Raises:
        DataError: the file cannot be read, has no such column, or its ids cannot be used. The text has no id.
    """
    from heterofed.tables.identities import find_id_column, id_texts, raw_ids
    from heterofed.tables.reading import open_source

    if not is_table(path):
        if Path(path.name.lower()).suffix not in TEXT_SUFFIXES:
            open_source(path)  # says what can be read
        cells: list[Any] = read_column(path, None)
        column = "of every line"
    else:
        source = open_source(path)
        only = len(source.columns) == 1  # whatever it is called
        column = find_id_column(source.columns, None if only else column, source.name)
        cells = [cell for chunk in source.chunks([column]) for cell in raw_ids(chunk[column])]
    missing = sum(1 for each in cells if each is None)
    if missing:
        raise DataError(
            f"the id column {column!r} of {path} has no id in {missing} of {len(cells)} rows",
            expected="an id in every row",
        )
    if not cells:
        raise DataError(f"{path} holds no ids", expected="at least one")
    return id_texts(cells, f"the id column {column!r} of {path}", decimal_ids)


def as_table(ids: list[str], column: str) -> pd.DataFrame:
    """Return ids as a table without another column: the rows of a host that has no features."""
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame({column: list(dict.fromkeys(ids))}, dtype=object)
    return table

"""Sample ids out of a file, and shared ids into one."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heterofed.errors import DataError, OutputError
from heterofed.files import make_folder, write_whole

TEXT_SUFFIXES = frozenset({".txt", ".ids", ""})
CSV_SUFFIXES = frozenset({".csv", ".csv.gz"})
TABLE_SUFFIXES = CSV_SUFFIXES | {".parquet", ".feather"}
READABLE = "a table (.csv, .csv.gz, .parquet, .feather) or a text with one id per line (.txt), in UTF-8"


def read_column(path: Path, column: str | None) -> list[Any]:
    """Return what a file holds in its id column, as it stands there. A line with nothing on it counts as none.

    Args:
        path: a table (.csv or .csv.gz with a header line, .parquet, .feather) or a text with one id per line (.txt).
            In a CSV every id is text, so "007" stays as it is.
        column: the id column of a table; None takes its only column. Not for a text.

    Raises:
        DataError: there is no such file or column, or it cannot be read.
    """
    suffix = _suffix(path)
    try:
        if suffix in TEXT_SUFFIXES:
            if column is not None:
                raise DataError(
                    f"{path} is read as a text with one id per line, which has no column {column!r}",
                    expected="a .csv, .parquet or .feather file, or no column",
                )
            # splitlines() would also split at characters that an id may have
            return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        if suffix not in TABLE_SUFFIXES:
            raise DataError(f"{path} has the name of no file that can be read here", expected=READABLE)
        table = _table(path, suffix)
    except (OSError, ValueError, ImportError, EOFError, zlib.error, Warning) as error:
        raise DataError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or type(error).__name__}",
            expected=READABLE,
            advice=(
                "Look at the name and the file: in a CSV no line has more fields than the first, and an id with a "
                "comma stands in quotes. Parquet and Feather need the package pyarrow."
            ),
        ) from None
    names = [str(each) for each in table.columns]
    if column is None and len(names) != 1:
        raise DataError(
            f"{path} has {len(names)} columns ({', '.join(names[:8])})", expected="one, or the name of the id column"
        )
    if column is not None and column not in names:
        raise DataError(f"{path} has no column {column!r}", expected=f"one of {', '.join(names[:8])}")
    return list(table[column if column is not None else names[0]])


def check_output(path: Path) -> None:
    """Refuse what `write_column` could not write, while nothing is lost by it.

    Raises:
        OutputError: its name is not that of a CSV or a text, or its folder cannot be written to.
    """
    if _suffix(path) not in TEXT_SUFFIXES | CSV_SUFFIXES or path.is_dir():
        raise OutputError(f"the shared ids cannot be written as {path}", expected="a .csv, .csv.gz or .txt file")
    make_folder(path.parent)


def write_column(path: Path, ids: Sequence[str], column: str | None) -> None:
    """Write ids as a file that `read_column` reads: a text with one per line, or a CSV under the column's name.

    Args:
        path: a .txt, .csv or .csv.gz file; see `check_output`.
        ids: in their order.
        column: header of a CSV; None: "id".

    Raises:
        OutputError: it cannot be written; an earlier file of this name is untouched.
    """
    suffix = _suffix(path)
    text = io.StringIO(newline="")
    if suffix in TEXT_SUFFIXES:
        text.writelines(f"{each}\n" for each in ids)
    else:
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([column or "id"])
        lines.writerows([each] for each in ids)
    content = text.getvalue().encode()
    if suffix == ".csv.gz":
        content = gzip.compress(content)
    write_whole(path, lambda file: file.write(content))


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".csv.gz" if name.endswith(".csv.gz") else Path(name).suffix


def _table(path: Path, suffix: str) -> Any:
    """Raises whatever pandas raises."""
    import pandas

    if suffix == ".parquet":
        table = pandas.read_parquet(path)
        return table if table.index.name is None else table.reset_index()  # pandas wrote a column as its index
    if suffix == ".feather":
        return pandas.read_feather(path)
    with warnings.catch_warnings():
        # Where lines have more fields than the header, pandas would call the first column an index and move the names.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        # Every cell as the text that stands there: an empty one stays empty, and is refused with a count.
        return pandas.read_csv(path, dtype=str, keep_default_na=False, index_col=False)

"""Table files in chunks: CSV, Parquet and Feather, also those that are larger than memory."""

from __future__ import annotations

import csv
import gzip
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from heterofed.errors import DataError
from heterofed.words import some_of

CHUNK_ROWS = 50_000
"""Rows that are in memory at a time; of 100 columns of text about 300 MB."""

READABLE = "a table: .csv or .csv.gz in UTF-8 with a header line, .parquet or .feather"


class TableSource(ABC):
    """Where the rows of a table come from, chunk by chunk, always in the same order.

    Args:
        name: what errors call it.
        columns: the names of its columns, in order.
        chunk_rows: rows of a chunk at most.

    Raises:
        DataError: there are no columns, one has no name, or two have one name.
    """

    def __init__(self, name: str, columns: Sequence[object], chunk_rows: int) -> None:
        self.name = name
        self.columns = tuple(str(each) for each in columns)
        self._chunk_rows = chunk_rows
        nameless = sum(1 for each in self.columns if not each.strip())
        repeated = sorted({each for each in self.columns if self.columns.count(each) > 1})
        if not self.columns or nameless or repeated:
            raise DataError(
                f"{name} has {len(self.columns)} columns, {nameless} of them without a name"
                + (f", and more than one of the name {', '.join(repeated)}" if repeated else ""),
                expected="a header with a name of its own for each column",
            )
        self.stamp = self._stamp_now()
        """What told its content from another when it was opened: "" where nothing does."""

    @property
    def least_bytes(self) -> int:
        """A lower bound of what all of it takes in memory."""
        return 0

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yield the rows from the first to the last.

        Args:
            columns: which to read, in any order; None: all.

        Raises:
            DataError: the file cannot be read, lacks a column, or changed since it was opened.
        """
        wanted = list(self.columns if columns is None else columns)
        missing = [each for each in wanted if each not in self.columns]
        if missing:
            raise DataError(
                f"{self.name} lacks {len(missing)} of {len(wanted)} columns: {some_of(missing)}",
                expected=f"them among {some_of(self.columns)}",
            )
        for chunk in self._read(wanted):
            self.refuse_change()
            yield chunk[wanted]
        self.refuse_change()

    def refuse_change(self) -> None:
        """Make sure that the content is that which was opened.

        Raises:
            DataError: it is another one, or gone.
        """
        if self._stamp_now() != self.stamp:
            raise DataError(f"{self.name} was changed while it was in use", advice="Start again with the new file.")

    @abstractmethod
    def _read(self, columns: list[str]) -> Iterator[pd.DataFrame]: ...

    def _stamp_now(self) -> str:
        return ""


class FrameSource(TableSource):
    """A data frame that is in memory already."""

    def __init__(self, frame: pd.DataFrame, chunk_rows: int = CHUNK_ROWS) -> None:
        super().__init__("the data frame", list(frame.columns), chunk_rows)
        self._frame = frame.set_axis(list(self.columns), axis=1)

    def _read(self, columns: list[str]) -> Iterator[pd.DataFrame]:
        for start in range(0, len(self._frame), self._chunk_rows):
            yield self._frame.iloc[start : start + self._chunk_rows][columns]


class _FileSource(TableSource):
    def __init__(self, path: Path, columns: Sequence[object], chunk_rows: int) -> None:
        self.path = path
        super().__init__(str(path), columns, chunk_rows)

    @property
    def least_bytes(self) -> int:
        """A file on the disk is no larger than its content."""
        with _readable(self.path):
            return self.path.stat().st_size

    def _stamp_now(self) -> str:
        with _readable(self.path):
            found = self.path.stat()
            return f"{found.st_size}-{found.st_mtime_ns}"


class CsvSource(_FileSource):
    """A CSV, gzipped or not. Every cell is the text that stands there; an empty one is missing."""

    def __init__(self, path: Path, chunk_rows: int = CHUNK_ROWS) -> None:
        with _readable(path), _text(path) as file:
            header = next(csv.reader(file), [])
        self._is_checked = False
        super().__init__(path, header, chunk_rows)

    def _read(self, columns: list[str]) -> Iterator[pd.DataFrame]:
        # Lines that are too long are only noticed where all columns are read; so the first reading does.
        chosen = columns if self._is_checked else None
        with _readable(self.path), _text(self.path) as file:
            reader = pd.read_csv(
                file, dtype=str, keep_default_na=False, index_col=False, usecols=chosen, chunksize=self._chunk_rows
            )
            with reader:
                while (chunk := _next(reader)) is not None:
                    yield chunk
        self._is_checked = True


class ParquetSource(_FileSource):
    """A Parquet file, read by batches of its row groups. An index that pandas named is a column like others."""

    def __init__(self, path: Path, chunk_rows: int = CHUNK_ROWS) -> None:
        with _readable(path):
            path.stat()  # Arrow's own error does not say what is wrong
            self._parquet: Any = import_module("pyarrow.parquet")
            names = self._parquet.read_schema(path).names
        super().__init__(path, _own(names), chunk_rows)

    def _read(self, columns: list[str]) -> Iterator[pd.DataFrame]:
        with _readable(self.path), self._parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=self._chunk_rows, columns=columns):
                yield _frame(batch)


class FeatherSource(_FileSource):
    """A Feather file (version 2, which is Arrow's own), read by its record batches."""

    def __init__(self, path: Path, chunk_rows: int = CHUNK_ROWS) -> None:
        with _readable(path):
            path.stat()
            self._arrow: Any = import_module("pyarrow")
            with self._arrow.memory_map(str(path)) as file:
                names = self._arrow.ipc.open_file(file).schema.names
        super().__init__(path, _own(names), chunk_rows)

    def _read(self, columns: list[str]) -> Iterator[pd.DataFrame]:
        with _readable(self.path), self._arrow.memory_map(str(self.path)) as file:
            reader = self._arrow.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number).select(columns)
                for start in range(0, batch.num_rows, self._chunk_rows):
                    yield _frame(batch.slice(start, self._chunk_rows))


_SOURCES: dict[str, type[CsvSource] | type[ParquetSource] | type[FeatherSource]] = {
    ".csv": CsvSource,
    ".csv.gz": CsvSource,
    ".parquet": ParquetSource,
    ".feather": FeatherSource,
}


def open_source(source: str | Path | pd.DataFrame | TableSource, *, chunk_rows: int = CHUNK_ROWS) -> TableSource:
    """Return the rows of a file, by its name, or of a data frame.

    Args:
        source: a .csv, .csv.gz, .parquet or .feather file, or what is in memory already.
        chunk_rows: rows that are read at a time.

    Raises:
        DataError: there is no such file, it cannot be read, or its columns have no names of their own.
    """
    if isinstance(source, TableSource):
        return source
    if isinstance(source, pd.DataFrame):
        return FrameSource(source, chunk_rows)
    path = Path(source)
    name = path.name.lower()
    kind = _SOURCES.get(".csv.gz" if name.endswith(".csv.gz") else Path(name).suffix)
    if kind is None:
        raise DataError(f"{path} has the name of no table that can be read here", expected=READABLE)
    return kind(path, chunk_rows)


def _text(path: Path) -> Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _next(reader: Any) -> pd.DataFrame | None:
    with warnings.catch_warnings():
        # Where lines have more fields than the header, pandas would leave the last ones out.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        chunk: pd.DataFrame | None = next(reader, None)
    return chunk


def _own(names: Sequence[str]) -> list[str]:
    """Leave out the row numbers that pandas writes where an index has no name."""
    return [each for each in names if not each.startswith("__index_level_")]


def _frame(batch: Any) -> pd.DataFrame:
    """Return an Arrow batch with whole numbers and booleans that stay such where some are missing."""
    arrow: Any = import_module("pyarrow")
    kinds = {
        arrow.bool_(): pd.BooleanDtype(),
        **{getattr(arrow, f"int{bits}")(): getattr(pd, f"Int{bits}Dtype")() for bits in (8, 16, 32, 64)},
        **{getattr(arrow, f"uint{bits}")(): getattr(pd, f"UInt{bits}Dtype")() for bits in (8, 16, 32, 64)},
    }
    frame: pd.DataFrame = batch.to_pandas(types_mapper=kinds.get, ignore_metadata=True)
    return frame


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what reading raises into a DataError that holds nothing of the file's content."""
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"cannot read {path}: {error.name} is not installed", advice="pip install 'heterofed[parquet]'"
        ) from None
    except (OSError, ValueError, EOFError, csv.Error, zlib.error, Warning) as error:  # Arrow's errors are ValueErrors
        raise DataError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or type(error).__name__}",
            expected=READABLE,
            advice=(
                "Look at the name and the file: it is whole, and in a CSV no line has more fields than the first, and "
                "a text with a comma stands in quotes."
            ),
        ) from None

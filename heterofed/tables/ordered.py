"""A table whose rows are found by id: in memory while it fits, else read anew from its file chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heterofed.errors import DataError
from heterofed.tables.identities import (
    DecimalIds,
    Duplicates,
    MissingIds,
    check_policies,
    find_id_column,
    identities,
    raw_ids,
)
from heterofed.tables.reading import CHUNK_ROWS, TableSource, open_source
from heterofed.tables.values import Bools, Ints
from heterofed.words import some_of

MEMORY_BYTES = 1 << 30
"""How much of a table is kept in memory: 1 GiB."""


class OrderedTable:
    """The rows of a table by their ids.

    Args:
        source: a .csv, .csv.gz, .parquet or .feather file, or a data frame.
        id_column: its name; None: the only column.
        duplicates: what to do with an id that stands in several rows: "refuse", or keep the "first" or the "last".
        missing_ids: what to do with a row without an id: "refuse" or "drop".
        decimal_ids: what to do with an id that is the text "7.0": "refuse", read it as the "whole" number 7, or keep
            the "text". Ids of other types are written as `psi.normalise_ids` says.
        memory_bytes: rows that take more than this, as they are read, are not kept: every reading goes to the file.

    Raises:
        ConfigError: there is no such policy.
        DataError: the file cannot be read, or its ids cannot be used. The text has counts, never an id.
    """

    def __init__(
        self,
        source: str | Path | pd.DataFrame | TableSource,
        id_column: str | None = None,
        *,
        duplicates: Duplicates = "refuse",
        missing_ids: MissingIds = "refuse",
        decimal_ids: DecimalIds = "refuse",
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        check_policies(duplicates, missing_ids, decimal_ids)
        self.source = open_source(source)
        self.name = self.source.name
        self.id_column = find_id_column(self.source.columns, id_column, self.name)
        self.columns = tuple(each for each in self.source.columns if each != self.id_column)
        self.policy = f"{self.id_column!r} {duplicates} {missing_ids} {decimal_ids}"
        cells, frames = self._read_once(memory_bytes)
        self.found = identities(
            cells,
            name=self.name,
            column=self.id_column,
            duplicates=duplicates,
            missing_ids=missing_ids,
            decimal_ids=decimal_ids,
        )
        self._places = {each: place for place, each in enumerate(self.found.ids)}
        self._frame: pd.DataFrame | None = None
        if frames is not None:
            whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
            self._frame = whole.iloc[self.found.rows].set_axis(pd.Index(self.found.ids, dtype=object), axis=0)

    def __len__(self) -> int:
        return len(self.found.ids)

    def __repr__(self) -> str:
        return f"OrderedTable({self.name}: {len(self)} ids, {len(self.columns)} columns)"

    @property
    def ids(self) -> list[str]:
        """The ids, unique, in the order of the rows; a new list."""
        return list(self.found.ids)

    @property
    def is_in_memory(self) -> bool:
        """Whether the rows are kept, so that `rows` needs no reading."""
        return self._frame is not None

    def has(self, ids: Sequence[str]) -> Bools:
        """Return for each id whether there is a row of it."""
        return np.fromiter((each in self._places for each in ids), bool, len(ids))

    def places(self, ids: Sequence[str]) -> Ints:
        """Return for each id its place in `ids` of this table.

        Raises:
            DataError: there is no row of some; the text has their count.
        """
        found = np.fromiter((self._places.get(each, -1) for each in ids), np.int64, len(ids))
        unknown = int((found < 0).sum())
        if unknown:
            raise DataError(
                f"{self.name} has no row for {unknown} of {len(ids)} ids",
                expected="a row for each",
                advice="Ask `has` first where ids may be unknown.",
            )
        return found

    def rows(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the rows of exactly these ids, in this order, with the ids as index; an id may come twice.

        Where the table is not in memory, this reads the file once: for batches there is `EncodedTable`.

        Args:
            ids: whose rows.
            columns: which columns; None: all but the ids.

        Raises:
            DataError: there is no row for some of the ids, no such column, or the file cannot be read.
        """
        places = self.places(ids)
        if self._frame is not None:
            kept: pd.DataFrame = self._frame[self._known(columns)].iloc[places]
            return kept
        parts = list(self.chunks(ids, columns))
        if not parts:
            parts = [pd.DataFrame(columns=self._known(columns), dtype=object)]
        found: pd.DataFrame = pd.concat(parts).iloc[np.searchsorted(np.unique(places), places)]
        return found

    def chunks(self, ids: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yield the rows in the order of the file, with their ids as index, some thousands at a time.

        Args:
            ids: of these only; None: all.
            columns: which columns; None: all but the ids.

        Raises:
            DataError: as `rows`.
        """
        wanted = np.ones(len(self), dtype=bool)
        if ids is not None:
            wanted = np.zeros(len(self), dtype=bool)
            wanted[self.places(list(ids))] = True
        names = self._known(columns)
        if self._frame is not None:
            kept = np.flatnonzero(wanted)
            for start in range(0, len(kept), CHUNK_ROWS):
                yield self._frame[names].iloc[kept[start : start + CHUNK_ROWS]]
            return
        start = 0
        for frame in self.source.chunks(names or [self.id_column]):
            first, last = np.searchsorted(self.found.rows, (start, start + len(frame)))
            kept = np.arange(first, last)[wanted[first:last]]
            if len(kept):
                labels = pd.Index([self.found.ids[each] for each in kept], dtype=object)
                yield frame[names].iloc[self.found.rows[kept] - start].set_axis(labels, axis=0)
            start += len(frame)

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        names = list(self.columns if columns is None else columns)
        unknown = [each for each in names if each not in self.columns]
        if unknown:
            raise DataError(
                f"{self.name} lacks {len(unknown)} of {len(names)} columns: {some_of(unknown)}",
                expected=f"them beside the id column {self.id_column!r}",
                advice="The columns have to be named as in the table that the model was trained on.",
            )
        return names

    def _read_once(self, memory_bytes: int) -> tuple[list[Any], list[pd.DataFrame] | None]:
        """Return the cells of the id column, and all rows if they are not too much to keep."""
        cells: list[Any] = []
        frames: list[pd.DataFrame] | None = [] if self.source.least_bytes <= memory_bytes else None
        room = memory_bytes
        for frame in self.source.chunks(None if frames is not None else [self.id_column]):
            cells += raw_ids(frame[self.id_column])
            if frames is not None:
                rest = frame[list(self.columns)]
                room -= int(rest.memory_usage(deep=True).sum())
                frames.append(rest)
                if room < 0:
                    frames = None
        return cells, frames

"""A party's table in a task: its ids, what its columns are, and the numbers of its rows that models take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.metrics.progress import logger
from heterofed.tables import (
    Columns,
    DecimalIds,
    Duplicates,
    EncodedTable,
    FeatureKind,
    LabelEncoder,
    MissingIds,
    OrderedTable,
    TableEncoder,
    Unlabelled,
    Unseen,
    labelled_ids,
    recognise,
)
from heterofed.tables.ordered import MEMORY_BYTES
from heterofed.tabular.runs import Fitted
from heterofed.words import some_of

Data = str | Path | pd.DataFrame
"""A .csv, .csv.gz, .parquet or .feather file, or a data frame."""


class PartyTable:
    """The rows of a party by their ids. Whatever is wrong with the table is found at once, and nothing is written.

    Args:
        data: the table.
        id_column: its name; None: the only column.
        duplicates: what to do with an id that stands in several rows, as for `OrderedTable`.
        missing_ids: what to do with a row without an id.
        decimal_ids: what to do with an id such as the text "7.0".
        unseen: what to make, in predictions, of a category that the train rows did not have; None: as was fitted.
        labels: columns that hold what is to be predicted.
        kinds: name -> kind of columns that are not to be recognised.
        ignore: columns to leave out.
        fitted: what a run has fitted, where this table is for predictions; None: it is to be trained on.

    Raises:
        ConfigError: an argument does not fit the table.
        DataError: the table cannot be read or used; the text has counts, never an id.
    """

    def __init__(
        self,
        data: Data,
        id_column: str | None,
        *,
        duplicates: Duplicates = "refuse",
        missing_ids: MissingIds = "refuse",
        decimal_ids: DecimalIds = "refuse",
        unseen: Unseen | None = None,
        labels: Sequence[str] = (),
        kinds: Mapping[str, FeatureKind] | None = None,
        ignore: Collection[str] = (),
        fitted: Fitted | None = None,
    ) -> None:
        self.duplicates, self.missing_ids, self.decimal_ids = duplicates, missing_ids, decimal_ids
        self.table = OrderedTable(
            data, id_column, duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids
        )
        self.unseen = unseen
        encoder = fitted.encoder if fitted is not None else None
        self.encoder = encoder if encoder is None or unseen is None else encoder.with_unseen(unseen)
        self.columns: Columns | None = None
        self._encoded: EncodedTable | None = None
        if fitted is None:
            self.columns = recognise(self.table, labels=labels, kinds=kinds, ignore=ignore)
            self.columns.refuse_problems()
        elif self.encoder is not None:
            self._check_rows(self.encoder)

    @property
    def has_features(self) -> bool:
        """Whether a model has anything to learn from here."""
        return self.encoder is not None or (self.columns is not None and bool(self.columns.features))

    def refuse_no_features(self) -> None:
        """Refuse a table that a collaborator cannot take part with.

        Raises:
            ConfigError: no column is a feature.
        """
        if not self.has_features:
            raise ConfigError(
                f"no column of {self.table.name} is a feature",
                expected="at least one that is numeric, categorical, boolean or a date",
                advice="See what was found of the columns (heterofed check), and correct it with kinds.",
            ).privately("its table has no features")

    @property
    def inputs(self) -> int:
        """How many numbers a row becomes; 0 without features, and before `fit`."""
        return self.encoder.width if self.encoder is not None else 0

    def fit(self, train_ids: Sequence[str], folder: Path | None) -> None:
        """Fit the columns to the train rows, and encode all rows of the table.

        A category that only other rows of this table have counts as one of the others here: `unseen` is about tables
        that come later.

        Args:
            train_ids: whose rows.
            folder: where encoded rows are kept if they are too many for the memory.

        Raises:
            DataError: cells cannot be used; the text has their count.
        """
        if self.columns is None or not self.columns.features:
            return
        rows = self.table.chunks(train_ids, list(self.columns.features))
        encoder = TableEncoder.fit(rows, self.columns, unseen=self.unseen or "refuse")
        self._encoded = EncodedTable(self.table, encoder.with_unseen("other"), folder=folder)
        self.encoder = encoder

    def rows(self, ids: Sequence[str], folder: Path | None = None) -> Tensor:
        """Return the encoded rows of exactly these ids, in this order: (rows, inputs), float32.

        Args:
            ids: whose rows.
            folder: as for `fit`.

        Raises:
            DataError: there is no row of some; the text has their count.
        """
        if self.encoder is None:
            self.table.places(ids)
            return torch.zeros(len(ids), 0)
        if self._encoded is None:
            self._encoded = EncodedTable(self.table, self.encoder, folder=folder)
        return self._encoded.rows(ids)

    def _check_rows(self, encoder: TableEncoder) -> None:
        """Find out now whether all rows can be encoded."""
        if len(self.table) * encoder.width * encoder.dtype.itemsize <= MEMORY_BYTES:
            self._encoded = EncodedTable(self.table, encoder)
            return
        for chunk in self.table.chunks(columns=encoder.columns):
            encoder.transform(chunk)


class HostLabels:
    """The labels of the host's rows, for those that have them.

    Args:
        table: the host's.
        columns: the label columns.
        unlabelled: what to do with rows without a label.
        encoder: what was fitted before; None: nothing.
        asked: the kind of task, where it is not to be recognised.

    Raises:
        DataError: rows have no label and may not, or labels cannot be used; with the count.
    """

    def __init__(
        self,
        table: OrderedTable,
        columns: Sequence[str],
        *,
        unlabelled: Unlabelled = "refuse",
        encoder: LabelEncoder | None = None,
        asked: Any = None,
    ) -> None:
        self._table = table
        self._columns = list(columns)
        missing = [each for each in columns if each not in table.columns]
        if missing and encoder is not None:
            raise ConfigError(
                f"{table.name} has no label column {missing[0]!r}",
                expected="the label of the training, to compare the predictions with",
                advice="Rows whose labels are not known can be predicted, but not scored.",
            )
        if missing:
            raise ConfigError(
                f"{table.name} has no label column {missing[0]!r}",
                expected=f"one of {some_of(table.columns)}",
                advice="Name the column that holds what is to be predicted.",
            ).privately("the label column is not in its table")
        self.ids = labelled_ids(table, columns, unlabelled)
        if len(self.ids) < len(table):
            logger.warning("%d of %d rows have no label and are left out", len(table) - len(self.ids), len(table))
        # The kind of task and the classes are the host's to know; of a regression the train rows say the rest.
        self.encoder = encoder or LabelEncoder.fit(table.chunks(self.ids, self._columns), self._columns, task=asked)
        self._values = self._encode()

    def fit(self, train_ids: Sequence[str]) -> None:
        """Count the classes, or find the mean and the deviation, among the train rows.

        Raises:
            DataError: the train rows have too few distinct values to learn from.
        """
        known = self.encoder
        classes = known.classes if known.task in ("binary", "multiclass") else None
        rows = self._table.chunks(train_ids, self._columns)
        self.encoder = LabelEncoder.fit(rows, self._columns, task=known.task, classes=classes)
        self._values = self._encode()

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Return the labels of exactly these ids, in this order, as `LabelEncoder` encodes them."""
        return torch.from_numpy(self._values[self._table.places(ids)])

    def _encode(self) -> npt.NDArray[Any]:
        values = np.zeros((len(self._table), *self.encoder.shape), dtype=self.encoder.dtype)
        for chunk in self._table.chunks(self.ids, self._columns):
            values[self._table.places([str(each) for each in chunk.index])] = self.encoder.transform(chunk)
        return values

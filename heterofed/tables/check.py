"""A first look at a table: what training would make of it, before anybody else is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heterofed.errors import HeterofedError
from heterofed.tables.answers import AskedTask
from heterofed.tables.columns import Columns, FeatureKind, Role, recognise, refuse_label
from heterofed.tables.identities import DecimalIds, Duplicates, MissingIds
from heterofed.tables.labels import LabelEncoder, Unlabelled, labelled_ids
from heterofed.tables.ordered import MEMORY_BYTES, OrderedTable
from heterofed.tables.reading import TableSource


@dataclass(frozen=True)
class TableReport:
    """What was found of a table. No text of it holds an id or the value of a category; classes are the host's own."""

    name: str
    rows: int
    ids: int
    """Different ids, each of which training would have a row of."""
    missing_ids: int
    repeated_ids: int
    """Rows whose id another row has too."""
    unlabelled: int
    columns: Columns
    labels: LabelEncoder | None
    """What is to be predicted; None at a collaborator, and where the labels cannot be used."""
    problems: tuple[str, ...]
    """Why training would refuse the table; empty: it would not."""

    @property
    def is_usable(self) -> bool:
        """Whether training would take the table."""
        return not self.problems


def look_at(
    source: str | Path | pd.DataFrame | TableSource,
    id_column: str | None = None,
    *,
    label: str | Sequence[str] | None = None,
    role: Role = "host",
    task: AskedTask | None = None,
    kinds: Mapping[str, FeatureKind] | None = None,
    ignore: Collection[str] = (),
    duplicates: Duplicates = "refuse",
    missing_ids: MissingIds = "refuse",
    decimal_ids: DecimalIds = "refuse",
    unlabelled: Unlabelled = "refuse",
    memory_bytes: int = MEMORY_BYTES,
) -> TableReport:
    """Look at all of a table, and report everything that training would refuse, not only the first.

    Args:
        source: a file or a data frame.
        id_column: its name; None: the only column.
        label: column or columns of the labels; not at a collaborator.
        role: which party this is.
        task: the kind of task, if it is not to be recognised.
        kinds: name -> kind of columns that are not to be recognised.
        ignore: columns to leave out.
        duplicates: what training will do with an id that stands in several rows.
        missing_ids: what it will do with rows without an id.
        decimal_ids: what it will make of ids such as the text "7.0".
        unlabelled: what it will do with rows without a label.
        memory_bytes: larger tables are read several times instead of being kept.

    Raises:
        ConfigError: an argument does not fit the others or the table.
        DataError: the table cannot be read, has no such id column, or its ids cannot be used at all.
    """
    refuse_label(label, role)
    labels = [label] if isinstance(label, str) else list(label or ())
    table = OrderedTable(
        source,
        id_column,
        duplicates="first" if duplicates == "refuse" else duplicates,
        missing_ids="drop",
        decimal_ids=decimal_ids,
        memory_bytes=memory_bytes,
    )
    columns = recognise(table, labels=labels, kinds=kinds, ignore=ignore)
    found = table.found
    problems = []
    if found.missing and missing_ids == "refuse":
        problems.append(f"{found.missing} of {found.total} rows have no id")
    if found.repeated and duplicates == "refuse":
        problems.append(f"{found.repeated} of {found.total} rows repeat an id")
    encoder, lacking = None, 0
    if labels:
        try:
            ids = labelled_ids(table, labels, "drop")
            lacking = len(table) - len(ids)
            if lacking and unlabelled == "refuse":
                problems.append(f"{lacking} of {len(table)} rows have no label")
            encoder = LabelEncoder.fit(table.chunks(ids, labels), labels, task=task)
        except HeterofedError as error:
            problems.append(str(error))
    problems += [f"column {each.name!r} {each.problem[0]}" for each in columns if each.problem]
    if not columns.features and role == "collaborator":
        problems.append("no column is a feature")
    return TableReport(
        table.name,
        found.total,
        len(table),
        found.missing,
        found.repeated,
        lacking,
        columns,
        encoder,
        tuple(problems),
    )

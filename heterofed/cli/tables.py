"""Options that the commands for tables share, and what they mean as arguments. Nothing here takes long to load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterofed.config import Settings
from heterofed.errors import ConfigError
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import MIN_PARTIES, Task

if TYPE_CHECKING:
    from heterofed.tables import Columns


class Duplicates(str, Enum):
    """What to do where an id stands in several rows."""

    refuse = "refuse"
    first = "first"
    last = "last"


class MissingIds(str, Enum):
    """What to do with rows without an id."""

    refuse = "refuse"
    drop = "drop"


class DecimalIds(str, Enum):
    """What to make of the text "7.0" in an id column."""

    refuse = "refuse"
    whole = "whole"
    text = "text"


class Unlabelled(str, Enum):
    """What to do with rows without a label."""

    refuse = "refuse"
    drop = "drop"


class Unseen(str, Enum):
    """What to make of a category that training did not have."""

    refuse = "refuse"
    other = "other"


class AskedTask(str, Enum):
    """The kind of task."""

    classification = "classification"
    binary = "binary"
    multiclass = "multiclass"
    regression = "regression"
    multilabel = "multilabel"


class Absent(str, Enum):
    """What to do where a collaborator does not come."""

    fail = "fail"
    mean = "mean"
    zeros = "zeros"


MOST_SHOWN = 50
"""Columns that are shown before training."""

STAND_IN_AFTER_S = 30.0
"""How long a party is waited for that can be done without."""

WIDE = 160
"""Characters in a line where the output is no terminal."""

_TABLE = "a .csv, .csv.gz, .parquet or .feather file"

Data = Annotated[Path, typer.Option(metavar="FILE", help=f"This party's table: {_TABLE}.")]
IdColumn = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="Its id column; not needed if it is the only column.")
]
Labels = Annotated[
    list[str],
    typer.Option(
        "--label", metavar="COLUMN", help="The column to predict; several times where rows have several labels."
    ),
]
NoLabel = Annotated[list[str] | None, typer.Option("--label", hidden=True)]
FeatureKey = Annotated[
    str | None, typer.Option(metavar="PARTY", help="This party; without it the task's first (host) or second.")
]
AskedKind = Annotated[
    AskedTask | None, typer.Option("--task", help="What kind of labels they are; by default recognised.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="COLUMN=KIND",
        help="What a column is: numeric, categorical, boolean or date; by default recognised. May be given several "
        "times.",
    ),
]
Ignore = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="A column to leave out; may be given several times.")
]
OnDuplicates = Annotated[Duplicates, typer.Option("--duplicates", help="Rows that share an id: an error, or keep one.")]
OnMissingIds = Annotated[MissingIds, typer.Option("--missing-ids", help="Rows without an id: an error, or left out.")]
OnDecimalIds = Annotated[DecimalIds, typer.Option("--decimal-ids", help='The id "7.0": an error, 7, or as it is.')]
OnUnlabelled = Annotated[Unlabelled, typer.Option("--unlabelled", help="Rows without a label: an error, or left out.")]
OnUnseen = Annotated[
    Unseen, typer.Option("--unseen", help="A category that only later rows have: an error, or like a rare one.")
]

OwnTask = Annotated[
    str | None, typer.Argument(metavar="ID", help="The task that the run has to be of; by default whatever it is.")
]
OwnId = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="The id column; by default named as in training.")
]
OwnDuplicates = Annotated[
    Duplicates | None, typer.Option("--duplicates", help="Rows that share an id; by default as in training.")
]
OwnMissingIds = Annotated[
    MissingIds | None, typer.Option("--missing-ids", help="Rows without an id; by default as in training.")
]
OwnDecimalIds = Annotated[
    DecimalIds | None, typer.Option("--decimal-ids", help='The id "7.0"; by default as in training.')
]
OwnUnseen = Annotated[
    Unseen | None,
    typer.Option("--unseen", help="A category that training did not have; by default as in training."),
]
OnAbsent = Annotated[
    Absent,
    typer.Option(
        "--absent",
        help="A collaborator that does not come: an error, or its embeddings are taken as the mean of training, or 0.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="How long to wait for collaborators; 0: for ever. By default as HETEROFED_GATHER_TIMEOUT_S "
        f"says, and {STAND_IN_AFTER_S:g} where --absent allows stand-ins.",
    ),
]
AtOnce = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, metavar="N", help="Rows that are asked for at once; by default as in training."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def party_of(task_id: str, feature_key: str | None, *, host: bool) -> tuple[Task, str]:
    """Return the task, and this party's name in it where none was given.

    Raises:
        UnknownTask: there is no such task.
        ConfigError: this party cannot be told from the others, or is none of them.
    """
    place = open_directory(Settings.from_env(), task_id)
    task = place.find(task_id)
    parties = task.feature_keys
    feature_key = feature_key or place.joined_as
    if feature_key is None and not host and len(parties) > MIN_PARTIES:
        raise ConfigError(
            f"the task has {len(parties)} parties", expected=f"--feature-key, one of {', '.join(parties)}"
        )
    feature_key = feature_key or parties[0 if host else 1]
    task.party(feature_key)
    return task, feature_key


def kinds_of(given: Iterable[str] | None) -> dict[str, Any] | None:
    """Return what `--kind COLUMN=KIND` says, as `recognise` takes it.

    Raises:
        ConfigError: one has not this form.
    """
    pairs = [each.rpartition("=") for each in given or ()]
    for name, _, kind in pairs:
        if not name or not kind:
            raise ConfigError("--kind is not COLUMN=KIND", expected="for example --kind zip=categorical")
    return {name: kind for name, _, kind in pairs} or None


def numbers_of(option: str, given: str | None) -> tuple[int, ...] | None:
    """Return what an option of whole numbers with commas between them says; None: it was not given, "": none.

    Raises:
        ConfigError: it says something else.
    """
    if given is None:
        return None
    try:
        return tuple(int(each) for each in given.split(",") if each.strip())
    except ValueError:
        raise ConfigError(f"{option} is {given!r}", expected="whole numbers with commas between them") from None


def widths_of(given: str | None) -> dict[str, int] | None:
    """Return what `--widths shop=32,lab=8` says.

    Raises:
        ConfigError: it has not this form.
    """
    if given is None:
        return None
    try:
        pairs = [each.split("=") for each in given.split(",") if each.strip()]
        return {name.strip(): int(width) for name, width in pairs}
    except ValueError:
        raise ConfigError(f"--widths is {given!r}", expected="for example shop=32,lab=8") from None


def fractions_of(given: str) -> tuple[float, ...]:
    """Return what `--fractions` says.

    Raises:
        ConfigError: it is no row of numbers.
    """
    try:
        return tuple(float(each) for each in given.split(","))
    except ValueError:
        raise ConfigError(f"--fractions is {given!r}", expected="three numbers, such as 0.7,0.1,0.2") from None


def given_only(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None: what nobody asked for is as the class says."""
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in arguments.items()
        if value is not None
    }


def refuse_replacing(path: Path, force: bool, advice: str = "Name another one, or say --force.") -> None:
    """Refuse a file or a folder with something in it, before any work is done for it.

    Raises:
        ConfigError: it is there, and is not to be replaced.
    """
    if path.exists() and not force and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} is there already", expected="a name that is free", advice=advice)


def columns_shown(columns: Columns) -> None:
    """Show what the columns of this party's table were taken for, to people."""
    rows = columns.describe()
    title = f"{columns.table}: {len(columns.features)} of {len(columns)} columns are features"
    print_table(rows[: MOST_SHOWN + 1], title)
    if len(columns) > MOST_SHOWN:
        typer.echo(f"… and {len(columns) - MOST_SHOWN} more; `heterofed check` shows all", err=True)


def print_table(rows: Sequence[Sequence[str]], title: str = "", *, err: bool = True) -> None:
    """Show rows of texts, header first, as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if title:
        typer.echo(title, err=err)  # not the table's own title, which would wrap at the width of a narrow table
    table = Table(*map(escape, rows[0]))
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    console = Console(stderr=err, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=err, highlight=False, width=WIDE)  # a file has room
    console.print(table)

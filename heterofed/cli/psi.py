"""`heterofed psi …`: find the ids that all parties of a task share, without training."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from heterofed.cli.common import TaskId
from heterofed.cli.tables import FeatureKey, party_of
from heterofed.config import Settings
from heterofed.errors import DataError
from heterofed.features.idfile import check_output, read_column, write_column
from heterofed.tasks.model import TaskStatus

psi_app = typer.Typer(
    help="""Find the ids that all parties of a task share, without training.

    Every party runs one of these. To try it with files of this machine alone: `python -m psi intersect --help`.

    Example: heterofed psi host --ids bank.csv --column id --out both.csv ID
    """,
    no_args_is_help=True,
)


class _Reveal(str, Enum):
    both = "both"
    initiator = "initiator"
    cardinality = "cardinality"


_Ids = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="This party's ids: a CSV, Parquet or Feather table, or a .txt with one id per line."
    ),
]
_Column = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The id column; not needed if it is the only column.")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where the shared ids go, sorted: a .csv, .csv.gz or .txt file. Without it they are only counted.",
    ),
]
_Again = Annotated[
    bool, typer.Option("--recover", help="This process was killed and is started again: no error if all was done.")
]
_Who = Annotated[
    _Reveal,
    typer.Option(help="Who learns which ids are shared: both, only the initiator (the host), or only how many."),
]


@psi_app.command("host")
def psi_host(
    task_id: TaskId,
    ids: _Ids,
    column: _Column = None,
    out: _Out = None,
    feature_key: FeatureKey = None,
    reveal: _Who = _Reveal.both,
    recover: _Again = False,
) -> None:
    """Find the shared ids as the host, the party that asks.

    Example: heterofed psi host --ids bank.csv --column id --out both.csv ID
    """
    _intersect(task_id, ids, column, out, feature_key, reveal, host=True, recover=recover)


@psi_app.command("collaborator")
def psi_collaborator(
    task_id: TaskId,
    ids: _Ids,
    column: _Column = None,
    out: _Out = None,
    feature_key: FeatureKey = None,
    reveal: _Who = _Reveal.both,
    recover: _Again = False,
) -> None:
    """Find the shared ids as a collaborator, a party that answers.

    Example: heterofed psi collaborator --ids shop.csv --column id ID
    """
    _intersect(task_id, ids, column, out, feature_key, reveal, host=False, recover=recover)


def _intersect(
    task_id: str,
    ids: Path,
    column: str | None,
    out: Path | None,
    feature_key: str | None,
    reveal: _Reveal,
    *,
    host: bool,
    recover: bool,
) -> None:
    # Here, because the other commands do not need what takes seconds to load.
    import psi
    from heterofed.scheduler.intersecting import Intersection
    from heterofed.scheduler.matching import Matched

    settings = Settings.from_env()
    task, feature_key = party_of(task_id, feature_key, host=host)
    if recover and task.status is TaskStatus.COMPLETED and (out is None or out.exists()):
        typer.echo(f"task {task_id} was completed before" + (f"; the shared ids are in {out}" if out else ""), err=True)
        return
    if out is not None:
        check_output(out)
    values = read_column(ids, column)
    try:
        own = psi.normalise_ids(values)
    except psi.BadIds as error:
        raise DataError(f"the ids of {ids} cannot be used: {error}") from None

    def keep(matched: Matched) -> None:
        if matched.ids is not None and out is not None:
            write_column(out, matched.ids, column)

    part = Intersection(
        task_id,
        feature_key,
        own,
        reveal=reveal.value,
        may_be_empty=True,
        keep=keep,
        recover=recover,
        data_channel_timeout=(60, 600),
        settings=settings,
    )
    matched = part.as_host() if host else part.as_collaborator()
    if matched.count is None:
        typer.echo(f"{len(own)} ids were matched; only the host learns which are shared", err=True)
    else:
        where = f"; they are in {out}" if matched.ids is not None and out is not None else ""
        typer.echo(f"{matched.count} of {len(own)} ids are shared{where}", err=True)

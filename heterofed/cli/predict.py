"""`heterofed predict host|collaborator` and `heterofed evaluate host|collaborator`: new rows through a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterofed.cli.asked import as_table, asked_ids, is_table
from heterofed.cli.outputs import nothing_to_recover
from heterofed.cli.own_code import find_modules_of
from heterofed.cli.tables import (
    STAND_IN_AFTER_S,
    Absent,
    AtOnce,
    Force,
    OnAbsent,
    OwnDecimalIds,
    OwnDuplicates,
    OwnId,
    OwnMissingIds,
    OwnTask,
    OwnUnseen,
    Unlabelled,
    Wait,
    given_only,
    print_table,
    refuse_replacing,
)
from heterofed.errors import ConfigError
from heterofed.words import counted

if TYPE_CHECKING:
    from heterofed.tabular import TableHost

predict_app = typer.Typer(
    help="""Predict for new rows with a run that has ended.

    Every party of the run takes part, each with its own table of the new rows.

    Example: heterofed predict host --run runs/h --ids new.csv --out answers.csv
    """,
    no_args_is_help=True,
)
evaluate_app = typer.Typer(
    help="""Score a run that has ended on new rows with labels.

    Every party of the run takes part, each with its own table of the new rows.

    Example: heterofed evaluate host --run runs/h --data new_guest.csv
    """,
    no_args_is_help=True,
)

HostRun = Annotated[Path, typer.Option("--run", metavar="FOLDER", help="The host's part of a run.")]
CollaboratorRun = Annotated[Path, typer.Option("--run", metavar="FOLDER", help="This collaborator's part of a run.")]
NewData = Annotated[
    Path,
    typer.Option("--data", metavar="FILE", help="This party's table of the new rows, with the columns of training."),
]
HostKey = Annotated[
    str | None,
    typer.Option("--host-key", metavar="KEY", help="The host's new public key; by default the one of training."),
]
Audit = Annotated[
    Path | None,
    typer.Option(
        "--audit",
        metavar="FILE",
        help="Where the session is noted: who, when, how many ids and rows; never the ids. RUN/audit.jsonl by default.",
    ),
]


@predict_app.command("host")
def predict_host(
    run: HostRun,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the predictions go, a .csv or .csv.gz file.")],
    task_id: OwnTask = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Whose predictions, in this order: a table, or a .txt with one id per line. By default every row of "
            "--data.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The host's table of the new rows; by default the file of --ids, if it has the columns.",
        ),
    ] = None,
    id_column: OwnId = None,
    absent: OnAbsent = Absent.fail,
    wait: Wait = None,
    batch_size: AtOnce = None,
    duplicates: OwnDuplicates = None,
    missing_ids: OwnMissingIds = None,
    decimal_ids: OwnDecimalIds = None,
    unseen: OwnUnseen = None,
    force: Force = False,
) -> None:
    """Predict as the host: a row for each id asked, in order.

    An unknown id gets a row that says so. The collaborators answer with `heterofed predict collaborator` or `heterofed
    serve collaborator`.

    Example: heterofed predict host --run runs/h --ids new.csv --out answers.csv
    """
    from heterofed.cli.predictions import check_place, write_predictions

    check_place(out, force=force)
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    host, asked = _host_of(run, ids, data, id_column, policies)
    from heterofed.files import make_folder

    with nothing_to_recover():
        make_folder(out.parent)
    with (
        nothing_to_recover(),
        host.open_predictions(task_id, asked, absent=absent.value, wait=_wait_s(wait, absent)) as predictions,
    ):
        pieces = predictions.predict(batch_size=batch_size)
        counts = write_predictions(out, pieces, host.labels, id_column=host.data.table.id_column)
        _say_absent(predictions.absent, absent)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    typer.echo(f"{out} has {counted(counts.total(), 'row')} ({told})", err=True)


@evaluate_app.command("host")
def evaluate_host(
    run: HostRun,
    data: NewData,
    task_id: OwnTask = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where evaluation.json and report.html go; RUN/evaluation-<n> by default."),
    ] = None,
    id_column: OwnId = None,
    absent: OnAbsent = Absent.fail,
    wait: Wait = None,
    duplicates: OwnDuplicates = None,
    missing_ids: OwnMissingIds = None,
    decimal_ids: OwnDecimalIds = None,
    unseen: OwnUnseen = None,
    unlabelled: Annotated[
        Unlabelled | None, typer.Option("--unlabelled", help="Rows without a label; by default as in training.")
    ] = None,
    force: Force = False,
) -> None:
    """Score a run on new rows with labels, as the host.

    What comes out is evaluation.json and report.html. Rows that not all parties have are left out, unless --absent lets
    stand-ins be taken, and rows without a label with --unlabelled drop; all of them are counted.

    Example: heterofed evaluate host --run runs/h --data new_guest.csv
    """
    if out is not None:
        refuse_replacing(out, force)
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    if unlabelled is not None:
        policies["unlabelled"] = unlabelled.value
    find_modules_of(run)
    from heterofed.files import folder_whole
    from heterofed.report import read_summary
    from heterofed.tabular import TableHost

    host = TableHost.from_run(run, data, id_column, labelled=True, **policies)
    folder = out or _next_free(run)
    with (
        nothing_to_recover(),
        host.open_predictions(task_id, None, absent=absent.value, wait=_wait_s(wait, absent)) as predictions,
    ):
        if folder.exists() and any(folder.iterdir()):  # --force was said: what else is there stays
            host.evaluate_predictions(predictions, folder)
        else:
            with folder_whole(folder) as part:
                host.evaluate_predictions(predictions, part)
        _say_absent(predictions.absent, absent)
    found = read_summary(folder)
    print_table(found.table())
    if found.with_stand_ins:
        typer.echo(f"{counted(found.with_stand_ins, 'row')} of these with stand-ins", err=True)
    typer.echo(f"the report is {folder / 'report.html'}", err=True)


@predict_app.command("collaborator")
def predict_collaborator(
    run: CollaboratorRun,
    data: NewData,
    task_id: OwnTask = None,
    id_column: OwnId = None,
    host_key: HostKey = None,
    audit: Audit = None,
    duplicates: OwnDuplicates = None,
    missing_ids: OwnMissingIds = None,
    decimal_ids: OwnDecimalIds = None,
    unseen: OwnUnseen = None,
) -> None:
    """Answer one session of a host's requests, and end.

    `heterofed serve collaborator` does the same and stays up.

    Example: heterofed predict collaborator --run runs/c --data new_shop.csv
    """
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    _answer(run, data, task_id, id_column, host_key, audit, policies)


@evaluate_app.command("collaborator")
def evaluate_collaborator(
    run: CollaboratorRun,
    data: NewData,
    task_id: OwnTask = None,
    id_column: OwnId = None,
    host_key: HostKey = None,
    audit: Audit = None,
    duplicates: OwnDuplicates = None,
    missing_ids: OwnMissingIds = None,
    decimal_ids: OwnDecimalIds = None,
    unseen: OwnUnseen = None,
) -> None:
    """Answer one session of a host that evaluates, and end.

    It is the same as `heterofed predict collaborator`.

    Example: heterofed evaluate collaborator --run runs/c --data new_shop.csv
    """
    policies = given_only(duplicates=duplicates, missing_ids=missing_ids, decimal_ids=decimal_ids, unseen=unseen)
    _answer(run, data, task_id, id_column, host_key, audit, policies)


def _answer(
    run: Path,
    data: Path,
    task_id: str | None,
    id_column: str | None,
    host_key: str | None,
    audit: Path | None,
    policies: dict[str, Any],
) -> None:
    from heterofed.wire.keys import check_public_key

    key = None if host_key is None else check_public_key(host_key)
    find_modules_of(run)
    from heterofed.scheduler.predicting.audit_log import NAME
    from heterofed.tabular import TableCollaborator

    party = TableCollaborator.from_run(run, data, id_column, **policies)
    answered = party.answer_predictions(task_id, audit=audit or run / NAME, host_key=key)
    requests, rows = counted(answered.requests, "request"), counted(answered.rows, "row")
    typer.echo(f"answered {requests} for {rows} of {counted(answered.ids, 'shared id')}", err=True)


def _host_of(
    run: Path, ids: Path | None, data: Path | None, id_column: str | None, policies: dict[str, Any]
) -> tuple[TableHost, list[str] | None]:
    """Return the host of a run, with its new rows, and the ids that are asked for; None: all of its table.

    Raises:
        HeterofedError: the run, the table or the ids cannot be used; the text says which.
    """
    find_modules_of(run)
    from heterofed.tabular import TableHost
    from heterofed.tabular.runs import read_run

    if ids is None:
        if data is None:
            raise ConfigError("neither --ids nor --data is given", expected="whose predictions are wanted")
        return TableHost.from_run(run, data, id_column, **policies), None
    about = read_run(run, "host").about
    if data is None and about.inputs and not is_table(ids):
        raise ConfigError(
            f"{ids} has ids only, and the model of this host takes columns of its own",
            expected="--data with the host's table of these rows",
        )
    column = id_column or about.id_column
    asked = asked_ids(ids, column if is_table(ids) else None, policies.get("decimal_ids", about.decimal_ids))
    rows = data if data is not None else ids if about.inputs else as_table(asked, column)
    return TableHost.from_run(run, rows, column, **policies), asked


def _wait_s(wait: float | None, absent: Absent) -> float | None:
    return STAND_IN_AFTER_S if wait is None and absent is not Absent.fail else wait


def _next_free(run: Path) -> Path:
    number = 1
    while (run / f"evaluation-{number}").exists():
        number += 1
    return run / f"evaluation-{number}"


def _say_absent(parties: tuple[str, ...], policy: Absent) -> None:
    if parties:
        stand_in = "the mean of training" if policy is Absent.mean else "zeros"
        typer.echo(f"absent: {', '.join(parties)}; {stand_in} stood in for their embeddings", err=True)

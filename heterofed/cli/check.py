"""`heterofed check`: what training would make of a table, before anybody else is asked."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterofed.cli.tables import (
    AskedKind,
    Data,
    DecimalIds,
    Duplicates,
    FeatureKey,
    Force,
    IdColumn,
    Ignore,
    Kinds,
    MissingIds,
    OnDecimalIds,
    OnDuplicates,
    OnMissingIds,
    OnUnlabelled,
    Unlabelled,
    kinds_of,
    party_of,
    print_table,
    refuse_replacing,
)
from heterofed.errors import DataError, HeterofedError
from heterofed.words import counted

if TYPE_CHECKING:
    from heterofed.tables import TableReport


class Role(str, Enum):
    """Which party a table is of."""

    host = "host"
    collaborator = "collaborator"


def check(
    data: Data,
    task_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A task where the outcome is noted; a party that failed cannot run. By default nowhere."
        ),
    ] = None,
    id_column: IdColumn = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="The column to predict, at the host. May be given several times."),
    ] = None,
    role: Annotated[Role | None, typer.Option(help="Whose table; by default the host's if --label is given.")] = None,
    task: AskedKind = None,
    feature_key: FeatureKey = None,
    kind: Kinds = None,
    ignore: Ignore = None,
    duplicates: OnDuplicates = Duplicates.refuse,
    missing_ids: OnMissingIds = MissingIds.refuse,
    decimal_ids: OnDecimalIds = DecimalIds.refuse,
    unlabelled: OnUnlabelled = Unlabelled.refuse,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where what was found goes as JSON; without it, nowhere.")
    ] = None,
    force: Force = False,
) -> None:
    """Look at a table as training would, and say what is amiss.

    What each column was taken for is shown too. Exit code 1 says that training would refuse the table. With the id of
    a task, the task notes the outcome for this party.

    Example: heterofed check --data guest.csv --id id --label y
    """
    from heterofed.tables import look_at

    if out is not None:
        refuse_replacing(out, force)
    role = role or (Role.host if label else Role.collaborator)
    if task_id is not None:
        _, feature_key = party_of(task_id, feature_key, host=role is Role.host)

    def look() -> TableReport:
        return look_at(
            data,
            id_column,
            label=label,
            role=role.value,
            task=None if task is None else task.value,
            kinds=kinds_of(kind),
            ignore=ignore or (),
            duplicates=duplicates.value,
            missing_ids=missing_ids.value,
            decimal_ids=decimal_ids.value,
            unlabelled=unlabelled.value,
        )

    report = look() if task_id is None else _noted(task_id, feature_key, look)
    _show(report)
    if out is not None:
        from heterofed.files import write_whole

        text = json.dumps(form_of(report), indent=2) + "\n"
        write_whole(out, lambda file: file.write(text.encode()))
    if not report.is_usable:
        problems = counted(len(report.problems), "problem")
        raise DataError(
            f"{report.name} has {problems}: {'; '.join(report.problems)}",
            expected="a table that training takes",
        )


def _noted(task_id: str, feature_key: str | None, look: Any) -> TableReport:
    """Look at a table as the check of a party's data, whose outcome its task keeps."""
    from heterofed.scheduler.checker import DataChecker

    found: list[TableReport] = []
    failed: list[HeterofedError] = []

    class TableChecker(DataChecker):
        def verify_data(self) -> tuple[bool, str]:
            try:
                report: TableReport = look()
            except HeterofedError as error:  # its text names files of this party; others hear less
                failed.append(error)
                return False, error.for_peers()
            found.append(report)
            problems = report.problems
            return report.is_usable, f"{counted(len(problems), 'problem')} with its table" if problems else ""

    TableChecker(task_id, feature_key).execute_verification()
    for error in failed:
        raise error
    return found[0]


def _show(report: TableReport) -> None:
    typer.echo(f"{report.name}: {counted(report.rows, 'row')}, {counted(report.ids, 'id')}")
    for count, what in (
        (report.missing_ids, "without an id"),
        (report.repeated_ids, "with the id of another one"),
        (report.unlabelled, "without a label"),
    ):
        if count:
            typer.echo(f"  {counted(count, 'row')} {what}")
    features = f"{len(report.columns.features)} of {len(report.columns)} columns are features"
    print_table(report.columns.describe(), features, err=False)
    if report.labels is not None:
        columns = report.labels.columns
        _, noun = counted(len(columns), "label column").split(" ", 1)
        named = f"{noun} {', '.join(columns)}: {report.labels.task}"
        print_table(report.labels.describe(), named, err=False)
    for each in report.problems:
        typer.echo(f"PROBLEM: {each}")
    if not report.problems:
        typer.echo("no problem found")


def form_of(report: TableReport) -> dict[str, Any]:
    """Return a report as JSON has it: no id and no value of a category; at the host its classes."""
    labels = report.labels
    return {
        "table": report.name,
        "rows": report.rows,
        "ids": report.ids,
        "missing_ids": report.missing_ids,
        "repeated_ids": report.repeated_ids,
        "unlabelled": report.unlabelled,
        "columns": [
            {
                "name": each.name,
                "kind": each.kind,
                "is_feature": each.is_feature,
                "missing": each.missing,
                "kinds": each.kinds,
                "lowest": each.low,
                "highest": each.high,
                "note": each.note,
                "problem": each.problem[0] if each.problem else "",
            }
            for each in report.columns
        ],
        "labels": None
        if labels is None
        else {
            "task": labels.task,
            "columns": list(labels.columns),
            "classes": list(labels.classes),
            "counts": list(labels.counts),
        },
        "problems": list(report.problems),
        "is_usable": report.is_usable,
    }

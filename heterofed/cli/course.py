"""`heterofed task events|metrics|outputs|download`: what happened in a task, and what came out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from heterofed.cli.common import TaskId, directory
from heterofed.errors import ConfigError
from heterofed.files import make_folder, write_whole
from heterofed.tasks.course import Measured
from heterofed.tasks.forms import event_form, measurement_form

_AT_ONCE = 200
_Json = Annotated[bool, typer.Option("--json", help="One object of JSON in each line.")]
_Party = Annotated[str | None, typer.Option(metavar="PARTY", help="Only of this party; by default of all.")]


def events(
    task_id: TaskId,
    after: Annotated[int, typer.Option(metavar="N", help="Only events beyond this number.")] = 0,
    as_json: _Json = False,
) -> None:
    """Show what happened in a task, oldest first.

    Each event has a number, by which --after knows what was seen already.

    Example: heterofed task events ID
    """
    store = directory(task_id).store
    while found := store.events(task_id, after=after, limit=_AT_ONCE):
        for event in found:
            if as_json:
                typer.echo(json.dumps(event_form(event)))
            else:
                typer.echo(f"{event.number:>6} {event.at.astimezone():%Y-%m-%d %H:%M:%S} {event.kind:<14} {event.text}")
        after = found[-1].number


def metrics(
    task_id: TaskId,
    metric_set: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Only this metric set; by default all.")
    ] = None,
    party: _Party = None,
    last: Annotated[int, typer.Option(metavar="N", help="How many rows of each set, the newest.")] = 10,
    as_json: _Json = False,
) -> None:
    """Show what the parties measured: the newest rows of each set.

    Example: heterofed task metrics --set test ID
    """
    place = directory(task_id)
    if party is not None:
        place.find(task_id).party(party)
    sets: dict[tuple[str, str], list[Measured]] = {}
    for row in place.store.metrics(task_id):
        if metric_set in (None, row.set) and party in (None, row.party):
            sets.setdefault((row.party, row.set), []).append(row)
    if not sets:
        typer.echo(f"nothing was measured in task {task_id} yet", err=True)
    console = Console(highlight=False)
    for (who, name), rows in sorted(sets.items()):
        rows = sorted(rows, key=lambda row: row.row)[-max(last, 0) :] if last > 0 else []
        if as_json:
            for row in rows:
                typer.echo(json.dumps(measurement_form(row)))
            continue
        columns = list(dict.fromkeys(column for row in rows for column in row.values))
        table = Table("row", *map(escape, columns), title=escape(f"{name} of {who}"), title_justify="left")
        for row in rows:
            table.add_row(str(row.row), *(_shown(row.values.get(column)) for column in columns))
        console.print(table)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def outputs(task_id: TaskId) -> None:
    """List the files that parties gave to the record of a task.

    Example: heterofed task outputs ID
    """
    found = directory(task_id).store.outputs(task_id)
    if not found:
        typer.echo(f"no party gave files to task {task_id}; HETEROFED_UPLOAD says what a host gives", err=True)
        return
    table = Table(*(Column(each, overflow="fold") for each in ("party", "name", "bytes", "when", "sha256")))
    for each in found:
        when = f"{each.at.astimezone():%Y-%m-%d %H:%M:%S}"
        table.add_row(each.party, each.name, str(each.size), when, f"{each.sha256[:16]}…")
    Console(highlight=False).print(table)


def download(
    task_id: TaskId,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only the file of this name; by default all.")
    ] = None,
    party: _Party = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where they go, each party's files into a folder of its own.")
    ] = Path(),
) -> None:
    """Save the files that parties gave to the record of a task.

    Example: heterofed task download --out results ID
    """
    store = directory(task_id).store
    found = [each for each in store.outputs(task_id) if name in (None, each.name) and party in (None, each.party)]
    if not found:
        raise ConfigError(
            f"task {task_id} has no such file", expected="one of those that `heterofed task outputs` lists"
        )
    for each in found:
        data = store.output(task_id, each.party, each.name)
        path = make_folder(out / task_id / each.party) / each.name
        write_whole(path, lambda file, data=data: file.write(data))  # type: ignore[misc]  # bound here on purpose
        typer.echo(str(path))

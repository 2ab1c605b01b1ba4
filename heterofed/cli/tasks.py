"""`heterofed task …`: create tasks, launch them, and see how they are, on this machine or at a hub."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from heterofed.cli.common import TaskId, directory, expiry, key
from heterofed.cli.course import download, events, metrics, outputs
from heterofed.cli.invite import invite, join
from heterofed.tasks.model import Task, TaskStatus, parse_duration
from heterofed.tasks.options import TrainerOptions, read_uncertainty

task_app = typer.Typer(
    help="""Create tasks, launch them and see how they are.

    Tasks are kept on this machine, or at the hub that HETEROFED_HUB names.

    Example: heterofed task create --name churn --parties bank,shop
    """,
    no_args_is_help=True,
)


@task_app.command("create")
def create_task(
    parties: Annotated[str, typer.Option(metavar="PARTY,PARTY", help="Feature keys of all parties, the host first.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What people call the task.")] = "task",
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="For how long parties may come in, for example 90m, 12h or 7d; without it, for ever. Those that are "
            "connected when it ends go on; nobody is let in after that, also no party that has to be started again.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="Rounds to train; by default what the host's code says.")
    ] = None,
    tests: Annotated[
        str | None,
        typer.Option(
            metavar="each|last|none",
            autocompletion=lambda: ["each", "last", "none"],
            help="Which rounds are tested; by default what the host's code says.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="new|all",
            autocompletion=lambda: ["new", "all"],
            help="Which checkpoints parties keep; by default new, the last few.",
        ),
    ] = None,
    uncertainty: Annotated[
        str | None,
        typer.Option(
            metavar="swag",
            autocompletion=lambda: ["swag"],
            help="swag: every party collects the moments of its own weights after each round, with which it can say "
            "later how sure the network is; by default what its own code says.",
        ),
    ] = None,
) -> None:
    """Create a task and print its id, alone on the last line.

    Example: heterofed task create --name churn --parties bank,shop --expires 7d
    """
    lives_for = parse_duration(expires) if expires is not None else None
    place = directory()
    task = place.store.create(
        name,
        [each.strip() for each in parties.split(",")],
        lives_for=lives_for,
        rounds=rounds,
        options=_options(tests, checkpoints),
        uncertainty=read_uncertainty(uncertainty),
    )
    typer.echo(f"task {task.name!r} for {', '.join(task.feature_keys)}; give this id to every party:", err=True)
    typer.echo(task.id)


_TESTS = {
    "each": TrainerOptions(),
    "last": TrainerOptions(model_test_after_each_round=False),
    "none": TrainerOptions(skip_model_tests=True),
}


def _options(tests: str | None, checkpoints: str | None) -> TrainerOptions | None:
    if tests not in {*_TESTS, None}:
        raise typer.BadParameter("each, last or none", param_hint="--tests")
    if checkpoints not in {"new", "all", None}:
        raise typer.BadParameter("new or all", param_hint="--checkpoints")
    if tests is None and checkpoints is None:
        return None
    chosen = _TESTS[tests or "each"]
    return TrainerOptions(
        skip_model_tests=chosen.skip_model_tests,
        model_test_after_each_round=chosen.model_test_after_each_round,
        delete_local_models_after_aggregation=checkpoints != "all",
    )


@task_app.command("list")
def list_tasks() -> None:
    """List all tasks of this machine, or of the hub, the newest first.

    Example: heterofed task list
    """
    tasks = directory().store.list()
    some_expire = any(task.expires_at for task in tasks)
    # An id is copied into other commands, so it is whole on one line however narrow the terminal is.
    ids = Column("id", no_wrap=True, min_width=max((len(task.id) for task in tasks), default=0))
    others = ["name", "status", "created", *(["expires"] if some_expire else []), "parties"]
    table = Table(ids, *(Column(each, overflow="fold") for each in others))
    for task in tasks:
        times = [f"{task.created_at.astimezone():%Y-%m-%d %H:%M}", *([expiry(task)] if some_expire else [])]
        table.add_row(task.id, escape(task.name), task.status.value, *times, ", ".join(task.feature_keys))
    Console().print(table)


@task_app.command("show")
def show_task(task_id: TaskId) -> None:
    """Show one task: its parties, how far each is, its last words.

    The first letters of the parties' keys and the last lines of the task's log are there too.

    Example: heterofed task show ID
    """
    place = directory(task_id)
    task = place.find(task_id)
    console = Console(highlight=False)
    console.print(f"{task.id}  {task.name}  {task.status.value}", markup=False)
    if task.reason and task.status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        console.print(task.reason, markup=False)
    if progress := _progress(task):
        console.print(progress)
    if task.expires_at is not None:
        console.print(f"expires {expiry(task)}")
    table = Table(*(Column(each, overflow="fold") for each in ("party", "role", "status", "key", "why")))
    for party in task.parties:
        row = (party.feature_key, party.role or "", party.status.value, key(party), party.reason or "")
        table.add_row(*map(escape, row))
    console.print(table)
    for entry in place.store.logs(task_id, limit=10):
        console.print(f"{entry.at.astimezone():%H:%M:%S} {entry.party}: {entry.text}", markup=False)


def _progress(task: Task) -> str:
    said = []
    if task.round or task.rounds:
        said.append(f"round {task.round}" + (f" of {task.rounds}" if task.rounds else "") + " is finished")
    if task.uncertainty is not None:
        said.append(f"uncertainty by {task.uncertainty.upper()}")
    if task.launched_at is not None:
        said.append(f"launched {task.launched_at.astimezone():%Y-%m-%d %H:%M}")
    return ", ".join(said)


@task_app.command("start")
def start_task(task_id: TaskId) -> None:
    """Launch a task: parties whose agents listen start now.

    These are the parties that a `heterofed agent` serves. Others start as they always do.

    Example: heterofed task start ID
    """
    directory(task_id).store.start(task_id)
    typer.echo(f"task {task_id} is launched; every agent that serves one of its parties starts it now", err=True)


@task_app.command("cancel")
def cancel_task(
    task_id: TaskId,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Told to every party; by default only that it was cancelled.")
    ] = None,
) -> None:
    """Cancel a task for good.

    It admits nobody any more, and the parties that run it end with the reason.

    Example: heterofed task cancel --reason "wrong table" ID
    """
    directory(task_id).store.move(task_id, TaskStatus.CANCELLED, reason)
    typer.echo(f"task {task_id} is cancelled", err=True)


task_app.command("invite")(invite)
task_app.command("join")(join)
task_app.command("events")(events)
task_app.command("metrics")(metrics)
task_app.command("outputs")(outputs)
task_app.command("download")(download)

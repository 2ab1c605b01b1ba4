"""The `heterofed` command."""

from __future__ import annotations

import importlib
import sys
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heterofed import __version__
from heterofed.config import Settings
from heterofed.errors import ConfigError, DataError, HeterofedError
from heterofed.features.idfile import check_output, read_column, write_column
from heterofed.frames.messages import PROTOCOL_VERSION
from heterofed.tasks.directory import Directory, open_directory
from heterofed.tasks.model import MIN_PARTIES, Party, Task, TaskStatus, check_feature_key, parse_duration
from heterofed.wire.keys import check_public_key, create, load

app = typer.Typer(
    help="Vertical federated learning: several parties train one network and keep their rows.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
task_app = typer.Typer(help="Create tasks and see how they are.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys: make them, show them, and say whose is whose.", no_args_is_help=True)
demo_app = typer.Typer(help="Run a demo on this machine.", no_args_is_help=True)
psi_app = typer.Typer(help="Find the ids that all parties of a task share, without training.", no_args_is_help=True)
app.add_typer(task_app, name="task")
app.add_typer(keys_app, name="keys")
app.add_typer(psi_app, name="psi")
app.add_typer(demo_app, name="demo")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heterofed {__version__}, protocol {PROTOCOL_VERSION}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Vertical federated learning: several parties train one network and keep their rows."""


_TaskId = Annotated[str, typer.Argument(metavar="ID", help="As `task create` printed it.")]


def _directory() -> Directory:
    return open_directory(Settings.from_env())


@task_app.command("create")
def create_task(
    parties: Annotated[str, typer.Option(help="Feature keys of all parties, separated by commas.")],
    name: Annotated[str, typer.Option(help="What people call the task.")] = "task",
    expires: Annotated[
        str | None,
        typer.Option(
            help="For how long parties may come in, for example 90m, 12h or 7d; without it, for ever. Those that are "
            "connected when it ends go on; nobody is let in after that, also no party that has to be started again."
        ),
    ] = None,
) -> None:
    """Create a task and print its id, alone on the last line.

    Example: heterofed task create --name split-mnist --parties demo_host,demo_collaborator --expires 7d
    """
    lives_for = parse_duration(expires) if expires is not None else None
    task = _directory().store.create(name, [each.strip() for each in parties.split(",")], lives_for=lives_for)
    typer.echo(f"task {task.name!r} for {', '.join(task.feature_keys)}; give this id to every party:", err=True)
    typer.echo(task.id)


@task_app.command("list")
def list_tasks() -> None:
    """List all tasks of this machine, the newest first.

    Example: heterofed task list
    """
    tasks = _directory().store.list()
    some_expire = any(task.expires_at for task in tasks)
    table = Table("id", "name", "status", "created", *(["expires"] if some_expire else []), "parties")
    for task in tasks:
        times = [f"{task.created_at.astimezone():%Y-%m-%d %H:%M}", *([_expiry(task)] if some_expire else [])]
        table.add_row(task.id, task.name, task.status.value, *times, ", ".join(task.feature_keys))
    Console().print(table)


def _expiry(task: Task) -> str:
    if task.expires_at is None:
        return ""
    when = f"{task.expires_at.astimezone():%Y-%m-%d %H:%M}"
    return f"{when}, over" if task.expires_at <= datetime.now(timezone.utc) else when


def _key(party: Party) -> str:
    if party.public_key is None:
        return ""
    start = f"{party.public_key[:8].decode('ascii', errors='replace')}…"
    return f"{start} trusted" if party.key_trusted else start


@task_app.command("show")
def show_task(task_id: Annotated[str, typer.Argument(help="As `task create` printed it.")]) -> None:
    """Show one task: its parties, how far each is, the first letters of their keys, and the last lines of its log.

    Example: heterofed task show ID
    """
    directory = _directory()
    task = directory.find(task_id)
    console = Console(highlight=False)
    console.print(f"{task.id}  {task.name}  {task.status.value}")
    if task.reason and task.status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        console.print(task.reason, markup=False)
    if task.expires_at is not None:
        console.print(f"expires {_expiry(task)}")
    table = Table("party", "role", "status", "key", "why")
    for party in task.parties:
        row = (party.feature_key, party.role or "", party.status.value, _key(party), party.reason or "")
        table.add_row(*map(escape, row))
    console.print(table)
    for entry in directory.store.logs(task_id, limit=10):
        console.print(f"{entry.at.astimezone():%H:%M:%S} {entry.party}: {entry.text}", markup=False)


@task_app.command("cancel")
def cancel_task(
    task_id: _TaskId,
    reason: Annotated[str | None, typer.Option(help="Told to every party.")] = None,
) -> None:
    """Cancel a task for good: it admits nobody any more, and the parties that run it end with the reason.

    Example: heterofed task cancel --reason "wrong table" ID
    """
    _directory().store.move(task_id, TaskStatus.CANCELLED, reason)
    typer.echo(f"task {task_id} is cancelled", err=True)


_KeyName = Annotated[str, typer.Argument(metavar="NAME", help="The party's feature key.")]


def _keys_folder() -> Path:
    return Settings.from_env().home / "keys"


@keys_app.command("new")
def new_key(name: _KeyName) -> None:
    """Make a party's key and print its public half. A key that is there is never overwritten.

    Example: heterofed keys new bank
    """
    typer.echo(create(_keys_folder(), check_feature_key(name)).public.decode("ascii"))


@keys_app.command("show")
def show_key(name: _KeyName) -> None:
    """Print the public half of a party's key. Anybody may see it; the secret half never leaves its file.

    Example: heterofed keys show bank
    """
    typer.echo(load(_keys_folder(), check_feature_key(name)).public.decode("ascii"))


@keys_app.command("trust", context_settings={"ignore_unknown_options": True})  # a key may begin with a hyphen
def trust_key(
    task_id: _TaskId,
    party: Annotated[str, typer.Argument(metavar="PARTY", help="A feature key of the task.")],
    public_key: Annotated[
        str, typer.Argument(metavar="PUBLIC_KEY", help="As `keys show` prints it, in single quotes.")
    ],
) -> None:
    """Say which public key a party of a task has: from now on only that key is this party, whoever announces another.

    Example: heterofed keys trust ID bank 'vVB0Ndqr?8fZ#Bp[0hXc1zB.i@8f3m@fZ$kH&J*u'
    """
    _directory().store.trust(task_id, party, check_public_key(public_key))
    typer.echo(f"only the key {public_key.strip()[:8]}… is {party} of task {task_id} now", err=True)


class _Reveal(str, Enum):
    both = "both"
    initiator = "initiator"
    cardinality = "cardinality"


_Ids = Annotated[Path, typer.Option(help="CSV, Parquet or Feather table, or a text with one id per line (.txt).")]
_Column = Annotated[str | None, typer.Option(help="The id column; not needed if there is only one.")]
_Out = Annotated[Path | None, typer.Option(help="Where the shared ids go, sorted: a .csv, .csv.gz or .txt file.")]
_FeatureKey = Annotated[str | None, typer.Option(help="This party; without it the task's first (host) or second.")]
_Again = Annotated[
    bool, typer.Option("--recover", help="This process was killed and is started again: no error if all was done.")
]
_Who = Annotated[
    _Reveal,
    typer.Option(help="Who learns which ids are shared: both, only the initiator (the host), or only how many."),
]


@psi_app.command("host")
def psi_host(
    task_id: _TaskId,
    ids: _Ids,
    column: _Column = None,
    out: _Out = None,
    feature_key: _FeatureKey = None,
    reveal: _Who = _Reveal.both,
    recover: _Again = False,
) -> None:
    """Find the shared ids as the host, the party that asks.

    Example: heterofed psi host --ids customers.csv --column id --out shared.csv ID
    """
    _intersect(task_id, ids, column, out, feature_key, reveal, host=True, recover=recover)


@psi_app.command("collaborator")
def psi_collaborator(
    task_id: _TaskId,
    ids: _Ids,
    column: _Column = None,
    out: _Out = None,
    feature_key: _FeatureKey = None,
    reveal: _Who = _Reveal.both,
    recover: _Again = False,
) -> None:
    """Find the shared ids as a collaborator, a party that holds a key and answers.

    Example: heterofed psi collaborator --ids patients.csv --column id --out shared.csv ID
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
    task = open_directory(settings).find(task_id)
    parties = task.feature_keys
    if recover and task.status is TaskStatus.COMPLETED and (out is None or out.exists()):
        typer.echo(f"task {task_id} was completed before" + (f"; the shared ids are in {out}" if out else ""), err=True)
        return
    if feature_key is None and not host and len(parties) > MIN_PARTIES:
        raise ConfigError(
            f"the task has {len(parties)} parties", expected=f"--feature-key, one of {', '.join(parties)}"
        )
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
        feature_key or parties[0 if host else 1],
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


@app.command("plot")
def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of one party's results, or of several parties'.")],
    out: Annotated[Path | None, typer.Option(help="The picture, a .png file; RUN/plot.png by default.")] = None,
) -> None:
    """Show what a run measured, as a table and as a picture: loss, scores, learning rate, time, bytes.

    Example: heterofed plot runs/demo --out demo.png
    """
    from heterofed.metrics.plots import can_draw, plot_run
    from heterofed.metrics.runs import read_run, summary

    found = read_run(run)
    typer.echo(summary(found))
    if out is None and not can_draw():
        typer.echo('for a picture: pip install "heterofed[plots]"', err=True)
        return
    typer.echo(f"\n{plot_run(found, out or run / 'plot.png')}", err=True)


@demo_app.command(
    "mnist", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def demo_mnist(context: typer.Context) -> None:
    """Run the split-MNIST task: every party is a process of its own and sees a part of every digit.

    Example: heterofed demo mnist --rounds 2 --out runs/demo (--help lists all options)
    """
    sys.path.insert(0, str(_demos_root()))
    run = importlib.import_module("demos.mnist_split.run")
    raise typer.Exit(run.main(context.args))


def _demos_root() -> Path:
    """Return the folder that holds `demos/`, in a checkout or in an installed package.

    Raises:
        ConfigError: the demos are not there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_demos", package.parent):
        if (folder / "demos" / "mnist_split" / "run.py").is_file():
            return folder
    raise ConfigError("the demos are not installed", advice="Run this from a checkout, or install heterofed again.")


def main() -> None:
    """Run the command; an error of ours ends it with its message and exit code 1."""
    try:
        app()
    except HeterofedError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The `heterofed` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from heterofed import __version__
from heterofed.cli.demos import demo_app
from heterofed.cli.hub import hub_app, run_agent
from heterofed.cli.keys import keys_app
from heterofed.cli.plot import plot
from heterofed.cli.psi import psi_app
from heterofed.cli.tasks import task_app
from heterofed.errors import HeterofedError
from heterofed.frames.messages import PROTOCOL_VERSION

app = typer.Typer(
    help="Vertical federated learning: several parties train one network and keep their rows.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(task_app, name="task")
app.add_typer(keys_app, name="keys")
app.add_typer(psi_app, name="psi")
app.add_typer(hub_app, name="hub")
app.command("agent")(run_agent)
app.command("plot")(plot)
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


def main() -> None:
    """Run the command; an error of ours ends it with its message and exit code 1."""
    try:
        app()
    except HeterofedError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)

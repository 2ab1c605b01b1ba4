"""The `heterofed` command."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from heterofed import __version__
from heterofed.cli.check import check
from heterofed.cli.demos import demo_app
from heterofed.cli.export import export
from heterofed.cli.hub import hub_app, run_agent
from heterofed.cli.keys import keys_app
from heterofed.cli.plot import plot
from heterofed.cli.predict import evaluate_app, predict_app
from heterofed.cli.psi import psi_app
from heterofed.cli.serve import serve_app
from heterofed.cli.tasks import task_app
from heterofed.cli.train import train_app
from heterofed.errors import HeterofedError, TemplateError
from heterofed.frames.messages import PROTOCOL_VERSION

app = typer.Typer(
    help="Vertical federated learning: several parties train one network and keep their rows.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(task_app, name="task")
app.command("check")(check)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(predict_app, name="predict")
app.add_typer(serve_app, name="serve")
app.command("export")(export)
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
        if isinstance(error, TemplateError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)  # what a user's own code raised
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)

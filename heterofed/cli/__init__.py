"""The `heterofed` command."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
from heterofed.errors import HeterofedError
from heterofed.frames.messages import PROTOCOL_VERSION
from heterofed.scheduler.plainly import plain_lines


class _InOrderOfUse(TyperGroup):
    """Lists the commands as a newcomer meets them; typer would list those with subcommands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names."""
        return [*_ORDER, *sorted(self.commands.keys() - _ORDER)]


_ORDER = ("demo", "task", "check", "train", "evaluate", "predict", "serve", "export", "plot", "psi", "keys")

app = typer.Typer(
    cls=_InOrderOfUse,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes leave half of 80 columns to the text, and keep the line ends of docstrings
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
    """Vertical federated learning: several parties train one network and keep their rows.

    Every command says more with --help. An error ends a command with one message and exit code 1.

    Example: heterofed task create --name churn --parties bank,shop
    """


def main() -> None:
    """Run the command; an error of ours ends it with its message, where that is explained, and exit code 1."""
    try:
        app()
    except HeterofedError as error:
        for line in plain_lines(error):
            typer.echo(line, err=True)
        sys.exit(1)

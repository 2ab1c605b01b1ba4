"""`heterofed demo …`: run a demo on this machine."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

from heterofed.errors import ConfigError

demo_app = typer.Typer(
    help="""Run a demo on this machine.

    Example: heterofed demo mnist --rounds 2 --out runs/demo
    """,
    no_args_is_help=True,
)


@demo_app.command(
    "mnist", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def demo_mnist(context: typer.Context) -> None:
    """Run the split-MNIST task, every party a process of its own.

    Each party sees a part of every digit.

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
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_demos", package.parent):
        if (folder / "demos" / "mnist_split" / "run.py").is_file():
            return folder
    raise ConfigError("the demos are not installed", advice="Run this from a checkout, or install heterofed again.")

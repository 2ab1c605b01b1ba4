"""`heterofed demo …`: run a demo on this machine."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from heterofed.errors import ConfigError

demo_app = typer.Typer(
    help="""Run a demo on this machine.

    Example: heterofed demo mnist --rounds 2 --out runs/demo
    """,
    no_args_is_help=True,
)


class _OfAnotherParser(TyperCommand):
    """A command whose options are the demo's own, which reads them itself: typer knows them for completion alone."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the options that begin with what is typed; nothing behind one that takes a value.

        Of nothing a shell makes the files and folders that are there.
        """
        # What the group answers of this command; newer versions of typer have a class of their own for it, not click's.
        found = ctx.parent.command.shell_complete(ctx.parent, self.name)[0]
        actions = _import("demos.mnist_split.command_line").make_parser()._actions
        before = ctx.args[-1] if ctx.args else ""
        if any(before in each.option_strings and each.nargs != 0 for each in actions):
            return []
        options = ((option, each.help) for each in actions for option in each.option_strings)
        return [type(found)(option, help=text) for option, text in options if option.startswith(incomplete)]


@demo_app.command(
    "mnist",
    cls=_OfAnotherParser,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def demo_mnist(context: typer.Context) -> None:
    """Run the split-MNIST task, every party a process of its own.

    Each party sees a part of every digit.

    Example: heterofed demo mnist --rounds 2 --out runs/demo (--help lists all options)
    """
    raise typer.Exit(_import("demos.mnist_split.run").main(context.args))


def _import(name: str) -> Any:
    sys.path.insert(0, str(_demos_root()))
    return importlib.import_module(name)


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

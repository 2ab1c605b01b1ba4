"""`heterofed plot`: what a run measured, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of one party's results, or of several parties'.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The picture, a .png file; RUN/plot.png by default.")
    ] = None,
) -> None:
    """Show what a run measured, as a table and as a picture.

    That is the loss, scores, the learning rate, time and bytes of each round.

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

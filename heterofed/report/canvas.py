"""How the pictures of a report look, and how they become PNGs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from heterofed.metrics.plots import COLOURS, DASHES, INK, RULE
from heterofed.metrics.runs import short
from heterofed.report.evaluation import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.8, 3.7
"""Inches: two fit beside each other on a wide page, and text stays legible where one is as wide as a telephone."""
DPI = 180
GRID, REFERENCE = "#e6e6e6", "#8a8a8a"
SMALL = 8
"""Points, of all but titles."""
MOST_POINTS = 2000


@dataclass(frozen=True)
class Picture:
    """One of the pictures.

    Args:
        name: of the file, without its ending.
        title: of the picture on the page.
        caption: what is to be seen, for those who do not know such pictures and for those who cannot see it.
        draw: draws it into an empty figure.
        height: inches.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Figure], None]
    height: float = HEIGHT

    def png(self) -> bytes:
        """Draw it, on white."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, self.height), dpi=DPI, facecolor="white", layout="constrained")
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in letters that no font here has
            self.draw(figure)
            figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def styled(axes: Axes, x: str, y: str, *, grid: Literal["both", "x", "y"] | None = "both") -> Axes:
    """Give axes their names and a calm look; returns them."""
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(labelsize=SMALL, color=RULE, labelcolor=INK)
    axes.set_xlabel(x, fontsize=SMALL, color=INK)
    axes.set_ylabel(y, fontsize=SMALL, color=INK)
    return axes


def with_legend(figure: Figure, *axes: Axes, columns: int = 2) -> None:
    """Put what the axes show below the figure, each name once."""
    entries: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(columns, len(entries)),
            frameon=False,
            fontsize=SMALL - 0.5,
            labelcolor=INK,
            handlelength=2.2,
            columnspacing=1.2,
        )


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the n-th line: no two of the first 36 are the same."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def named(name: str, most: int = 22) -> str:
    """Return a name as matplotlib shall draw it: in one line and short enough, no formula, no hidden entry."""
    name = short(" ".join(name.split()), most)
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def brief(count: float) -> str:
    """Return a count in at most four characters, below a billion."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            scaled = count / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 and scaled != int(scaled) else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def thinned(*lines: Array) -> Sequence[Array]:
    """Return at most MOST_POINTS points of each, evenly taken, the ends among them."""
    length = len(lines[0])
    if length <= MOST_POINTS:
        return lines
    kept = np.unique(np.linspace(0, length - 1, MOST_POINTS).astype(np.int64))
    return [each[kept] for each in lines]

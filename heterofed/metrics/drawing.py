"""How pictures look and become PNGs: what `heterofed plot` and the pictures of a report have in common."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from heterofed.metrics.runs import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Safe for colour-blind eyes: Okabe and Ito's without the yellow, which white paper swallows, and two of Tol's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#000000", "#999933")
INK, RULE, GRID = "#222222", "#999999", "#e6e6e6"
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^Dv<>Pp"
SMALL = 8
"""Points, of all but titles."""
MOST_POINTS = 2000
"""Of a line; there are no more pixels."""


def calm(axes: Axes, *, grid: Literal["both", "x", "y"] | None = "both") -> Axes:
    """Give axes a look that leaves the eye to the data; returns them."""
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(labelsize=SMALL, color=RULE, labelcolor=INK)
    return axes


def entries_of(*axes: Axes) -> dict[str, Any]:
    """Return what the legend of all axes together has, label -> what is drawn; each label once."""
    entries: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return entries


def named(name: str, most: int = 30) -> str:
    """Return a name as matplotlib shall draw it: in one line and short enough, no formula, no hidden entry."""
    name = short(" ".join(name.split()), most)
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def thinned(*lines: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
    """Return at most MOST_POINTS points of each, evenly taken, the ends among them."""
    length = len(lines[0])
    if length <= MOST_POINTS:
        return lines
    kept = np.unique(np.linspace(0, length - 1, MOST_POINTS).astype(np.int64))
    return [each[kept] for each in lines]


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG, whatever the user's settings of matplotlib are, that does not say what drew it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in letters that no font here has
        canvas: Any = FigureCanvasAgg(figure)  # its method has no annotations
        canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()

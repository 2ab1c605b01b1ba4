"""How the pictures of a report look, beyond what all our pictures have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from heterofed.metrics import drawing
from heterofed.metrics.drawing import COLOURS, DASHES, INK, SMALL, calm, entries_of, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.8, 3.7
"""Inches: two fit beside each other on a wide page, and text stays legible where one is as wide as a telephone."""
DPI = 180
REFERENCE = "#8a8a8a"
MOST_LETTERS = 22
"""Of a name: pictures are narrow."""


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
        self.draw(figure)
        return png_of(figure)


def styled(axes: Axes, x: str, y: str, *, grid: Literal["both", "x", "y"] | None = "both") -> Axes:
    """Give axes their names and a calm look; returns them."""
    calm(axes, grid=grid)
    axes.set_xlabel(x, fontsize=SMALL, color=INK)
    axes.set_ylabel(y, fontsize=SMALL, color=INK)
    return axes


def with_legend(figure: Figure, *axes: Axes, columns: int = 2) -> None:
    """Put what the axes show below the figure, each name once."""
    entries = entries_of(*axes)
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


def named(name: str, most: int = MOST_LETTERS) -> str:
    """Return a name as a picture of a report shall have it."""
    return drawing.named(name, most)


def brief(count: float) -> str:
    """Return a count in at most four characters, below a billion."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            scaled = count / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 and scaled != int(scaled) else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"

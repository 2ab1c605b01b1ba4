"""What `heterofed plot RUN` draws: the metrics of every party of a run as a picture."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heterofed.errors import ConfigError, DataError
from heterofed.files import write_whole
from heterofed.metrics.drawing import COLOURS, DASHES, INK, MARKERS, RULE, calm, entries_of, named, png_of, thinned
from heterofed.metrics.runs import MOST_ROUNDS_AS_BARS, WAIT, Floats, Party, Run, human_bytes, known_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPUTE, WIRE, REST = "#4a4a4a", "#b8b8b8", "#ececec"

DPI = 120
WIDTH, LEFT, RIGHT, TOP = 11.0, 0.95, 2.75, 0.45
"""Inches; the legends are in the right margin."""
PANEL, STRIP, BESIDE, BELOW = 1.9, 1.1, 0.25, 0.6
"""Inches: the height of a panel and of a row of strips, the room between strips and below either."""
HEADING, STRIP_TITLE, LEGEND_LINE = 0.23, 0.12, 0.17
"""Inches: the room that text takes."""

_Cells = list[tuple[str, Callable[["Axes"], None]]]
"""The axes of a panel: title, and what draws into them."""
_Part = tuple[str, str, str, Mapping[int, float]]
"""What is stacked: label, colour, hatch, round -> value."""


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_run(run: Run, out: Path) -> Path:
    """Draw a run into the file `out`, a PNG that is there whole or not at all; returns `out`.

    Raises:
        ConfigError: `out` is no .png, or matplotlib is missing.
        DataError: there is nothing to draw.
        OutputError: the file cannot be written; an earlier one is untouched.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"no picture can be written as {out}", expected="a name that ends in .png")
    picture = png_of(figure_of(run))
    return write_whole(out, lambda file: file.write(picture))


def figure_of(run: Run) -> Figure:
    """Draw a run: loss, scores, learning rate, times and bytes in panels below each other, those that have data.

    Raises:
        ConfigError: matplotlib is missing.
        DataError: there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"a picture needs matplotlib ({error})", advice='Install it: pip install "heterofed[plots]".'
        ) from None

    rates = [(party, name) for party in run.parties for name in party.rates]
    scores = [(party, name) for party in run.parties for name in party.scores]
    panels: dict[str, _Cells] = {
        "Loss": [("", partial(_draw_loss, run))] if _losses(run) else [],
        "Scores": [("", partial(_draw_lines, run, scores, MARKERS))] if scores else [],
        "Learning rate": [("", partial(_draw_lines, run, rates, ""))] if rates else [],
        "Where the time of each round went, in seconds": _time_strips(run),
        "Bytes of each round": [("", partial(_draw_bytes, run))] if any(_traffic(run).values()) else [],
    }
    figure = Figure(dpi=DPI, facecolor="white")
    if not any(panels.values()):
        raise DataError(f"{run.folder} has no loss, score, learning rate, time or bytes to draw")
    height = _lay_out(figure, {title: cells for title, cells in panels.items() if cells})
    rounds = sorted({number for party in run.parties for number in party.rounds if number})
    told = [
        f"{len(run.parties)} parties" if len(run.parties) > 1 else "1 party",
        *([f"rounds {rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"round {rounds[0]}"] if rounds else []),
    ]
    figure.text(LEFT / WIDTH, 1 - 0.4 / height, f"{named(run.name)}: {', '.join(told)}", fontsize=13, color=INK)
    return figure


def _lay_out(figure: Figure, panels: Mapping[str, _Cells]) -> float:
    """Draw the panels, each at least as high as its legend, and give the figure its size; returns the height."""
    blocks = []
    for title, cells in panels.items():
        drawn = [_axes(figure, title, name, draw) for name, draw in cells]
        entries = entries_of(*drawn)
        rows = -(-len(cells) // 3)
        legend = LEGEND_LINE * sum(1 + label.count("\n") for label in entries)
        above = 2 * HEADING + (STRIP_TITLE if cells[0][0] else 0.0)
        blocks.append((title, drawn, entries, above, rows, max(STRIP if len(cells) > 1 else PANEL, legend / rows)))
    height = TOP + sum(above + rows * (each + BELOW) for *_, above, rows, each in blocks)
    figure.set_size_inches(WIDTH, height)
    top = height - TOP
    for title, drawn, entries, above, rows, each in blocks:
        figure.text(LEFT / WIDTH, (top - HEADING) / height, title, fontsize=10, fontweight="bold", color=INK)
        top -= above
        columns = -(-len(drawn) // rows)
        wide = (WIDTH - LEFT - RIGHT - BESIDE * (columns - 1)) / columns
        for number, axes in enumerate(drawn):
            row, column = divmod(number, columns)
            left, bottom = LEFT + column * (wide + BESIDE), top - row * (each + BELOW) - each
            axes.set_position((left / WIDTH, bottom / height, wide / WIDTH, each / height))
            axes.tick_params(labelleft=column == 0)
        style: dict[str, Any] = {"frameon": False, "fontsize": 8, "labelcolor": INK, "borderaxespad": 0.0}
        style |= {"loc": "upper left", "bbox_to_anchor": (1 + 0.15 / wide, 1.0)}
        drawn[columns - 1].legend(list(entries.values()), list(entries), **style)
        top -= rows * (each + BELOW)
    return height


def _axes(figure: Figure, panel: str, title: str, draw: Callable[[Axes], None]) -> Axes:
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), label=f"{panel}: {title}" if title else panel, facecolor="white")
    calm(axes, grid="y").set_title(named(title), loc="left", fontsize=9, color=INK)
    draw(axes)
    return axes


def _finish(axes: Axes, run: Run, *, bars: bool = False) -> None:
    """Give both axes their numbers: whole rounds below, and no 1e6 in a corner."""
    from matplotlib import ticker

    rounds = [number for party in run.parties for number in party.rounds if number > 0]
    axes.set_xlabel("round" if rounds else "iteration", loc="right", fontsize=8, labelpad=2.5, color=INK)
    first, last = min(rounds, default=1), max(rounds, default=run.last_iteration)
    axes.set_xlim(first - (0.6 if bars else 1), last + max(0.6, 0.01 * (last - first)))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6 if bars else 12, integer=True, min_n_ticks=1))
    if axes.get_yscale() == "linear":
        plain = ticker.ScalarFormatter(useOffset=False)
        plain.set_scientific(False)
        large = max(map(abs, axes.get_ylim())) >= 1e5
        axes.yaxis.set_major_formatter(ticker.EngFormatter() if large else plain)


def _colours(run: Run) -> dict[str, str]:
    names = dict.fromkeys(
        [*(party.name for party in run.parties), *(peer for each in run.parties for peer in each.peers)]
    )
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _losses(run: Run) -> list[tuple[Party, str]]:
    names = ("loss", "mean_loss", "round/loss")
    found = [(party, [each for each in names if np.isfinite(party.values(each)).any()]) for party in run.parties]
    return [(party, present[0]) for party, present in found if present]


def _draw_loss(run: Run, axes: Axes) -> None:
    smallest, largest = math.inf, -math.inf
    for number, (party, name) in enumerate(_losses(run)):
        at, values = party.positions(party.columns[name]), party.values(name)
        smooth = _smoothed(values, max(1, len(values) // 60))
        meaning = "\nmean of the round so far" if name == "mean_loss" else ""
        style: dict[str, Any] = {"color": _colours(run)[party.name], "zorder": 3 - 0.1 * number}  # the host on top
        axes.plot(*thinned(at, values), **style, linewidth=0.6, alpha=0.3)
        style |= {"linestyle": DASHES[number % len(DASHES)], "marker": "o" if len(at) <= MOST_ROUNDS_AS_BARS else ""}
        axes.plot(*thinned(at, smooth), **style, linewidth=1.6, markersize=4, label=named(party.name) + meaning)
        smallest, largest = min(smallest, np.nanmin(smooth)), max(largest, np.nanmax(smooth))
    if 0 < smallest < largest / 100:
        axes.set_yscale("log")
    _finish(axes, run)


def _draw_lines(run: Run, series: Sequence[tuple[Party, str]], markers: str, axes: Axes) -> None:
    several = len({party.name for party, _ in series}) > 1
    for number, (party, name) in enumerate(series):
        at, values = thinned(party.positions(party.columns[name]), party.values(name))
        label = [party.name] * (several or name == "lr") + [name] * (name != "lr")
        axes.plot(
            at,
            values,
            color=_colours(run)[party.name] if several else COLOURS[number % len(COLOURS)],
            linestyle=DASHES[number % len(DASHES)],
            marker=markers[number % len(markers)] if markers and len(at) <= 2 * MOST_ROUNDS_AS_BARS else "",
            markersize=4,
            linewidth=1.4,
            label="\n".join(map(named, label)),
        )
    low, high = axes.get_ylim()
    if markers:
        axes.set_ylim(max(low, -0.02), min(high, 1.02))
    else:
        axes.set_ylim(bottom=min(0.0, low))
    _finish(axes, run)


def _smoothed(values: Floats, window: int) -> Floats:
    """Return the mean of the `window` values around each; NaN stays NaN and counts for nobody."""
    known = np.isfinite(values)
    window = min(window, len(values))
    sums, counts = (
        np.convolve(each, np.ones(window), mode="same") for each in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.where(known, sums / np.maximum(counts, 1.0), math.nan)


def _time_strips(run: Run) -> _Cells:
    tops: dict[str, float] = {}
    strips = {}
    for party in run.parties:
        parts = strips[party.name] = _time_parts(party, _colours(run))
        sums = (sum(known_in(values, number) for *_, values in parts) for number in party.rounds)
        tops[party.name] = max(sums, default=0.0)
    top = max(tops.values())
    return [(name, partial(_draw_strip, run, parts, top)) for name, parts in strips.items() if tops[name]]


def _time_parts(party: Party, colours: Mapping[str, str]) -> list[_Part]:
    own = ("own compute", COMPUTE, "", party.by_round("round/compute_s"))
    wire = ("wire", WIRE, "", party.by_round("round/wire_s"))
    waits = [
        (f"waiting for\n{named(peer)}", colours[peer], "////", party.by_round(WAIT + peer)) for peer in party.peers
    ]
    seconds = party.by_round("round/seconds")
    told = {number: sum(known_in(values, number) for *_, values in (own, wire, *waits)) for number in seconds}
    rest = {number: known_in(seconds, number) - told[number] for number in seconds}
    over = {number: left for number, left in rest.items() if left > 0.01 * told[number]}
    return [own, wire, ("the rest", REST, "", over), *waits]


def _draw_strip(run: Run, parts: Sequence[_Part], top: float, axes: Axes) -> None:
    _stack(axes, parts)
    axes.set_ylim(0.0, 1.05 * top)  # one scale for all parties
    _finish(axes, run, bars=True)


def _traffic(run: Run) -> dict[str, list[_Part]]:
    colours = _colours(run)
    return {
        way: [
            (named(party.name), colours[party.name], "", party.by_round(f"round/bytes_{way}"))
            for party in run.parties
            if np.nan_to_num(party.values(f"round/bytes_{way}")).any()
        ]
        for way in ("sent", "received")
    }


def _draw_bytes(run: Run, axes: Axes) -> None:
    """Stack what the parties sent upwards and what they received downwards."""
    traffic = _traffic(run)
    _stack(axes, traffic["sent"])
    _stack(axes, traffic["received"], sign=-1)
    axes.axhline(0.0, color=RULE, linewidth=0.8)
    axes.set_ylabel("←  received     sent  →", fontsize=8, color=INK)
    _finish(axes, run)
    axes.yaxis.set_major_formatter(lambda count, _: human_bytes(abs(count)))


def _stack(axes: Axes, parts: Sequence[_Part], sign: int = 1) -> None:
    """Stack bars, or areas where there are too many rounds for bars; those are too ragged for a hatch."""
    rounds = sorted({number for *_, values in parts for number in values})
    base = np.zeros(len(rounds))
    for label, colour, hatch, values in parts:
        heights = np.array([known_in(values, number) for number in rounds])
        style: dict[str, Any] = {"facecolor": colour, "linewidth": 0.0, "label": label}
        if not heights.any():
            continue
        if len(rounds) > MOST_ROUNDS_AS_BARS:
            axes.fill_between(rounds, sign * base, sign * (base + heights), step="mid", **style)
        else:
            axes.bar(rounds, sign * heights, 0.8, bottom=sign * base, hatch=hatch, edgecolor="white", **style)
        base += heights

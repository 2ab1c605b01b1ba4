"""The pictures of a report: those of every task, and those of a regression."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from heterofed.metrics.drawing import COLOURS, DASHES, INK, MARKERS, SMALL, thinned
from heterofed.report.canvas import HEIGHT, REFERENCE, WIDTH, Picture, brief, named, styled, with_legend
from heterofed.report.evaluation import Array, Evaluation, arrays
from heterofed.report.probabilities import NAMES_OF_PROBABILITIES, pictures_of_probabilities
from heterofed.report.scores import SMALLER_IS_BETTER, SPOKEN, spoken
from heterofed.report.summary import HOST_ALONE, Summary, drop, in_figures, rounds_of, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_ROUNDS = 30
"""Lines of no more have a mark at every round."""
FEW_ROWS = 3000
"""More are drawn as a density."""
SETS = ("train", "valid", "test")
MOST_BARS = 40
NAMES = ("learning", "contribution", *NAMES_OF_PROBABILITIES, "predicted", "residuals")
"""Of all pictures that a report may have."""


def pictures_of(evaluation: Evaluation, summary: Summary) -> Iterator[Picture]:
    """Yield the pictures that an evaluation has something to show in."""
    panels = _panels(summary)
    if panels:
        yield Picture(
            "learning",
            "Learning",
            "The loss and the scores after each round of training.",
            partial(_draw_learning, panels),
            max(HEIGHT, 0.7 + 1.75 * len(panels)),
        )
    bars = _bars(summary)
    if bars:
        worse = "higher" if summary.compared_by in SMALLER_IS_BETTER else "lower"
        alone = f" Grey: {summary.parties[0] if summary.parties else 'the host'} alone." if summary.host_alone else ""
        yield Picture(
            "contribution",
            "Contribution of each party",
            f"By how much the {spoken(summary.compared_by)} of {summary.main} is {worse} when a party's embedding is "
            f"replaced by its mean: the longer the bar, the more depends on that party. In brackets what is left."
            f"{alone}",
            partial(_draw_contribution, summary, bars),
            max(0.62 * HEIGHT, 0.9 + 0.34 * len(bars)),
        )
    if evaluation.task != "regression":
        yield from pictures_of_probabilities(evaluation, summary)
    elif len(evaluation.main_set.y_true):
        truth, values = arrays("regression", evaluation.main_set.y_true, evaluation.main_set.y_score)
        density = " The stronger the colour, the more rows, on a logarithmic scale." if len(truth) > FEW_ROWS else ""
        name = named(evaluation.label or "value")
        yield Picture(
            "predicted",
            "Predicted and true",
            f"Every row of {summary.main}: on the dotted line the prediction is right.{density}",
            partial(_draw_predicted, truth, values, name),
            WIDTH,
        )
        yield Picture(
            "residuals",
            "Residuals",
            f"What the truth has more than the prediction, for every row of {summary.main}: without any pattern around "
            f"0 where the model has learned what there is.{density}",
            partial(_draw_residuals, truth, values, name),
        )


# --- learning ---------------------------------------------------------------------------------------------------------

_Lines = dict[str, tuple[list[float], list[float]]]


def _panels(summary: Summary) -> dict[str, _Lines]:
    """Divide what was told each round by its scale: losses, shares of at most 1, and what has the label's unit."""
    panels: dict[str, _Lines] = {}
    for name, line in rounds_of(summary.history).items():
        score = _parts(name)[1]
        if score.endswith("loss"):
            panel = "loss"
        elif score in ("rmse", "mae", "median_error") or not all(-1 <= each <= 1 for each in line[1]):
            panel = "error" if score in SMALLER_IS_BETTER else spoken(score)
        else:
            panel = "score"
        panels.setdefault(panel, {})[name] = line
    return panels


def _parts(name: str) -> tuple[str, str]:
    """Return the set and the score of a name such as valid_roc_auc; the set is empty where it names none."""
    first, _, rest = name.partition("_")
    return (first, rest) if first in SETS and rest else ("", name)


def _draw_learning(panels: Mapping[str, _Lines], figure: Figure) -> None:
    from matplotlib import ticker

    cells: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    scores = list(dict.fromkeys(_parts(name)[1] for lines in panels.values() for name in lines))
    for axes, (panel, lines) in zip(cells, panels.items(), strict=True):
        styled(axes, "round" if axes is cells[-1] else "", panel)
        for name, (at, values) in lines.items():
            group, score = _parts(name)
            number = scores.index(score)
            colour = SETS.index(group) if group else len(SETS) + number
            said = spoken(score) if score in SPOKEN else score.replace("_", " ")
            axes.plot(
                *thinned(np.asarray(at), np.asarray(values)),
                color=COLOURS[colour % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)] if len(at) <= FEW_ROUNDS else "",
                markersize=3.5,
                linewidth=1.5,
                label=named(f"{group} {said}".strip(), 40),
            )
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(ticker.ScalarFormatter(useOffset=False))
    with_legend(figure, *cells)


# --- contribution -----------------------------------------------------------------------------------------------------

_Bar = tuple[str, float, float]
"""Name, how much worse, the score that is left."""


def _bars(summary: Summary) -> list[_Bar]:
    """Return what can be drawn, the first on top: the parties, then the host alone."""
    score = summary.compared_by
    found = [(f"without {party}", summary.drops[party], each.scores[score]) for party, each in summary.ablated.items()]
    if summary.host_alone:
        left = summary.host_alone.scores[score]
        found.append((HOST_ALONE, drop(score, summary.sets[summary.main].scores[score], left), left))
    known = [(name, worse, left) for name, worse, left in found if worse is not None and left is not None]
    return known if len(known) <= MOST_BARS else sorted(known, key=lambda bar: -bar[1])[:MOST_BARS]


def _draw_contribution(summary: Summary, bars: Sequence[_Bar], figure: Figure) -> None:
    worse = "higher" if summary.compared_by in SMALLER_IS_BETTER else "lower"
    axes = styled(figure.subplots(), f"{spoken(summary.compared_by)} {worse} by", "", grid="x")
    order = {party: number for number, party in enumerate(summary.parties)}
    for place, (name, value, left) in enumerate(bars):
        alone = name == HOST_ALONE
        colour = "#b8b8b8" if alone else COLOURS[order.get(name.removeprefix("without "), 0) % len(COLOURS)]
        axes.barh(place, value, 0.62, color=colour)
        text = f"{signed(value)} ({in_figures(left)})"
        axes.annotate(
            text,
            (max(value, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL - 0.5,
            color=INK,
        )
    axes.set_yticks(range(len(bars)), [named(name, 26) for name, *_ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    low, high = min(0.0, *(value for _, value, _ in bars)), max(0.0, *(value for _, value, _ in bars))
    room = (high - low) or 1e-3
    axes.set_xlim(low - 0.04 * room if low < 0 else 0.0, high + 0.5 * room)  # the texts are right of the bars
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)


# --- regression -------------------------------------------------------------------------------------------------------


def _draw_predicted(truth: Array, values: Array, name: str, figure: Figure) -> None:
    axes = styled(figure.subplots(), f"true {name}", f"predicted {name}")
    low, high = float(min(truth.min(), values.min())), float(max(truth.max(), values.max()))
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.05
    limits = (low - room, high + room)
    _draw_rows(axes, truth, values, (*limits, *limits))
    axes.plot(limits, limits, color=REFERENCE, linestyle=":", linewidth=1.2)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    _plain(axes)


def _draw_residuals(truth: Array, values: Array, name: str, figure: Figure) -> None:
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    styled(axes, f"predicted {name}", "true − predicted")
    styled(beside, "rows", "", grid="y")
    residuals = truth - values
    _draw_rows(axes, values, residuals)
    axes.axhline(0.0, color=REFERENCE, linestyle=":", linewidth=1.2)
    bins = max(1, min(40, math.ceil(math.sqrt(len(residuals)))))
    beside.hist(residuals, bins, orientation="horizontal", color=COLOURS[0], edgecolor="white", linewidth=0.4)
    beside.axhline(0.0, color=REFERENCE, linestyle=":", linewidth=1.2)
    beside.tick_params(labelleft=False)
    beside.locator_params(axis="x", nbins=2, integer=True)
    beside.xaxis.set_major_formatter(lambda count, _: brief(count))
    _plain(axes)


def _draw_rows(axes: Axes, x: Array, y: Array, extent: tuple[float, float, float, float] | None = None) -> None:
    if len(x) <= FEW_ROWS:
        faint = 0.85 if len(x) <= 100 else 0.45 if len(x) <= 1000 else 0.25
        axes.scatter(x, y, s=14 if len(x) <= 300 else 7, color=COLOURS[0], alpha=faint, linewidths=0)
        return
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    seen = ListedColormap(colormaps["Blues"](np.linspace(0.25, 1, 64)))  # a single row is seen on white too
    axes.hexbin(x, y, gridsize=45, bins="log", cmap=seen, mincnt=1, linewidths=0.2, extent=extent)


def _plain(axes: Axes) -> None:
    """Write numbers in full, or with k and M, and few enough not to overlap."""
    from matplotlib import ticker

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(6))
        large = max(map(abs, axis.get_view_interval())) >= 1e4
        axis.set_major_formatter(ticker.EngFormatter(sep="") if large else ticker.ScalarFormatter(useOffset=False))

"""Pictures of predictions that are probabilities: ROC, precision and recall, calibration, confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from heterofed.metrics.drawing import COLOURS, INK, RULE, SMALL, thinned
from heterofed.report.canvas import HEIGHT, REFERENCE, Picture, brief, line_style, named, styled, with_legend
from heterofed.report.evaluation import Array, Evaluation, arrays
from heterofed.report.scores import one_against_rest
from heterofed.report.summary import HOST_ALONE, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES_OF_PROBABILITIES = ("roc", "precision_recall", "calibration", "confusion")
"""Of all pictures that may be drawn here."""
MOST_NAMED = 12
"""Classes; of more, only the worst are named, and a matrix has no numbers in its cells."""
WORST = 3
MOST_TICKS = 24
BINS = 10
FEW = 10
"""Fewer rows in a step tell little."""
QUIET: dict[str, Any] = {"color": REFERENCE, "linestyle": "--", "linewidth": 1.3}
"""How the host alone is drawn."""


def pictures_of_probabilities(evaluation: Evaluation, summary: Summary) -> Iterator[Picture]:
    """Yield the pictures that such an evaluation has; none where the main set has no rows, or of one class alone."""
    several = evaluation.task != "binary"
    if not len(evaluation.main_set.y_true):
        return
    lines = list(_lines(evaluation))
    if lines:
        of = f"each class against the rest, in {summary.main}" if several else "one line for each set"
        of_labels = of.replace("class against the rest", "label") if evaluation.task == "multilabel" else of
        yield Picture(
            "roc",
            "ROC",
            f"How many rows of the class are found (up) against how many others are taken for it (right); {of_labels}. "
            "The nearer to the upper left corner the better; the dotted line is chance.",
            partial(_draw_roc, lines),
            _height(lines),
        )
        yield Picture(
            "precision_recall",
            "Precision and recall",
            f"Of the rows taken for the class, how many are of it (up) against how many of its rows are found (right); "
            f"{of_labels}. The nearer to the upper right corner the better.",
            partial(_draw_precision, lines),
            _height(lines),
        )
    what = {
        "binary": f"the probability that {evaluation.label or 'a row'} is {evaluation.classes[-1]}",
        "multiclass": "the probability of the class that is predicted",
        "multilabel": "the probabilities of all labels",
    }[evaluation.task]
    yield Picture(
        "calibration",
        "Calibration",
        f"Whether probabilities can be taken at their word, in {summary.main}: {what} (right) against how often it "
        "comes true (up), in ten equal steps. On the dotted line they agree; the bars count the rows of each step; "
        f"a hollow mark stands for fewer than {FEW}.",
        partial(_draw_calibration, evaluation),
    )
    rows = len(summary.confusion)
    if evaluation.task == "multilabel":
        caption = (
            f"For each label of {summary.main}: rows that have it and were found, that were wrongly found, missed."
        )
        height = max(HEIGHT, 1.0 + 0.22 * min(rows, 60))
    else:
        caption = f"Rows of {summary.main}: their true class (down) and the one predicted (right)."
        height = HEIGHT
    yield Picture(
        "confusion", "Confusion matrix", f"{caption} The stronger the colour, the larger a share of its line.",
        partial(_draw_confusion, summary), height,
    )  # fmt: skip


class _Line(NamedTuple):
    """One curve: its rows, and how it is drawn."""

    name: str
    truth: Array
    scores: Array
    style: dict[str, Any]


def _lines(evaluation: Evaluation) -> Iterator[_Line]:
    """Yield the curves that are defined: of binary one a set, of others one a class of the main set."""
    task, main = evaluation.task, evaluation.main_set
    if task == "binary":
        for number, each in enumerate(evaluation.sets):
            strong = 2.0 if each is main else 1.1
            style = line_style(number) | {"linewidth": strong, "zorder": 2 + strong}
            yield from _defined(each.name, arrays(task, each.y_true, each.y_score), style)
        if evaluation.host_alone:
            alone = evaluation.host_alone
            yield from _defined(HOST_ALONE, arrays(task, alone.y_true, alone.y_score), QUIET)
        return
    truth, scores = arrays(task, main.y_true, main.y_score)
    for number, pair in enumerate(one_against_rest(task, truth, scores)):
        yield from _defined(evaluation.classes[number], pair, line_style(number) | {"linewidth": 1.3})


def _defined(name: str, pair: tuple[Array, Array], style: dict[str, Any]) -> Iterator[_Line]:
    if 0 < pair[0].sum() < len(pair[0]):
        yield _Line(name, *pair, style)


def _height(lines: list[_Line]) -> float:
    entries = len(lines) if len(lines) <= MOST_NAMED else WORST + 1
    return HEIGHT + 0.17 * max(0, -(-entries // 2) - 2)


def _draw_roc(lines: list[_Line], figure: Figure) -> None:
    from sklearn import metrics

    axes = styled(figure.subplots(), "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=REFERENCE, linestyle=":", linewidth=1)
    areas = [metrics.roc_auc_score(each.truth, each.scores) for each in lines]
    for line, area, style in _styles(lines, areas):
        x, y, _ = metrics.roc_curve(line.truth, line.scores)
        axes.plot(*thinned(x, y), **_labelled(style, line, f"AUC {area:.3f}"))
    _finish(figure, axes)


def _draw_precision(lines: list[_Line], figure: Figure) -> None:
    from sklearn import metrics

    axes = styled(figure.subplots(), "recall", "precision")
    areas = [metrics.average_precision_score(each.truth, each.scores) for each in lines]
    for line, area, style in _styles(lines, areas):
        y, x, _ = metrics.precision_recall_curve(line.truth, line.scores)
        y[-1] = y[-2]  # scikit-learn ends with a precision of 1, which no threshold gives
        first = int(np.flatnonzero(x == x[0])[-1])  # lower thresholds find no more rows, and are wrong more often
        axes.plot(*thinned(x[first:], y[first:]), drawstyle="steps-post", **_labelled(style, line, f"AP {area:.3f}"))
    _finish(figure, axes)


def _styles(lines: list[_Line], areas: list[float]) -> Iterator[tuple[_Line, float, dict[str, Any]]]:
    """Yield the lines with their style; of too many, all but the worst are thin, grey and without a name."""
    if len(lines) <= MOST_NAMED:
        yield from zip(lines, areas, [each.style for each in lines], strict=True)
        return
    order = np.argsort(areas, kind="stable")
    worst = {int(place): line_style(number) | {"linewidth": 1.6} for number, place in enumerate(order[:WORST])}
    for place, (line, area) in enumerate(zip(lines, areas, strict=True)):
        if place not in worst:
            grey = {"color": "#c4c4c4", "linewidth": 0.7, "zorder": 1.5}
            first = place == min(set(range(len(lines))) - worst.keys())
            yield line, area, grey | ({"label": f"the other {len(lines) - WORST}"} if first else {"label": ""})
    for place, style in worst.items():
        yield lines[place], areas[place], style


def _labelled(style: dict[str, Any], line: _Line, figures: str) -> dict[str, Any]:
    return {"label": f"{named(line.name)}, {figures}"} | style


def _finish(figure: Figure, axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.03)
    with_legend(figure, axes)


def _draw_calibration(evaluation: Evaluation, figure: Figure) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    styled(upper, "", "share that comes true")
    styled(lower, "predicted probability", "count", grid="y")
    upper.plot([0, 1], [0, 1], color=REFERENCE, linestyle=":", linewidth=1)
    edges = np.linspace(0, 1, BINS + 1)
    main = evaluation.main_set
    alone = [(HOST_ALONE, evaluation.host_alone, QUIET | {"marker": "s", "markersize": 3})]
    shown: dict[str, Any] = line_style(0) | {"linewidth": 1.8, "marker": "o", "markersize": 4, "zorder": 3}
    for name, scored, style in [(main.name, main, shown), *alone]:
        if scored is None or not len(scored.y_true):
            continue
        hits, predicted = _outcomes(evaluation, scored.y_true, scored.y_score)
        counts = np.histogram(predicted, edges)[0]
        some = counts > 0
        with np.errstate(invalid="ignore"):
            x, y = (np.histogram(predicted, edges, weights=each)[0] / counts for each in (predicted, hits))
        upper.plot(x[some], y[some], label=named(name), **style)
        few = some & (counts < FEW)
        hollow = {"linestyle": "", "marker": style["marker"], "markersize": style["markersize"], "zorder": 4}
        upper.plot(x[few], y[few], markerfacecolor="white", markeredgecolor=style["color"], **hollow)
        if scored is main:
            lower.bar(edges[:-1], counts, 1 / BINS, align="edge", color=COLOURS[0], edgecolor="white", linewidth=0.8)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.03, 1.03)
    lower.locator_params(axis="y", nbins=3, integer=True)
    lower.yaxis.set_major_formatter(lambda count, _: brief(count))
    with_legend(figure, upper)


def _outcomes(evaluation: Evaluation, y_true: Any, y_score: Any) -> tuple[Array, Array]:
    """Return what came true (0 or 1) and the probabilities that were given for it."""
    truth, scores = arrays(evaluation.task, y_true, y_score)
    if evaluation.task == "multiclass":
        return (scores.argmax(axis=1) == truth).astype(np.float64), scores.max(axis=1)
    return truth.reshape(-1).astype(np.float64), scores.reshape(-1)


def _draw_confusion(summary: Summary, figure: Figure) -> None:
    counts = np.asarray(summary.confusion, dtype=np.int64)
    labels = summary.task == "multilabel"
    rows, columns = counts.shape
    axes = styled(figure.subplots(), "" if labels else "predicted", "label" if labels else "true", grid=None)
    sums = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(sums, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto" if labels or rows == 2 else "equal")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    names = [named(each, 14 if rows > 6 else 20) for each in summary.classes]
    across = ["found", "wrongly\nfound", "missed", "neither"] if labels else names
    every = -(-rows // (60 if labels else MOST_TICKS))
    axes.set_yticks(range(0, rows, every), names[::every])
    every = -(-columns // MOST_TICKS)
    long = not labels and max(map(len, across)) * columns > 40
    style: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(0, columns, every), across[::every], **style)
    if rows <= MOST_NAMED or (labels and rows <= 60):
        axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2)
        axes.tick_params(which="minor", length=0)
        size = 10 if rows <= 4 else SMALL - 1
        for (row, column), count in np.ndenumerate(counts):
            strong = shares[row, column] > 0.55
            text = f"{count:,}" if rows <= 4 else brief(count)
            if not labels and rows <= 3 and sums[row, 0]:
                text += f"\n{shares[row, column]:.1%}"
            ink = "white" if strong else INK if count else RULE
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda share, _: f"{share:.0%}")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=SMALL, length=0, labelcolor=INK)

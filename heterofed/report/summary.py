"""What evaluation.json holds: the scores of an evaluation and no row of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from heterofed.errors import DataError
from heterofed.files import write_whole
from heterofed.report.evaluation import Array, Evaluation, ScoredSet, arrays
from heterofed.report.needs import need
from heterofed.report.scores import SMALLER_IS_BETTER, main_score, predicted_of, scores_of, spoken
from heterofed.tables.answers import Task
from heterofed.words import counted

EVALUATION_FILE = "evaluation.json"

HOST_ALONE = "host alone"


class SetSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scores of one set."""

    rows: int
    scores: dict[str, float | None]
    """Name -> score, None where it is undefined."""


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="evaluation", tag_field="format"):
    """The scores of an evaluation; what `read_summary` returns."""

    version: Literal[1]
    title: str
    task: Task
    label: str
    classes: tuple[str, ...]
    parties: tuple[str, ...]
    """The host first."""
    main: str
    """Name of the set that is reported first, which `host_alone` and `ablated` are predictions of too."""
    compared_by: str
    """Name of the score behind `drops`: the main score of the task, or the loss where that is undefined."""
    sets: dict[str, SetSummary]
    host_alone: SetSummary | None
    ablated: dict[str, SetSummary]
    """Party -> scores with that party's embedding replaced by its mean."""
    drops: dict[str, float | None]
    """Party -> how much worse the main set is predicted without it; above 0 where it helps."""
    confusion: list[list[int]]
    """Rows of the main set. Binary, multiclass: a row for each true class, a column for each predicted one. Multilabel:
    for each label true and found, not true and found, true and missed, neither. Regression: empty."""
    history: list[dict[str, float | None]]
    facts: dict[str, str]
    remarks: tuple[str, ...] = ()
    """What its scores can and cannot be compared with, in sentences."""
    with_stand_ins: int = 0
    """Rows of the main set that were predicted with a stand-in for the embedding of some party."""

    def table(self) -> list[tuple[str, ...]]:
        """Return the scores as texts, header first: a line for each score, a column for each set."""
        columns = {**self.sets, **({HOST_ALONE: self.host_alone} if self.host_alone else {})}
        names = list(self.sets[self.main].scores)
        header = ("score", *(f"{name} ({in_rows(each.rows)})" for name, each in columns.items()))
        return [
            header,
            *((spoken(name), *(in_figures(each.scores.get(name)) for each in columns.values())) for name in names),
        ]


def summarise(evaluation: Evaluation) -> Summary:
    """Compute the scores of an evaluation.

    Raises:
        ConfigError: scikit-learn is missing.
    """
    need("sklearn")
    task, main = evaluation.task, evaluation.main_set
    sets = {each.name: _summary(task, each) for each in evaluation.sets}
    ablated = {party: _summary(task, each) for party, each in evaluation.ablated.items()}
    best = main_score(task)[0]
    compared_by = "log_loss" if sets[main.name].scores[best] is None and task != "regression" else best
    whole = sets[main.name].scores[compared_by]
    return Summary(
        version=1,
        title=evaluation.title,
        task=task,
        label=evaluation.label,
        classes=evaluation.classes,
        parties=evaluation.parties,
        main=main.name,
        compared_by=compared_by,
        sets=sets,
        host_alone=_summary(task, evaluation.host_alone) if evaluation.host_alone else None,
        ablated=ablated,
        drops={party: drop(compared_by, whole, each.scores[compared_by]) for party, each in ablated.items()},
        confusion=_confusion(evaluation).tolist(),
        history=[{name: _known(value) for name, value in each.items()} for each in evaluation.history],
        facts=dict(evaluation.facts),
        remarks=tuple(evaluation.remarks),
        with_stand_ins=evaluation.with_stand_ins,
    )


def drop(score: str, whole: float | None, other: float | None) -> float | None:
    """Return by how much another value of a score is worse; below 0 where it is better, None where one is undefined."""
    if whole is None or other is None:
        return None
    return other - whole if score in SMALLER_IS_BETTER else whole - other


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write evaluation.json.

    Raises:
        OutputError: it cannot be written; an earlier one is untouched.
    """
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    return write_whole(folder / EVALUATION_FILE, lambda file: file.write(text + b"\n"))


def read_summary(folder: Path) -> Summary:
    """Read the evaluation.json of a folder.

    Raises:
        DataError: it is not there, cannot be read, or is none.
    """
    path = folder / EVALUATION_FILE
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=Summary)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", expected="the file of an evaluation"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no evaluation ({error})", advice="Evaluate once more.") from None
    if summary.main not in summary.sets:
        raise DataError(f"{path} is no evaluation: it lacks its main set", advice="Evaluate once more.")
    return summary


def in_figures(value: float | None) -> str:
    """Return a score for people: four decimals, fewer where it is large; – where it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 4 - len(str(int(abs(value)))) + (abs(value) < 10))}f}"


def in_rows(count: int) -> str:
    """Return a number of rows for people."""
    _, noun = counted(count, "row").split()
    return f"{count:,} {noun}"


def signed(value: float) -> str:
    """Return a difference for people."""
    return ("+" if value > 0 else "−" if value < 0 else "") + in_figures(abs(value))


def _summary(task: Task, scored: ScoredSet) -> SetSummary:
    scores = scores_of(task, scored.y_true, scored.y_score)
    return SetSummary(len(scored.y_true), {name: _known(value) for name, value in scores.items()})


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _confusion(evaluation: Evaluation) -> Array:
    import numpy as np
    from sklearn import metrics

    main, task = evaluation.main_set, evaluation.task
    if task == "regression":
        return np.zeros((0, 0), dtype=np.int64)
    truth, scores = arrays(task, main.y_true, main.y_score)
    predicted, width = predicted_of(task, scores), len(evaluation.classes)
    if not len(truth):
        return np.zeros((width, 4 if task == "multilabel" else width), dtype=np.int64)
    if task == "multilabel":
        found = metrics.multilabel_confusion_matrix(truth, predicted).reshape(-1, 4)
        return np.asarray(found[:, [3, 1, 2, 0]])  # it gives neither, wrongly found, missed, found
    return np.asarray(metrics.confusion_matrix(truth, predicted, labels=range(width)))


def rounds_of(history: Sequence[Mapping[str, float | None]]) -> dict[str, tuple[list[float], list[float]]]:
    """Return name of a score -> rounds and values, those that are known; names in the order in which they came."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in history:
        number: Any = row["round"]
        for name, value in row.items():
            if name != "round" and value is not None and number is not None:
                at, values = found.setdefault(name, ([], []))
                at.append(number)
                values.append(value)
    return found

"""Scores of predictions by scikit-learn; what is undefined is NaN, without a warning.

    binary       roc_auc  average_precision  accuracy  f1  precision  recall  log_loss  brier
    multiclass   accuracy  f1  roc_auc  average_precision  log_loss  brier
    multilabel   roc_auc  average_precision  f1  accuracy  exact_match  log_loss  brier
    regression   rmse  mae  r2  median_error

Of more classes or labels than one, f1, roc_auc and average_precision are the means of each against the rest, over those
where they are defined. `accuracy` of multilabel is the share of single labels, `exact_match` that of rows where all are
right. A probability above 0.5 counts as predicted, as in `LabelEncoder.decode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from heterofed.report.evaluation import Array, arrays
from heterofed.report.needs import need
from heterofed.tables.answers import Task

THRESHOLD = 0.5

SPOKEN = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "log_loss": "log loss",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "median_error": "median absolute error",
}
"""What people call them."""

SMALLER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae", "median_error"})


def main_score(task: Task) -> tuple[str, bool]:
    """Return the name of the score by which models of such a task are compared, and whether more of it is better."""
    name = {"multiclass": "accuracy", "regression": "rmse"}.get(task, "roc_auc")
    return name, name not in SMALLER_IS_BETTER


def spoken(name: str) -> str:
    """Return what people call a score."""
    return SPOKEN.get(name, name.replace("_", " "))


def scores_of(task: Task, y_true: Any, y_score: Any) -> dict[str, float]:
    """Return name -> score, see this module's header; NaN where it is undefined, for example of one class alone.

    Args:
        task: the kind of task.
        y_true: the labels, in the form of a `ScoredSet`.
        y_score: the predictions, likewise.

    Raises:
        ConfigError: the arrays are not those of such a task, or scikit-learn is missing.
    """
    need("sklearn")
    truth, scores = arrays(task, y_true, y_score)
    found = {"regression": _of_numbers, "binary": _of_two, "multiclass": _of_classes}.get(task, _of_labels)(
        truth, scores
    )
    return {name: float(score()) if len(truth) else math.nan for name, score in found.items()}


def predicted_of(task: Task, scores: Array) -> Array:
    """Return the classes that probabilities stand for, or 0 and 1 for each label."""
    return scores.argmax(axis=1) if task == "multiclass" else (scores > THRESHOLD).astype(np.int64)


def one_against_rest(task: Task, truth: Array, scores: Array) -> Iterator[tuple[Array, Array]]:
    """Yield for each class or label whether a row is of it, and its probability; of binary only for the second."""
    if task == "binary":
        yield truth, scores
        return
    for number in range(scores.shape[1]):
        yield (truth == number).astype(np.int64) if task == "multiclass" else truth[:, number], scores[:, number]


_Scores = dict[str, Callable[[], float]]


def _of_two(truth: Array, scores: Array) -> _Scores:
    from sklearn import metrics

    predicted = predicted_of("binary", scores)
    return {
        **_ranked("binary", truth, scores),
        "accuracy": lambda: metrics.accuracy_score(truth, predicted),
        "f1": lambda: metrics.f1_score(truth, predicted, zero_division=math.nan),
        "precision": lambda: metrics.precision_score(truth, predicted, zero_division=math.nan),
        "recall": lambda: metrics.recall_score(truth, predicted, zero_division=math.nan),
        "log_loss": lambda: metrics.log_loss(truth, scores, labels=[0, 1]),
        "brier": lambda: metrics.mean_squared_error(truth, scores),
    }


def _of_classes(truth: Array, scores: Array) -> _Scores:
    from sklearn import metrics

    predicted = predicted_of("multiclass", scores)
    width = scores.shape[1]
    return {
        "accuracy": lambda: metrics.accuracy_score(truth, predicted),
        "f1": lambda: metrics.f1_score(truth, predicted, average="macro", zero_division=0),
        **_ranked("multiclass", truth, scores),
        "log_loss": lambda: metrics.log_loss(truth, scores, labels=range(width)) if width > 1 else math.nan,
        "brier": lambda: width * metrics.mean_squared_error(np.eye(width)[truth], scores),
    }


def _of_labels(truth: Array, scores: Array) -> _Scores:
    from sklearn import metrics

    predicted = predicted_of("multilabel", scores)
    losses = (metrics.log_loss(*each, labels=[0, 1]) for each in one_against_rest("multilabel", truth, scores))
    return {
        **_ranked("multilabel", truth, scores),
        "f1": lambda: _mean(
            metrics.f1_score(truth[:, each], predicted[:, each], zero_division=math.nan)
            for each in range(truth.shape[1])
        ),
        "accuracy": lambda: 1 - metrics.hamming_loss(truth, predicted),
        "exact_match": lambda: (truth == predicted).all(axis=1).mean(),
        "log_loss": lambda: _mean(losses),
        "brier": lambda: metrics.mean_squared_error(truth, scores),
    }


def _of_numbers(truth: Array, values: Array) -> _Scores:
    from sklearn import metrics

    return {
        "rmse": lambda: math.sqrt(metrics.mean_squared_error(truth, values)),
        "mae": lambda: metrics.mean_absolute_error(truth, values),
        "r2": lambda: metrics.r2_score(truth, values) if len(np.unique(truth)) > 1 else math.nan,
        "median_error": lambda: metrics.median_absolute_error(truth, values),
    }


def _ranked(task: Task, truth: Array, scores: Array) -> _Scores:
    """Return the scores that need rows of a class and others."""
    from sklearn import metrics

    both = [each for each in one_against_rest(task, truth, scores) if 0 < each[0].sum() < len(each[0])]
    return {
        "roc_auc": lambda: _mean(metrics.roc_auc_score(*each) for each in both),
        "average_precision": lambda: _mean(metrics.average_precision_score(*each) for each in both),
    }


def _mean(scores: Any) -> float:
    known = [each for each in scores if not math.isnan(each)]
    return float(np.mean(known)) if known else math.nan

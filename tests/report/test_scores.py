"""Scores are scikit-learn's, in one form for every task, and NaN instead of a warning where they are undefined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

from heterofed.errors import ConfigError
from heterofed.report import Evaluation, ScoredSet, main_score, scores_of
from heterofed.tables import Task
from tests.report.made import evaluation_of, rows_of, scored

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression", "multilabel")


def test_scores_of_two_classes_by_hand() -> None:
    found = scores_of("binary", [0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    assert found["roc_auc"] == 0.75
    assert found["accuracy"] == 0.5  # a probability of just 0.5 is none of the second class
    assert found["precision"] == 0.5
    assert found["recall"] == 0.5
    assert found["f1"] == 0.5
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.25 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.5, 0.9])))


def test_scores_of_numbers_by_hand() -> None:
    found = scores_of("regression", [1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    assert found == pytest.approx({"rmse": math.sqrt(3), "mae": 1.0, "r2": 1 - 9 / 2, "median_error": 0.0})


def test_scores_of_classes_are_means_of_each_against_the_rest() -> None:
    truth, scores = rows_of("multiclass", 300)
    found = scores_of("multiclass", truth, scores)
    assert found["accuracy"] == np.mean(scores.argmax(axis=1) == truth)
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, scores.argmax(axis=1), average="macro"))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, scores, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, scores))
    assert found["brier"] == pytest.approx(((np.eye(3)[truth] - scores) ** 2).sum(axis=1).mean())


def test_scores_of_labels_are_means_over_them() -> None:
    truth, scores = rows_of("multilabel", 300)
    found = scores_of("multilabel", truth, scores)
    right = (scores > 0.5) == truth
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(truth, scores))
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, scores > 0.5, average="macro"))
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["exact_match"] == pytest.approx(right.all(axis=1).mean())
    assert found["log_loss"] == pytest.approx(-np.log(np.where(truth, scores, 1 - scores)).mean())


@pytest.mark.parametrize("task", TASKS)
def test_columns_and_tensors_score_as_flat_arrays_do(task: Task) -> None:
    truth, scores = rows_of(task, 50)
    as_columns = (truth[:, None], scores[:, None]) if truth.ndim == scores.ndim == 1 else (truth[:, None], scores)
    shapes: tuple[Any, Any] = as_columns if task != "multilabel" else (truth, scores)
    assert scores_of(task, *map(torch.as_tensor, shapes)) == scores_of(task, truth, scores)


@pytest.mark.parametrize("task", TASKS)
def test_no_row_has_no_score(task: Task) -> None:
    found = scores_of(task, *(each[:0] for each in rows_of(task, 5)))
    assert found.keys() == scores_of(task, *rows_of(task, 5)).keys()
    assert all(math.isnan(each) for each in found.values())


def test_one_class_alone_has_no_curve_and_a_loss() -> None:
    found = scores_of("binary", [1, 1], [0.75, 0.75])
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])
    assert found["accuracy"] == 1
    assert found["log_loss"] == pytest.approx(-math.log(0.75))
    none_of_it = scores_of("binary", [0, 0], [0.25, 0.25])
    assert [name for name, value in none_of_it.items() if math.isnan(value)] == [
        "roc_auc",
        "average_precision",
        "f1",
        "precision",
        "recall",
    ]


def test_a_class_that_a_set_lacks_counts_in_no_mean() -> None:
    truth, scores = rows_of("multiclass", 100, width=3)
    some = truth < 2
    found = scores_of("multiclass", truth[some], scores[some])
    each = [metrics.roc_auc_score(truth[some] == number, scores[some, number]) for number in (0, 1)]
    assert found["roc_auc"] == pytest.approx(np.mean(each))
    labels, chances = rows_of("multilabel", 100, width=3)
    labels[:, 0] = 0
    found = scores_of("multilabel", labels, chances)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels[:, 1:], chances[:, 1:]))
    assert math.isnan(scores_of("multilabel", labels[:, :1], chances[:, :1])["roc_auc"])


def test_one_number_has_an_error_and_no_r2() -> None:
    found = scores_of("regression", [2.0], [3.0])
    assert found["rmse"] == 1
    assert math.isnan(found["r2"])
    assert math.isnan(scores_of("regression", [2.0, 2.0], [3.0, 1.0])["r2"])


@pytest.mark.parametrize("task", TASKS)
def test_the_main_score_is_better_for_better_predictions(task: Task) -> None:
    name, more_is_better = main_score(task)
    good, bad = (scores_of(task, *rows_of(task, 300, noise=noise))[name] for noise in (0.5, 5.0))
    assert (good > bad) is more_is_better


@pytest.mark.parametrize(
    ("task", "y_true", "y_score", "said"),
    [
        ("binary", [0, 1], [0.1, 0.2, 0.3], "of shape"),
        ("binary", [0, 1], [[0.1, 0.9], [0.2, 0.8]], "of shape"),
        ("binary", [0, 2], [0.1, 0.2], "no numbers of classes"),
        ("binary", [0, 1], [-3.0, 2.0], "no probabilities.*sigmoid or softmax"),
        ("binary", [0, 1], [math.nan, 0.5], "NaN or infinite"),
        ("multiclass", [0, 1], [0.1, 0.2], "of shape"),
        ("multiclass", [0, 3], [[0.5, 0.2, 0.3]] * 2, "no numbers of classes"),
        ("multiclass", [0, 1], [[0.5, 0.4, 0.3]] * 2, "sum to 1"),
        ("multilabel", [[0, 1]], [[0.5, 0.4, 0.3]], "of shape"),
        ("regression", [[1.0, 2.0]], [[1.0, 2.0]], "of shape"),
        ("regression", [math.inf], [1.0], "NaN or infinite"),
        ("ranking", [1.0], [1.0], "the task is"),
    ],
)
def test_what_fits_no_such_task_is_refused(task: Any, y_true: Any, y_score: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        scores_of(task, y_true, y_score)


def test_probabilities_of_float32_are_taken_as_they_are_meant() -> None:
    truth, scores = rows_of("multiclass", 1000)
    rounded = torch.softmax(torch.as_tensor(scores, dtype=torch.float32).log(), dim=1)
    assert scores_of("multiclass", truth, rounded) == pytest.approx(scores_of("multiclass", truth, scores), rel=1e-5)


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ({"classes": ("one",)}, "1 classes are named"),
        ({"classes": ("one", "two", "three")}, "3 classes are named"),
        ({"ablated": {"stranger": scored("test", "binary", 4)}}, "'stranger' is ablated"),
        ({"history": [{"loss": 1.0}]}, "says no round"),
    ],
    ids=["a class too few", "a class too many", "a stranger", "no round"],
)
def test_an_evaluation_that_does_not_fit_is_refused(also: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluation_of("binary", **also)


def test_sets_have_names_of_their_own() -> None:
    for names in ((), ("test", "test"), ("",)):
        with pytest.raises(ConfigError, match="the sets of an evaluation"):
            Evaluation("regression", tuple(ScoredSet(name, [1.0], [1.0]) for name in names))


def test_the_test_set_is_reported_first_or_else_the_last() -> None:
    sets = tuple(ScoredSet(name, [1.0], [1.0]) for name in ("test", "old", "new"))
    assert Evaluation("regression", sets).main_set.name == "test"
    assert Evaluation("regression", sets[1:]).main_set.name == "new"
    assert "1 rows" in repr(sets[0])

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from heterofed.errors import ConfigError
from heterofed.metrics import calculator
from heterofed.metrics.calculator import (
    MetricCalculator,
    Scored,
    direction_of,
    larger_is_better,
    register_metric,
    score,
    unregister_metric,
)
from heterofed.report.scores import SMALLER_IS_BETTER, SPOKEN

LABELS = np.array([0, 1, 2, 2])
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.2, 0.1, 0.7]])


@pytest.fixture(autouse=True)
def own_names() -> Iterator[None]:
    """Forget what a test registered."""
    kept = {*calculator._registered, *calculator._builders}
    yield
    for name in {*calculator._registered, *calculator._builders} - kept:
        unregister_metric(name)


def context(**changed: Any) -> SimpleNamespace:
    fields = {
        "cur_split": "test",
        "ys_true": LABELS,
        "ys_prob": PROBABILITIES,
        "loss_batch_total": 6.0,
        "loss_regular_total": 0.5,
        "num_samples": 4,
    }
    return SimpleNamespace(**{name: value for name, value in {**fields, **changed}.items() if value is not None})


# -- the calculator --------------------------------------------------------------------------------------------


def test_the_keys_of_an_evaluation_are_split_and_metric() -> None:
    assert MetricCalculator(["acc", "hits@2"]).eval(context(cur_split="val")) == {
        "val_loss": 6.0,
        "val_avg_loss": 1.5,
        "val_total": 4,
        "val_acc": 0.75,
        "val_hits@2": 1.0,
    }


def test_loss_average_loss_and_total_are_computed_unasked_and_only_once() -> None:
    assert MetricCalculator().names == MetricCalculator("loss").names == ("loss", "avg_loss", "total")
    assert MetricCalculator(["acc", "total", "acc"]).names == ("loss", "avg_loss", "total", "acc")
    assert MetricCalculator({"f1", "ap", "acc"}).names[3:] == ("acc", "ap", "f1")


def test_every_metric_that_is_supported_has_a_value_and_a_direction() -> None:
    names = ["loss_regular", "correct", "acc", "f1", "ap", "roc_auc", "imp_ratio", "hits@1", "hits@100"]
    found = MetricCalculator(names, base=0.5).eval(context())
    assert found == {
        "test_loss": 6.0,
        "test_avg_loss": 1.5,
        "test_total": 4,
        "test_loss_regular": 0.5,
        "test_correct": 3.0,
        "test_acc": 0.75,
        "test_f1": pytest.approx((1 + 2 / 3 + 2 / 3) / 3),
        "test_ap": 1.0,
        "test_roc_auc": 1.0,
        "test_imp_ratio": 50.0,
        "test_hits@1": 0.75,
        "test_hits@100": 1.0,
    }
    assert {name: larger_is_better(name) for name in [*names, "loss", "avg_loss", "mse", "rmse", "std", "total"]} == {
        **dict.fromkeys(names, True),
        **dict.fromkeys(["loss", "avg_loss", "loss_regular", "mse", "rmse", "std"], False),
        "total": None,
    }


@pytest.mark.parametrize("missing", ["cur_split", "ys_true", "loss_batch_total", "num_samples"])
def test_what_the_context_lacks_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"the context has no {missing}, so nothing can be scored"):
        MetricCalculator().eval(context(**{missing: None}))


def test_a_context_needs_scores_or_predicted_classes() -> None:
    with pytest.raises(ConfigError, match="the context has no ys_prob and ys_pred"):
        MetricCalculator().eval(context(ys_prob=None))
    found = MetricCalculator("acc").eval(context(ys_prob=None, ys_pred=np.array([0, 1, 2, 0])))
    assert found["test_acc"] == 0.75
    with pytest.raises(ConfigError, match="needs the scores that the model gave; expected ys_prob, not only ys_pred"):
        MetricCalculator("roc_auc").eval(context(ys_prob=None, ys_pred=np.array([0, 1, 2, 0])))


def test_predicted_classes_go_before_scores_and_an_empty_list_of_either_is_none() -> None:
    pred = np.array([0, 0, 0, 0])
    assert MetricCalculator("acc").eval(context(ys_pred=pred))["test_acc"] == 0.25
    assert MetricCalculator("acc").eval(context(ys_pred=[]))["test_acc"] == 0.75
    assert MetricCalculator("acc").eval(context(ys_prob=[], ys_pred=pred))["test_acc"] == 0.25


def test_the_regularizers_loss_is_needed_only_where_it_is_asked_for() -> None:
    assert "test_loss" in MetricCalculator().eval(context(loss_regular_total=None))
    with pytest.raises(ConfigError, match="the regularizer's loss is not known"):
        MetricCalculator("loss_regular").eval(context(loss_regular_total=None))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_labels_and_scores_may_be_lists_of_batches(kind: Any) -> None:
    true = [kind(LABELS[:3]), kind(LABELS[3:])]
    prob = [kind(PROBABILITIES[:3]), kind(PROBABILITIES[3:])]
    if kind is list:
        true, prob = LABELS.tolist(), PROBABILITIES.tolist()
    whole = MetricCalculator(["acc", "roc_auc"]).eval(context())
    assert MetricCalculator(["acc", "roc_auc"]).eval(context(ys_true=true, ys_prob=prob)) == whole


def test_a_batch_of_one_row_may_have_lost_its_first_dimension() -> None:
    assert score("acc", [np.array([1, 0]), np.array(1)], y_pred=[np.array([1, 0]), np.array(0)]) == {"acc": 2 / 3}


def test_tensors_with_a_graph_and_of_short_floats_are_read() -> None:
    prob = torch.tensor(PROBABILITIES, dtype=torch.bfloat16, requires_grad=True)
    loss = torch.tensor(6.0, requires_grad=True)
    found = MetricCalculator("acc").eval(context(ys_true=torch.as_tensor(LABELS), ys_prob=prob, loss_batch_total=loss))
    assert (found["test_acc"], found["test_loss"]) == (0.75, 6.0)
    assert all(type(value) in (int, float) for value in found.values())


@pytest.mark.parametrize("nothing", [[], np.zeros(0), np.zeros((0, 3)), torch.zeros(0)])
def test_an_evaluation_of_no_rows_is_refused(nothing: Any) -> None:
    with pytest.raises(ConfigError, match=r"ys_true has no rows\. Was a batch evaluated\?"):
        MetricCalculator().eval(context(ys_true=nothing, ys_prob=nothing))


def test_batches_of_different_shapes_and_what_is_no_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="the batches of ys_prob differ in shape"):
        MetricCalculator().eval(context(ys_prob=[PROBABILITIES, LABELS]))
    with pytest.raises(ConfigError, match="ys_true holds <U1; expected numbers"):
        MetricCalculator().eval(context(ys_true=["a", "b", "c", "d"]))


# -- names -----------------------------------------------------------------------------------------------------


def test_an_unknown_metric_is_refused_with_the_names_near_it() -> None:
    with pytest.raises(ConfigError, match=r"there is no metric 'rocauc'; expected one of .*Did you mean roc_auc") as e:
        MetricCalculator(["acc", "rocauc"])
    assert "hits@1 … hits@100" in str(e.value)
    assert "hits@50" not in str(e.value)
    for name in ("hits@0", "hits@101", "hits@", ""):
        with pytest.raises(ConfigError, match=f"there is no metric '{name}'"):
            larger_is_better(name)
    with pytest.raises(ConfigError, match="register_metric"):
        score("xyzzy", LABELS, PROBABILITIES)


def test_the_spread_between_parties_is_no_metric_of_one_evaluation() -> None:
    with pytest.raises(ConfigError, match="std is the spread of a metric between several parties"):
        MetricCalculator("std")


@pytest.mark.parametrize("names", [[3], ["acc", None]])
def test_a_metric_is_asked_for_by_its_name(names: Any) -> None:
    with pytest.raises(ConfigError, match="a metric is asked for by its name"):
        MetricCalculator(names)


def test_a_calculator_knows_the_directions_of_its_own_metrics() -> None:
    metrics = MetricCalculator("acc")
    assert (metrics.larger_is_better("acc"), metrics.larger_is_better("loss")) == (True, False)
    with pytest.raises(ConfigError, match="there is no metric 'f1'; expected one of acc, avg_loss, loss, total"):
        metrics.larger_is_better("f1")


@pytest.mark.parametrize("task", ["", "clustering", None])
def test_a_task_is_a_classification_or_a_regression(task: Any) -> None:
    with pytest.raises(ConfigError, match="the task is"):
        MetricCalculator(task=task)
    assert MetricCalculator(task="nodeClassification").task == "classification"
    assert MetricCalculator(task="graphRegression").task == "regression"


# -- metrics of one's own --------------------------------------------------------------------------------------


def test_a_registered_metric_plugs_in_by_name() -> None:
    @register_metric("recall of 2", larger_is_better=True)
    def recall(scored: Scored) -> float:
        return float((scored.y_pred[scored.y_true == 2] == 2).mean())

    assert recall(Scored(LABELS, PROBABILITIES)) == 0.5
    assert MetricCalculator("recall of 2").eval(context())["test_recall of 2"] == 0.5
    assert score(["recall of 2"], LABELS, PROBABILITIES) == {"recall of 2": 0.5}
    assert larger_is_better("recall of 2") is True


def test_a_metric_may_be_registered_by_a_call_and_need_no_direction() -> None:
    def rows(scored: Scored) -> Any:
        return torch.tensor(float(len(scored.y_true) + scored.ctx.offset))

    assert register_metric("rows", rows, larger_is_better=None) is rows
    assert MetricCalculator("rows").eval(context(offset=10))["test_rows"] == 14.0
    assert larger_is_better("rows") is None


def test_a_metric_registered_as_in_federated_scope_plugs_in_unchanged() -> None:
    seen: dict[str, Any] = {}

    def my_metric(ctx: Any, **kwargs: Any) -> Any:
        seen.update(kwargs)
        return ctx.num_train_data

    def call_my_metric(types: set[str]) -> tuple[str, Any, bool] | None:
        if "example" in types:
            return "example", my_metric, True
        return None

    register_metric("of another", lambda types: None)
    register_metric("example", call_my_metric)
    found = MetricCalculator({"example", "acc"}).eval(context(num_train_data=70))
    assert (found["test_example"], found["test_acc"]) == (70, 0.75)
    assert {name: getattr(value, "shape", value) for name, value in seen.items()} == {
        "y_true": (4, 1),
        "y_pred": (4, 1),
        "y_prob": (4, 3, 1),
        "metric": "example",
    }
    assert larger_is_better("example") is True
    assert MetricCalculator("acc").names[-1] == "acc"  # not asked for, not computed
    with pytest.raises(ConfigError, match=r"there is no metric 'exmple'.* Did you mean example\?"):
        MetricCalculator("exmple")


def test_a_federated_scope_metric_of_a_regression_gets_the_arrays_as_they_are() -> None:
    def call(types: set[str]) -> tuple[str, Any]:
        return "mae", lambda y_true, y_prob, y_pred, **_: abs(y_true - y_prob).mean() if y_pred is None else None

    register_metric("mae", call)
    assert score("mae", [1.0, 2.0], [2.0, 4.0], task="regression") == {"mae": 1.5}
    assert larger_is_better("mae") is None


def test_two_metrics_of_one_name_are_refused() -> None:
    register_metric("mine", lambda scored: 0.0, larger_is_better=True)
    register_metric("theirs", lambda types: None)
    for name, text in (("mine", "registered"), ("theirs", "registered"), ("acc", "heterofed's own"), ("hits@7", "own")):
        with pytest.raises(ConfigError, match=f"the metric '{name}' is .*{text}"):
            register_metric(name, lambda scored: 1.0, larger_is_better=True)
        with pytest.raises(ConfigError, match=f"the metric '{name}' is"):
            register_metric(name, lambda types: None)
    unregister_metric("mine")
    register_metric("mine", lambda scored: 1.0, larger_is_better=True)
    assert score("mine", [1], [1]) == {"mine": 1.0}


def test_what_cannot_be_registered_is_refused() -> None:
    before = ({*calculator._registered}, {*calculator._builders})
    with pytest.raises(ConfigError, match="name must be a non-empty string"):
        register_metric("", lambda types: None)
    with pytest.raises(ConfigError, match="it is not said whether a larger value is better"):
        register_metric("one")  # type: ignore[call-overload]  # what a user may write
    with pytest.raises(ConfigError, match="int is not callable"):
        register_metric("one", 3, larger_is_better=True)  # type: ignore[call-overload]  # what a user may write
    with pytest.raises(ConfigError, match="larger_is_better must be True, False or None"):
        register_metric("one", lambda scored: 1.0, larger_is_better="yes")  # type: ignore[call-overload]  # as above
    assert ({*calculator._registered}, {*calculator._builders}) == before


def test_a_metric_registered_in_the_wrong_form_is_told_when_it_is_asked_for() -> None:
    register_metric("one", lambda scored: scored.y_true)  # type: ignore[attr-defined]  # what a user may write
    with pytest.raises(ConfigError, match=r"metric 'one' failed.*registered with larger_is_better="):
        MetricCalculator("one")
    unregister_metric("one")
    register_metric("one", lambda types: 3.0)
    with pytest.raises(ConfigError, match=r"metric 'one' returned float; expected \(name, function"):
        MetricCalculator("one")


def test_a_metric_that_gives_no_number_is_named() -> None:
    register_metric("two numbers", lambda scored: np.zeros(2), larger_is_better=True)
    with pytest.raises(ConfigError, match="the metric 'two numbers' is ndarray; expected one number"):
        score("two numbers", [1], [1])


# -- score -----------------------------------------------------------------------------------------------------


def test_score_gives_exactly_the_metrics_asked_for_in_their_order() -> None:
    assert list(score(["roc_auc", "acc", "total"], LABELS, PROBABILITIES)) == ["roc_auc", "acc", "total"]
    assert score("acc", LABELS, PROBABILITIES) == {"acc": 0.75}


def test_score_takes_the_mean_loss_of_the_rows() -> None:
    mean = torch.tensor(1.5)
    assert score(["loss", "avg_loss"], LABELS, PROBABILITIES, loss=mean) == {"loss": 6.0, "avg_loss": 1.5}
    with pytest.raises(ConfigError, match="the loss is not known"):
        score("avg_loss", LABELS, PROBABILITIES)


# -- what a prediction is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_, np.uint8])
def test_one_score_of_two_classes_is_a_probability_with_its_threshold_at_a_half(shape: Any, dtype: Any) -> None:
    labels = np.array([0, 1, 1, 1], dtype=dtype)
    prob = np.array([0.1, 0.9, 0.5, 0.51]).reshape(shape)
    assert score(["acc", "correct"], labels, prob) == {"acc": 0.75, "correct": 3.0}
    assert score("acc", labels[:, None], prob) == {"acc": 0.75}
    assert Scored(labels[:, None], prob).y_pred.tolist() == [[0], [1], [0], [1]]


def test_of_two_scores_the_higher_one_is_the_class_and_the_first_of_equals() -> None:
    prob = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [3.0, 4.0]]
    assert Scored(np.zeros(4), np.array(prob)).y_pred.tolist() == [0, 1, 0, 1]
    assert score(["acc", "hits@1"], [0, 1, 1, 1], prob) == {"acc": 0.75, "hits@1": 0.75}


@pytest.mark.parametrize("scores", [[-3.0, 0.5], [0.5, 1.5], [-3.0, 2.0]])
def test_logits_in_one_column_are_refused_where_classes_are_needed(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"some are outside 0\.\.1\. Give torch\.sigmoid of the logits"):
        score("acc", [0, 1], scores)
    assert score("acc", [0, 1], [0.0, 1.0]) == {"acc": 1.0}
    assert score(["roc_auc", "ap"], [0, 1], [-3.0, 2.0]) == {"roc_auc": 1.0, "ap": 1.0}


def test_logits_of_several_classes_give_what_their_probabilities_give() -> None:
    random = np.random.default_rng(5)
    labels, logits = random.integers(0, 4, 200), random.normal(size=(200, 4)) * 3
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = ["acc", "f1", "ap", "roc_auc", "hits@2"]
    expected = score(names, labels, prob)
    for given_scores in (logits, np.log(prob), logits + 1000):
        assert score(names, labels, given_scores) == pytest.approx(expected, abs=1e-12)
    assert abs(expected["roc_auc"] - sklearn_metrics.roc_auc_score(labels, prob, multi_class="ovr")) < 1e-12


def test_labels_and_predictions_that_do_not_fit_are_refused_with_their_shapes() -> None:
    for names in ("acc", "f1", "ap", "roc_auc", "hits@1"):
        with pytest.raises(ConfigError, match=r"the labels are of shape \(3,\), the predictions of shape \(4, 3\)"):
            score(names, LABELS[:3], PROBABILITIES)
    with pytest.raises(ConfigError, match=r"the labels are of shape \(4,\), the predicted classes of shape \(3,\)"):
        score("acc", LABELS, y_pred=LABELS[:3])
    for wrong in (np.zeros((4, 2)), np.zeros((1, 4))):
        with pytest.raises(ConfigError, match=r"the labels are of shape \(4,\), the predicted classes of shape"):
            score("acc", LABELS, y_pred=wrong)
        with pytest.raises(ConfigError, match=r"the labels are of shape \(4,\), the predictions of shape"):
            score("mse", LABELS, wrong, task="regression")
    with pytest.raises(ConfigError, match=r"the labels are of shape \(4,\), the predictions of shape \(4, 3\)"):
        score("mse", LABELS, PROBABILITIES)
    with pytest.raises(ConfigError, match=r"the labels are of shape \(4,\), the predictions none"):
        score("mse", LABELS)


@pytest.mark.parametrize("labels", [[0, 1, 3, 2], [0, 1, -1, 2], [0, 1, 0.5, 2], [0, 1, math.inf, 2]])
@pytest.mark.parametrize("name", ["acc", "correct", "f1", "ap", "roc_auc", "hits@2"])
def test_a_label_that_is_no_class_is_refused(name: str, labels: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"a label is none of the 3 classes .*; expected whole numbers from 0 to 2"):
        score(name, labels, PROBABILITIES)


@pytest.mark.parametrize("name", ["acc", "correct", "f1", "ap", "roc_auc", "hits@2"])
def test_a_regression_has_no_scores_of_classes(name: str) -> None:
    with pytest.raises(ConfigError, match="the task is a regression"):
        score(name, [0, 1], [0.1, 0.9], task="regression")
    assert Scored(np.array([0, 1]), np.array([0.1, 0.9]), task="regression").y_pred is None


def test_rows_without_a_label_are_left_out() -> None:
    names = ["acc", "correct", "f1", "ap", "roc_auc", "hits@2"]
    with_gap = np.array([0, 1, np.nan, 2, 2, np.nan])
    prob = np.insert(np.insert(PROBABILITIES, 2, [0.2, 0.3, 0.5], axis=0), 5, [0.6, 0.3, 0.1], axis=0)
    assert score(names, with_gap, prob) == score(names, LABELS, PROBABILITIES)
    assert score("mse", [1.0, np.nan, 2.0], [2.0, 9.0, 4.0], task="regression") == {"mse": 2.5}


def test_columns_of_labels_are_scored_one_by_one_and_averaged() -> None:
    random = np.random.default_rng(2)
    labels, prob = random.integers(0, 2, (50, 3)), random.random((50, 3))
    for name in ("acc", "correct", "f1", "ap", "roc_auc"):
        each = [score(name, labels[:, i], prob[:, i])[name] for i in range(3)]
        assert score(name, labels, prob)[name] == pytest.approx(sum(each) / 3, abs=1e-12)
    labels, prob = random.integers(0, 4, (50, 3)), random.random((50, 4, 3))
    for name in ("acc", "f1", "ap", "roc_auc", "hits@2"):
        each = [score(name, labels[:, i], prob[:, :, i])[name] for i in range(3)]
        assert score(name, labels, prob)[name] == pytest.approx(sum(each) / 3, abs=1e-12)
    with pytest.raises(ConfigError, match=r"labels are of shape \(50, 3\), the predictions of shape \(50, 2\)"):
        score("acc", labels, prob[:, 0, :2])


def test_a_column_of_labels_without_any_is_left_out_of_the_mean() -> None:
    labels = np.array([[0, np.nan], [1, np.nan]])
    assert score(["acc", "roc_auc"], labels, [[0.1, 0.2], [0.2, 0.9]]) == {"acc": 0.5, "roc_auc": 1.0}


@pytest.mark.parametrize("name", ["acc", "correct", "f1", "ap", "roc_auc", "hits@2"])
def test_over_predictions_that_hold_a_nan_everything_is_nan(name: str) -> None:
    prob = PROBABILITIES.copy()
    prob[1, 0] = np.nan
    assert math.isnan(score(name, LABELS, prob)[name])
    if name in ("acc", "correct", "f1"):
        assert math.isnan(score(name, LABELS, y_pred=[0, np.nan, 1, 2])[name])
    if name not in ("hits@2",):
        assert math.isnan(score(name, [0, 1], [np.nan, 0.5])[name])
    assert np.isnan(Scored(LABELS, prob).y_pred).tolist() == [False, True, False, False]


@pytest.mark.parametrize("logits", [[np.inf, 0.0, 0.0], [-np.inf, -np.inf, -np.inf]])
def test_over_infinite_logits_ranks_are_nan(logits: list[float]) -> None:
    prob = PROBABILITIES.copy()
    prob[1] = logits
    assert math.isnan(score("roc_auc", LABELS, prob)["roc_auc"])
    assert math.isnan(score("ap", LABELS, prob)["ap"])


def test_what_has_one_class_only_has_no_ranks() -> None:
    for label in (0, 1):
        found = score(["roc_auc", "ap", "acc"], [label] * 3, [0.2, 0.3, 0.6])
        assert math.isnan(found["roc_auc"])
        assert math.isnan(found["ap"])
        assert found["acc"] == pytest.approx(2 / 3 if label == 0 else 1 / 3)


def test_classes_that_no_row_has_are_left_out_of_the_mean() -> None:
    labels, prob = (
        np.array([0, 0, 1, 1]),
        np.array([[0.5, 0.4, 0.1], [0.6, 0.2, 0.2], [0.55, 0.4, 0.05], [0.1, 0.8, 0.1]]),
    )
    each = [sklearn_metrics.roc_auc_score(labels == k, prob[:, k]) for k in (0, 1)]
    assert score("roc_auc", labels, prob)["roc_auc"] == pytest.approx(sum(each) / 2, abs=1e-12)


# -- against scikit-learn --------------------------------------------------------------------------------------


def tables(classes: int) -> st.SearchStrategy[tuple[list[int], list[list[int]]]]:
    """Labels and small whole scores, so that many are equal."""
    return st.integers(2, 40).flatmap(
        lambda rows: st.tuples(
            st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows),
            st.lists(st.lists(st.integers(1, 6), min_size=classes, max_size=classes), min_size=rows, max_size=rows),
        )
    )


@settings(deadline=None)
@given(tables(2))
def test_binary_scores_equal_scikit_learns_with_ties(table: tuple[list[int], list[list[int]]]) -> None:
    labels, prob = np.array(table[0]), np.array(table[1])[:, 0] / 6
    found = score(["acc", "f1", "ap", "roc_auc"], labels, prob)
    pred = prob > 0.5
    assert abs(found["acc"] - sklearn_metrics.accuracy_score(labels, pred)) < 1e-12
    assert abs(found["f1"] - sklearn_metrics.f1_score(labels, pred, average="macro")) < 1e-12
    if len(set(table[0])) == 2:
        assert abs(found["ap"] - sklearn_metrics.average_precision_score(labels, prob)) < 1e-12
        assert abs(found["roc_auc"] - sklearn_metrics.roc_auc_score(labels, prob)) < 1e-12
        both = np.stack([1 - prob, prob], axis=1)
        assert score(["ap", "roc_auc"], labels, both) == {name: found[name] for name in ("ap", "roc_auc")}


@settings(deadline=None)
@given(tables(4))
def test_scores_of_several_classes_equal_scikit_learns_with_ties(table: tuple[list[int], list[list[int]]]) -> None:
    labels, weights = np.array(table[0]), np.array(table[1], dtype=float)
    prob = weights / weights.sum(axis=1, keepdims=True)
    found = score(["acc", "f1", "ap", "roc_auc", "hits@1", "hits@4"], labels, prob)
    pred = prob.argmax(axis=1)
    assert abs(found["acc"] - sklearn_metrics.accuracy_score(labels, pred)) < 1e-12
    assert abs(found["f1"] - sklearn_metrics.f1_score(labels, pred, average="macro")) < 1e-12
    assert (found["hits@1"], found["hits@4"]) == (found["acc"], 1.0)
    if len(set(table[0])) == 4:
        one_hot = np.eye(4, dtype=int)[labels]
        assert abs(found["ap"] - sklearn_metrics.average_precision_score(one_hot, prob, average="macro")) < 1e-12
        assert abs(found["roc_auc"] - sklearn_metrics.roc_auc_score(labels, prob, multi_class="ovr")) < 1e-12


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_hits_equal_scikit_learns_where_no_scores_are_equal(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    labels, prob = random.integers(0, 5, 30), random.random((30, 5))
    found = score(f"hits@{n}", labels, prob)[f"hits@{n}"]
    expected = sklearn_metrics.top_k_accuracy_score(labels, prob, k=n, labels=range(5)) if n < 5 else 1.0
    assert abs(found - expected) < 1e-12


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=30))
def test_errors_of_a_regression_equal_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    true, predicted = np.array(pairs).T
    expected = sklearn_metrics.mean_squared_error(true, predicted)
    for shape in (predicted, predicted[:, None]):
        found = score(["mse", "rmse"], true, shape, task="regression")
        assert found["mse"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert found["rmse"] == pytest.approx(math.sqrt(expected), rel=1e-12, abs=1e-12)


def test_infinite_scores_are_ranked_and_equal_ones_share_a_rank() -> None:
    labels, scores = [0, 1, 0, 1], [-math.inf, math.inf, math.inf, 0.0]
    ranks = [0.0, 2.0, 2.0, 1.0]
    assert score(["ap", "roc_auc"], labels, scores) == score(["ap", "roc_auc"], labels, ranks)


# -- single scores ---------------------------------------------------------------------------------------------


def test_hits_break_ties_as_the_predicted_class_does() -> None:
    flat = np.full((4, 3), 1 / 3)
    assert score(["acc", "hits@1", "hits@2", "hits@3"], LABELS, flat) == {
        "acc": 0.25,
        "hits@1": 0.25,
        "hits@2": 0.5,
        "hits@3": 1.0,
    }
    with pytest.raises(ConfigError, match="hits@3 needs a score for each class"):
        score("hits@3", [0, 1], [0.1, 0.2])


def test_a_regression_with_predictions_in_a_column_is_not_a_square() -> None:
    true, predicted = np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [5.0]])
    assert score(["mse", "rmse"], true, predicted, task="regression") == {"mse": 4 / 3, "rmse": math.sqrt(4 / 3)}
    assert score("mse", true[:, None], predicted[:, 0], task="regression") == {"mse": 4 / 3}


def test_the_squares_of_a_regression_are_summed_in_double_precision() -> None:
    true = np.zeros(3, dtype=np.float32)
    predicted = np.full(3, 1e25, dtype=np.float32)
    assert score("mse", true, predicted, task="regression")["mse"] == pytest.approx(1e50, rel=1e-6)
    assert score("mse", true, np.full(3, 1e200), task="regression") == {"mse": math.inf}


def test_the_improvement_is_on_a_known_error_in_percent() -> None:
    assert score("imp_ratio", LABELS, PROBABILITIES, base=0.5) == {"imp_ratio": 50.0}
    assert score("imp_ratio", LABELS, PROBABILITIES, base=0.2) == {"imp_ratio": pytest.approx(-25.0)}
    assert score("imp_ratio", [1.0, 2.0], [2.0, 4.0], base=10.0, task="regression") == {"imp_ratio": 75.0}


@pytest.mark.parametrize("base", [None, 0, -1.0, math.nan, "0.5", True])
def test_an_improvement_without_a_known_error_is_refused_before_anything_is_trained(base: Any) -> None:
    with pytest.raises(ConfigError, match=r"improvement on a known error.*expected base="):
        MetricCalculator("imp_ratio", base=base)
    assert MetricCalculator("acc").base is None


def test_scoring_loads_no_torch() -> None:
    code = (
        "import sys; from heterofed.metrics.calculator import score; "
        "assert score('acc', [0, 1], [0.2, 0.9]) == {'acc': 1.0}; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("scalar", "more"),
    [
        ("test_results/accuracy", True),
        ("score/acc", True),
        ("test_roc_auc", True),
        ("val_f1", True),
        ("test_results/average_loss", False),
        ("val/loss", False),
        ("test_rmse", False),
        ("score/std", False),
        ("weight_norm", None),
        ("glossary", None),
    ],
)
def test_the_name_of_a_scalar_tells_what_is_better_where_it_can(scalar: str, more: bool | None) -> None:
    assert direction_of(scalar) is more


@pytest.mark.parametrize("name", SPOKEN)
def test_every_score_of_a_report_is_better_in_its_own_direction_as_a_scalar_too(name: str) -> None:
    for scalar in (name, f"valid/{name}", f"test_{name}"):
        assert direction_of(scalar) is (name not in SMALLER_IS_BETTER), scalar

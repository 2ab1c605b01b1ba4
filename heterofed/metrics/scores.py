"""What a model predicted beside what is true, and the usual scores of that, in numpy.

Where labels are a table, every column is scored by itself and the mean of the columns is given. A row whose label is
NaN is left out. What is undefined, as a ROC curve with one class only, or anything over predictions that hold a NaN,
is NaN.

References:
    roc_auc as the Mann-Whitney statistic with mid-ranks: J. A. Hanley, B. J. McNeil, "The meaning and use of the area
        under a receiver operating characteristic (ROC) curve", Radiology 143, 1982.
    ap as the sum of precisions weighted by steps of recall, not interpolated: C. D. Manning, P. Raghavan, H. Schütze,
        "Introduction to Information Retrieval", section 8.4, 2008.
    f1: C. J. van Rijsbergen, "Information Retrieval", chapter 7, 1979; the mean over the classes is called macro.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from heterofed.errors import ConfigError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What a metric is computed from: the labels and predictions of all rows that were evaluated.

    Args:
        y_true: labels, (rows,) or (rows, columns); NaN where there is none. Classes are numbers from 0.
        y_prob: what the model gave. Classification: probabilities of the second of two classes, (rows,) or (rows, 1);
            or a probability or logit per class, (rows, classes); with several columns of labels (rows, columns) or
            (rows, classes, columns). Regression: the predicted values, shaped as the labels.
        given_pred: predicted classes, where the model gives these itself.
        loss_total: sum over the rows of the loss.
        loss_regular_total: sum of the regularizer's part.
        num_samples: rows that the loss was summed over.
        task: "classification" or "regression".
        base: the error that `imp_ratio` compares with.
        ctx: the trainer's context, where there is one.
    """

    y_true: Array
    y_prob: Array | None = None
    given_pred: Array | None = None
    loss_total: float | None = None
    loss_regular_total: float | None = None
    num_samples: int = 0
    task: str = "classification"
    base: float | None = None
    ctx: Any = None

    @cached_property
    def y_pred(self) -> Any:
        """The predicted classes, shaped as the labels: the likeliest, the first of equals. A regression has none.

        Raises:
            ConfigError: they cannot be told from `y_prob`.
        """
        if self.task == "regression":
            return None
        if self.given_pred is not None:
            return self.given_pred
        prob = self.by_class
        if prob.shape[1] > 1:
            pred = prob.argmax(axis=1)
        elif (prob < 0).any() or (prob > 1).any():
            raise ConfigError(
                "scores in one column are read as probabilities, and some are outside 0..1",
                advice="Give torch.sigmoid of the logits, or the predicted classes as ys_pred.",
            )
        else:
            pred = (prob[:, 0] > 0.5).astype(np.int64)
        lost = _is_nan(prob).any(axis=1)
        return (np.where(lost, np.nan, pred) if lost.any() else pred).reshape(self.y_true.shape)

    def labels_and_predictions(self) -> Iterator[tuple[Array, Array]]:
        """Yield (labels, predicted classes) of the labelled rows, for each column of the labels.

        Raises:
            ConfigError: the shapes do not fit, or a label is none of the classes.
        """
        self._needs_classes()
        pred = self.y_pred
        if pred.size != self.y_true.size or len(pred) != len(self.y_true):
            raise self._misfit("predicted classes", pred)
        classes = None if self.given_pred is not None else self.by_class.shape[1]
        for truth, column in zip(_table(self.y_true).T, _table(pred).T, strict=True):
            labelled = ~_is_nan(truth)
            yield truth[labelled] if classes is None else _classes(truth[labelled], classes), column[labelled]

    def labels_and_scores(self) -> Iterator[tuple[npt.NDArray[np.int64], Array]]:
        """Yield (labels, scores of shape (rows, classes)) of the labelled rows, for each column of the labels.

        Raises:
            ConfigError: the shapes do not fit, there are no scores, or a label is none of the classes.
        """
        self._needs_classes()
        prob = self.by_class
        for i, truth in enumerate(_table(self.y_true).T):
            labelled = ~_is_nan(truth)
            yield _classes(truth[labelled], prob.shape[1]), prob[labelled, :, i]

    def errors(self) -> Floats:
        """Return predicted minus true of every labelled value, flat.

        Raises:
            ConfigError: there is not one prediction for each label.
        """
        given = self.given_pred if self.y_prob is None else self.y_prob
        if given is None or given.size != self.y_true.size or len(given) != len(self.y_true):
            raise self._misfit("predictions", given)
        truth = self.y_true.reshape(-1).astype(np.float64)  # (rows,) minus (rows, 1) would be a square
        return (given.reshape(-1) - truth)[~np.isnan(truth)]

    @cached_property
    def by_class(self) -> Array:
        """The scores as (rows, classes, columns of the labels); with one score of two classes, (rows, 1, columns).

        Raises:
            ConfigError: there are none, or not one row of them for each label.
        """
        prob, width = self.y_prob, _table(self.y_true).shape[1]
        if prob is None:
            raise ConfigError("the metric needs the scores that the model gave", expected="ys_prob, not only ys_pred")
        if prob.ndim > 2:
            prob = prob.reshape(*prob.shape[:2], -1)
        else:  # with one column of labels a column per class, with several a column per label
            prob = _table(prob)[:, :, None] if width == 1 else _table(prob)[:, None, :]
        if len(prob) != len(self.y_true) or prob.shape[2] != width:
            raise self._misfit("predictions", self.y_prob)
        return prob

    def _needs_classes(self) -> None:
        if self.task == "regression":
            raise ConfigError("a score of classes was asked for, and the task is a regression")

    def _misfit(self, what: str, given: Array | None) -> ConfigError:
        shape = "none" if given is None else f"of shape {given.shape}"
        return ConfigError(
            f"the labels are of shape {self.y_true.shape}, the {what} {shape}", expected="a prediction for each label"
        )


Metric = Callable[[Scored], Any]
"""Computes a number from what was predicted."""


def _loss(scored: Scored) -> float:
    return _given("the loss", scored.loss_total)


def _avg_loss(scored: Scored) -> float:
    return _given("the loss", scored.loss_total) / scored.num_samples if scored.num_samples else math.nan


def _loss_regular(scored: Scored) -> float:
    return _given("the regularizer's loss", scored.loss_regular_total)


def _total(scored: Scored) -> int:
    return scored.num_samples


def _correct(scored: Scored) -> float:
    return _over_columns(scored, [float((pred == truth).sum()) for truth, pred in scored.labels_and_predictions()])


def _acc(scored: Scored) -> float:
    return _over_columns(scored, [_mean(pred == truth) for truth, pred in scored.labels_and_predictions()])


def _f1(scored: Scored) -> float:
    def of(truth: Array, pred: Array) -> float:
        seen, index = np.unique(np.concatenate([truth, pred]), return_inverse=True)
        true, predicted = np.split(index, 2)
        both = np.bincount(true[true == predicted], minlength=len(seen))
        return _mean(2 * both / np.bincount(index, minlength=len(seen)))  # 2 TP / (2 TP + FP + FN)

    return _over_columns(scored, [of(truth, pred) for truth, pred in scored.labels_and_predictions()])


def _ap(scored: Scored) -> float:
    def of(own: npt.NDArray[np.bool_], score: Floats) -> float:
        order = np.argsort(-score, kind="stable")
        last_of_equals = np.append(score[order][1:] != score[order][:-1], True)
        found = np.cumsum(own[order])[last_of_equals]
        taken = np.flatnonzero(last_of_equals) + 1
        return float((np.diff(found, prepend=0) * found / taken).sum() / own.sum())

    return _one_against_rest(scored, of)


def _roc_auc(scored: Scored) -> float:
    def of(own: npt.NDArray[np.bool_], score: Floats) -> float:
        _, index, counts = np.unique(score, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]  # equal scores share the mean of their ranks
        positive, negative = int(own.sum()), int((~own).sum())
        return float((ranks[own].sum() - positive * (positive + 1) / 2) / (positive * negative))

    return _one_against_rest(scored, of)


def _hits_at(n: int, scored: Scored) -> float:
    def of(classes: npt.NDArray[np.int64], prob: Array) -> float:
        if prob.shape[1] == 1:
            raise ConfigError(f"hits@{n} needs a score for each class", expected="ys_prob of shape (rows, classes)")
        own = np.take_along_axis(prob, classes[:, None], axis=1)
        # of equal scores the first class comes first, as in y_pred, so that hits@1 is acc
        before = (prob > own) | ((prob == own) & (np.arange(prob.shape[1]) < classes[:, None]))
        return _mean(before.sum(axis=1) < n)

    return _over_columns(scored, [of(classes, prob) for classes, prob in scored.labels_and_scores()])


def _mse(scored: Scored) -> float:
    return _mean(np.square(scored.errors()))


def _rmse(scored: Scored) -> float:
    return math.sqrt(_mse(scored))


def _imp_ratio(scored: Scored) -> float:
    base = _given("the error that imp_ratio compares with", scored.base)
    return (base - (_mse(scored) if scored.task == "regression" else 1 - _acc(scored))) / base * 100


BUILT_IN: dict[str, tuple[Metric, bool | None]] = {
    "loss": (_loss, False),
    "avg_loss": (_avg_loss, False),
    "total": (_total, None),
    "loss_regular": (_loss_regular, False),
    "correct": (_correct, True),
    "acc": (_acc, True),
    "f1": (_f1, True),
    "ap": (_ap, True),
    "roc_auc": (_roc_auc, True),
    "mse": (_mse, False),
    "rmse": (_rmse, False),
    "imp_ratio": (_imp_ratio, True),
    **{f"hits@{n}": (partial(_hits_at, n), True) for n in range(1, 101)},
}
"""Name -> (what computes it, whether a larger value is better; None if neither is)."""


def _one_against_rest(scored: Scored, of: Callable[[npt.NDArray[np.bool_], Floats], float]) -> float:
    """Return the mean over the classes that some rows have and others have not; of two classes only the second's.

    Args:
        of: computes it from which rows have the class and the scores of that class.
    """
    values = []
    for classes, given in scored.labels_and_scores():
        prob = given.astype(np.float64)
        if prob.shape[1] > 1 and not _are_probabilities(prob):
            prob = np.exp(prob - prob.max(axis=1, keepdims=True))  # logits of one class say nothing between rows
            prob /= prob.sum(axis=1, keepdims=True)
        if np.isnan(prob).any():  # infinite logits
            return math.nan
        chosen = range(prob.shape[1]) if prob.shape[1] > 2 else [1]
        pairs = [(classes == k, prob[:, k if prob.shape[1] > 1 else 0]) for k in chosen]
        values.append(_mean(np.array([of(own, score) for own, score in pairs if 0 < own.sum() < len(own)])))
    return _over_columns(scored, values)


def _over_columns(scored: Scored, values: Sequence[float]) -> float:
    """Return the mean over the columns of labels in which the score is defined; NaN predictions make it NaN."""
    for given in (scored.y_prob, scored.given_pred):
        if given is not None and _is_nan(given).any():
            return math.nan
    return _mean(np.array([value for value in values if not math.isnan(value)]))


def _table(values: Array) -> Array:
    """Return values of shape (rows, …) as (rows, columns)."""
    return values.reshape(len(values), -1)


def _classes(labels: Array, scores: int) -> npt.NDArray[np.int64]:
    """Return the labels as indices of classes, where the model gave so many scores for each row."""
    count = max(scores, 2)
    if not np.isin(labels, np.arange(count)).all():
        raise ConfigError(
            f"a label is none of the {count} classes that the scores are for",
            expected=f"whole numbers from 0 to {count - 1}",
        )
    return labels.astype(np.int64)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan  # numpy warns of the mean of nothing


def _is_nan(values: Array) -> npt.NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)


def _are_probabilities(scores: Floats) -> bool:
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3, rtol=0))


def _given(what: str, value: float | None) -> float:
    if value is None:
        raise ConfigError(f"{what} is not known", advice="Give it, or leave the metric out.")
    return value

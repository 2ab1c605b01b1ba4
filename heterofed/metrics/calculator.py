"""Scores by name: the usual ones, and those that users register.

    score(["acc", "roc_auc"], labels, probabilities)                    # {"acc": 0.91, "roc_auc": 0.97}

    @register_metric("recall", larger_is_better=True)                   # one's own, known by its name from then on
    def recall(scored: Scored) -> float:
        return float((scored.y_pred[scored.y_true == 1] == 1).mean())

The names are FederatedScope's: loss, avg_loss, total, loss_regular, correct, acc, f1 (mean of the classes'), ap and
roc_auc (mean of one class against the rest), hits@1 … hits@100, mse, rmse, imp_ratio.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import numpy as np

from heterofed.errors import ConfigError
from heterofed.metrics.scores import BUILT_IN, Array, Metric, Scored

__all__ = ["MetricCalculator", "Scored", "larger_is_better", "register_metric", "score", "unregister_metric"]

ALWAYS = ("loss", "avg_loss", "total")
"""What a MetricCalculator computes whether or not it is asked to."""

Builder = Callable[[set[str]], Any]
"""FederatedScope's form: the asked names -> (name, function of keywords, whether larger is better), or None."""

F = TypeVar("F", bound=Metric)

_registered: dict[str, tuple[Metric, bool | None]] = {}
_builders: dict[str, Builder] = {}
_UNSAID: Any = object()


@overload
def register_metric(name: str, *, larger_is_better: bool | None) -> Callable[[F], F]: ...
@overload
def register_metric(name: str, function: F, *, larger_is_better: bool | None) -> F: ...
@overload
def register_metric(name: str, function: Builder) -> Builder: ...
def register_metric(name: str, function: Any = None, *, larger_is_better: Any = _UNSAID) -> Any:
    """Make a metric known by name, as a decorator or as a call.

    Args:
        name: what it is asked for by.
        function: takes a `Scored` and returns a number. Without `larger_is_better` it is FederatedScope's form: a
            function that gets the set of asked names and returns (name, function, larger is better), or None if its
            metric is not among them. That function gets the keywords ctx, metric (the name), y_true (rows, columns),
            y_prob (rows, classes, columns) and y_pred (rows, columns); in a regression the arrays as they came.
        larger_is_better: True for accuracies, False for losses, None where neither is better.

    Raises:
        ConfigError: the name is taken or no name, or `function` is not callable.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError("a metric's name must be a non-empty string")
    if name in BUILT_IN or name in _registered or name in _builders:
        whose = "a metric of heterofed's own" if name in BUILT_IN else "registered already"
        raise ConfigError(f"the metric {name!r} is {whose}", advice="Choose another name, or unregister_metric first.")
    if larger_is_better is not _UNSAID and larger_is_better is not None and not isinstance(larger_is_better, bool):
        raise ConfigError(f"metric {name!r}: larger_is_better must be True, False or None")

    def keep(given: F) -> F:
        if not callable(given):
            raise ConfigError(f"metric {name!r}: {type(given).__name__} is not callable", expected="a function")
        _registered[name] = (given, larger_is_better)
        return given

    if larger_is_better is not _UNSAID:
        return keep if function is None else keep(function)
    if not callable(function):
        raise ConfigError(
            f"metric {name!r}: it is not said whether a larger value is better",
            expected="larger_is_better=True, False or None",
        )
    _builders[name] = function
    return function


def unregister_metric(name: str) -> None:
    """Forget a registered metric, so that its name is free again; heterofed's own stay."""
    _registered.pop(name, None)
    _builders.pop(name, None)


def larger_is_better(name: str) -> bool | None:
    """Return whether a larger value of a metric is better; None where neither is.

    Raises:
        ConfigError: there is no metric of this name.
    """
    return False if name == "std" else _metrics_of([name])[name][1]


_LESS = ("loss", "error", "brier", "mse", "rmse", "mae")
_MORE = ("acc", "accuracy", "auc", "f1", "precision", "recall", "r2", "match")


def direction_of(scalar: str) -> bool | None:
    """Return whether more of a scalar is better, as far as its name tells: "test/accuracy" yes, "val_loss" no.

    A known metric's own direction counts ("score/rmse", "test_roc_auc"); None where the name says nothing.
    """
    name = scalar.rpartition("/")[2]
    for known in (name, name.partition("_")[2]):
        try:
            found = larger_is_better(known)
        except ConfigError:
            continue
        if found is not None:
            return found
    words = name.lower().replace("-", "_").split("_")
    if any(word in _LESS for word in words):
        return False
    return True if any(word in _MORE for word in words) else None


class MetricCalculator:
    """Computes loss, avg_loss, total and the metrics it was asked for from what an evaluation left in its context.

    Args:
        names: the metrics, or one name.
        task: what the labels are; FederatedScope's names of tasks hold "classification" or "regression" too.
        base: for imp_ratio, the error to compare with: a mean squared error, or 1 - accuracy.

    Raises:
        ConfigError: a metric or the task is not known, or `base` is not above 0.
    """

    def __init__(self, names: Iterable[str] | str = (), *, task: str = "classification", base: float | None = None):
        self._metrics = _metrics_of([*ALWAYS, *_names(names)])
        self.task = _task(task)
        self.base = _base(base, self._metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """What is computed, in the order of the result."""
        return tuple(self._metrics)

    def larger_is_better(self, name: str) -> bool | None:
        """Return whether a larger value is better of one of `names`; None where neither is.

        Raises:
            ConfigError: it is none of them.
        """
        if name not in self._metrics:
            raise _unknown(name, self._metrics)
        return self._metrics[name][1]

    def eval(self, ctx: Any) -> dict[str, float]:
        """Return "<split>_<metric>" -> value.

        Args:
            ctx: has `cur_split`, `ys_true`, `ys_prob` or `ys_pred` (arrays or tensors, or a list of these by batch),
                `loss_batch_total`, `num_samples` and, where loss_regular is asked for, `loss_regular_total`.

        Raises:
            ConfigError: one of these is missing or does not fit the others.
        """
        prob, pred = getattr(ctx, "ys_prob", None), getattr(ctx, "ys_pred", None)
        if prob is None and pred is None:
            raise _missing("ys_prob and ys_pred")
        regular = getattr(ctx, "loss_regular_total", None)
        scored = Scored(
            y_true=_joined("ys_true", _needed(ctx, "ys_true")),
            # a list that hooks never filled is as good as none where the other is there
            y_prob=None if prob is None or (pred is not None and len(prob) == 0) else _joined("ys_prob", prob),
            given_pred=None if pred is None or (prob is not None and len(pred) == 0) else _joined("ys_pred", pred),
            loss_total=_number("loss_batch_total", _needed(ctx, "loss_batch_total")),
            loss_regular_total=None if regular is None else _number("loss_regular_total", regular),
            num_samples=int(_number("num_samples", _needed(ctx, "num_samples"))),
            task=self.task,
            base=self.base,
            ctx=ctx,
        )
        split = _needed(ctx, "cur_split")
        return {f"{split}_{name}": value for name, value in _values(self._metrics, scored).items()}


def score(
    names: Iterable[str] | str,
    y_true: Any,
    y_prob: Any = None,
    *,
    y_pred: Any = None,
    loss: Any = None,
    task: str = "classification",
    base: float | None = None,
) -> dict[str, float]:
    """Return metric -> value for exactly the metrics asked for; for a host's own `test`.

    Args:
        names: the metrics, or one name.
        y_true: labels: an array, a tensor, or a list of these by batch.
        y_prob: what the model gave, likewise: `Scored` says in which shapes.
        y_pred: predicted classes, where the model gives these itself.
        loss: the mean loss of the rows (a number, or a tensor of one), which is "avg_loss"; "loss" is its sum over
            the rows, as in an evaluation.
        task: "classification" or "regression".
        base: for imp_ratio, the error to compare with.

    Raises:
        ConfigError: a metric is not known, or labels and predictions do not fit together.
    """
    metrics = _metrics_of(_names(names))
    labels = _joined("y_true", y_true)
    scored = Scored(
        y_true=labels,
        y_prob=None if y_prob is None else _joined("y_prob", y_prob),
        given_pred=None if y_pred is None else _joined("y_pred", y_pred),
        loss_total=None if loss is None else _number("loss", loss) * len(labels),
        num_samples=len(labels),
        task=_task(task),
        base=_base(base, metrics),
    )
    return _values(metrics, scored)


def _values(metrics: Mapping[str, tuple[Metric, bool | None]], scored: Scored) -> dict[str, float]:
    values = {}
    for name, (metric, _) in metrics.items():
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is seen in the value
            values[name] = _number(f"the metric {name!r}", metric(scored))
    return values


def _names(names: Iterable[str] | str) -> list[str]:
    if isinstance(names, str):
        return [names]
    listed = sorted(names) if isinstance(names, set | frozenset) else list(names)  # one order in every process
    if not all(isinstance(name, str) for name in listed):
        raise ConfigError("a metric is asked for by its name", expected="strings")
    return listed


def _metrics_of(names: Iterable[str]) -> dict[str, tuple[Metric, bool | None]]:
    """Return name -> (metric, direction) of each, asking FederatedScope's builders about those not known by name."""
    names = list(dict.fromkeys(names))
    known = {**BUILT_IN, **_registered}
    asked = {name for name in names if name not in known}
    for key, builder in _builders.items():
        if not asked:
            break
        try:
            built = builder(set(asked))
        except Exception as error:
            raise ConfigError(
                f"what was registered as metric {key!r} failed when it was asked for its metric",
                advice="A function of a Scored is registered with larger_is_better=.",
            ) from error
        if built is None:
            continue
        if not isinstance(built, tuple | list) or len(built) not in (2, 3) or not callable(built[1]):
            raise ConfigError(
                f"what was registered as metric {key!r} returned {type(built).__name__}",
                expected="(name, function, larger is better) or None",
            )
        known.setdefault(built[0], (_by_keywords(built[0], built[1]), built[2] if len(built) == 3 else None))
    for name in names:
        if name not in known:
            raise _unknown(name, {**known, **_builders})
    return {name: known[name] for name in names}


def _by_keywords(name: str, function: Callable[..., Any]) -> Metric:
    def metric(scored: Scored) -> Any:
        if scored.task == "regression":
            arrays = {"y_true": scored.y_true, "y_prob": scored.y_prob, "y_pred": None}
        else:
            rows = len(scored.y_true)
            arrays = {"y_true": scored.y_true.reshape(rows, -1), "y_pred": scored.y_pred.reshape(rows, -1)}
            arrays["y_prob"] = None if scored.y_prob is None else scored.by_class
        return function(ctx=scored.ctx, metric=name, **arrays)

    return metric


def _unknown(name: str, known: Iterable[str]) -> ConfigError:
    if name == "std":
        return ConfigError(
            "std is the spread of a metric between several parties' evaluations, which one evaluation does not have",
            advice="Leave it out; larger_is_better is False for it.",
        )
    names = sorted({"hits@1 … hits@100" if each in BUILT_IN and "@" in each else each for each in known})
    near = difflib.get_close_matches(name, known, n=3)
    return ConfigError(
        f"there is no metric {name!r}",
        expected=f"one of {', '.join(names)}",
        advice=f"Did you mean {' or '.join(near)}?" if near else "Your own are made known with register_metric.",
    )


def _task(task: str) -> str:
    for each in ("regression", "classification"):
        if isinstance(task, str) and each in task.lower():
            return each
    raise ConfigError(f"the task is {task!r}", expected='"classification" or "regression"')


def _base(base: float | None, metrics: Mapping[str, Any]) -> float | None:
    if base is None and "imp_ratio" not in metrics:
        return None
    if isinstance(base, bool) or not isinstance(base, int | float) or not base > 0:
        raise ConfigError(
            "imp_ratio is the improvement on a known error in percent",
            expected="base=, the error to compare with, above 0: a mean squared error, or 1 - accuracy",
        )
    return float(base)


def _needed(ctx: Any, name: str) -> Any:
    value = getattr(ctx, name, None)
    if value is None:
        raise _missing(name)
    return value


def _missing(name: str) -> ConfigError:
    return ConfigError(
        f"the context has no {name}, so nothing can be scored",
        advice="The default hooks set it; check what replaced them.",
    )


def _joined(name: str, given: Any) -> Array:
    """Return one array of all rows: of an array or tensor as it is, of a list of these one after the other."""
    if isinstance(given, list | tuple) and any(hasattr(each, "shape") for each in given):
        arrays = [np.atleast_1d(_array(each)) for each in given]
        if len({(each.ndim, each.shape[1:]) for each in arrays}) > 1:
            raise ConfigError(f"the batches of {name} differ in shape", expected="the same, but for the number of rows")
        array = np.concatenate(arrays)
    else:
        array = _array(given)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name} holds {array.dtype}", expected="numbers")
    if array.ndim == 0 or array.size == 0:
        raise ConfigError(f"{name} has no rows", advice="Was a batch evaluated?")
    return array


def _array(given: Any) -> Array:
    torch = sys.modules.get("torch")  # a tensor is here only if its library is; it takes seconds to load
    if torch is not None and isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()  # numpy has no bfloat16
    return np.asarray(given)


def _number(what: str, given: Any) -> float:
    try:
        value = given.item() if hasattr(given, "item") else given
    except (RuntimeError, ValueError):  # torch's and numpy's word for more than one element
        value = given
    if not isinstance(value, int | float):
        raise ConfigError(f"{what} is {type(value).__name__}", expected="one number")
    return int(value) if isinstance(value, bool) else value

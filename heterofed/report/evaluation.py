"""What is reported: labels and predictions of the sets, without and with some parties, and the rounds of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from heterofed.errors import ConfigError
from heterofed.tables.answers import Task

Array = npt.NDArray[Any]

MAIN_SET = "test"
"""The set that is reported first; where there is none, the last."""

_SUM_TO_ONE = 1e-3
"""How far the probabilities of a row may be from it: float32, or numbers that were rounded."""


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Labels and predictions of the rows of one set, as arrays or tensors on the CPU.

    Args:
        name: "train", "valid" or "test", or another.
        y_true: binary (rows,) or (rows, 1) of 0 and 1; multiclass (rows,) of whole numbers from 0; multilabel
            (rows, labels) of 0 and 1; regression (rows,) or (rows, 1).
        y_score: binary the probability of class 1, of the shape of `y_true`; multiclass the probabilities (rows,
            classes); multilabel those of each label (rows, labels); regression the values in the label's own unit.
    """

    name: str
    y_true: Any
    y_score: Any

    def __repr__(self) -> str:
        return f"ScoredSet({self.name!r}, {len(self.y_true)} rows)"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that a report tells.

    Args:
        task: the kind of task.
        sets: those that the model was scored on, in the order in which they are shown; each name once.
        classes: of binary two, the one that counts as 1 last; of multiclass all, in the order of their numbers; of
            multilabel the names of the labels; of regression none.
        parties: all that trained the model, the host first.
        host_alone: the main set, as a model of the host's own columns alone predicts it.
        ablated: party -> the main set as the model predicts it when that party's embedding is replaced by its mean.
        history: one mapping for each round: "round", and scores under names such as "train_loss" or "valid_roc_auc".
        title: of the page.
        label: what is predicted: the label column's name.
        facts: what else the page shall tell, for example {"rounds": "20"}.
        remarks: sentences on what its scores can and cannot be compared with, which the page shows above them.
        with_stand_ins: rows of the main set for which the embedding of some party was not known, and a stand-in taken.

    Raises:
        ConfigError: the arrays are not those of such a task, or a name is unknown or there twice.
    """

    task: Task
    sets: tuple[ScoredSet, ...]
    classes: tuple[str, ...] = ()
    parties: tuple[str, ...] = ()
    host_alone: ScoredSet | None = None
    ablated: Mapping[str, ScoredSet] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    title: str = "Evaluation"
    label: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    with_stand_ins: int = 0

    def __post_init__(self) -> None:
        names = [each.name for each in self.sets]
        if not names or len(set(names)) < len(names) or not all(names):
            raise ConfigError(f"the sets of an evaluation are {names}", expected="one or more, each with its own name")
        strangers = [each for each in self.ablated if each not in self.parties]
        if strangers:
            raise ConfigError(f"{strangers[0]!r} is ablated and is no party of the task", expected="a party's name")
        for scored in (*self.sets, *self.ablated.values(), *([self.host_alone] if self.host_alone else ())):
            _, scores = arrays(self.task, scored.y_true, scored.y_score, scored.name)
            width = {"binary": 2, "regression": 0}.get(self.task, scores.shape[-1])
            if len(self.classes) != width:
                raise ConfigError(
                    f"{len(self.classes)} classes are named, and the predictions of {scored.name} are of shape "
                    f"{scores.shape}",
                    expected=f"{width} names for this {self.task} task",
                )
        if any("round" not in each for each in self.history):
            raise ConfigError("a row of the history says no round", expected="'round' in every row")

    @property
    def main_set(self) -> ScoredSet:
        """The set that is reported first: the one named "test", or the last."""
        return {each.name: each for each in self.sets}.get(MAIN_SET, self.sets[-1])


def arrays(task: Task, y_true: Any, y_score: Any, name: str = "a set") -> tuple[Array, Array]:
    """Return labels and predictions in one form for each task.

    Returns:
        Labels (rows,) and predictions (rows,) of binary and regression, (rows,) and (rows, classes) of multiclass,
        (rows, labels) of multilabel. Labels are integers but in a regression, predictions float64; the probabilities
        of a row of multiclass sum to 1.

    Raises:
        ConfigError: they are not of such a task.
    """
    if task not in get_args(Task):
        raise ConfigError(f"the task is {task!r}", expected=f"one of {', '.join(get_args(Task))}")
    truth, scores = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    if task in ("binary", "regression", "multiclass") and truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if task in ("binary", "regression") and scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    per_row = {"multiclass": (1, 2), "multilabel": (2, 2)}.get(task, (1, 1))
    fitting = (truth.ndim, scores.ndim) == per_row and len(truth) == len(scores)
    if not fitting or (task == "multilabel" and truth.shape != scores.shape) or 0 in scores.shape[1:]:
        raise ConfigError(
            f"labels and predictions of {name} are of shape {truth.shape} and {scores.shape}",
            expected={
                "multiclass": "(rows,) and (rows, classes)",
                "multilabel": "(rows, labels) twice",
            }.get(task, "(rows,) or (rows, 1) twice"),
        )
    if not np.isfinite(truth).all() or not np.isfinite(scores).all():
        raise ConfigError(f"labels or predictions of {name} are NaN or infinite", expected="finite numbers")
    if task == "regression":
        return truth, scores
    classes = scores.shape[1] if task == "multiclass" else 2
    if ((truth != np.floor(truth)) | (truth < 0) | (truth >= classes)).any():
        raise ConfigError(f"labels of {name} are no numbers of classes", expected=f"0 to {classes - 1}")
    if ((scores < 0) | (scores > 1)).any():
        raise ConfigError(
            f"predictions of {name} are no probabilities", expected="0 to 1", advice="Apply sigmoid or softmax first."
        )
    if task == "multiclass" and len(scores):
        sums = scores.sum(axis=1, keepdims=True)
        if (abs(sums - 1) > _SUM_TO_ONE).any():
            raise ConfigError(
                f"predictions of {name} do not sum to 1 in every row", expected="a probability for each class"
            )
        scores = scores / sums
    return truth.astype(np.int64), scores

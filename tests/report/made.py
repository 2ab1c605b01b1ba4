"""Evaluations of each task, from predictions that are right more often than not."""

from __future__ import annotations

from typing import Any

import numpy as np

from heterofed.report import Evaluation, ScoredSet
from heterofed.report.evaluation import Array
from heterofed.tables import Task

PARTIES = ("bank", "shop")


def rows_of(task: Task, rows: int, *, seed: int = 0, width: int = 3, noise: float = 1.0) -> tuple[Array, Array]:
    """Return labels and predictions."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        numbers = rng.normal(50, 10, rows)
        return numbers, numbers + rng.normal(0, 4 * noise, rows)
    if task == "multiclass":
        classes = rng.integers(0, width, rows)
        scores = np.exp(2 * np.eye(width)[classes] + rng.normal(0, noise, (rows, width)))
        return classes, scores / scores.sum(axis=1, keepdims=True)
    shape = (rows,) if task == "binary" else (rows, width)
    truth: Array = rng.integers(0, 2, shape)
    return truth, 1 / (1 + np.exp(1 - 2 * truth + rng.normal(0, noise, shape)))


def scored(name: str, task: Task, rows: int, **how: Any) -> ScoredSet:
    return ScoredSet(name, *rows_of(task, rows, **how))


def classes_of(task: Task, width: int = 3) -> tuple[str, ...]:
    if task == "binary":
        return ("no", "yes")
    return () if task == "regression" else tuple(f"kind {number}" for number in range(width))


def evaluation_of(task: Task, rows: int = 120, *, width: int = 3, **also: Any) -> Evaluation:
    """Return one with everything in it; the host alone and a missing shop are worse."""
    given: dict[str, Any] = {
        "classes": classes_of(task, width),
        "parties": PARTIES,
        "host_alone": scored("test", task, rows, seed=2, width=width, noise=2.0),
        "ablated": {
            "bank": scored("test", task, rows, seed=2, width=width, noise=1.5),
            "shop": scored("test", task, rows, seed=2, width=width, noise=4.0),
        },
        "history": [{"round": each, "train_loss": 1 / each, "valid_r2": 1 - 1 / each} for each in range(1, 4)],
        "title": "A test",
        "label": "answer",
        "facts": {"rounds": "3"},
    }
    names = ("train", "valid", "test")
    sets = tuple(scored(name, task, rows, seed=number, width=width) for number, name in enumerate(names))
    return Evaluation(task, sets, **(given | also))

"""Tables for tests, cut by column, and parties that train on them in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from heterofed import run_locally
from heterofed.report import scores_of
from heterofed.tabular import TableCollaborator, TableHost
from heterofed.tabular.losses import predictions_of
from heterofed.tabular.unsplit import Unsplit, predict_unsplit

MADE_AT_ONCE = {"evaluate": False, "seed": 3}
"""Arguments of a host that is to train and nothing more."""


def split_by_column(values: Any, answers: Any, parties: int, label: str = "y") -> list[pd.DataFrame]:
    """Return a table for each party, the rows of each in another order; the first one has the labels."""
    frames = []
    for party, columns in enumerate(np.array_split(np.arange(values.shape[1]), parties)):
        frame = pd.DataFrame({f"x{each}": values[:, each] for each in columns})
        frame.insert(0, "id", [f"row-{each:05d}" for each in range(len(values))])
        if not party:
            frame[label] = answers
        frames.append(frame.sample(frac=1, random_state=party).reset_index(drop=True))
    return frames


def people(rows: int = 160, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a host's and a collaborator's table with columns of several kinds; what is to be told needs both."""
    random = np.random.default_rng(seed)
    ids = [f"person-{each:04d}" for each in range(rows)]
    age, dose = random.integers(18, 99, rows), random.normal(12, 3, rows)
    smoker, city = random.choice(["yes", "no"], rows), random.choice(["Ulm", "Kiel", "Bonn"], rows)
    risk = (age - 58) / 20 + (dose - 12) / 2 + (smoker == "yes") * 2 - 1 + random.normal(0, 0.3, rows)
    host: pd.DataFrame = pd.DataFrame({"id": ids, "age": age, "smoker": smoker, "ill": (risk > 0).astype(int)})
    other: pd.DataFrame = pd.DataFrame({"id": ids, "dose": dose, "city": city})
    return host, other.sample(frac=1, random_state=1)


def train(
    folder: Path,
    frames: Sequence[pd.DataFrame],
    *,
    label: str | Sequence[str] = "y",
    recover: bool = False,
    host_class: type[TableHost] = TableHost,
    shared: dict[str, Any] | None = None,
    **host_arguments: Any,
) -> tuple[TableHost, list[TableCollaborator]]:
    """Train and return the parties: the host first, then c1, c2, …"""
    host, others = parties(folder, frames, label=label, host_class=host_class, shared=shared, **host_arguments)
    run_locally(host, *others, seed=1, recover=recover)
    return host, others


def parties(
    folder: Path,
    frames: Sequence[pd.DataFrame],
    *,
    label: str | Sequence[str] = "y",
    host_class: type[TableHost] = TableHost,
    shared: dict[str, Any] | None = None,
    **host_arguments: Any,
) -> tuple[TableHost, list[TableCollaborator]]:
    """Return fresh parties."""
    both = shared or {}
    host = host_class(
        "host", frames[0], "id", label=label, out_dir=folder / "host", **{**MADE_AT_ONCE, **both, **host_arguments}
    )
    others = [
        TableCollaborator(f"c{number}", frame, "id", out_dir=folder / f"c{number}", **{"seed": 3, **both})
        for number, frame in enumerate(frames[1:], start=1)
    ]
    return host, others


def scores(
    model: Unsplit, ids: Sequence[str], host: TableHost, others: Sequence[TableCollaborator]
) -> dict[str, float]:
    """Return the scores of a model whose columns are all in this process."""
    values: Tensor = predict_unsplit(model, ids, host, *others)
    truth = host.labels_of(ids)
    if host.labels.task == "regression":
        truth = predictions_of(host.labels, truth)
    return scores_of(host.labels.task, truth.numpy(), values.numpy())

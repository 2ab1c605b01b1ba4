"""Trained apart, a network is as good as in one piece, and better than the host's own columns alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heterofed.tabular.unsplit import Unsplit, put_together, train_unsplit, unsplit_twin
from tests.tabular.parties import scores, split_by_column, train
from tests.tiny import same_bits

datasets = pytest.importorskip("sklearn.datasets")

DATA = os.environ.get("HETEROFED_DATA")
SMALL = {"hidden": (), "width": 8}


@pytest.mark.skipif(DATA is None, reason="HETEROFED_DATA names no folder with breast_hetero")
@pytest.mark.parametrize(("rounds", "auc"), [(3, 0.97), (50, 0.99)])
def test_two_files_give_the_auc_of_the_unsplit_model(tmp_path: Path, rounds: int, auc: float) -> None:
    folder = Path(str(DATA)) / "breast_hetero"
    if not folder.is_dir():
        pytest.skip("there is no breast_hetero in HETEROFED_DATA")
    files = [folder / "breast_hetero_guest.csv", folder / "breast_hetero_host.csv"]

    host, others = train(
        tmp_path,
        files,  # type: ignore[arg-type]  # paths do as well
        shared={**SMALL, "fractions": (1, 0, 0), "seed": 0},
        top=(8,),
        rounds=rounds,
    )

    apart = scores(put_together(host, *others), host.train_ids, host, others)["roc_auc"]
    together = scores(unsplit_twin(host, *others), host.train_ids, host, others)["roc_auc"]
    shapes = [[tuple(each.shape) for each in model.parameters()] for model in (host.feature_model, host.infer_model)]
    assert shapes == [[(8, 10), (8,)], [(8, 16), (8,), (1, 8), (1,)]]
    assert apart >= auc
    assert abs(apart - together) <= 1e-6


def breast_cancer() -> Any:
    return datasets.load_breast_cancer(return_X_y=True)


def digits() -> Any:
    values, answers = datasets.load_digits(return_X_y=True)
    return values[:500], answers[:500]


def diabetes() -> Any:
    return datasets.load_diabetes(return_X_y=True)


def houses() -> Any:
    """Like California's houses: 8 columns, of which 5 tell the price; the host has too few of these."""
    return datasets.make_friedman1(600, 8, noise=1.0, random_state=0)


@pytest.mark.parametrize(
    ("load", "parties", "score"),
    [
        (breast_cancer, 3, "roc_auc"),
        (digits, 5, "accuracy"),
        (diabetes, 2, "rmse"),
        (houses, 3, "rmse"),
    ],
)
def test_apart_and_unsplit_agree_and_the_host_alone_is_worse(
    tmp_path: Path, load: Callable[[], Any], parties: int, score: str
) -> None:
    values, answers = load()
    host, others = train(tmp_path, split_by_column(values, answers, parties), rounds=10, batch_size=64)

    ids = host.test_ids
    apart = scores(put_together(host, *others), ids, host, others)[score]
    together = unsplit_twin(host, *others)
    alone = host_alone(host)
    by_itself = scores(alone, ids, host, [])[score]
    assert apart == pytest.approx(scores(together, ids, host, others)[score], rel=1e-3)
    assert same_bits(put_together(host, *others), together)
    assert by_itself > apart if score == "rmse" else by_itself < apart


def host_alone(host: Any) -> Unsplit:
    feature = host.new_feature_model("alone")
    model = Unsplit({host.feature_key: feature}, torch.nn.Linear(host.width, host.labels.outputs))
    train_unsplit(
        model,
        {host.feature_key: host.data.rows(host.train_ids)},
        host.labels_of(host.train_ids),
        host.loss,
        rounds=10,
        batch_size=64,
        learning_rate=0.01,
        seed=3,
    )
    return model


def test_more_than_one_label_column_is_learned_from(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 6))
    frames = split_by_column(values, values[:, 0] + values[:, 4] > 0, 2, label="sick")
    rows = frames[0]["id"].str.removeprefix("row-").astype(int).to_numpy()
    frames[0]["rich"] = pd.Series(values[rows, 3] - values[rows, 1] > 0).astype(int)

    host, others = train(tmp_path, frames, label=["sick", "rich"], rounds=20, batch_size=64)

    found = scores(put_together(host, *others), host.test_ids, host, others)
    assert host.labels.task == "multilabel"
    assert found["roc_auc"] > 0.95
    assert same_bits(put_together(host, *others), unsplit_twin(host, *others))

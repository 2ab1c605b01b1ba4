"""The benchmark of tables runs, and finds that apart and in one piece are the same."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_a_small_run_compares_the_three_models(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from benchmarks.tables import measure

    found = measure("diabetes", 2, 3, tmp_path)

    assert found["score"] == "rmse" and found["apart"] < 1e-3
    assert found["federated"] > 0 and found["host_alone"] > 0

"""The benchmark of predictions as people run it: small, to see that every figure is there."""

from __future__ import annotations

import pytest

from tests.benchmarks.test_round import run

pytestmark = [pytest.mark.processes, pytest.mark.timeout(170)]


def test_a_quick_look_at_predictions_gives_every_figure() -> None:
    said, found = run("prediction", "--quick")

    assert "a session over 300 ids" in said
    (cell,) = found["cells"]
    assert (cell["collaborators"], cell["shared"]) == (1, 300)
    assert 0 < cell["open_s"] < 60
    assert 0 < cell["one_row_ms"] <= cell["one_row_p95_ms"] < 5000
    (many,) = cell["many"]
    assert (many["rows"], many["batch_size"]) == (2000, 256)
    assert many["over_alone"] == pytest.approx(many["rows_a_second_alone"] / many["rows_a_second"])
    assert many["bytes_a_row"] == 0 or 64 < many["bytes_a_row"] < 100, "an embedding of 16 numbers, and its request"

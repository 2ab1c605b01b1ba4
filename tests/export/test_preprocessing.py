"""The JSON beside a model says all that a reader without heterofed needs for its rows and for the answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heterofed.export import preprocessing_of
from heterofed.tables import FeatureKind, LabelEncoder, TableEncoder
from tests.export import reader
from tests.tables.files import patients

KINDS: dict[str, FeatureKind] = {
    "age": "numeric",
    "dose": "numeric",
    "city": "categorical",
    "smoker": "boolean",
    "seen": "date",
}


def features_of(encoder: TableEncoder, folder: Path) -> dict[str, Any]:
    """What a reader finds in the file."""
    path = folder / "preprocessing.json"
    path.write_text(json.dumps(preprocessing_of(encoder, None)), encoding="utf-8")
    found = reader.read(path)
    assert found["labels"] is None
    features: dict[str, Any] = found["features"]
    return features


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("from_csv", [True, False])
def test_a_reader_of_the_json_gets_the_bits_that_the_model_was_trained_on(
    standardise: bool, from_csv: bool, tmp_path: Path
) -> None:
    frame = patients(150)
    if from_csv:
        frame = pd.read_csv(io.StringIO(frame.to_csv(index=False)), dtype=str, keep_default_na=False)
    encoder = TableEncoder.fit(frame[:100], KINDS, max_kinds=2, standardise=standardise)

    features = features_of(encoder, tmp_path)

    assert features["width"] == encoder.width == len(features["names"])
    np.testing.assert_array_equal(reader.array_of(frame, features), encoder.transform(frame))


CELLS: dict[str, tuple[FeatureKind, list[Any]]] = {
    "numbers as texts": ("numeric", ["1", " 2.5 ", "-3e2", "NA", "", "?", "+4", ".5"]),
    "numbers": ("numeric", [1, 2.5, None, float("nan"), -300]),
    "yes and no": ("boolean", ["Yes", "no", "TRUE", "f", "1", "0", "1.0", "N/A", " y "]),
    "booleans": ("boolean", [True, False, None, True]),
    "zeros and ones": ("boolean", [0, 1, 1.0, None]),
    "texts": ("categorical", ["Köln", " Köln", "köln", "None", "", "a|b", 'a"b']),
    "numbered kinds": ("categorical", ["7", "7.0", "7.00", "007", "7.5", "-0.0", "0", " 7"]),
    "kinds that are numbers": ("categorical", [7, 7.0, 7.5, None, 0.1]),
    "kinds that are booleans": ("categorical", [True, False, True]),
    "dates": (
        "date",
        ["2024-01-31", "1969-12-31T23:59:59.5", "2024-02-29 06:00", "2024-07-01T00:30:00+02:00", "NaT", ""],
    ),
    "moments": ("date", [pd.Timestamp("2024-01-31 12:00"), pd.NaT, pd.Timestamp("1950-06-15")]),
}


@pytest.mark.parametrize("case", CELLS)
def test_the_rules_say_what_becomes_of_every_way_to_write_a_cell(case: str, tmp_path: Path) -> None:
    kind, cells = CELLS[case]
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object)})
    encoder = TableEncoder.fit(frame, {"x": kind})

    features = features_of(encoder, tmp_path)

    np.testing.assert_array_equal(reader.array_of(frame, features), encoder.transform(frame))


@pytest.mark.parametrize("others", [True, False])
def test_a_new_category_is_one_of_the_others_or_an_error(others: bool, tmp_path: Path) -> None:
    known = pd.DataFrame({"x": ["a", "a", "b", "b", "c"]})
    new = pd.DataFrame({"x": ["a", "new", "c"]})
    encoder = TableEncoder.fit(known, {"x": "categorical"}, unseen="other", max_kinds=2 if others else 9)

    np.testing.assert_array_equal(reader.array_of(new, features_of(encoder, tmp_path)), encoder.transform(new))

    strict = TableEncoder.fit(known, {"x": "categorical"})
    with pytest.raises(ValueError, match="training did not have"):
        reader.array_of(new, features_of(strict, tmp_path))


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["yes", "no", "no"], "binary"),
        ([5, 7, 9, 5], "multiclass"),
        ([1.5, 2.25, -70.0], "regression"),
        ([[0, 1, 1], [1, 0, 0]], "multilabel"),
    ],
    ids=["binary", "multiclass", "regression", "multilabel"],
)
def test_a_reader_of_the_json_understands_the_answers(values: list[Any], task: str) -> None:
    labels = LabelEncoder.fit(pd.DataFrame({"y": pd.Series(values, dtype=object)}), "y")
    output = np.random.default_rng(0).normal(size=(20, labels.outputs))
    scores = output if task in ("regression", "multiclass") else 1 / (1 + np.exp(-output))

    told = json.loads(json.dumps(preprocessing_of(None, labels)))

    assert told["features"] is None
    assert told["labels"]["task"] == task == labels.task
    assert reader.answers_of(output, told["labels"]) == labels.decode(scores)

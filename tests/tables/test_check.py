"""A look at a table tells everything that training would refuse, and shows no id and no category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from heterofed.errors import ConfigError, DataError
from heterofed.tables import look_at
from tests.tables.files import FORMS, patients, written


@pytest.mark.parametrize("form", FORMS)
def test_in_a_table_without_faults_nothing_is_amiss(tmp_path: Path, form: str) -> None:
    path = written(patients(), tmp_path, form)

    report = look_at(path, "id", label="ill")

    assert report.is_usable and report.problems == ()
    assert (report.name, report.rows, report.ids) == (str(path), 200, 200)
    assert (report.missing_ids, report.repeated_ids, report.unlabelled) == (0, 0, 0)
    assert report.labels is not None and (report.labels.task, report.labels.columns) == ("binary", ("ill",))
    assert len(report.columns.features) == 5 and len(report.columns) == 6
    told = str(report.columns.describe())
    assert not any(hidden in told for hidden in ("Ulm", "Kiel", "1042"))


def test_everything_that_training_would_refuse_is_told_at_once() -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "b", None, "c"],
            "y": ["1", "0", "1", "1", ""],
            "empty": [""] * 5,
            "day": ["2024-01-31", "1.2.2024", "2024-02-02", "2024-02-03", "2024-02-04"],
        }
    )

    report = look_at(frame, "id", label="y")

    assert (report.rows, report.ids, report.missing_ids, report.repeated_ids, report.unlabelled) == (5, 3, 1, 1, 1)
    assert not report.is_usable
    assert report.problems == (
        "1 of 5 rows have no id",
        "1 of 5 rows repeat an id",
        "1 of 3 rows have no label",
        "column 'empty' has no value in any of 3 rows",
        "column 'day' has 1 of 3 values that are no dates of the one form",
    )


def test_what_the_policies_allow_is_no_problem() -> None:
    frame = pd.DataFrame({"id": ["a", "b", "b", None, "c"], "y": ["1", "0", "1", "1", ""], "x": [1, 2, 3, 4, 5]})

    report = look_at(frame, "id", label="y", duplicates="last", missing_ids="drop", unlabelled="drop")

    (problem,) = report.problems
    assert problem.startswith("the label column 'y' has 1 distinct values in 2 rows")
    assert look_at(frame, "id", label="y", duplicates="first", missing_ids="drop", unlabelled="drop").is_usable


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"label": "y", "role": "collaborator"}, ConfigError, "the label column 'y' is named at a collaborator"),
        ({"label": "z"}, ConfigError, "label names 'z', which is no column"),
        ({"id_column": "key"}, DataError, "has no id column 'key'"),
    ],
)
def test_what_makes_a_look_impossible_is_one_error(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "y": [1, 0]})

    with pytest.raises(kind, match=text):
        look_at(frame, **{"id_column": "id", **options})


def test_a_host_needs_no_features_and_a_collaborator_does() -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "y": [1, 0]})

    assert look_at(frame, "id", label="y").is_usable
    assert look_at(frame, "id", role="collaborator", ignore=["y"]).problems == ("no column is a feature",)

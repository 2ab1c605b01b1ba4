"""Columns are recognised as what they are, alike from every kind of file, and told of without a value of a category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError, DataError
from heterofed.tables.columns import Column, Columns, recognise, refuse_label
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.reading import open_source
from tests.tables.files import FORMS, patients, written

WORDS = [f"word {number}" for number in range(3000)]


def look(values: list[Any], **options: Any) -> Column:
    frame = pd.DataFrame({"id": range(len(values)), "x": pd.Series(values, dtype=object)})
    columns: Columns = recognise(OrderedTable(frame, "id"), **options)
    (column,) = columns
    return column


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_one_table_has_the_same_columns_from_every_kind_of_file(
    tmp_path: Path, form: str, rows: int, memory_bytes: int
) -> None:
    frame = patients()
    source = open_source(written(frame, tmp_path, form), chunk_rows=rows)

    found = recognise(OrderedTable(source, "id", memory_bytes=memory_bytes), labels=["ill"])

    assert found.features == {
        "age": "numeric",
        "dose": "numeric",
        "city": "categorical",
        "smoker": "boolean",
        "seen": "date",
    }
    expected = recognise(OrderedTable(frame, "id"), labels=["ill"])
    assert [each for each in found if each.kind != "label"] == [each for each in expected if each.kind != "label"]
    assert next(each for each in found if each.name == "dose").missing == int(frame["dose"].isna().sum())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", " -3e4 ", ""], "numeric"),
        ([1, 2, None], "numeric"),
        (["1", "0", "1"], "boolean"),
        ([1.0, 0.0, None], "boolean"),
        ([True, False], "boolean"),
        (["yes", "No", "YES", "NA"], "boolean"),
        (["2024-01-31", "2024-02-01", ""], "date"),
        (["2024-01-31T09:05:00", "2024-02-01 10:00:00.25Z", "2024-02-01"], "date"),
        (["a", "b", "a"], "categorical"),
        (["2024-01-31", "2024-02-01", "x", "y"], "categorical"),
        (["0012", "0013", "4711"], "categorical"),
        (["1", "b", "a"], "categorical"),
        (["a", "a"], "constant"),
        ([7, 7, 7], "constant"),
        ([7, 7, None], "numeric"),
        (["", "NA", None], "all missing"),
        (WORDS, "text"),
        (WORDS[:51] + ["word 0"] * 10, "text"),
        (WORDS[:51] * 3, "categorical"),
        (WORDS[:50], "categorical"),
        (WORDS * 3, "text"),
        ([[1], [2]], "text"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_column_is_of_the_first_kind_that_fits(values: list[Any], kind: str) -> None:
    assert look(values).kind == kind


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (["", "", ""], {}, "has no value in any of 3 rows; expected a value in some"),
        (["2024-01-31", "31.01.2024", "2024-02-01"], {}, "has 1 of 3 values that are no dates of the one form"),
        (["31.01.2024", "01.02.2024"], {}, "has 2 of 2 values that are no dates of the one form"),
        (["2024-13-01", "2024-12-01", "2024-11-01"], {}, "has 1 of 3 values that are no dates of the one form"),
        ([*map(str, range(99)), "n.a."], {}, "has 1 of 100 values that are no numbers"),
        (["1,5", "2,5", "-1.000,25", "3"], {}, "has 3 of 4 values that are no numbers; expected numbers with a"),
        (["1", "2", "inf", "1e300"], {}, "holds 2 numbers that are infinite or too large"),
        (["1", "x", "y"], {"kinds": {"x": "numeric"}}, "has 2 of 3 values that are no numbers"),
        (["1", "2", "0"], {"kinds": {"x": "boolean"}}, "has 1 of 3 values that are no booleans"),
        (["1", "2", "0"], {"kinds": {"x": "date"}}, "has 3 of 3 values that are no dates"),
        ([[1], [2]], {}, "holds lists, bytes or values of mixed types"),
        ([1, "a", 2.5], {}, "holds lists, bytes or values of mixed types"),
        (WORDS, {"too_many_kinds": "refuse"}, "has too many distinct texts for a category"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_what_cannot_be_used_is_one_clear_error_with_a_count(
    values: list[Any], options: dict[str, Any], text: str
) -> None:
    column = look(values, **options)

    assert not column.is_feature
    with pytest.raises(DataError) as caught:
        Columns("table.csv", (column,)).refuse_problems()
    assert f"column 'x' of table.csv {text}" in str(caught.value)
    assert str(caught.value).endswith(".")


def test_only_the_first_problem_is_told_in_full_and_the_others_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "a": [None, None], "b": [1, 2], "c": ["", "NA"]})
    columns = recognise(OrderedTable(frame, "id"))

    assert [each.name for each in columns.problems] == ["a", "c"]
    with pytest.raises(DataError, match=r"column 'a' .* 1 more columns have problems: c\.$"):
        columns.refuse_problems()
    recognise(OrderedTable(frame, "id"), ignore=["a", "c"]).refuse_problems()


def test_what_the_user_says_holds() -> None:
    assert look(["1", "2", "3"], kinds={"x": "categorical"}).kind == "categorical"
    assert look(["7", "7"], kinds={"x": "numeric"}).kind == "numeric"
    assert look(WORDS, kinds={"x": "categorical"}).is_feature
    assert look(["1", "2"], ignore=["x"]).kind == "ignored"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ignore": ["y"]}, "ignore names 'y', which is no column"),
        ({"labels": ["id"]}, "label names 'id', which is the id column"),
        ({"kinds": {"x": "number"}}, "kinds says 'number' of column 'x'; expected one of numeric, categorical"),
        ({"kinds": {"x": "numeric"}, "ignore": ["x"]}, "column 'x' is named twice"),
    ],
)
def test_a_column_named_in_error_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        look(["1", "2"], **options)
    assert "the data frame" not in caught.value.for_peers()


def test_a_label_at_a_collaborator_is_refused() -> None:
    refuse_label("y", "host")
    refuse_label(None, "collaborator")
    with pytest.raises(ConfigError, match="the label column 'y' is named at a collaborator; expected labels at the"):
        refuse_label("y", "collaborator")
    with pytest.raises(ConfigError, match="'y, z'"):
        refuse_label(["y", "z"], "collaborator")


def test_the_table_of_columns_shows_ranges_but_no_category() -> None:
    columns = recognise(OrderedTable(patients(), "id"), labels=["ill"], ignore=["age"])

    text = "\n".join(" ".join(row) for row in columns.describe())

    assert columns.describe()[0][:2] == ("column", "kind")
    assert {row[1] for row in columns.describe()[1:]} == {
        "ignored",
        "numeric",
        "categorical",
        "boolean",
        "date",
        "label",
    }
    assert "2024-01-" in text
    assert not any(city in text for city in ("Ulm", "Kiel", "Bonn", "Jena"))


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(
    values=st.lists(
        st.sampled_from(["", "1", "0", "2.5", "yes", "no", "x", "2024-01-31", "31.1.2024", "007", "inf", " 1 "]),
        min_size=1,
        max_size=30,
    ),
    rows=st.integers(1, 10),
    data=st.data(),
)
def test_chunks_and_order_do_not_change_what_a_column_is(values: list[str], rows: int, data: st.DataObject) -> None:
    frame = pd.DataFrame({"id": range(len(values)), "x": pd.Series(values, dtype=object)})
    order = data.draw(st.permutations(range(len(values))))
    shuffled = open_source(frame.iloc[order], chunk_rows=rows)

    assert recognise(OrderedTable(shuffled, "id", memory_bytes=0))[0] == recognise(OrderedTable(frame, "id"))[0]


def test_what_is_wrong_is_counted_over_all_chunks() -> None:
    frame = pd.DataFrame(
        {
            "id": range(6),
            "a": ["1", "inf", "-inf", "2", "3", "inf"],
            "b": ["2024-01-31", "", "31.1.2024", "1.1.2024", "x", "2024-01-31"],
            "c": ["1,5", "2,5", "3", "4", "5", "6,5"],
        }
    )
    table = OrderedTable(open_source(frame, chunk_rows=1), "id", memory_bytes=0)

    problems = [each.problem[0] for each in recognise(table, kinds={"b": "date"}) if each.problem]

    assert problems == [
        "holds 3 numbers that are infinite or too large",
        "has 3 of 5 values that are no dates of the one form",
        "has 3 of 6 values that are no numbers",
    ]


def test_more_kinds_than_are_counted_are_told_as_many() -> None:
    column = look([f"{each}" for each in np.arange(5000) / 7])

    assert column.kind == "numeric"
    assert Columns("t", (column,)).describe()[1][3] == ">1000"

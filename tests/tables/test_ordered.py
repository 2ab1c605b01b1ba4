"""Rows are found by id, whatever the file writes the id as, and whether the table fits into memory or not."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError, DataError
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.reading import open_source
from tests.tables.files import FORMS, patients, written

PERSON = "patient-4711"


def table_of(ids: list[Any], **options: Any) -> OrderedTable:
    return OrderedTable(pd.DataFrame({"id": pd.Series(ids, dtype=object), "x": range(len(ids))}), "id", **options)


def refusal(ids: list[Any], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        table_of(ids, **options)
    assert PERSON not in str(caught.value)
    return str(caught.value)


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids", [[7, 8], [7.0, 8.0], ["7", "8"], [" 7", "8 "], [np.int64(7), 8], [7, 8.0]], ids=lambda ids: repr(ids)
)
def test_a_number_and_its_text_are_one_id(ids: list[Any]) -> None:
    assert table_of(ids).ids == ["7", "8"]


@pytest.mark.parametrize("form", FORMS)
def test_one_table_has_the_same_ids_from_every_kind_of_file(tmp_path: Path, form: str) -> None:
    frame = patients(50)

    table = OrderedTable(written(frame, tmp_path, form), "id")

    assert table.ids == [str(each) for each in frame["id"]]


def test_a_text_in_a_csv_stays_as_it_is_and_na_is_an_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x\n007,1\nNA,2\n1e5,3\n")

    assert OrderedTable(tmp_path / "a.csv", "id").ids == ["007", "NA", "1e5"]


def test_whole_numbers_with_a_decimal_point_in_a_text_are_refused_with_a_count_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,x\n7.0,1\n8,2\n9.5,3\n")

    with pytest.raises(DataError, match=r"holds 1 of 3 ids that are whole numbers written with a decimal point"):
        OrderedTable(path, "id")
    assert OrderedTable(path, "id", decimal_ids="whole").ids == ["7", "8", "9.5"]
    assert OrderedTable(path, "id", decimal_ids="text").ids == ["7.0", "8", "9.5"]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([PERSON, 7, 8.0], "holds ids of mixed types: 2 numbers, 1 texts"),
        ([PERSON, b"x"], "mixed types: 1 bytes, 1 texts"),
        ([date(2024, 1, 31), 5], "mixed types: 1 dates, 1 numbers"),
        ([7.5, 8.0], "of 2 ids 1 are floats that are not whole"),
        ([True, False], "of 2 ids 2 are bools"),
        ([PERSON, None, " "], "has no id in 2 of 3 rows"),
        ([PERSON, "b", f" {PERSON}"], "repeats an id in 1 of 3 rows"),
        ([], "holds no ids"),
    ],
)
def test_ids_that_cannot_be_used_are_counted_and_not_shown(ids: list[Any], text: str) -> None:
    assert text in refusal(ids)


def test_rows_without_an_id_are_dropped_where_that_is_the_policy() -> None:
    table = table_of(["a", None, "b", ""], missing_ids="drop")

    assert table.ids == ["a", "b"]
    assert (table.found.total, table.found.missing, table.found.repeated) == (4, 2, 0)
    assert table.rows(["b", "a"])["x"].tolist() == [2, 0]
    assert "holds no ids" in refusal([None, None], missing_ids="drop")


@pytest.mark.parametrize(("policy", "x"), [("first", [0, 1, 2]), ("last", [3, 4, 2])])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_one_of_the_rows_that_share_an_id_is_kept_where_that_is_the_policy(
    policy: Any, x: list[int], memory_bytes: int
) -> None:
    table = table_of(["a", "b", "c", "a", "b "], duplicates=policy, memory_bytes=memory_bytes)

    assert table.found.repeated == 2
    assert table.rows(["a", "b", "c"])["x"].tolist() == x
    assert [each for chunk in table.chunks() for each in chunk["x"]] == sorted(x)
    assert sorted(table.ids) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["duplicates", "missing_ids", "decimal_ids"])
def test_a_policy_that_there_is_not_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    wrong: dict[str, Any] = {name: "perhaps"}

    with pytest.raises(ConfigError, match=f"{name} is 'perhaps'; expected one of refuse"):
        OrderedTable(tmp_path / "not-there.csv", "id", **wrong)


@pytest.mark.parametrize(
    ("content", "column", "text"),
    [
        ("key,x\n1,2\n", "id", "has no id column 'id'; expected one of key, x. Name the id column"),
        ("key,x\n1,2\n", None, "has 2 columns; expected one of key, x"),
        ("id;x\n1;2\n", "id", "The header has ';' and no comma"),
    ],
)
def test_a_missing_id_column_is_one_clear_error(tmp_path: Path, content: str, column: str | None, text: str) -> None:
    (tmp_path / "a.csv").write_text(content)

    with pytest.raises(DataError) as caught:
        OrderedTable(tmp_path / "a.csv", column)
    assert text in str(caught.value)


def test_a_file_of_ids_alone_is_a_table_without_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n3\n1\n2\n")

    for memory_bytes in (0, 1 << 20):
        table = OrderedTable(tmp_path / "a.csv", memory_bytes=memory_bytes)
        assert (table.ids, table.columns) == (["3", "1", "2"], ())
        assert [list(chunk.index) for chunk in table.chunks()] == [["3", "1", "2"]]


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_rows_come_in_the_order_asked_from_memory_and_from_the_file(
    tmp_path: Path, form: str, memory_bytes: int
) -> None:
    frame = patients()
    table = OrderedTable(open_source(written(frame, tmp_path, form), chunk_rows=33), "id", memory_bytes=memory_bytes)
    asked = np.random.default_rng(1).permutation(table.ids)[:77].tolist() + [table.ids[5]] * 2

    rows = table.rows(asked, ["age", "ill"])

    assert table.is_in_memory is (memory_bytes > 0)
    assert list(rows.index) == asked
    expected = frame.set_index(frame["id"].astype(str)).loc[asked, ["age", "ill"]]
    assert rows.astype(int).to_numpy().tolist() == expected.to_numpy().tolist()
    assert len(table.rows([])) == 0
    assert list(table.rows([], ["ill"]).columns) == ["ill"]


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(data=st.data())
def test_chunks_of_some_ids_are_the_rows_of_these_in_the_order_of_the_file(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    frame = pd.DataFrame({"id": np.random.default_rng(count).permutation(count), "x": range(count)})
    source = open_source(frame, chunk_rows=data.draw(st.integers(1, 12)))
    table = OrderedTable(source, "id", memory_bytes=data.draw(st.sampled_from([0, 1 << 20])))
    chosen = data.draw(st.sets(st.sampled_from(table.ids)))

    found = [(key, x) for chunk in table.chunks(chosen, ["x"]) for key, x in chunk["x"].items()]

    assert found == [(key, place) for place, key in enumerate(table.ids) if key in chosen]


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_ids_that_are_not_there_are_counted_and_can_be_asked_for_first(memory_bytes: int) -> None:
    table = table_of(["a", "b"], memory_bytes=memory_bytes)

    assert table.has(["b", PERSON, "a"]).tolist() == [True, False, True]
    with pytest.raises(DataError, match="has no row for 1 of 2 ids") as caught:
        table.rows(["a", PERSON])
    assert PERSON not in str(caught.value)
    with pytest.raises(DataError, match="lacks 1 of 1 columns: y"):
        table.rows(["a"], ["y"])
    assert "'a'" not in repr(table)


def test_the_list_of_ids_is_the_callers_own() -> None:
    table = table_of(["a", "b"])
    table.ids.clear()

    assert table.ids == ["a", "b"]
    assert len(table) == 2

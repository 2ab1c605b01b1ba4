"""Rows become the same numbers whatever the chunks, order and file, and a saved encoder is the same to the bit."""

from __future__ import annotations

import json
import os
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError, DataError, OutputError
from heterofed.tables.columns import FeatureKind, recognise
from heterofed.tables.encoding import TableEncoder
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.reading import open_source
from heterofed.tables.values import cells_of
from tests.tables.files import FORMS, patients, written

DATA = os.environ.get("HETEROFED_DATA")
"""Read here, because every test has an environment without it."""

HIDDEN = "Bielefeld"


def fit(values: list[Any], kind: FeatureKind, **options: Any) -> TableEncoder:
    return TableEncoder.fit(column(values), {"x": kind}, **options)


def column(values: list[Any]) -> pd.DataFrame:
    frame: pd.DataFrame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    return frame


def numbers(encoder: TableEncoder, values: list[Any]) -> list[list[float]]:
    rows: list[list[float]] = encoder.transform(column(values)).tolist()
    return rows


# --- kinds of columns -------------------------------------------------------------------------------------------------


def test_numbers_are_standardised_and_a_missing_one_is_the_mean_and_told_apart() -> None:
    encoder = fit(["1", "3", "", "5"], "numeric")

    assert encoder.names == ("x", "x is missing")
    assert numbers(encoder, ["3", "", "5"]) == [[0, 0], [0, 1], [pytest.approx(1.5**0.5), 0]]


def test_numbers_can_stay_as_they_are_and_a_missing_one_is_still_the_mean() -> None:
    assert numbers(fit(["1", "3", "", "5"], "numeric", standardise=False), ["3", "", "7"]) == [[3, 0], [3, 1], [7, 0]]


def test_a_missing_number_that_training_did_not_have_is_the_mean() -> None:
    encoder = fit([1, 3], "numeric")

    assert encoder.names == ("x",)
    assert numbers(encoder, [None, 3]) == [[0], [1]]


def test_numbers_without_spread_are_zero() -> None:
    assert numbers(fit([0.1] * 9, "numeric"), [0.1, 1.1]) == [[0], [1]]


def test_booleans_are_one_and_zero() -> None:
    encoder = fit(["yes", "No", "", "TRUE"], "boolean")

    assert numbers(encoder, ["1", "f", ""]) == [[1, 0], [0, 0], [pytest.approx(2 / 3), 1]]


def test_categories_get_a_column_each_and_a_missing_one_is_told_apart() -> None:
    encoder = fit(["b", "a", None, "b", " a "], "categorical")

    assert encoder.names == ("x is kind 1", "x is kind 2", "x is missing")
    assert numbers(encoder, ["a", "b", None]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_only_the_most_frequent_categories_get_a_column_and_equally_frequent_ones_by_their_text() -> None:
    encoder = fit(["d", "c", "b", "a", "b", "e"], "categorical", max_kinds=2)

    assert encoder.names == ("x is kind 1", "x is kind 2", "x is another kind")
    assert numbers(encoder, ["a", "b", "c", "e"]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("max_kinds", [1, 2])
def test_a_category_that_training_did_not_have_is_refused_with_a_count_and_not_shown(max_kinds: int) -> None:
    encoder = fit(["a", "b"], "categorical", max_kinds=max_kinds)

    with pytest.raises(DataError) as caught:
        numbers(encoder, ["a", HIDDEN, HIDDEN, "z"])
    assert "column 'x' has 2 categories, in 3 of 4 rows, that training did not have" in str(caught.value)
    assert HIDDEN not in str(caught.value)


def test_a_category_that_training_did_not_have_is_another_kind_where_that_is_the_policy() -> None:
    with_others = fit(["a", "b", "a"], "categorical", max_kinds=1, unseen="other")
    without = fit(["a", "b"], "categorical", unseen="other")

    assert numbers(with_others, ["a", "b", "z", None]) == [[1, 0], [0, 1], [0, 1], [0, 0]]
    assert numbers(without, ["a", "z"]) == [[1, 0], [0, 0]]


@pytest.mark.parametrize(("trained", "new"), [(["7", "8"], [7, 8]), ([7.0, 8.0, None], ["7", "8.0", ""])])
def test_a_category_that_is_a_number_is_the_same_from_a_text_and_from_a_number(trained: Any, new: Any) -> None:
    encoder = fit(trained, "categorical")

    assert numbers(encoder, trained) == numbers(encoder, new)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("9999-12-31", "9999-12-31T00:00"),
        ("0001-01-01", "0001-01-01T00:00"),
        ("2024-02-29T23:59:59.123456789", "2024-02-29T23:59:59.123456"),
        ("2024-01-01 00:30:00.5+01:00", "2023-12-31T23:30:00.5"),
        ("2024-01-01T00:30-0230", "2024-01-01T03:00"),
        ("2024-01-01T00:30Z", "2024-01-01T00:30"),
        ("2023-02-29", "NaT"),
        ("2024-01-01T24:00", "NaT"),
        ("0000-01-01", "NaT"),
        ("2024-1-1", "NaT"),
        ("202401", "NaT"),
        ("2024-01-01T00:30+1", "NaT"),
        ("0001-01-01T00:00+01:00", "NaT"),
    ],
)
def test_a_date_is_read_alike_by_every_version_of_pandas(text: str, utc: str) -> None:
    (found,) = cells_of(pd.Series([text])).moments

    assert str(found) == str(np.datetime64(utc, "us"))


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=100, deadline=None)
def test_a_number_in_a_text_is_the_one_that_was_written(value: float) -> None:
    assert cells_of(pd.Series([repr(value)])).numbers.tolist() == [value]


@pytest.mark.parametrize(
    "values",
    [
        [date(2024, 1, 31), None],
        [datetime(2024, 1, 31, 1, 0, tzinfo=timezone(timedelta(hours=1))), None],
        [pd.Timestamp("2024-01-31"), pd.NaT],
        pd.DatetimeIndex(["2024-01-31", "NaT"]),
        pd.DatetimeIndex(["2024-01-31T01:00+01:00", "NaT"]),
        np.array(["2024-01-31", "NaT"], "datetime64[s]"),
        pd.Categorical(["2024-01-31", None]),
    ],
    ids=lambda values: str(getattr(values, "dtype", type(values[0]).__name__)),
)
def test_a_date_is_the_same_however_it_is_stored(values: Any) -> None:
    found = cells_of(pd.Series(values))

    assert found.spread(found.moments, "NaT").astype(str).tolist() == ["2024-01-31T00:00:00.000000", "NaT"]


def test_a_date_is_its_day_and_its_place_in_the_year_and_the_week() -> None:
    encoder = fit(["2024-01-01", "2024-01-03"], "date")  # a Monday and a Wednesday

    rows = encoder.transform(column(["2024-01-02", "2024-04-08"]))

    assert encoder.width == 5
    tuesday = 2 * np.pi / 7
    assert rows[0] == pytest.approx([0, 0, 1, np.sin(tuesday), np.cos(tuesday)], abs=1e-6)
    assert rows[1] == pytest.approx([97, 1, 0, 0, 1], abs=1e-6)  # April is a quarter of the year, a Monday


def test_dates_before_1970_with_a_time_and_with_a_zone_are_moments() -> None:
    encoder = fit(["1969-12-31T12:00:00", "1970-01-01T12:00"], "date", standardise=False)

    assert encoder.transform(column(["1969-12-31", "1970-01-01T01:00:00+01:00"]))[:, 0].tolist() == [-1, 0]
    assert encoder.transform(column(["1969-12-29"]))[0, 1:].tolist() == pytest.approx(
        [-0.5, np.sqrt(0.75), 0, 1], abs=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "trained", "wrong", "text"),
    [
        ("numeric", ["1", "2"], ["3", HIDDEN], "column 'x' has 1 of 2 cells that are no numbers"),
        ("numeric", ["1", "2"], ["inf", "1"], "column 'x' has 1 of 2 cells that are no numbers"),
        ("boolean", ["1", "0"], ["2", HIDDEN], "column 'x' has 2 of 2 cells that are no booleans"),
        ("date", ["2024-01-01"], ["1.2.2024", "2024-01-01"], "1 of 2 cells that are no dates of the one form"),
        ("categorical", ["a", "b"], [["a"], ["b"]], "column 'x' has 2 of 2 cells that are no categories"),
        ("numeric", ["1e-140", "2e-140"], ["1e140"], "column 'x' has numbers too far from those of training"),
    ],
)  # fmt: skip
def test_cells_of_another_kind_are_refused_in_training_and_later(
    kind: FeatureKind, trained: list[Any], wrong: list[Any], text: str
) -> None:
    encoder = fit(trained, kind)

    with pytest.raises(DataError) as caught:
        numbers(encoder, wrong)
    assert text in str(caught.value)
    assert HIDDEN not in str(caught.value)
    if "too far" not in text:
        with pytest.raises(DataError, match="that are no"):
            fit(wrong, kind)


def test_a_table_that_lacks_columns_is_refused_and_others_do_not_matter() -> None:
    encoder = TableEncoder.fit(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), {"b": "numeric", "a": "numeric"})

    assert encoder.columns == ("b", "a")
    assert encoder.transform(pd.DataFrame({"c": [9], "a": [1], "b": [3]})).tolist() == [[-1, -1]]
    with pytest.raises(DataError, match="the table lacks 1 of the 2 columns that the model takes: b"):
        encoder.transform(pd.DataFrame({"a": [1]}))


def test_arguments_that_cannot_work_are_refused() -> None:
    for options, text in (({"max_kinds": 0}, "max_kinds is 0"), ({"unseen": "zero"}, "unseen is 'zero'")):
        with pytest.raises(ConfigError, match=text):
            fit(["a"], "categorical", **options)
    with pytest.raises(ConfigError, match="no column of the table is a feature"):
        TableEncoder.fit(column(["a"]), {})
    with pytest.raises(DataError, match="no rows to fit"):
        TableEncoder.fit([], {"x": "numeric"})


def test_a_column_with_a_problem_is_refused_before_anything_is_fitted() -> None:
    table = OrderedTable(pd.DataFrame({"id": [1, 2], "x": ["", ""], "y": [1, 2]}), "id")

    with pytest.raises(DataError, match="column 'x' of the data frame has no value in any of 2 rows"):
        TableEncoder.fit(table.chunks(), recognise(table))


# --- the same whatever the way ----------------------------------------------------------------------------------------

CELLS: dict[FeatureKind, st.SearchStrategy[str]] = {
    "numeric": st.floats(-1e9, 1e9).map(repr) | st.just(""),
    "categorical": st.sampled_from(["", *"abcdefgh"]),
    "boolean": st.sampled_from(["yes", "no", ""]),
    "date": st.dates().map(str) | st.just(""),
}


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(data=st.data())
def test_chunks_and_order_change_no_bit_of_what_is_fitted_and_json_none_either(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    frame = pd.DataFrame(
        {
            kind: pd.Series(data.draw(st.lists(cell, min_size=count, max_size=count)), dtype=object)
            for kind, cell in CELLS.items()
        }
    )
    order = np.array(data.draw(st.permutations(range(count))))
    cut = data.draw(st.integers(0, count))
    kinds: dict[str, FeatureKind] = {kind: kind for kind in CELLS}

    whole = TableEncoder.fit(frame, kinds, max_kinds=3)
    parts = TableEncoder.fit([frame.iloc[order[:cut]], frame.iloc[order[cut:]]], kinds, max_kinds=3)
    again = TableEncoder.from_json(whole.to_json())

    assert whole.to_json() == parts.to_json() == again.to_json()
    assert whole == parts == again
    rows = whole.transform(frame)
    assert np.isfinite(rows).all()
    assert rows.shape == (count, whole.width)
    assert rows[order].tobytes() == again.transform(frame.iloc[order]).tobytes()
    if count > 1:
        assert rows[:1].tobytes() == again.transform(frame.iloc[:1]).tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_file_gives_the_same_bits(tmp_path: Path, form: str) -> None:
    frame = patients()
    source = open_source(written(frame, tmp_path, form), chunk_rows=17)
    table, plain = OrderedTable(source, "id", memory_bytes=0), OrderedTable(frame, "id")
    train = table.ids[::3]

    encoder = TableEncoder.fit(table.chunks(train), recognise(table))

    assert encoder == TableEncoder.fit(plain.chunks(train), recognise(plain))
    assert encoder.transform(table.rows(train)).tobytes() == encoder.transform(plain.rows(train)).tobytes()


def test_only_the_train_rows_count() -> None:
    frame = patients()
    table = OrderedTable(frame, "id")
    train = table.ids[:100]
    other = frame.copy()
    other.loc[100:, "dose"] *= 5

    assert TableEncoder.fit(table.chunks(train), recognise(table)) == TableEncoder.fit(
        OrderedTable(other, "id").chunks(train), recognise(OrderedTable(other, "id"))
    )


def compare_with_sklearn(frame: pd.DataFrame, encoder: TableEncoder) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rows = encoder.transform(frame)
    names = list(encoder.names)
    for name in [each for each, kind in encoder.kinds.items() if kind == "numeric"]:
        expected = preprocessing.StandardScaler().fit_transform(frame[[name]].astype(float).to_numpy())
        assert rows[:, names.index(name)] == pytest.approx(np.nan_to_num(expected)[:, 0], abs=2e-6)
    for name in [each for each, kind in encoder.kinds.items() if kind == "categorical"]:
        known = frame[[name]].dropna()
        hot: npt.NDArray[Any] = preprocessing.OneHotEncoder(sparse_output=False).fit_transform(known.to_numpy(str))
        start = names.index(f"{name} is kind 1")
        assert rows[frame[name].notna().to_numpy(), start : start + hot.shape[1]].tolist() == hot.tolist()


def test_numbers_and_categories_are_those_of_scikit_learn() -> None:
    frame = patients(1000)

    compare_with_sklearn(frame, TableEncoder.fit(frame, {"age": "numeric", "dose": "numeric", "city": "categorical"}))


@pytest.mark.skipif(DATA is None, reason="HETEROFED_DATA names no folder with breast_hetero")
@pytest.mark.parametrize(("name", "width"), [("guest", 10), ("host", 20)])
def test_the_real_tables_are_those_of_scikit_learn(name: str, width: int) -> None:
    path = Path(DATA or "") / "breast_hetero" / f"breast_hetero_{name}.csv"
    if not path.exists():
        pytest.skip(f"there is no {path.name} in HETEROFED_DATA")
    table = OrderedTable(path, "id")
    columns = recognise(table, labels=["y"] if name == "guest" else [])

    encoder = TableEncoder.fit(table.chunks(), columns)

    assert (len(table), encoder.width, set(encoder.kinds.values())) == (569, width, {"numeric"})
    compare_with_sklearn(pd.read_csv(path), encoder)


# --- saved ------------------------------------------------------------------------------------------------------------


def saved() -> TableEncoder:
    frame = patients()
    return TableEncoder.fit(frame, recognise(OrderedTable(frame, "id")))


def test_what_was_saved_is_read_to_the_bit(tmp_path: Path) -> None:
    encoder = saved()

    path = encoder.save(tmp_path / "encoder.json")

    assert TableEncoder.load(path) == encoder
    assert json.loads(path.read_text())["sha256"] == encoder.sha256
    assert [each.name for each in tmp_path.iterdir()] == ["encoder.json"]
    with pytest.raises(OutputError):
        encoder.save(tmp_path / "not-there" / "encoder.json")


def test_a_change_of_any_byte_is_noticed() -> None:
    text = saved().to_json().encode()

    for place in range(0, len(text) - 1, 7):
        changed = bytearray(text)
        changed[place] ^= 1
        with pytest.raises(DataError, match=r"is damaged|holds something else"):
            TableEncoder.from_json(bytes(changed), name="encoder.json")


def reseal(change: Any) -> str:
    from heterofed.sealed import sealed

    content = json.loads(saved().to_json())["content"]
    change(content)
    return sealed(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(version=2),
        lambda content: content.update(type="label-encoder"),
        lambda content: content.update(more=1),
        lambda content: content.pop("rows"),
        lambda content: content.update(columns=[]),
        lambda content: content["columns"].append(content["columns"][0]),
        lambda content: content["columns"][0].update(scale=0.0),
        lambda content: content["columns"][0].update(mean="1"),
        lambda content: content["columns"][0].update(type="bins"),
        lambda content: content["columns"][2]["values"].append(content["columns"][2]["values"][0]),
    ],
)
def test_what_another_version_or_nobody_wrote_is_refused(change: Any) -> None:
    TableEncoder.from_json(reseal(lambda content: None))
    with pytest.raises(DataError):
        TableEncoder.from_json(reseal(change))


def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        TableEncoder.load(tmp_path / "encoder.json")
    for content in (b"", b"{}", b"[1]", b"\xff", b'{"sha256":"","content":{}}'):
        (tmp_path / "encoder.json").write_bytes(content)
        with pytest.raises(DataError, match=r"encoder\.json is damaged"):
            TableEncoder.load(tmp_path / "encoder.json")


def test_the_model_card_and_the_names_of_columns_have_no_category_in_them() -> None:
    encoder = saved()
    text = "\n".join([*(" ".join(row) for row in encoder.describe()), *encoder.names, repr(encoder)])

    assert not any(city in text for city in ("Ulm", "Kiel", "Bonn", "Jena"))
    assert ("city", "categorical", "one of 4 columns is 1", "told by a column") in encoder.describe()

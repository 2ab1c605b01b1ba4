"""Tables come in chunks, the same rows in the same order from every kind of file, or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from heterofed.errors import DataError
from heterofed.tables.reading import open_source
from heterofed.tables.values import cells_of
from tests.tables.files import FORMS, patients, written


def cells(frames: list[pd.DataFrame], name: str) -> list[object]:
    """Return a column as texts, None where it is missing, whatever the file stored."""
    found: list[object] = []
    for frame in frames:
        each = cells_of(frame[name])
        if name == "seen":
            texts = [str(moment)[:10] for moment in each.moments]
        elif name == "smoker":
            texts = [str(number) for number in each.booleans]
        else:
            texts = each.texts
        found += [None if code < 0 else texts[code] for code in each.codes]
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [3, 64, 1000])
def test_every_kind_of_file_gives_the_same_cells_in_chunks_of_any_size(tmp_path: Path, form: str, rows: int) -> None:
    frame = patients()
    source = open_source(written(frame, tmp_path, form), chunk_rows=rows)

    frames = list(source.chunks())

    assert source.columns == tuple(frame.columns)
    assert all(0 < len(each) <= rows for each in frames)
    assert sum(map(len, frames)) == len(frame)
    for name in frame.columns:
        assert cells(frames, name) == cells([frame], name), name


@pytest.mark.parametrize("form", FORMS)
def test_only_the_columns_that_are_asked_for_are_read_in_the_order_asked(tmp_path: Path, form: str) -> None:
    source = open_source(written(patients(), tmp_path, form))

    assert [list(each.columns) for each in source.chunks(["ill", "id"])] == [["ill", "id"]] * len(
        list(source.chunks(["id"]))
    )
    with pytest.raises(DataError, match=r"lacks 1 of 2 columns: weight; expected them among id, age"):
        next(source.chunks(["id", "weight"]))


def test_whole_numbers_of_parquet_stay_whole_where_some_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"id": pd.array([2**53 + 1, None, 7], dtype="Int64"), "x": [1, 2, 3]}).to_parquet(path)

    (chunk,) = open_source(path).chunks()

    assert chunk["id"].dropna().tolist() == [2**53 + 1, 7]


def test_an_index_with_a_name_is_a_column_and_one_without_is_none(tmp_path: Path) -> None:
    named, nameless = tmp_path / "named.parquet", tmp_path / "nameless.parquet"
    pd.DataFrame({"id": ["a", "b"], "x": [1, 2]}).set_index("id").to_parquet(named)
    pd.DataFrame({"id": ["a", "b"]}, index=[5, 3]).to_parquet(nameless)

    assert set(open_source(named).columns) == {"id", "x"}
    assert open_source(nameless).columns == ("id",)
    assert [list(each.columns) for each in open_source(nameless).chunks()] == [["id"]]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"", "has 0 columns"),
        ("a.csv", b"id,x,x\n1,2,3\n", "more than one of the name x"),
        ("a.csv", b"id,,x\n1,2,3\n", "1 of them without a name"),
        ("a.csv", b"id,x\n1,2\n3,4,5\n", "cannot read"),
        ("a.csv", b"id,x\n1,2,9\n3,4,5\n", "cannot read"),
        ("a.csv", b"id,x\n1,\xff\n", "cannot read"),
        ("a.csv", b'id,x\n1,"2\n', "cannot read"),
        ("a.csv.gz", b"id,x\n1,2\n", "cannot read"),
        ("a.csv.gz", gzip.compress(b"id,x\n" + b"1,2\n" * 1000, mtime=0)[:-12], "cannot read"),
        ("a.parquet", b"PAR1 no", "cannot read"),
        ("a.feather", b"ARROW1 no", "cannot read"),
        ("a.xlsx", b"", "the name of no table"),
    ],
)
def test_what_is_no_table_is_refused_and_not_shown(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=text):
        list(open_source(tmp_path / name).chunks())


def test_lines_that_are_too_long_are_noticed_where_only_some_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x,y\n1,2,3,9\n4,5,6,9\n")

    with pytest.raises(DataError, match="cannot read"):
        list(open_source(tmp_path / "a.csv").chunks(["id", "x"]))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for form in FORMS:
        with pytest.raises(DataError, match=f"table.{form}: No such file"):
            open_source(tmp_path / f"table.{form}")


def test_a_mark_of_the_byte_order_and_lines_of_windows_are_nothing_special(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"id",x\r\n"Smith, Jo",2\r\n')

    (chunk,) = open_source(tmp_path / "a.csv").chunks()

    assert chunk.to_dict("list") == {"id": ["Smith, Jo"], "x": ["2"]}


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\n1\n2\n")
    source = open_source(path, chunk_rows=1)
    chunks = source.chunks()
    next(chunks)
    path.write_text("id\n1\n2\n3\n")

    with pytest.raises(DataError, match="was changed while it was in use"):
        next(chunks)
    with pytest.raises(DataError, match="was changed while it was in use"):
        list(source.chunks())


def test_a_file_that_changes_after_its_last_chunk_was_read_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\n1\n2\n")
    chunks = open_source(path).chunks()
    next(chunks)
    path.write_text("id\n1\n")

    with pytest.raises(DataError, match="was changed while it was in use"):
        next(chunks)


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(patients(), tmp_path, "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)

    with pytest.raises(DataError, match=r"pip install 'heterofed\[parquet\]'"):
        open_source(path)

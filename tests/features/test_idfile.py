"""Ids out of files as they stand there, and whole files or none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import psi
from heterofed.errors import AlignmentError, DataError, OutputError
from heterofed.features.alignment import checked_ids
from heterofed.features.idfile import check_output, read_column, write_column

PATIENT = "patient-4711"
AGES = [3, 4]


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, column: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_column(path, column)
    assert PATIENT not in str(caught.value)
    return str(caught.value)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("plain.csv", "id,age\n007,3\n8,4\n", ["007", "8"]),
        ("dates.csv", "id\n2024-01-31\n1e5\n1.0\n", ["2024-01-31", "1e5", "1.0"]),
        ("words.csv", "id\nNA\nnull\nNaN\nTrue\n", ["NA", "null", "NaN", "True"]),
        ("mark.csv", b"\xef\xbb\xbfid,age\n007,3\n", ["007"]),
        ("mark-and-quotes.csv", b'\xef\xbb\xbf"id"\n"007"\n', ["007"]),
        ("windows.csv", "id,age\r\n007,3\r\n8,4\r\n", ["007", "8"]),
        ("quotes.csv", 'id,age\n"Smith, Jo",3\n"say ""ah""",4\n', ["Smith, Jo", 'say "ah"']),
        ("second.csv", "age,id\n3,007\n4,8\n", ["007", "8"]),
        ("letters.csv", "id\nZo\u00eb\n\u674e\u96f7\n", ["Zo\u00eb", "\u674e\u96f7"]),
        ("spaces.csv", "id,age\n 7 ,3\n", [" 7 "]),
        ("no-end.csv", "id\n007", ["007"]),
        ("none.csv", "id,age\n", []),
        ("LOUD.CSV", "id\n007\n", ["007"]),
        ("packed.csv.gz", gzip.compress(b"id,age\n007,3\n8,4\n", mtime=0), ["007", "8"]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[-7:] and "\n" not in value else "",
)
def test_every_cell_of_a_csv_is_the_text_that_stands_there(
    tmp_path: Path, name: str, content: str | bytes, ids: list[str]
) -> None:
    assert read_column(file(tmp_path, name, content), "id") == ids


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("plain.txt", "007\n8\n", ["007", "8"]),
        ("no-end.txt", "007\n8", ["007", "8"]),
        ("windows.txt", "007\r\n8\r\n", ["007", "8"]),
        ("mark.txt", b"\xef\xbb\xbf007\r\n8", ["007", "8"]),
        ("gaps.txt", "\n007\n\n  \n8\n\n", ["007", "8"]),
        ("commas.txt", 'Smith, Jo\n"quoted"\n', ["Smith, Jo", '"quoted"']),
        ("separators.txt", "a\u2028b\nc\x0bd\x1ce\x85f\n", ["a\u2028b", "c\x0bd\x1ce\x85f"]),
        ("none.txt", "", []),
        ("LOUD.TXT", "007\n8\n", ["007", "8"]),
        ("ids", "007\n8\n", ["007", "8"]),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_a_text_has_one_id_on_each_line_that_is_not_blank(
    tmp_path: Path, name: str, content: str | bytes, ids: list[str]
) -> None:
    assert read_column(file(tmp_path, name, content), None) == ids


def test_the_only_column_needs_no_name(tmp_path: Path) -> None:
    assert read_column(file(tmp_path, "a.csv", 'patient\n"Smith, Jo"\n007\n'), None) == ["Smith, Jo", "007"]


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_tables_of_pandas_are_read_with_their_own_types(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / f"table.{suffix}"
    table = pd.DataFrame({"id": ["007", "8"], "number": [7, 2**53 + 1], "age": AGES})
    getattr(table, f"to_{suffix}")(path)

    assert read_column(path, "id") == ["007", "8"]
    assert psi.normalise_ids(read_column(path, "number")) == ["7", str(2**53 + 1)]
    assert "has 3 columns (id, number, age); expected one, or the name of the id column" in refusal(path)


def test_an_id_column_that_pandas_kept_as_its_index_is_a_column_like_others(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "table.parquet"
    pd.DataFrame({"id": ["007", "8"], "age": AGES}).set_index("id").to_parquet(path)

    assert read_column(path, "id") == ["007", "8"]
    assert "has 2 columns (id, age)" in refusal(path)


def test_a_missing_id_of_a_parquet_table_stays_missing_so_that_it_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "table.parquet"
    pd.DataFrame({"id": [PATIENT, None, "8", None]}).to_parquet(path)

    with pytest.raises(psi.BadIds, match=r"^of 4 ids 2 are missing \(None, NaN or NaT\): drop these rows") as caught:
        psi.normalise_ids(read_column(path, "id"))
    assert PATIENT not in str(caught.value)


def test_what_a_csv_lacks_or_repeats_is_counted_and_not_shown(tmp_path: Path) -> None:
    gaps = file(tmp_path, "gaps.csv", f'id,age\n{PATIENT},3\n,4\n"",5\n  ,6\n')
    short = file(tmp_path, "short.csv", f"age,id\n3,{PATIENT}\n4\n5\n6,\n")
    twice = file(tmp_path, "twice.csv", f"id,age\n{PATIENT},3\n {PATIENT},4\n8,5\n")

    for path in (gaps, short):
        with pytest.raises(psi.BadIds, match=r"^of 4 ids 3 are empty, or nothing but white space") as caught:
            psi.normalise_ids(read_column(path, "id"))
        assert PATIENT not in str(caught.value)
    with pytest.raises(AlignmentError, match="ids returned 3 ids of which 1 repeat an earlier one") as repeated:
        checked_ids(psi.normalise_ids(read_column(twice, "id")), "ids")
    assert PATIENT not in str(repeated.value)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "column", "text"),
    [
        (f"id,age\n{PATIENT},3\n", "patient", "has no column 'patient'; expected one of id, age."),
        (f"id,age\n{PATIENT},3\n", None, "has 2 columns (id, age); expected one, or the name of the id column."),
        (f"{PATIENT}\n8\n", "id", "has no column 'id'; expected one of "),
    ],
    ids=["other name", "no name", "no header"],
)
def test_a_column_that_is_not_there_is_refused(tmp_path: Path, content: str, column: str | None, text: str) -> None:
    with pytest.raises(DataError) as caught:
        read_column(file(tmp_path, "ids.csv", content), column)

    assert text in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        f"id\n{PATIENT}, Jo\nDoe, Jane\n",
        f"id,age\n{PATIENT},3,x\n8,4,y\n",
        f"id,age\n{PATIENT},3,x\n8,4\n",
        f"id,age\n{PATIENT},3\n8,4,y\n",
        f'id,age\n"{PATIENT},3\n8,4\n',
    ],
    ids=["comma without quotes", "all longer", "first longer", "a later one longer", "open quote"],
)
@pytest.mark.parametrize("column", ["id", None])
def test_lines_that_do_not_fit_the_header_are_refused_and_never_read_shifted(
    tmp_path: Path, content: str, column: str | None
) -> None:
    path = file(tmp_path, "ids.csv", content if column else content.replace("id,age", "id"))

    assert "in a CSV no line has more fields than the first, and an id with a comma stands in" in refusal(path, column)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("ids.csv", b"", "cannot read {path}: EmptyDataError; expected a table"),
        ("ids.csv", "id\nZo\u00eb\n".encode("latin-1"), "cannot read {path}: UnicodeDecodeError; expected a table"),
        ("ids.txt", "Zo\u00eb\n".encode("latin-1"), "cannot read {path}: UnicodeDecodeError; expected a table"),
        (
            "ids.csv.gz",
            gzip.compress(b"id\n" + 99 * b"patient-4711\n", mtime=0)[:-12],
            "cannot read {path}: EOFError; expected",
        ),
        ("ids.csv.gz", b"id\n7\n", "cannot read {path}: BadGzipFile; expected a table"),
        ("ids.xlsx", b"PK", "{path} has the name of no file that can be read here; expected a table (.csv, .csv.gz,"),
        ("ids.tsv", b"id\tage\n", "{path} has the name of no file that can be read here; expected a table"),
        ("ids.csv.zip", b"PK", "{path} has the name of no file that can be read here; expected a table"),
        (
            "ids.gz",
            gzip.compress(b"7\n", mtime=0),
            "{path} has the name of no file that can be read here; expected a table",
        ),
    ],
    ids=["empty", "csv in Latin-1", "text in Latin-1", "cut", "not packed", "Excel", "tabs", "zip", "packed text"],
)
def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    path = file(tmp_path, name, content)

    assert refusal(path).startswith(text.format(path=path))


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    for name in ("none.csv", "none.txt"):
        assert refusal(tmp_path / name).startswith(f"cannot read {tmp_path / name}: No such file or directory; expec")
    assert refusal(tmp_path).startswith(f"cannot read {tmp_path}: Is a directory; expected")


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    path = file(tmp_path, "ids.parquet", b"id\n7\n")

    assert refusal(path).startswith(f"cannot read {path}: ArrowInvalid; expected a table")


def test_a_text_has_no_columns(tmp_path: Path) -> None:
    path = file(tmp_path, "ids.txt", f"{PATIENT}\n")

    assert refusal(path, "id").startswith(f"{path} is read as a text with one id per line, which has no column 'id'; ")


# --- what is written --------------------------------------------------------------------------------------------------

IDS = ["007", "8", "Smith, Jo", 'say "ah"', "Zo\u00eb", " NA "]


@pytest.mark.parametrize("name", ["shared.csv", "shared.csv.gz", "shared.txt", "shared", "SHARED.CSV"])
@pytest.mark.parametrize("ids", [IDS, []], ids=["some", "none"])
def test_what_is_written_is_read_again_as_it_was(tmp_path: Path, name: str, ids: list[str]) -> None:
    path = tmp_path / name
    text = "csv" not in name.lower()

    write_column(path, ids, "patient")

    assert read_column(path, None if text else "patient") == ids
    assert read_column(path, None) == ids
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_the_files_hold_what_people_expect(tmp_path: Path) -> None:
    write_column(tmp_path / "named.csv", ["007", "Smith, Jo"], "patient")
    write_column(tmp_path / "unnamed.csv", ["007"], None)
    write_column(tmp_path / "empty.csv", [], "patient")
    write_column(tmp_path / "plain.txt", ["007", "Smith, Jo"], "patient")

    content = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert content == {
        "named.csv": b'patient\n007\n"Smith, Jo"\n',
        "unnamed.csv": b"id\n007\n",
        "empty.csv": b"patient\n",
        "plain.txt": b"007\nSmith, Jo\n",
    }


def test_an_output_that_could_not_be_written_is_refused_before_there_is_anything_to_write(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("shared.parquet", "shared.xlsx", "folder.csv"):
        with pytest.raises(
            OutputError, match=r"the shared ids cannot be written as .*; expected a \.csv, \.csv\.gz or"
        ):
            check_output(tmp_path / name)
    with pytest.raises(OutputError, match="cannot write"):
        check_output(tmp_path / "file" / "shared.csv")

    check_output(tmp_path / "new" / "shared.csv")
    write_column(tmp_path / "new" / "shared.csv", ["7"], None)


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shared.csv"
    write_column(path, ["7"], None)

    def full(descriptor: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_column(path, ["8"], None)

    assert [each.name for each in tmp_path.iterdir()] == ["shared.csv"]
    assert read_column(path, None) == ["7"]

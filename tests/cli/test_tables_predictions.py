"""predictions.csv: a row for every id asked, in order, streamed, whole or not at all; and the ids that are asked."""

from __future__ import annotations

import csv
import gzip
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heterofed.cli.asked import asked_ids
from heterofed.cli.predictions import check_place, write_predictions
from heterofed.errors import ConfigError, DataError, OutputError, PeerGone
from heterofed.scheduler.predicting.predicted import RowStatus
from heterofed.tables import LabelEncoder
from tests.chaos.smalldisk import CannotMount, small_disk

P, H, U = RowStatus.PREDICTED, RowStatus.PARTIAL, RowStatus.UNKNOWN


@dataclass
class Batch:
    """What is written of a `PredictedBatch`."""

    ids: Sequence[str]
    status: Sequence[RowStatus]
    values: Any
    stand_ins: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stand_ins = self.stand_ins or [()] * len(self.ids)


def labels(task: str, *values: Any) -> LabelEncoder:
    return LabelEncoder.fit(pd.DataFrame({"y": list(values)}), "y", task=task)  # type: ignore[arg-type]  # one of them


BINARY = labels("binary", "no", "yes")


def rows_in(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_binary_row_has_its_class_both_probabilities_and_who_was_absent(tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    pieces = [
        Batch(["b", "a,1"], [P, U], np.array([[0.75]], np.float32)),
        Batch(["c"], [H], np.array([[0.1]], np.float32), [("shop", "lab")]),
        Batch(["d"], [U], None),
    ]

    counts = write_predictions(out, pieces, BINARY)

    assert rows_in(out) == [
        ["id", "status", "prediction", "p_no", "p_yes", "absent"],
        ["b", "predicted", "yes", "0.25", "0.75", ""],
        ["a,1", "unknown", "", "", "", ""],
        ["c", "partial", "no", "0.9", "0.1", "shop;lab"],
        ["d", "unknown", "", "", "", ""],
    ]
    assert counts == {"predicted": 1, "partial": 1, "unknown": 2}


@pytest.mark.parametrize(
    ("task", "known", "values", "header", "row"),
    [
        ("multiclass", (3, 5, 9), [[0.25, 0.5, 0.25]], ["p_3", "p_5", "p_9"], ["5", "0.25", "0.5", "0.25"]),
        ("regression", (1.5, 2.5), [[-1234.5]], [], ["-1234.5"]),
        ("multilabel", ("[0, 1]", "[1, 1]"), [[0.75, 0.875]], ["p_y 0", "p_y 1"], ["y 0;y 1", "0.75", "0.875"]),
        ("multilabel", ("[0, 1]", "[1, 1]"), [[0.25, 0.125]], ["p_y 0", "p_y 1"], ["", "0.25", "0.125"]),
    ],
    ids=["multiclass", "regression", "both labels", "no label"],
)
def test_every_task_has_its_columns(
    tmp_path: Path, task: str, known: tuple[Any, ...], values: Any, header: list[str], row: list[str]
) -> None:
    out = tmp_path / "p.csv"

    write_predictions(out, [Batch(["x"], [P], np.array(values, np.float32))], labels(task, *known), id_column="nr")

    assert rows_in(out) == [["nr", "status", "prediction", *header, "absent"], ["x", "predicted", *row, ""]]


def test_the_numbers_of_the_file_are_the_bits_of_the_prediction(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    values = np.random.default_rng(1).random((500, 1), np.float32) ** 9

    write_predictions(out, [Batch([str(each) for each in range(500)], [P] * 500, values)], BINARY)

    read = np.array([row[4] for row in rows_in(out)[1:]], dtype=np.float32)
    assert (read == values[:, 0]).all()


def test_a_compressed_file_has_the_same_rows(tmp_path: Path) -> None:
    out = tmp_path / "p.csv.gz"

    write_predictions(out, [Batch(["ü"], [P], np.array([[0.75]]))], BINARY)

    assert gzip.decompress(out.read_bytes()).decode().splitlines()[1] == "ü,predicted,yes,0.25,0.75,"


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_an_error_in_the_middle_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    def pieces() -> Iterator[Batch]:
        yield Batch(["a"] * 5000, [P] * 5000, np.full((5000, 1), 0.5))
        raise PeerGone("the link is down", party="shop")

    with pytest.raises(PeerGone):
        write_predictions(tmp_path / name, pieces(), BINARY)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_an_earlier_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    out.write_text("before")

    with pytest.raises(ConfigError, match="predictions of 2 rows are of shape"):
        write_predictions(out, [Batch(["a", "b"], [P, P], np.zeros((1, 1)))], BINARY)
    assert out.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_is_told() -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/self/p\.csv"):
        write_predictions(Path("/proc/self/p.csv"), [Batch(["a"], [P], np.zeros((1, 1)))], BINARY)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    pieces = (Batch([str(each) for each in range(9000)], [P] * 9000, random.random((9000, 1))) for _ in range(9))
    try:
        with small_disk(tmp_path / "disk") as disk:
            (disk.folder / name).write_text("before")
            with pytest.raises(OutputError, match="No space left on device"):
                write_predictions(disk.folder / name, pieces, BINARY)
            assert [each.name for each in disk.folder.iterdir()] == [name]
            assert (disk.folder / name).read_text() == "before"
    except CannotMount as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("place", ["p.parquet", "folder.csv"])
def test_a_name_that_cannot_be_is_refused_first(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(OutputError, match=r"expected a \.csv or \.csv\.gz file"):
        check_place(tmp_path / place, force=True)


def test_a_file_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    check_place(out)
    out.write_text("before")

    with pytest.raises(ConfigError, match="is there already"):
        check_place(out)
    check_place(out, force=True)


def test_half_a_million_rows_take_the_memory_of_one_piece(tmp_path: Path) -> None:
    values = np.full((1000, 1), 0.5, np.float32)
    ids = [str(each) for each in range(1000)]

    def written(pieces: int) -> int:
        tracemalloc.start()
        write_predictions(tmp_path / "p.csv", (Batch(ids, [P] * 1000, values) for _ in range(pieces)), BINARY)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few = written(5)
    assert written(50) < few * 1.2


# --- the ids that are asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ids.csv", "ids.csv.gz", "ids.parquet", "ids.txt"])
def test_ids_are_asked_in_the_order_of_the_file_and_may_repeat(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = pd.DataFrame({"id": [7, 3, 7, 12], "x": 0})
    if name == "ids.txt":
        path.write_text("7\n 3\n\n7\n12\n")
    elif name == "ids.parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)

    assert asked_ids(path, None if name == "ids.txt" else "id") == ["7", "3", "7", "12"]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("id,x\na,1\n,2\n", "id", "has no id in 1 of 2 rows"),
        ("id,x\na,1\n", "nr", "has no id column 'nr'"),
        ("id,x\na,1\n", None, "has 2 columns"),
        ("id\n7\n8.0\n", None, "1 of 2 ids that are whole numbers written with a decimal point"),
        ("id\n", None, "holds no ids"),
    ],
    ids=["missing id", "no such column", "which column", "decimal", "empty"],
)
def test_ids_that_cannot_be_asked_are_one_message(tmp_path: Path, text: str, column: str | None, expected: str) -> None:
    path = tmp_path / "ids.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=expected):
        asked_ids(path, column)


def test_a_file_that_is_neither_table_nor_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.xlsx").write_text("a")

    with pytest.raises(DataError, match="has the name of no table"):
        asked_ids(tmp_path / "ids.xlsx", None)

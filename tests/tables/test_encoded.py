"""Tensors of rows by id, from memory or from a file that a later process uses again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from heterofed.errors import ConfigError, DataError
from heterofed.tables import EncodedTable, LabelEncoder, OrderedTable, TableEncoder, open_source, recognise
from tests.tables.files import patients, written


def parts(path: Path, memory_bytes: int = 1 << 20) -> tuple[OrderedTable, TableEncoder]:
    table = OrderedTable(open_source(path, chunk_rows=17), "id", memory_bytes=memory_bytes)
    return table, TableEncoder.fit(table.chunks(), recognise(table, labels=["ill"]))


def test_rows_on_the_disk_are_those_in_memory_in_the_order_asked(tmp_path: Path) -> None:
    table, encoder = parts(written(patients(), tmp_path, "csv"), memory_bytes=0)
    asked = np.random.default_rng(0).permutation(table.ids)[:50].tolist() + [table.ids[3]] * 2

    memory = EncodedTable(table, encoder)
    disk = EncodedTable(table, encoder, folder=tmp_path / "run", memory_bytes=0)

    assert (memory.is_in_memory, disk.is_in_memory) == (True, False)
    assert len(memory) == len(disk) == len(table)
    assert torch.equal(memory.rows(asked), disk.rows(asked))
    assert memory.rows(asked).dtype == torch.float32
    assert torch.equal(memory.rows(asked), torch.from_numpy(encoder.transform(table.rows(asked))))
    assert memory.rows([]).shape == (0, encoder.width)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_batch_is_the_callers_own(tmp_path: Path, memory_bytes: int) -> None:
    table, encoder = parts(written(patients(), tmp_path, "csv"))
    encoded = EncodedTable(table, encoder, folder=tmp_path, memory_bytes=memory_bytes)
    ids = table.ids

    encoded.rows(ids).zero_()

    assert encoded.rows(ids).any()


def test_labels_are_encoded_like_features() -> None:
    frame = patients()
    table = OrderedTable(frame, "id")
    labels = EncodedTable(table, LabelEncoder.fit(table.chunks(), "ill"))
    classes = EncodedTable(table, LabelEncoder.fit(table.chunks(), "ill", task="multiclass"))

    assert labels.rows(table.ids[::-1]).squeeze(1).tolist() == frame["ill"].tolist()[::-1]
    assert classes.rows(table.ids).dtype == torch.int64
    assert classes.rows(table.ids).tolist() == frame["ill"].tolist()


def test_a_later_process_uses_the_same_file_and_a_changed_table_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = written(patients(), tmp_path, "csv"), tmp_path / "run"
    table, encoder = parts(path)
    first = EncodedTable(table, encoder, folder=folder, memory_bytes=0)

    with monkeypatch.context() as patch:
        patch.setattr(TableEncoder, "transform", None)
        again = EncodedTable(*parts(path), folder=folder, memory_bytes=0)
    assert torch.equal(again.rows(table.ids), first.rows(table.ids))

    frame = patients()
    frame["age"] = frame["age"].to_numpy()[::-1]
    written(frame, tmp_path, "csv")
    changed, _ = parts(path)
    other = EncodedTable(changed, encoder, folder=folder, memory_bytes=0)
    assert not torch.equal(other.rows(table.ids), first.rows(table.ids))
    assert len(list(folder.iterdir())) == 2
    with pytest.raises(DataError, match="was changed while it was in use"):
        EncodedTable(table, encoder, folder=folder, memory_bytes=0)


@pytest.mark.parametrize("rows", [2, None])
def test_a_file_that_something_else_wrote_is_refused(tmp_path: Path, rows: int | None) -> None:
    table, encoder = parts(written(patients(), tmp_path, "csv"))
    EncodedTable(table, encoder, folder=tmp_path / "run", memory_bytes=0)
    (file,) = (tmp_path / "run").iterdir()
    if rows is None:
        file.write_bytes(file.read_bytes()[:-4])
    else:
        np.save(file, np.zeros((rows, encoder.width), np.float32))

    with pytest.raises(DataError, match="is not what was written there"):
        EncodedTable(table, encoder, folder=tmp_path / "run", memory_bytes=0)


def test_rows_that_cannot_be_encoded_leave_no_file(tmp_path: Path) -> None:
    table = OrderedTable(pd.DataFrame({"id": [1, 2, 3], "x": ["1", "2", "x"]}), "id")
    encoder = TableEncoder.fit(table.chunks(table.ids[:2]), {"x": "numeric"})

    with pytest.raises(DataError, match="column 'x' has 1 of 3 cells that are no numbers"):
        EncodedTable(table, encoder, folder=tmp_path / "run", memory_bytes=0)
    assert list((tmp_path / "run").iterdir()) == []


def test_too_many_rows_and_no_folder_is_an_error() -> None:
    table = OrderedTable(patients(), "id")
    encoder = TableEncoder.fit(table.chunks(), {"age": "numeric"})

    with pytest.raises(ConfigError, match="expected a folder to keep them in"):
        EncodedTable(table, encoder, memory_bytes=0)
    with pytest.raises(DataError, match="has no row for 1 of 1 ids"):
        EncodedTable(table, encoder).rows(["nobody"])


def test_of_a_table_that_is_not_kept_only_a_chunk_is_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, encoder = parts(written(patients(), tmp_path, "csv"), memory_bytes=0)
    seen: list[int] = []
    transform = TableEncoder.transform

    def watched(self: TableEncoder, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        seen.append(len(frame))
        return transform(self, frame)

    monkeypatch.setattr(TableEncoder, "transform", watched)
    EncodedTable(table, encoder, folder=tmp_path / "run", memory_bytes=0)

    assert not table.is_in_memory
    assert sum(seen) == len(table)
    assert max(seen) <= 17

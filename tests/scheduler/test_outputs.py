"""What a party keeps is written whole, whatever the disk does."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heterofed.errors import DataError, OutputError
from heterofed.metrics.tables import MetricsTable
from heterofed.scheduler.outputs import load_into, weights_file, write_outputs
from tests.chaos.smalldisk import CannotMount, small_disk


def table(rows: int) -> MetricsTable:
    table = MetricsTable(["loss"])
    table.append_metrics_list({"loss": number / 7} for number in range(rows))
    return table


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith(".filler"))


def test_all_outputs_are_written_and_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}\n")
    model = nn.Linear(2, 2)

    files = write_outputs(tmp_path, {"infer_model.pt": model}, {"scores": table(2)})

    assert [each.name for each in files] == ["scores.csv", "metrics.json", "infer_model.pt", "report.zip", "model.zip"]
    assert names(tmp_path) == sorted(each.name for each in files)
    assert torch.equal(torch.load(tmp_path / "infer_model.pt")["weight"], model.weight)
    with zipfile.ZipFile(tmp_path / "report.zip") as report:
        assert report.read("scores.csv") == (tmp_path / "scores.csv").read_bytes()


def test_a_model_gets_back_the_weights_that_were_written(tmp_path: Path) -> None:
    written, again = nn.Linear(2, 2), nn.Linear(2, 2)
    names = [weights_file("feature", "bank"), weights_file("infer", "bank")]
    write_outputs(tmp_path, {names[0]: written}, {})

    load_into(again, tmp_path / names[0], what="the feature model", advice="Look.")

    assert names == ["feature_model_bank.pt", "infer_model.pt"]
    assert torch.equal(again.weight, written.weight) and torch.equal(again.bias, written.bias)


class Picky(nn.Linear):
    """A user's model that reads its state in a way of its own."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return {}[next(iter(state_dict))]


@pytest.mark.parametrize(
    ("model", "why"),
    [(nn.Linear(3, 2), "size mismatch for weight"), (nn.ReLU(), "Unexpected key"), (Picky(2, 2), "'weight'")],
    ids=["another width", "another model", "a model of one's own that raises"],
)
def test_weights_that_do_not_fit_are_one_error_that_says_what_to_do(tmp_path: Path, model: nn.Module, why: str) -> None:
    write_outputs(tmp_path, {"infer_model.pt": nn.Linear(2, 2)}, {})

    with pytest.raises(DataError) as caught:
        load_into(model, tmp_path / "infer_model.pt", what="the infer model of Shop", advice="Look.", party="bank")

    said = str(caught.value)
    assert said.startswith(f"bank: {tmp_path / 'infer_model.pt'} does not fit the infer model of Shop: ")
    assert why in said and said.endswith("expected the same architecture as when it was trained. Look.")
    assert "\n" not in said and len(said) < 700


def test_what_an_earlier_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    for name in (".scores.csv.0123abcd.part", ".infer_model.pt.89abcdef.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".in-use.lock").touch()

    write_outputs(tmp_path, {}, {"scores": table(2)})

    assert names(tmp_path) == [".in-use.lock", "model.zip", "report.zip", "scores.csv"]


def test_a_disk_without_room_is_named_and_every_file_there_is_whole_whatever_room_there_is(tmp_path: Path) -> None:
    refused = set()
    try:
        with small_disk(tmp_path / "disk") as disk:
            out = disk.folder / "out"
            for free in range(24):
                shutil.rmtree(out, ignore_errors=True)
                disk.fill(free)
                try:
                    write_outputs(out, {"infer_model.pt": nn.Linear(30, 30)}, {"scores": table(800)})
                except OutputError as error:
                    assert "No space left on device; expected room on that disk. Free some space" in str(error)
                    refused.add(str(error).removeprefix("cannot write ").split(":")[0])
                assert not [each for each in names(out) if each.startswith(".")]
                for path in out.glob("*.zip"):
                    with zipfile.ZipFile(path) as archive:
                        assert archive.testzip() is None
                for path in out.glob("*.pt"):
                    torch.load(path)
                for path in out.glob("*.csv"):
                    assert len(path.read_text().splitlines()) == 801
                disk.mend()
    except CannotMount as error:
        pytest.skip(str(error))

    files = ["scores.csv", "infer_model.pt", "report.zip", "model.zip"]
    assert {str(out / each) for each in files} <= refused <= {str(out), *(str(out / each) for each in files)}

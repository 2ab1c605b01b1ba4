"""Models leave as files that give the same numbers, all of them or none, and tell nothing of this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heterofed.export.folder
import heterofed.export.formats
from heterofed.errors import ConfigError, DataError, OutputError
from heterofed.export import FORMATS, Format, ModelToExport, export_model, export_run
from heterofed.tables import LabelEncoder, TableEncoder
from tests.export.reader import answers_of, array_of, read
from tests.tables.files import patients

ENCODER = TableEncoder.fit(
    patients(), {"age": "numeric", "dose": "numeric", "city": "categorical", "smoker": "boolean", "seen": "date"}
)
LABELS = LabelEncoder.fit(patients(), "ill")


def feature_model(columns: int = ENCODER.width, width: int = 6) -> nn.Sequential:
    """With layers that behave differently in training, and statistics that are not those of the beginning."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(columns, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, width), nn.ReLU()
    )
    for _ in range(5):
        model(torch.randn(32, columns))
    return model


class Branches(nn.Module):
    """Goes another way by the numbers that it gets, which only a compiler can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.sum() > 0:
            rows = rows * 2
        found: Tensor = self.layer(rows)
        return found


class Noisy(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows + torch.rand(rows.shape)


class Varied(nn.Module):
    """What cannot be compiled, but traced: the compiler knows no lambda."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.steps = [lambda rows: rows + 1, torch.relu]

    def forward(self, rows: Tensor) -> Tensor:
        for step in self.steps:
            rows = step(rows)
        found: Tensor = self.layer(rows)
        return found


class Plain(Varied):
    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layer(rows)
        return found


class Two(nn.Module):
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows, rows


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda rows: torch.from_numpy(session.run(["outputs"], {"inputs": rows.numpy()})[0])


def script_runner(path: Path) -> Callable[[Tensor], Tensor]:
    with pytest.warns(FutureWarning, match=r"torch\.jit\.load"):
        script = torch.jit.load(path)
    return lambda rows: script(rows).detach()


def program_runner(path: Path) -> Callable[[Tensor], Tensor]:
    module = torch.export.load(path).module()
    return lambda rows: module(rows).detach()


RUNNERS: dict[Format, tuple[str, Callable[[Path], Callable[[Tensor], Tensor]]]] = {
    "onnx": (".onnx", onnx_runner),
    "torchscript": (".torchscript", script_runner),
    "torch-export": (".pt2", program_runner),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's run in every format."""
    folder = tmp_path_factory.mktemp("exported") / "deep" / "run"
    torch.manual_seed(4)
    infer = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1))
    models = [
        ModelToExport("feature_model", feature_model(), {"columns": ENCODER.width}),
        ModelToExport("infer_model", infer, {"bank": 6, "shop": 4}),
    ]
    paths = export_run(folder, models, FORMATS, party="bank", encoder=ENCODER, labels=LABELS, card="# A card\n")
    assert sorted(paths) == sorted(folder.iterdir())
    assert len(paths) == 9
    return folder


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_gives_the_numbers_of_the_model_for_any_number_of_rows(kind: Format, exported: Path) -> None:
    suffix, runner = RUNNERS[kind]
    run = runner(exported / f"feature_model{suffix}")
    model = feature_model().eval()

    for rows in (1, 4, 333):
        batch = torch.randn(rows, ENCODER.width)
        torch.testing.assert_close(run(batch), model(batch).detach(), rtol=0, atol=1e-6)


def test_a_table_becomes_answers_without_heterofed(exported: Path) -> None:
    told = read(exported / "preprocessing.json")
    manifest = json.loads((exported / "export.json").read_text())
    parts = manifest["models"][1]["input"]["parts"]
    embedding = onnx_runner(exported / "feature_model.onnx")(torch.from_numpy(array_of(patients(), told["features"])))
    shop = torch.rand(len(embedding), 4)

    output = onnx_runner(exported / "infer_model.onnx")(torch.cat([embedding, shop], 1))
    found = answers_of(output.numpy(), told["labels"])

    assert parts == [{"of": "bank", "start": 0, "width": 6}, {"of": "shop", "start": 6, "width": 4}]
    own = feature_model().eval()(torch.from_numpy(ENCODER.transform(patients()))).detach()
    np.testing.assert_allclose(embedding, own, rtol=0, atol=1e-6)
    assert found == LABELS.decode(torch.sigmoid(output.double()).numpy())


def test_the_manifest_tells_every_file_with_its_digest_and_the_opset(exported: Path) -> None:
    manifest = json.loads((exported / "export.json").read_text())

    files = [*manifest["other_files"], *(each for model in manifest["models"] for each in model["files"])]
    assert {each["file"] for each in files} == {path.name for path in exported.iterdir()} - {"export.json"}
    for each in files:
        content = (exported / each["file"]).read_bytes()
        assert (each["bytes"], each["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert [(model["name"], model["input"]["shape"], model["output"]["shape"]) for model in manifest["models"]] == [
        ("feature_model", ["rows", ENCODER.width], ["rows", 6]),
        ("infer_model", ["rows", 10], ["rows", 1]),
    ]
    assert [each["opset"] for model in manifest["models"] for each in model["files"] if "opset" in each] == [20, 20]
    assert manifest["made_with"]["torch"] == torch.__version__.partition("+")[0]
    assert all(each["largest_difference"] <= 1e-6 for model in manifest["models"] for each in model["files"])


def test_the_card_tells_the_files(exported: Path) -> None:
    card = (exported / "model_card.md").read_text()

    assert card.startswith("# A card\n\n## Exported files\n")
    assert "| infer_model.onnx | (rows, 10): 6 of bank, 4 of shop | (rows, 1) |" in card


@pytest.mark.parametrize("make", [Varied, Plain])
def test_no_path_or_source_line_of_this_machine_is_in_a_file(make: type[nn.Module], tmp_path: Path) -> None:
    paths = export_model(make(), 4, tmp_path, "varied", FORMATS)

    contents = {path.name: path.read_bytes() for path in paths}
    assert b"pkg.torch" not in contents["varied.onnx"]  # how the exporter calls its notes
    for path in paths[1:]:
        with zipfile.ZipFile(io.BytesIO(contents.pop(path.name))) as archive:
            contents |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
    secrets = [str(Path(__file__).parents[2]).encode(), Path(__file__).name.encode(), b"found: Tensor"]
    assert len(contents) > 5
    for name, content in contents.items():
        assert not any(each in content for each in secrets), name


def test_the_model_and_the_random_numbers_of_the_process_are_left_as_they_were(tmp_path: Path) -> None:
    model = feature_model(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(9)
    state = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]

    export_model(model, 4, tmp_path, "model", FORMATS)

    assert model.training
    assert all(value.requires_grad for value in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]  # type: ignore[index]


def test_torchscript_follows_a_way_that_depends_on_the_numbers_and_the_others_refuse_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Branches()

    (path,) = export_model(model, 4, tmp_path, "model", ["torchscript"])

    run = script_runner(path)
    for batch in (torch.ones(2, 4), -torch.ones(2, 4)):
        torch.testing.assert_close(run(batch), model(batch).detach())
    for kind in ("onnx", "torch-export"):
        with pytest.raises(ConfigError, match=rf"cannot be exported to {kind}: .*expected a model"):
            export_model(model, 4, tmp_path / "other", "model", [kind])
        assert list((tmp_path / "other").iterdir()) == []


class UncompiledBranches(Varied):
    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows if rows.sum() > 0 else -rows)


def wrong_numbers() -> nn.Module:
    model = nn.Linear(4, 1)
    nn.init.constant_(model.weight, float("nan"))
    return model


@pytest.mark.parametrize(
    ("make", "kind", "error", "text"),
    [
        (UncompiledBranches, "torchscript", ConfigError, "goes another way"),
        (lambda: nn.Linear(5, 1), "onnx", ConfigError, r"does not take \(1, 4\) numbers"),
        (lambda: nn.Linear(4, 1).double(), "onnx", ConfigError, "does not take"),
        (wrong_numbers, "torch-export", ConfigError, "not finite"),
        (Two, "onnx", ConfigError, "gives tuple for 1 rows"),
        (lambda: nn.Flatten(0), "onnx", ConfigError, r"gives \(4,\) for 1 rows"),
        (Noisy, "torch-export", DataError, "gives other numbers than the model"),
    ],
    ids=["branches", "columns", "double", "nan", "two", "rows", "noise"],
)
def test_a_model_that_cannot_be_exported_is_refused_and_nothing_is_written(
    make: Callable[[], nn.Module], kind: Format, error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        export_run(tmp_path / "out", [ModelToExport("m", make(), {"columns": 4})], [kind], party="bank")
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "m.pt2").write_text("an earlier one")
    with pytest.raises(error, match=text):
        export_model(make(), 4, tmp_path, "m", [kind])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.pt2", "an earlier one")]


def test_a_file_that_gives_slightly_other_numbers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = heterofed.export.formats.Exporter.bytes_of

    def changed(self: Any, kind: Format) -> bytes:
        self._model[0].bias.data += 3e-6
        return real(self, kind)

    monkeypatch.setattr(heterofed.export.formats.Exporter, "bytes_of", changed)
    for kind in FORMATS:
        model = ModelToExport("m", nn.Sequential(nn.Linear(4, 1)), {"columns": 4})
        monkeypatch.setattr(heterofed.export.folder, "answers_of", answers_before(model.model))
        with pytest.raises(DataError, match=r"they differ by .*e-06; expected"):
            export_run(tmp_path / "out", [model], [kind], party="bank")
    assert list(tmp_path.iterdir()) == []


def answers_before(model: nn.Module) -> Callable[..., list[Tensor]]:
    return lambda _, batches, name: [model(each).detach() for each in batches]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_anything_is_written(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))

    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install 'heterofed\[export\]'"):
        export_model(nn.Linear(4, 1), 4, tmp_path / "out", "m", ["onnx"])
    assert not (tmp_path / "out").exists()
    export_model(nn.Linear(4, 1), 4, tmp_path / "out", "m", ["torch-export"])


@pytest.mark.parametrize("formats", [[], ["tflite"], ["onnx", "onnx"]], ids=["none", "unknown", "twice"])
def test_formats_that_there_are_not_are_refused(formats: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one or more of onnx, torchscript, torch-export"):
        export_model(nn.Linear(4, 1), 4, tmp_path, "m", formats)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("../m", {"columns": 4}), ("", {"columns": 4}), ("m", {}), ("m", {"columns": 0}), ("m", {"a": 5, "b": -1})],
    ids=["path", "empty", "no parts", "no columns", "negative"],
)
def test_a_model_without_a_name_or_columns_is_refused(name: str, parts: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ModelToExport(name, nn.Linear(4, 1), parts)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    model = ModelToExport("m", nn.Linear(4, 1), {"columns": 4})
    (tmp_path / "out").mkdir()
    first = export_run(str(tmp_path / "out"), [model], ["torch-export"], party="bank")  # an empty one is taken

    with pytest.raises(ConfigError, match="is not empty"):
        export_run(tmp_path / "out", [model], ["torch-export"], party="bank")

    export_run(tmp_path / "out", [model], ["torchscript"], party="shop", replace=True)
    assert not first[0].exists()
    assert json.loads((tmp_path / "out" / "export.json").read_text())["party"] == "shop"

    earlier = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(ConfigError):
        export_run(
            tmp_path / "out", [ModelToExport("m", nn.Linear(5, 1), {"columns": 4})], FORMATS, party="bank", replace=True
        )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == earlier

    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="has files that no export wrote"):
        export_run(tmp_path / "out", [model], ["torch-export"], party="bank", replace=True)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text("[]")
    with pytest.raises(ConfigError, match="has files that no export wrote"):
        export_run(tmp_path / "out", [model], ["torch-export"], party="bank", replace=True)


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = ModelToExport("m", nn.Linear(4, 1), {"columns": 4})

    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="cannot write"):
            export_run(folder, [model], ["torch-export"], party="bank")
        with pytest.raises(OutputError, match="cannot write"):
            export_model(model.model, 4, folder, "m", ["torch-export"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_models_of_one_name_or_none_are_refused(tmp_path: Path) -> None:
    model = ModelToExport("m", nn.Linear(4, 1), {"columns": 4})
    for models in ([], [model, model]):
        with pytest.raises(ConfigError, match="each with its own name"):
            export_run(tmp_path / "out", models, ["torch-export"], party="bank")

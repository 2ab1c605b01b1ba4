"""A completed run says what it is of, and a changed file of it is noticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from heterofed import ConfigError, DataError, run_locally
from heterofed.scheduler.manifest import NAME, digest_of_file, read_manifest, results_folder, write_manifest
from tests.tiny import Collaborator, Host


class Described(Host):
    """Says more of itself, and keeps a file besides."""

    about: ClassVar[dict[str, Any]] = {"columns": ["age", "bmi"], "threshold": 0.5}

    def describe_run(self) -> dict[str, Any]:
        return self.about

    def write_artifacts(self, folder: Path) -> Sequence[Path]:
        (folder / "encoder.json").write_text("{}")
        return [folder / "encoder.json"]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the results of a host, h, and of a collaborator, c."""
    folder = tmp_path_factory.mktemp("run")
    host = Described(max_rounds=1, out_dir=folder / "h")
    result = run_locally(host, Collaborator(out_dir=folder / "c"), seed=1).host
    assert {folder / "h" / "encoder.json", folder / "h" / NAME} <= set(result.files)
    return folder


def test_a_manifest_says_what_was_trained_with_whom(completed: Path) -> None:
    host, other = read_manifest(completed / "h"), read_manifest(completed / "c")

    assert (host.role, host.feature_key, host.parties, host.rounds) == ("host", "host", ("host", "c1"), 1)
    assert (other.role, other.feature_key, other.parties, other.rounds) == ("collaborator", "c1", ("host", "c1"), 1)
    assert host.run == other.run != ""
    assert host.task_id == other.task_id
    assert host.embeddings == {"c1": ("float32", (4,))}
    assert other.embeddings == {}


def test_a_manifest_gives_back_what_the_class_said_of_itself(completed: Path) -> None:
    host = read_manifest(completed / "h", role="host", feature_key="host")

    assert host.about == Described.about
    assert set(host.files) == {"feature_model_host.pt", "infer_model.pt", "encoder.json"}
    assert host.files["encoder.json"] == digest_of_file(completed / "h" / "encoder.json")
    host.verify(completed / "h")


def test_another_run_of_the_same_parties_is_another_run(completed: Path, tmp_path: Path) -> None:
    run_locally(Host(max_rounds=1, out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"), seed=1)

    assert read_manifest(tmp_path / "h").run != read_manifest(completed / "h").run


@pytest.mark.parametrize("name", ["infer_model.pt", "feature_model_host.pt", "encoder.json"])
def test_a_file_of_a_run_that_was_changed_by_one_byte_is_named(completed: Path, name: str) -> None:
    path = completed / "h" / name
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(DataError, match=f"{name} was changed since the run was completed"):
            read_manifest(completed / "h").verify(completed / "h")
    finally:
        path.write_bytes(before)


def test_a_file_that_is_gone_is_named(completed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*infer_model.pt"):
        read_manifest(completed / "h").verify(tmp_path, ["infer_model.pt"])
    with pytest.raises(DataError, match=r"names no other.pt"):
        read_manifest(completed / "h").verify(tmp_path, ["other.pt"])


def test_a_manifest_that_was_changed_is_refused(completed: Path, tmp_path: Path) -> None:
    text = (completed / "h" / NAME).read_text()
    (tmp_path / NAME).write_text(text.replace('"rounds":1', '"rounds":2'))

    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path)


def test_a_folder_of_no_run_and_that_of_another_party_are_refused(completed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not the folder of a completed run: it holds no run.json"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match=r"not the folder of a completed run: there is no such folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"is the run of a collaborator, c1; expected that of a host"):
        read_manifest(completed / "c", role="host")
    with pytest.raises(ConfigError, match=r"is the run of c1; expected that of shop"):
        read_manifest(completed / "c", feature_key="shop")
    with pytest.raises(ConfigError, match=r"is the run of task local; expected that of task other\. Name the folder"):
        read_manifest(completed / "c", task_id="other")
    assert read_manifest(completed / "c", role="collaborator", feature_key="c1", task_id="local").rounds == 1


def test_results_go_below_the_working_folder_by_task_and_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert results_folder("some-task", "bank") == Path("runs/some-task/bank")

    result = run_locally(Host(max_rounds=1), Collaborator(), seed=1)

    for each in result.parties.values():
        assert each.out_dir == results_folder("local", each.feature_key)
        assert read_manifest(each.out_dir).feature_key == each.feature_key


def test_what_json_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    host = Described(max_rounds=1, out_dir=tmp_path / "h")
    host.describe_run = lambda: {"model": object()}  # type: ignore[method-assign]  # what a user may have written

    with pytest.raises(ConfigError, match=r"describe_run\(\) of host gave what JSON cannot hold"):
        run_locally(host, Collaborator(out_dir=tmp_path / "c"))
    assert not (tmp_path / "h" / NAME).exists()


def test_an_artifact_outside_the_folder_is_refused(tmp_path: Path) -> None:
    class Astray(Host):
        def write_artifacts(self, folder: Path) -> Sequence[Path]:
            (tmp_path / "elsewhere.json").write_text("{}")
            return [tmp_path / "elsewhere.json"]

    with pytest.raises(ConfigError, match=r"write_artifacts\(\) wrote .*elsewhere.json; expected files in"):
        run_locally(Astray(max_rounds=1, out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))


def test_a_manifest_holds_no_sample_id(completed: Path) -> None:
    for party in "hc":
        text = (completed / party / NAME).read_text()
        assert "person-" not in text
        assert json.loads(text)["content"]["type"] == "run"


@pytest.mark.parametrize("name", ["../other/model.pt", "/dev/zero", "."])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(completed: Path, tmp_path: Path, name: str) -> None:
    found = read_manifest(completed / "h")
    write_manifest(tmp_path, msgspec.structs.replace(found, files={name: "00"}))

    with pytest.raises(DataError, match="names files outside its folder"):
        read_manifest(tmp_path)

"""Feature models of one's own: without parameters, frozen, and made again by a later process, or not."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heterofed import ConfigError, DataError, Settings, run_locally
from heterofed.cli.train import train_collaborator
from heterofed.tables import TableEncoder
from heterofed.tabular import TableCollaborator, TableHost, load_run
from heterofed.tabular.models import NAMELESS, MakeModel, maker_of, name_of
from heterofed.tasks import open_directory
from tests.tabular.parties import parties, people
from tests.tiny import same_bits


class Sorted(nn.Module):
    """The numbers of a row, the largest first: nothing to learn."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return as many numbers as there were."""
        return rows.sort(dim=1, descending=True).values


def sort_rows(inputs: int) -> nn.Module:
    return Sorted()


def narrow(inputs: int, width: int = 4) -> nn.Module:
    return nn.Linear(inputs, width)


class Layers(nn.Module):
    """A model with a way to make it."""

    @classmethod
    def of(cls, inputs: int) -> nn.Module:
        """Return one."""
        return nn.Linear(inputs, 3)

    def made(self, inputs: int) -> nn.Module:
        """Return another, of an instance."""
        return nn.Linear(inputs, 3)


as_alias = partial(narrow, width=5)


# --- models that do not learn -------------------------------------------------------------------------------------


def test_a_hosts_model_without_parameters_is_one_that_does_not_learn(tmp_path: Path) -> None:
    host, others = parties(tmp_path, people(), label="ill", rounds=2, make_model=sort_rows, widths={"c1": 16})

    run_locally(host, *others, seed=1)

    assert not host.is_trainable
    assert host.embedding_widths == {"host": host.data.inputs, "c1": 16}
    loaded = load_run(tmp_path / "host")
    assert isinstance(loaded.feature_model, Sorted)


def test_a_collaborators_model_without_parameters_takes_part_frozen_and_is_told_how(tmp_path: Path) -> None:
    frame = people()[1]

    def run(folder: Path, **arguments: Any) -> TableCollaborator:
        other = TableCollaborator("c1", frame, "id", make_model=sort_rows, out_dir=folder / "c1", **arguments)
        other.data.fit(other.data.table.ids, None)
        host, _ = parties(folder, people(), label="ill", rounds=2, widths={"c1": other.data.inputs})
        run_locally(host, other, seed=1)
        return other

    with pytest.raises(ConfigError, match=r"c1.*no parameter that learns.*is_feature_trainable=False.*--frozen"):
        run(tmp_path / "told")
    assert not run(tmp_path / "frozen", is_feature_trainable=False).is_trainable


def test_the_command_leaves_a_frozen_model_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TableCollaborator] = []
    monkeypatch.setattr(sys, "path", list(sys.path))

    def launch(party: TableCollaborator, task_id: str, recover: bool) -> None:
        made.append(party)
        raise ConfigError("this test needs no more")

    monkeypatch.setattr(TableCollaborator, "launch_task", launch)
    people()[1].to_csv(tmp_path / "c1.csv", index=False)
    task = open_directory(Settings.from_env()).store.create("of two", ["host", "c1"]).id
    for frozen in (True, False):
        with pytest.raises(ConfigError, match="no more"):
            train_collaborator(task, tmp_path / "c1.csv", "id", frozen=frozen, model=f"{__name__}:as_alias")

    assert [each.is_feature_trainable for each in made] == [False, True]
    assert made[0].make_model is as_alias and made[0]._about_features().model == f"{__name__}:as_alias"


def test_random_weights_that_are_frozen_are_told_and_the_card_says_what_is_frozen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def cards(folder: Path, **arguments: Any) -> list[str]:
        with caplog.at_level(logging.WARNING, "heterofed"):
            host, _ = parties(folder, people(), label="ill", rounds=1)
            other = TableCollaborator("c1", people()[1], "id", out_dir=folder / "c1", **arguments)
            run_locally(host, other, seed=1)
        return [(folder / each / "model_card.md").read_text() for each in ("host", "c1")]

    said = "without make_model the feature model has random weights"
    frozen = "| weights of the feature model | frozen, as the model was made |"
    assert [frozen in each for each in cards(tmp_path / "learns")] == [False, False]
    assert said not in caplog.text
    make = partial(narrow, width=16)
    assert [frozen in each for each in cards(tmp_path / "own", is_feature_trainable=False, make_model=make)] == [
        False,
        True,
    ]
    assert said not in caplog.text
    assert [frozen in each for each in cards(tmp_path / "random", is_feature_trainable=False)] == [False, True]
    assert f"c1: is_feature_trainable is False, and {said}" in caplog.text


# --- the name of what made a model --------------------------------------------------------------------------------


def of_this_script(inputs: int) -> nn.Module:
    return nn.Linear(inputs, 3)


def test_a_name_is_noted_only_where_it_gives_back_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def local(inputs: int) -> nn.Module:
        return nn.Linear(inputs, 3)

    script = sys.modules["__main__"]
    monkeypatch.setattr(script, "of_this_script", of_this_script, raising=False)
    monkeypatch.setattr(of_this_script, "__module__", "__main__")
    renamed = partial(narrow)
    renamed.__module__, renamed.__qualname__ = __name__, "narrow"  # type: ignore[attr-defined]  # what a decorator does
    nameless: list[MakeModel] = [local, lambda inputs: narrow(inputs), as_alias, renamed, Layers().made, of_this_script]

    assert [name_of(each) for each in nameless] == [NAMELESS] * len(nameless)
    for each in (narrow, Layers.of):
        assert maker_of(name_of(each)) == each
    assert name_of(f"{__name__}:as_alias") == f"{__name__}:as_alias"
    assert name_of(None) is None


def test_a_run_of_a_nameless_function_says_so_and_is_read_with_that_function(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(inputs: int) -> nn.Module:
        return nn.Linear(inputs, 4)

    frames = people()
    host, others = parties(tmp_path, frames, label="ill", rounds=1, make_model=make, width=4, shared={"width": 4})
    with caplog.at_level(logging.WARNING, "heterofed"):
        run_locally(host, *others, seed=1)
    folder = tmp_path / "host"

    assert "has to give make_model again" in caplog.text
    assert json.loads((folder / "run.json").read_text())["content"]["about"]["features"]["model"] == NAMELESS
    no_name: Callable[[], object]
    for no_name in (lambda: load_run(folder), lambda: TableHost.from_run(folder, frames[0])):
        with pytest.raises(ConfigError, match=r"no name by which it can be imported.*expected make_model"):
            no_name()
    loaded = load_run(folder, make_model=make)
    assert loaded.feature_model is not None and same_bits(loaded.feature_model, host.feature_model)
    assert TableHost.from_run(folder, frames[0], make_model=make).make_model is make


def test_a_function_that_fails_or_has_changed_since_is_named(tmp_path: Path) -> None:
    def needs_more(inputs: int, width: int) -> nn.Module:
        return nn.Linear(inputs, width)

    host, others = parties(tmp_path, people(), label="ill", rounds=1)
    run_locally(host, *others, seed=1)

    makers: list[tuple[Any, str]] = [
        (needs_more, "feature_model_c1.pt raised TypeError.*has the function"),
        (narrow, "feature_model_c1.pt does not fit the model"),
        (lambda inputs: None, "feature_model_c1.pt does not fit the model: what makes the model gave NoneType"),
    ]
    for make, text in makers:
        with pytest.raises(DataError, match=f"(?i){text}"):
            load_run(tmp_path / "c1", make_model=make)


def test_files_of_two_runs_in_one_folder_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, others = parties(tmp_path, people(), label="ill", rounds=1)
    run_locally(host, *others, seed=1)
    assert host.encoder is not None
    strange = TableEncoder.load(tmp_path / "host" / "encoder_host.json")
    monkeypatch.setattr(TableEncoder, "load", lambda *_: strange)

    with pytest.raises(
        DataError, match=r"encoder of \d inputs, and a model of \d; expected the files of one run\. Take"
    ):
        load_run(tmp_path / "c1")


def test_first_weights_of_a_model_of_ones_own_are_drawn_apart_from_everything_else(tmp_path: Path) -> None:
    party = TableCollaborator("c1", people()[1], "id", make_model=narrow, seed=3)
    party.data.fit(party.data.table.ids, None)
    before = torch.get_rng_state()

    assert same_bits(party.new_feature_model("feature"), party.new_feature_model("feature"))
    assert torch.equal(torch.get_rng_state(), before)

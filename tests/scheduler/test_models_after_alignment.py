"""Models that are made when the shared ids are known: in a run, and in one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heterofed import AlignmentError, ConfigError, TemplateError, run_locally
from tests.tiny import Collaborator, Host, bottom, person, row_of, same_bits, table


class Standardised:
    """Makes its feature model of the train rows: their means are part of it."""

    models_after_alignment = True
    party: int
    train_ids: list[str]
    task_parties: tuple[str, ...]
    seen: tuple[int, tuple[str, ...]] | None = None

    def make_feature_model(self) -> nn.Module:
        self.seen = (len(self.train_ids), self.task_parties)
        model = bottom(self.party)
        means = table(self.party)[[row_of(each) for each in self.train_ids]].mean(0)
        with torch.no_grad():
            first = model[0]  # type: ignore[index]  # a Sequential
            first.bias -= first.weight @ means
        return model


class LateHost(Standardised, Host):
    """A host whose model waits for the ids."""


class LateCollaborator(Standardised, Collaborator):
    """A collaborator whose model waits for the ids."""


def parties(folder: Path, **kwargs: Any) -> tuple[LateHost, LateCollaborator]:
    kwargs.setdefault("max_rounds", 3)
    return LateHost(out_dir=folder / "h", **kwargs), LateCollaborator(out_dir=folder / "c")


def test_a_model_is_made_when_the_train_ids_and_the_parties_are_known(tmp_path: Path) -> None:
    host, other = parties(tmp_path)

    run_locally(host, other, seed=1)

    assert host.seen == other.seen == (len(host.train_ids), ("host", "c1"))
    assert 30 < len(host.train_ids) < 60


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = parties(tmp_path / "whole")
    run_locally(*whole, seed=1)

    class Tired(LateHost):
        def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
            if self.current_round == 2:
                raise ZeroDivisionError
            return super().train_a_batch(feature_projection, labels)

    folder = tmp_path / "cut"
    with pytest.raises(TemplateError):
        run_locally(Tired(out_dir=folder / "h", max_rounds=3), LateCollaborator(out_dir=folder / "c"), seed=1)
    again = parties(folder)
    run_locally(*again, seed=99, recover=True)

    for before, after in zip(whole, again, strict=True):
        assert same_bits(before.feature_model, after.feature_model)
    assert same_bits(whole[0].infer_model, again[0].infer_model)


def test_recovering_a_run_of_which_nothing_is_left_begins_anew(tmp_path: Path) -> None:
    host, other = parties(tmp_path, max_rounds=1)

    run_locally(host, other, seed=1, recover=True)

    assert host.current_round == 1


def test_ids_that_have_changed_since_end_a_recovery_rather_than_fit_a_model_to_others(tmp_path: Path) -> None:
    run_locally(*parties(tmp_path, max_rounds=1), seed=1)
    (tmp_path / "c" / "checkpoints" / "alignment.msgpack").unlink()

    class Fewer(LateCollaborator):
        def load_local_ids(self) -> list[str]:
            return [person(row) for row in range(40)]

    host, _ = parties(tmp_path)
    with pytest.raises(AlignmentError, match="the shared ids are others than those that the models were made for"):
        run_locally(host, Fewer(out_dir=tmp_path / "c"), seed=1, recover=True)


def test_what_the_models_cannot_work_with_is_found_after_the_matching(tmp_path: Path) -> None:
    class Wrong(LateHost):
        def make_infer_model(self) -> nn.Module:
            return None  # type: ignore[return-value]  # the mistake

    with pytest.raises(ConfigError, match=r"make_infer_model\(\) returned NoneType"):
        run_locally(Wrong(out_dir=tmp_path / "h"), LateCollaborator(out_dir=tmp_path / "c"))

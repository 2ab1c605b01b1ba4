"""What a party says of itself as one that learns, where its model is made after the matching."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn
from torch.optim import Optimizer

from heterofed import ConfigError, run_locally
from tests.tiny import WIDTH, Collaborator, Host


class Constant:
    """A feature model without parameters, made when the ids are known; it has no optimizer either."""

    models_after_alignment = True

    def make_feature_model(self) -> nn.Module:
        return nn.ConstantPad1d((0, WIDTH - 3), 1.0)

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        raise AssertionError("there is nothing to optimise")


class ConstantHost(Constant, Host):
    """Its infer model learns all the same."""


class ConstantCollaborator(Constant, Collaborator):
    """Sends its columns as they are."""


def test_a_host_whose_late_model_has_no_parameters_does_not_learn(tmp_path: Path) -> None:
    host = ConstantHost(out_dir=tmp_path / "h")

    run_locally(host, Collaborator(out_dir=tmp_path / "c"), seed=1)

    assert not host.is_trainable and host.losses[-1] < host.losses[0]


def test_a_host_that_looked_before_there_was_a_model_looks_again(tmp_path: Path) -> None:
    class Looks(ConstantHost):
        def validate_context(self) -> None:
            assert self.is_trainable
            super().validate_context()

    host = Looks(out_dir=tmp_path / "h")
    run_locally(host, Collaborator(out_dir=tmp_path / "c"), seed=1)

    assert not host.is_trainable


def test_a_collaborator_whose_late_model_has_no_parameters_has_to_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c1.*no parameter that learns.*is_feature_trainable=False"):
        run_locally(Host(out_dir=tmp_path / "h"), ConstantCollaborator(out_dir=tmp_path / "c"), seed=1)

    host = Host(out_dir=tmp_path / "h2")
    other = ConstantCollaborator(out_dir=tmp_path / "c2", is_feature_trainable=False)
    run_locally(host, other, seed=1)
    assert not other.is_trainable and host.losses[-1] < host.losses[0]

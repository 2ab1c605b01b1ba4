"""SWAG's moments: what they are, what is drawn from them, and that a run that goes back or goes on has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heterofed import ConfigError, DataError, run_locally
from heterofed.training.hooks import HookBase
from heterofed.uncertainty import SwagHook, SwagMoments
from tests.tiny import Collaborator, Host


def model_with(*values: float) -> nn.Module:
    made = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([values]))
    return made


def moments_of(*weights: tuple[float, ...]) -> SwagMoments:
    moments = SwagMoments()
    for each in weights:
        moments.collect(model_with(*each))
    return moments


def test_the_standard_deviation_is_a_root_and_not_a_variance() -> None:
    """The source forgot the root."""
    moments = moments_of((1.0, 5.0), (3.0, 5.0), (5.0, 5.0), (7.0, 5.0))

    assert moments.collected == 4
    assert moments.first["weight"].tolist() == [[4.0, 5.0]]
    assert moments.second["weight"].tolist() == [[21.0, 25.0]]
    assert moments.std()["weight"].tolist() == [[5.0**0.5, 0.0]]


def test_rounding_makes_no_weight_nan() -> None:
    moments = moments_of(*[(0.1 + 1e-9 * each, 1e4 / 3) for each in range(7)])

    assert not moments.std()["weight"].isnan().any()
    assert not moments.sample(0, 0)["weight"].isnan().any()


def test_draws_have_the_moments_that_they_are_drawn_from() -> None:
    moments = moments_of((1.0, -2.0), (3.0, -2.0))

    drawn = torch.stack([moments.sample(7, draw)["weight"][0] for draw in range(4000)])

    assert drawn.mean(dim=0).tolist() == pytest.approx([2.0, -2.0], abs=0.08)
    assert drawn.std(dim=0).tolist() == pytest.approx([1.0, 0.0], abs=0.05)


def test_two_parts_of_one_shape_do_not_draw_alike() -> None:
    moments = moments_of((1.0, 2.0), (2.0, 4.0))

    assert not torch.equal(moments.sample(1, 0, "a")["weight"], moments.sample(1, 0, "b")["weight"])
    assert torch.equal(moments.sample(1, 0, "a")["weight"], moments.sample(1, 0, "a")["weight"])


def test_a_draw_does_not_move_the_generators_of_the_run() -> None:
    moments = moments_of((1.0,), (2.0,))
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)

    moments.sample(5, 5)

    assert torch.equal(torch.rand(2), expected)


def test_what_moves_afterwards_does_not_move_the_moments() -> None:
    model, moments = model_with(1.0), SwagMoments()
    moments.collect(model)

    with torch.no_grad():
        next(model.parameters()).fill_(9.0)

    assert moments.first["weight"].item() == 1.0


def test_a_model_of_other_parameters_is_refused() -> None:
    moments = moments_of((1.0,), (2.0,))

    for act in (moments.collect, lambda model: moments.drawn(model, 0, 0).__enter__()):
        with pytest.raises(ConfigError, match="those of other parameters"):
            act(nn.Linear(2, 1, bias=False))


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="one round or more with SwagHook"):
        SwagMoments().sample(0, 0)


@pytest.mark.parametrize("state", [{}, {"collected": 1, "first": {"a": torch.ones(1)}, "second": {}}])
def test_a_state_that_is_none_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    moments = moments_of((1.0,))

    with pytest.raises(DataError):
        moments.load_state_dict(state)

    assert moments.first["weight"].item() == 1.0


@pytest.mark.parametrize("from_round", [0, True, "1"])
def test_no_round_to_begin_with_is_refused(from_round: Any) -> None:
    with pytest.raises(ConfigError, match="from_round is"):
        SwagHook(from_round)


# --- at the parties ---------------------------------------------------------------------------------------------------


class SwagHost(Host):
    def build_hooks(self) -> list[HookBase]:
        self.swag = SwagHook(from_round=2)
        return [*super().build_hooks(), self.swag]


class SwagCollaborator(Collaborator):
    def build_hooks(self) -> list[HookBase]:
        self.swag = SwagHook(from_round=2)
        return [*super().build_hooks(), self.swag]


def parties(folder: Path, rounds: int) -> tuple[SwagHost, SwagCollaborator]:
    return (
        SwagHost(max_rounds=rounds, out_dir=folder / "h"),
        SwagCollaborator(out_dir=folder / "c"),
    )


def same_moments(left: SwagHook, right: SwagHook) -> bool:
    return left.moments.keys() == right.moments.keys() and all(
        each.collected == right.moments[name].collected
        and all(torch.equal(each.first[key], right.moments[name].first[key]) for key in each.first)
        and all(torch.equal(each.second[key], right.moments[name].second[key]) for key in each.second)
        for name, each in left.moments.items()
    )


@pytest.mark.usefixtures("quick_and_exact")
def test_each_party_collects_the_moments_of_its_own_part_from_the_round_on_that_it_says(tmp_path: Path) -> None:
    host, other = parties(tmp_path, 4)

    run_locally(host, other, seed=1)

    assert {name: each.collected for name, each in host.swag.moments.items()} == {"feature": 3, "infer": 3}
    assert {name: each.collected for name, each in other.swag.moments.items()} == {"feature": 3}
    assert other.swag.moments["feature"].first.keys() == dict(other.feature_model.named_parameters()).keys()
    assert other.swag.moments["feature"].std()["0.weight"].any()


@pytest.mark.usefixtures("quick_and_exact")
def test_a_run_that_is_resumed_has_the_same_moments_as_one_that_was_not_cut(tmp_path: Path) -> None:
    whole = parties(tmp_path / "whole", 4)
    run_locally(*whole, seed=1)

    run_locally(*parties(tmp_path / "cut", 3), seed=1)
    for party in ("h", "c"):  # as a run that was killed after its third round
        folder = tmp_path / "cut" / party / "checkpoints"
        newest = max(each.name for each in folder.glob("model_0*"))
        (folder / "last_checkpoint").write_text(newest)
    again = parties(tmp_path / "cut", 4)
    run_locally(*again, seed=1, recover=True)

    assert again[0].trainer.start_iter > 0
    assert same_moments(whole[0].swag, again[0].swag)
    assert same_moments(whole[1].swag, again[1].swag)


@pytest.mark.usefixtures("quick_and_exact")
def test_collecting_moments_changes_no_weight(tmp_path: Path) -> None:
    with_swag, without = parties(tmp_path / "a", 3), (Host(max_rounds=3, out_dir=tmp_path / "h"), Collaborator())

    run_locally(*with_swag, seed=1)
    run_locally(*without, seed=1)

    for left, right in zip(with_swag, without, strict=True):
        mine, theirs = left.feature_model.state_dict(), right.feature_model.state_dict()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_hook_that_serves_a_second_run_begins_anew() -> None:
    """It does not average over two runs; a run that goes on keeps what it had."""
    hook = SwagHook()
    hook.moments = {"model": moments_of((1.0,))}

    class Fresh:
        iter = 0

    class GoingOn:
        iter = 10

    hook.trainer = GoingOn()  # type: ignore[assignment]  # all that before_train looks at
    hook.before_train()
    assert hook.moments

    hook.trainer = Fresh()  # type: ignore[assignment]  # as above
    hook.before_train()
    assert not hook.moments

"""N predictions that differ, from dropout, an ensemble and SWAG."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from heterofed import ConfigError
from heterofed.uncertainty import SWAG, Ensemble, MCDropout, NoUncertainty, SwagMoments, Uncertainty

ROWS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def network(seed: int = 0, p: float = 0.5) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 3))


def moments_of(model: nn.Module, times: int = 3) -> SwagMoments:
    moved, moments = copy.deepcopy(model), SwagMoments()
    generator = torch.Generator().manual_seed(9)
    for _ in range(times):
        moments.collect(moved)
        with torch.no_grad():
            for each in moved.parameters():
                each.add_(torch.randn(each.shape, generator=generator) * 0.1)
    return moments


def ensemble() -> Uncertainty:
    return Ensemble([network(seed) for seed in range(7)], softmax=True)


def dropout() -> Uncertainty:
    return MCDropout(network(), n=7, softmax=True)


def swag() -> Uncertainty:
    return SWAG(network(), moments_of(network()), n=7, softmax=True, seed=3)


@pytest.mark.parametrize("make", [ensemble, dropout, swag])
def test_n_predictions_are_all_different_and_have_entropies_and_mutual_information(
    make: Callable[[], Uncertainty],
) -> None:
    """Item 59: the source's SWAG drew once and repeated that N times."""
    method = make()

    outputs = method.outputs(ROWS)
    mean, spread = method.prediction(ROWS)

    assert outputs.shape == (7, 5, 3)
    assert len({tuple(each.flatten().tolist()) for each in outputs}) == 7
    assert torch.allclose(mean.sum(dim=1), torch.ones(5))
    assert (spread.variance > 0).all()
    for each in (spread.predictive_entropy, spread.expected_entropy, spread.mutual_info):
        assert each is not None
        assert each.shape == (5,)
        assert (each > 0).all()


@pytest.mark.parametrize("make", [ensemble, dropout, swag])
def test_the_models_are_as_before_and_nothing_has_a_gradient(make: Callable[[], Uncertainty]) -> None:
    method = make()
    for model in method.models.values():
        model.train()
        model[0].eval()  # type: ignore[index]  # of a Sequential; one layer is in another mode than the rest
    modes = [layer.training for model in method.models.values() for layer in model.modules()]
    states = [copy.deepcopy(model.state_dict()) for model in method.models.values()]

    outputs = method.outputs(ROWS)

    assert not outputs.requires_grad
    assert [layer.training for model in method.models.values() for layer in model.modules()] == modes
    for model, before in zip(method.models.values(), states, strict=True):
        now = model.state_dict()
        assert all(torch.equal(now[name], before[name]) for name in before)


def test_the_models_are_as_before_when_a_pass_fails() -> None:
    model = network().train()
    method = SWAG(model, moments_of(model), seed=3)
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(RuntimeError):
        method.outputs(torch.zeros(2, 99))

    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_with_a_seed_gives_the_same_again_and_leaves_the_generators_alone() -> None:
    method = MCDropout(network(), n=3, seed=11)
    torch.manual_seed(0)
    expected = torch.rand(3)

    torch.manual_seed(0)
    first = method.outputs(ROWS)

    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, method.outputs(ROWS))
    assert not torch.equal(first, MCDropout(network(), n=3, seed=12).outputs(ROWS))


def test_dropout_without_a_seed_gives_others_each_time_though_the_user_has_seeded_torch() -> None:
    method = MCDropout(network(), n=3)

    torch.manual_seed(0)
    first = method.outputs(ROWS)
    torch.manual_seed(0)

    assert not torch.equal(first, method.outputs(ROWS))


@pytest.mark.parametrize("model", [nn.Linear(4, 3), network(p=0.0)])
def test_dropout_without_dropout_is_refused(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="no model has dropout"):
        MCDropout(model)


def test_swag_draws_the_same_with_the_same_seed_and_others_with_another() -> None:
    moments = moments_of(network())

    first = SWAG(network(), moments, seed=1).outputs(ROWS)

    assert torch.equal(first, SWAG(network(), moments, seed=1).outputs(ROWS))
    assert not torch.equal(first, SWAG(network(), moments, seed=2).outputs(ROWS))


def test_swag_of_moments_that_do_not_spread_is_refused() -> None:
    with pytest.raises(ConfigError, match="the moments of two rounds or more"):
        SWAG(network(), moments_of(network(), times=1), seed=1)


def test_swag_with_moments_of_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are moments of 'other'; expected of"):
        SWAG(network(), {"other": moments_of(network())}, seed=1)


def test_a_split_network_is_predicted_with_all_its_parts() -> None:
    """Item 59, in the vertical form: the parts of host and collaborator, and the infer model over both."""
    parts = {"host": nn.Linear(2, 4), "c1": nn.Linear(2, 4), "infer": nn.Linear(8, 3)}

    def forward(rows: Tensor) -> Tensor:
        joined = torch.cat([parts["host"](rows[:, :2]), parts["c1"](rows[:, 2:])], dim=1)
        out: Tensor = parts["infer"](joined)
        return out

    moments = {name: moments_of(part) for name, part in parts.items()}
    together = SWAG(parts, moments, forward, n=4, seed=8).outputs(ROWS)

    for draw in range(4):  # as the parties would: each draws for its own part, with nothing but the seed in common
        with torch.no_grad():
            with moments["host"].drawn(parts["host"], 8, draw, "host"):
                own = parts["host"](ROWS[:, :2])
            with moments["c1"].drawn(parts["c1"], 8, draw, "c1"):
                other = parts["c1"](ROWS[:, 2:])
            with moments["infer"].drawn(parts["infer"], 8, draw, "infer"):
                assert torch.equal(parts["infer"](torch.cat([own, other], dim=1)), together[draw])


def test_several_models_need_a_function_that_joins_them() -> None:
    with pytest.raises(ConfigError, match="no function that joins them"):
        NoUncertainty({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})


@pytest.mark.parametrize("n", [0, -1, True, 1.5])
def test_no_number_of_predictions_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="expected a whole number, 1 or more"):
        MCDropout(network(), n=n)


def test_an_ensemble_of_no_networks_is_refused() -> None:
    with pytest.raises(ConfigError, match="an ensemble of no networks"):
        Ensemble([])


def test_no_uncertainty_gives_the_scores_in_evaluation_mode() -> None:
    model = network().train()

    mean, spread = NoUncertainty(model, softmax=True).prediction(ROWS)

    assert torch.allclose(mean, model.eval()(ROWS).softmax(dim=1))
    assert not spread.variance.any()


def test_scores_that_are_no_table_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a prediction is of shape \(5,\)"):
        NoUncertainty(nn.Flatten(0)).outputs(torch.zeros(5, 1))

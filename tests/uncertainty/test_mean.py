"""The weighted mean of models: what it computes, and that it changes none of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from heterofed import ConfigError
from heterofed.uncertainty import MeanModel, aggregate, weighted_mean


def models(count: int = 3) -> list[nn.Module]:
    made: list[nn.Module] = []
    for seed in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    return made


def test_the_mean_is_that_of_the_weights_by_samples() -> None:
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, 10.0])}

    assert weighted_mean([a, b], [3, 1])["w"].tolist() == [2.0, 4.0]


def test_the_models_that_are_averaged_stay_as_they_are() -> None:
    """Item 58: the source's mean was computed in the first model's own memory."""
    given = models()
    before = [copy.deepcopy(each.state_dict()) for each in given]

    mean = aggregate(given, [1, 2, 3])
    with torch.no_grad():
        for each in mean.parameters():
            each.zero_()

    for model, state in zip(given, before, strict=True):
        now = model.state_dict()
        assert all(torch.equal(now[name], state[name]) for name in state)


def test_counters_are_not_averaged_but_taken_from_the_model_of_most_samples() -> None:
    """Item 58: 1 and 4 batches seen are not 3 batches, and never 2.5."""
    first, second = models(2)
    first[1].num_batches_tracked.fill_(1)  # type: ignore[index]  # the BatchNorm of a Sequential
    second[1].num_batches_tracked.fill_(4)  # type: ignore[index]  # as above

    mean = aggregate([first, second], [1, 2]).state_dict()

    assert mean["1.num_batches_tracked"].item() == 4
    assert mean["1.num_batches_tracked"].dtype == torch.int64


def test_a_counter_in_the_mean_is_not_the_memory_of_the_model() -> None:
    first, second = models(2)

    mean = weighted_mean([first.state_dict(), second.state_dict()], [2, 1])
    mean["1.num_batches_tracked"].fill_(77)

    assert first.state_dict()["1.num_batches_tracked"].item() == 0


def test_models_of_other_names_are_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"model 2 and the first one differ in b, w; expected models of one"):
        weighted_mean([{"w": torch.ones(1)}, {"b": torch.ones(1)}], [1, 1])


def test_models_of_other_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ConfigError, match=r"w is \(3,\) in model 2 and \(2,\) in the first"):
        weighted_mean([{"w": torch.ones(2)}, {"w": torch.ones(3)}], [1, 1])


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="not all of them 0"):
        weighted_mean([{"w": torch.ones(1)}] * 2, weights)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_weights_than_of_models_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="one weight for each model"):
        weighted_mean([{"w": torch.ones(1)}] * (2 if count else 0), [1.0] * count)


def test_half_precision_is_summed_without_losing_digits() -> None:
    """In float16, 2048 + 1 is 2048."""
    states = [{"w": torch.tensor([2048.0], dtype=torch.float16)}] * 1 + [{"w": torch.tensor([1.0]).half()}] * 2047

    mean = weighted_mean(states, [1] * len(states))["w"]

    assert mean.dtype == torch.float16
    assert mean.item() == pytest.approx((2048 + 2047) / 2048, rel=1e-3)


def test_a_model_of_weight_nothing_says_nothing_even_if_it_diverged() -> None:
    assert weighted_mean([{"w": torch.tensor([3.0])}, {"w": torch.tensor([float("nan")])}], [1, 0])["w"].item() == 3


def test_the_mean_of_outputs_is_that_of_the_models_outputs() -> None:
    given = [each.eval() for each in models()]
    rows = torch.randn(4, 2)

    assert torch.allclose(MeanModel(given)(rows), sum(each(rows) for each in given) / 3)


def test_an_ensemble_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="an ensemble of no models"):
        MeanModel([])

"""What several predictions say together, on numbers worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from heterofed import ConfigError
from heterofed.uncertainty import interpret


def test_variance_is_the_mean_square_from_the_mean_and_std_its_root() -> None:
    spread = interpret(torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]]))

    assert spread.variance.tolist() == [[1.0, 0.0]]
    assert spread.std.tolist() == [[1.0, 0.0]]


def test_one_prediction_has_a_variance_of_nothing_and_not_of_nan() -> None:
    assert interpret(torch.tensor([[[0.2, 0.8]]])).variance.tolist() == [[0.0, 0.0]]


def test_models_that_are_sure_and_disagree_know_nothing() -> None:
    """Item 59: all of the entropy is mutual information."""
    spread = interpret(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))

    assert spread.predictive_entropy is not None and spread.expected_entropy is not None
    assert spread.predictive_entropy.tolist() == pytest.approx([math.log(2)])
    assert spread.expected_entropy.tolist() == [0.0]
    assert spread.mutual_info is not None
    assert spread.mutual_info.tolist() == pytest.approx([math.log(2)])


def test_models_that_agree_to_be_unsure_have_no_mutual_information() -> None:
    spread = interpret(torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]]))

    assert spread.expected_entropy is not None and spread.mutual_info is not None
    assert spread.expected_entropy.tolist() == pytest.approx([math.log(2)])
    assert spread.mutual_info.tolist() == [0.0]


def test_mutual_information_is_never_below_nothing() -> None:
    outputs = torch.rand(20, 200, 5).softmax(dim=2)[:1].expand(20, -1, -1)

    mutual = interpret(outputs).mutual_info

    assert mutual is not None
    assert mutual.min() >= 0


def test_one_column_is_the_probability_of_one_of_two_classes() -> None:
    one, two = interpret(torch.tensor([[[0.25]]])), interpret(torch.tensor([[[0.75, 0.25]]]))

    assert one.predictive_entropy is not None and two.predictive_entropy is not None
    assert one.predictive_entropy.tolist() == pytest.approx(two.predictive_entropy.tolist())


@pytest.mark.parametrize("outputs", [[[[2.0, -1.0]]], [[[0.9, 0.9]]], [[[float("nan"), 0.5]]]])
def test_what_are_no_probabilities_have_no_entropy(outputs: list[list[list[float]]]) -> None:
    spread = interpret(torch.tensor(outputs))

    assert spread.predictive_entropy is spread.expected_entropy is spread.mutual_info is None


def test_probabilities_of_float32_and_of_bfloat16_count_as_such_though_their_sums_are_rounded() -> None:
    outputs = torch.randn(3, 50, 1000).softmax(dim=2)

    assert interpret(outputs).mutual_info is not None
    assert interpret(outputs.bfloat16()).mutual_info is not None


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 2), (2, 2, 0), (2, 2, 2, 2)])
def test_what_is_no_stack_of_predictions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected floating-point numbers of shape \(predictions, rows, classes\)"):
        interpret(torch.zeros(shape))


def test_json_has_none_in_the_place_of_what_json_cannot_hold() -> None:
    plain = interpret(torch.tensor([[[float("inf"), 1.0]], [[1.0, 1.0]]])).to_json()

    assert json.loads(json.dumps(plain, allow_nan=False)) == {
        "variance": [[None, 0.0]],
        "std": [[None, 0.0]],
        "predictive_entropy": None,
        "expected_entropy": None,
        "mutual_info": None,
    }

"""The mean loss of a round, weighted by rows."""

from __future__ import annotations

import pytest
import torch

from heterofed.errors import TrainingDiverged
from heterofed.metrics.loss import MeanLoss


def test_there_is_no_mean_before_the_first_loss() -> None:
    assert MeanLoss().value is None


def test_the_mean_is_weighted_by_rows() -> None:
    mean = MeanLoss()
    mean.add(1.0, 30)
    mean.add(5.0, 10)

    assert mean.value == 2.0


@pytest.mark.parametrize(
    "loss",
    [0.5, torch.tensor(0.5), torch.tensor([[0.5]]), torch.tensor(0.5, requires_grad=True), torch.tensor(0.5).half()],
    ids=["a float", "a tensor", "a tensor of one element", "a tensor with a graph", "half precision"],
)
def test_one_number_in_any_form_is_taken_as_a_plain_float(loss: object) -> None:
    mean = MeanLoss()
    mean.add(loss, 4)

    assert mean.value == 0.5
    assert type(mean.total) is float


def test_a_loss_of_zero_is_a_loss() -> None:
    mean = MeanLoss()
    mean.add(0, 4)

    assert mean.value == 0.0


@pytest.mark.parametrize(
    "loss", [None, "0.5", True, torch.tensor(True), torch.tensor([0.5, 0.5]), torch.tensor([]), {"loss": 0.5}], ids=repr
)
def test_what_is_no_single_number_is_ignored(loss: object) -> None:
    mean = MeanLoss()
    mean.add(2.0, 4)
    mean.add(loss, 4)

    assert mean.value == 2.0


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), torch.tensor(float("nan")), torch.tensor(-float("inf"))])
def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_mean(loss: object) -> None:
    mean = MeanLoss()
    mean.add(2.0, 4)

    with pytest.raises(TrainingDiverged, match=r"the loss is -?(nan|inf); expected a finite number\. Lower"):
        mean.add(loss, 4)

    assert mean.value == 2.0

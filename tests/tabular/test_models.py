"""The default networks, their losses, and models that users name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from heterofed import ConfigError, Settings
from heterofed.tables import LabelEncoder
from heterofed.tabular import TableCollaborator
from heterofed.tabular.losses import loss_of, predictions_of
from heterofed.tabular.models import feature_layers, infer_layers, maker_of, name_of, seeded, width_of


def fitted(values: object, **arguments: object) -> LabelEncoder:
    return LabelEncoder.fit(pd.DataFrame({"y": values}), "y", **arguments)  # type: ignore[arg-type]  # any of them


def test_the_networks_have_the_layers_that_were_asked_for() -> None:
    feature, infer = feature_layers(20, (), 8), infer_layers(16, (8,), 1)

    assert [type(each) for each in feature.children()] == [nn.Linear, nn.ReLU]
    assert [type(each) for each in infer.children()] == [nn.Linear, nn.ReLU, nn.Linear]
    assert feature(torch.zeros(3, 20)).shape == (3, 8)
    assert infer(torch.zeros(3, 16)).shape == (3, 1)
    assert [type(each) for each in infer_layers(16, (), 4).children()] == [nn.Linear]


def test_first_weights_depend_on_seed_party_and_name_and_leave_the_generator_as_it_was() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()

    def drawn(seed: int, party: str, name: str) -> float:
        return next(seeded(lambda: nn.Linear(3, 2), seed, party, name).parameters()).sum().item()

    assert drawn(0, "a", "feature") == drawn(0, "a", "feature")
    assert len({drawn(0, "a", "feature"), drawn(1, "a", "feature"), drawn(0, "b", "feature"), drawn(0, "a", "x")}) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_each_task_has_its_loss_and_its_predictions() -> None:
    outputs = torch.tensor([[2.0], [-1.0]])
    binary, regression = fitted([0, 1, 1]), fitted([1.5, 2.5, 9.0], task="regression")
    classes, several = fitted(["a", "b", "c", "a"]), fitted([[0, 1], [1, 1]])

    assert isinstance(loss_of(binary), nn.BCEWithLogitsLoss) and isinstance(loss_of(several), nn.BCEWithLogitsLoss)
    assert isinstance(loss_of(classes), nn.CrossEntropyLoss) and isinstance(loss_of(regression), nn.MSELoss)
    assert predictions_of(binary, outputs)[0, 0].item() == pytest.approx(1 / (1 + np.exp(-2)))
    probabilities = predictions_of(classes, torch.tensor([[3.0, 1.0, 0.0]]))
    assert probabilities.sum().item() == pytest.approx(1) and probabilities.argmax().item() == 0
    assert predictions_of(several, torch.tensor([[0.0, 9.0]])).tolist()[0] == pytest.approx([0.5, 1], abs=1e-3)
    again = predictions_of(regression, torch.from_numpy(regression.transform(pd.DataFrame({"y": [1.5, 9.0]}))))
    assert again[:, 0].tolist() == pytest.approx([1.5, 9.0])


def test_class_weights_let_a_rare_class_count_as_much() -> None:
    binary, classes = fitted([0, 0, 0, 1]), fitted(["a", "a", "a", "b", "c", "c"])

    assert not loss_of(binary).state_dict()
    assert loss_of(binary, class_weights=True).state_dict()["pos_weight"].tolist() == [3]
    weight = loss_of(classes, class_weights=True).state_dict()["weight"]
    assert weight.tolist() == pytest.approx([2 / 3, 2, 1])


def test_a_class_that_the_rows_lack_keeps_its_place() -> None:
    encoder = fitted(["b", "c", "b"], task="multiclass", classes=["a", "b", "c"])

    assert encoder.counts == (0, 2, 1)
    assert encoder.transform(pd.DataFrame({"y": ["c", "a"]})).tolist() == [2, 0]
    assert encoder.class_weights()[0] == 1


def own(inputs: int) -> nn.Module:
    return nn.Linear(inputs, 3)


def test_a_model_is_found_again_by_the_name_that_it_is_noted_under() -> None:
    assert maker_of(name_of(own)) is own
    assert maker_of(None) is None and name_of(None) is None
    for wrong in ("nowhere", "json:nothing", ":own"):
        with pytest.raises(ConfigError, match=r"that can be imported|cannot be imported"):
            maker_of(wrong)


def test_a_feature_model_that_does_not_fit_is_refused() -> None:
    assert width_of(own(4), 4) == 3
    with pytest.raises(ConfigError, match="does not take 5 numbers a row"):
        width_of(own(4), 5)
    with pytest.raises(ConfigError, match=r"gave a tensor of shape \(2, 3, 1\) for 2 rows"):
        width_of(nn.Sequential(own(4), nn.Unflatten(1, (3, 1))), 4)


@pytest.mark.parametrize(("said", "used"), [(0, 1), (2, 2)])
def test_default_models_compute_with_one_thread_unless_another_number_is_said(said: int, used: int) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "x": [0.5, 1.5]})

    assert TableCollaborator("c", frame, "id", settings=Settings(threads=said)).settings.threads == used
    assert TableCollaborator("c", frame, "id", settings=Settings(threads=said), make_model=own).settings.threads == said

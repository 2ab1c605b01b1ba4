"""What a table task is trained on, and what its outputs mean: a loss and predictions for each kind of task.

binary      (rows, 1) logits            binary cross-entropy      the probability of the second class
multiclass  (rows, classes) logits      cross-entropy             a probability for each class
multilabel  (rows, labels) logits       binary cross-entropy      a probability for each label
regression  (rows, 1) standardised      mean squared error        the value in the label's own unit
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heterofed.tables import LabelEncoder


def loss_of(labels: LabelEncoder, class_weights: bool = False) -> nn.Module:
    """Return the loss of outputs and labels as `labels` encodes them.

    Args:
        labels: fitted to the train rows.
        class_weights: whether every class counts the same, however many rows it has.
    """
    weights = torch.from_numpy(labels.class_weights()) if class_weights else None
    if labels.task == "regression":
        return nn.MSELoss()
    if labels.task == "multiclass":
        return nn.CrossEntropyLoss(weight=weights)
    return nn.BCEWithLogitsLoss(pos_weight=weights)


def predictions_of(labels: LabelEncoder, outputs: Tensor) -> Tensor:
    """Return what the outputs of an infer model mean: probabilities, or values in the label's own unit.

    Args:
        labels: as the model was trained on them.
        outputs: (rows, outputs).

    Returns:
        float64, (rows, outputs).
    """
    exact = outputs.double()
    if labels.task == "regression":
        return exact * labels.scale + labels.mean
    return torch.softmax(exact, dim=1) if labels.task == "multiclass" else torch.sigmoid(exact)

"""The same network in one piece: what the parties' training is equal to, and what the host can do by itself.

Batches come in the order that a `TableHost` of the same seed gives them, so that a federated training and this one
differ in nothing but where the parts compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from heterofed.features.batches import round_seed, shuffled
from heterofed.tabular.losses import predictions_of

if TYPE_CHECKING:
    from heterofed.tabular.collaborator import TableCollaborator
    from heterofed.tabular.host import TableHost


class Unsplit(nn.Module):
    """Feature models side by side, and an infer model over what they give.

    Args:
        features: party -> feature model, in the order of the task's parties; without those that have no features.
        infer: over all embeddings, side by side.
    """

    def __init__(self, features: Mapping[str, nn.Module], infer: nn.Module) -> None:
        super().__init__()
        self.parties = tuple(features)
        self.features = nn.ModuleList(features.values())
        self.infer = infer

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of rows: party -> (rows, inputs) in, (rows, outputs) out."""
        parts = [model(inputs[party]) for party, model in zip(self.parties, self.features, strict=True)]
        outputs: Tensor = self.infer(torch.cat(parts, dim=1))
        return outputs


def train_unsplit(
    model: Unsplit,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
    loss: nn.Module,
    *,
    rounds: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> list[float]:
    """Train with Adam and return the mean loss of each round.

    Args:
        model: is changed.
        inputs: party -> (rows, inputs), the rows sorted by their ids.
        labels: (rows, …), in the same order.
        loss: of outputs and labels.
        rounds: passes over all rows.
        batch_size: rows of a batch.
        learning_rate: Adam's.
        seed: of the order of the rows, as `HostScheduler.seed`.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rows = [str(row) for row in range(len(labels))]
    losses = []
    model.train()
    for number in range(1, rounds + 1):
        order = torch.tensor([int(each) for each in shuffled(rows, round_seed(seed, number))])
        total = 0.0
        for places in torch.split(order, batch_size):
            optimizer.zero_grad()
            value = loss(model({party: each[places] for party, each in inputs.items()}), labels[places])
            value.backward()
            optimizer.step()
            total += value.item() * len(places)
        losses.append(total / len(rows))
    model.eval()
    return losses


def unsplit_twin(host: TableHost, *collaborators: TableCollaborator) -> Unsplit:
    """Train in one piece what parties of this process have just trained together, from the same first weights.

    Args:
        host: at the end of its training; it was given a seed, as were the collaborators.
        collaborators: in the order of the task's parties.
    """
    parties = [each for each in (host, *collaborators) if each.data.has_features]
    model = Unsplit({each.feature_key: each.new_feature_model("feature") for each in parties}, host.make_infer_model())
    train_unsplit(
        model,
        {each.feature_key: each.data.rows(host.train_ids) for each in parties},
        host.labels_of(host.train_ids),
        host.loss,
        rounds=host.trainer.round,
        batch_size=host.batch_size,
        learning_rate=host.learning_rate,
        seed=host.seed,
    )
    return model


def put_together(host: TableHost, *collaborators: TableCollaborator) -> Unsplit:
    """Return the trained models of parties of this process as one, in evaluation mode."""
    parties = [each for each in (host, *collaborators) if each.data.has_features]
    return Unsplit({each.feature_key: each.feature_model for each in parties}, host.infer_model).eval()


def predict_unsplit(model: Unsplit, ids: Sequence[str], host: TableHost, *collaborators: TableCollaborator) -> Tensor:
    """Return a model's predictions of rows whose columns are all in this process, as `TableHost.predict_a_batch`."""
    parties = [each for each in (host, *collaborators) if each.data.has_features]
    with torch.no_grad():
        return predictions_of(host.labels, model({each.feature_key: each.data.rows(ids) for each in parties}))

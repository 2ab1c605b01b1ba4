"""The host's side of the cut: fuse the embeddings, infer, compare with the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from heterofed.errors import ConfigError, EmbeddingError
from heterofed.scheduler.host import HostScheduler
from heterofed.tables import LabelEncoder
from heterofed.tabular.data import HostLabels
from heterofed.tabular.losses import loss_of, predictions_of
from heterofed.tabular.models import infer_layers, seeded
from heterofed.tabular.party import TableParty


class HostModels(TableParty, HostScheduler):
    """What of `TableHost` concerns its models; see there."""

    top: tuple[int, ...]
    widths: dict[str, int]
    class_weights: bool
    _labels: HostLabels | None = None

    @property
    def labels(self) -> LabelEncoder:
        """What is predicted: the kind of task, the classes, and the unit of a regression."""
        found = self._labels.encoder if self._labels else self.fitted.labels if self.fitted else None
        if found is None:
            raise ConfigError("this host has no labels", expected="a label column, or a run that had one")
        return found

    def labels_of(self, ids: Sequence[str]) -> Tensor:
        """Return the labels of these ids, as `labels` encodes them.

        Raises:
            ConfigError: the rows of this host have none.
        """
        if self._labels is None:
            raise ConfigError("the labels of these rows are not known", expected="from_run(…, labelled=True)")
        return self._labels.rows(ids)

    # --- template methods ---------------------------------------------------------------------------------------------

    def make_infer_model(self) -> nn.Module:
        """Make a model over all embeddings side by side, as wide as the parties' widths say."""
        inputs = sum(self.embedding_widths.values())
        make = partial(infer_layers, inputs, self.top, self.labels.outputs)
        return seeded(make, self._weights_seed, self.feature_key, "infer")

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        """Adam, as all parties have it."""
        return Adam(infer_model.parameters(), lr=self.learning_rate)

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Fuse, infer, backpropagate, step."""
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.outputs(feature_projection), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def predict_a_batch(self, feature_projection: dict[str, Tensor]) -> Tensor:
        """Return probabilities (rows, classes), of two classes that of the second (rows, 1), or values (rows, 1)."""
        return predictions_of(self.labels, self.outputs(feature_projection))

    # --- what they are made of ----------------------------------------------------------------------------------------

    @cached_property
    def loss(self) -> nn.Module:
        """The loss of outputs and labels."""
        return loss_of(self.labels, self.class_weights).to(next(self.infer_model.parameters()).device)

    def outputs(self, feature_projection: Mapping[str, Tensor]) -> Tensor:
        """Return the infer model's outputs for the embeddings of a batch.

        Raises:
            EmbeddingError: an embedding has another width than was said; the text names the party and the argument.
        """
        for party, embedding in feature_projection.items():
            expected = self.embedding_widths.get(party)
            if embedding.dim() != 2 or embedding.shape[1] != expected:
                raise EmbeddingError(
                    f"the embedding of {party} has the width {tuple(embedding.shape[1:])}",
                    party=party,
                    expected=f"{expected}, as the host's arguments width and widths say",
                    advice=f"Give both the same width, or the host widths={{{party!r}: {embedding.shape[-1]}}}.",
                )
        outputs: Tensor = self.infer_model(torch.cat(list(feature_projection.values()), dim=1))
        return outputs.float()

    @cached_property
    def embedding_widths(self) -> dict[str, int]:
        """Feature key -> width of the embedding of every party, this host's first."""
        if self.fitted is not None:
            return dict(self.fitted.widths)
        others = self.task_parties[1:]
        unknown = [each for each in self.widths if each not in others]
        if unknown:
            raise ConfigError(f"widths names {unknown[0]!r}", expected=f"some of {', '.join(others)}")
        return {self.feature_key: self.own_width, **{each: self.widths.get(each, self.width) for each in others}}

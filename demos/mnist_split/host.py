"""The host of the split-MNIST task: sees its stripe of every digit, and alone knows which digit it is.

heterofed task create --name split-mnist --parties demo_host,demo_collaborator
python demos/mnist_split/host.py --task-id ID --rounds 5 --out runs/host
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that this file runs as a script from any folder

from demos.mnist_split.data import Digits, column_bounds, column_slice, sample_ids
from demos.mnist_split.models import (
    EMBEDDING_WIDTH,
    ConvNet,
    InferModule,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
    seeded,
)
from demos.mnist_split.options import check_digits, read_options, rows_of, split_by_name
from demos.mnist_split.unsplit import INFER_SEED
from heterofed import HostScheduler, logger, register_metrics

CHECKPOINT_EVERY = 500
"""Batches between two checkpoints within a round: what a party that is killed has to do again at most."""


class DemoHost(HostScheduler):
    """Holds stripe 0 of every picture and all labels."""

    def __init__(self, digits: Digits, *, parties: int = 2, dropout: bool = True, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, shuffle=True, **kwargs)
        self.digits = digits
        self.parties = parties
        self.dropout = dropout
        self.images = torch.cat([column_slice(each, 0, parties) for each in (digits.train_images, digits.test_images)])
        self.labels = torch.cat([digits.train_labels, digits.test_labels])

    def load_local_ids(self) -> list[str]:
        """Name every picture; the collaborators use the same names."""
        return sample_ids(self.digits)

    def split_dataset(self, id_intersection: Any) -> tuple[list[str], list[str]]:
        """Keep MNIST's own split, which is part of the names."""
        return split_by_name(id_intersection)

    def load_batch(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Return the stripes (rows, 1, 28, width) and the labels (rows,) of these pictures."""
        rows = rows_of(ids, self.digits)
        return self.images[rows], self.labels[rows]

    def make_feature_model(self) -> nn.Module:
        """Stripe -> embedding (rows, 10)."""
        first, end = column_bounds(0, self.parties)
        return seeded(partial(ConvNet, end - first, self.dropout), self.seed)

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        """Plain SGD with momentum."""
        return host_feature_optimizer(feature_model.parameters())

    def make_infer_model(self) -> nn.Module:
        """All parties' embeddings side by side -> log-probabilities (rows, 10)."""
        return seeded(partial(InferModule, EMBEDDING_WIDTH * self.parties), self.seed + INFER_SEED)

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        """Plain SGD with momentum."""
        return infer_optimizer(infer_model.parameters())

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Fuse, infer, backpropagate, step."""
        self.optimizer.zero_grad()
        loss = loss_of(self.predict_a_batch(feature_projection), labels)
        loss.backward()
        self.optimizer.step()
        return loss

    @register_metrics(name="test_results", keys=["round", "average_loss", "accuracy"])
    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Tensor]) -> None:
        """Measure how many test digits are read rightly by both halves together."""
        out = torch.cat([self.predict_a_batch(each) for each in batched_feature_projections])
        truth = torch.cat(batched_labels)
        accuracy = (out.argmax(dim=1) == truth).float().mean().item()
        self.get_metrics("test_results").append_metrics_item(
            {"round": self.current_round, "average_loss": loss_of(out, truth), "accuracy": accuracy}
        )
        logger.info("round %d: joint test accuracy %.2f %%", self.current_round, 100 * accuracy)

    def validate_context(self) -> None:
        """Check the data besides what every host checks."""
        super().validate_context()
        check_digits(self.digits)


def main() -> None:
    """Read the command line and take part in the task."""
    options = read_options(__doc__, host=True)
    torch.manual_seed(options.seed)  # dropout draws from this
    host = DemoHost(
        options.digits,
        parties=options.parties,
        dropout=options.dropout,
        seed=options.seed,
        feature_key=options.feature_key,
        max_rounds=options.rounds,
        log_rounds=1,
        best_metric="test_results/accuracy",
        checkpoint_every=CHECKPOINT_EVERY,
        batch_size=options.batch_size,
        out_dir=options.out,
    )
    result = host.launch_task(options.task_id, recover=options.recover)
    logger.info("%s: %d rounds done; outputs in %s", result.feature_key, result.rounds, result.out_dir)


if __name__ == "__main__":
    main()

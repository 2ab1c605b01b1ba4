"""A collaborator of the split-MNIST task: sees its stripe of every digit and never learns which digit it is.

python demos/mnist_split/collaborator.py --task-id ID --out runs/collaborator
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
from demos.mnist_split.models import ConvNet, collaborator_feature_optimizer, seeded
from demos.mnist_split.options import check_digits, read_options, rows_of, split_by_name
from heterofed import CollaboratorScheduler, logger


class DemoCollaborator(CollaboratorScheduler):
    """Holds stripe `part` of every picture, and drops the labels."""

    def __init__(
        self, digits: Digits, *, part: int = 1, parties: int = 2, dropout: bool = True, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.digits = digits
        self.part = part
        self.parties = parties
        self.dropout = dropout
        self.seed = seed
        self.images = torch.cat(
            [column_slice(each, part, parties) for each in (digits.train_images, digits.test_images)]
        )

    def load_local_ids(self) -> list[str]:
        """Name every picture; the host uses the same names."""
        return sample_ids(self.digits)

    def split_dataset(self, id_intersection: Any) -> tuple[list[str], list[str]]:
        """Keep MNIST's own split, which is part of the names."""
        return split_by_name(id_intersection)

    def load_batch(self, ids: list[str]) -> Tensor:
        """Return the stripes (rows, 1, 28, width) of these pictures."""
        return self.images[rows_of(ids, self.digits)]

    def make_feature_model(self) -> nn.Module:
        """Stripe -> embedding (rows, 10)."""
        first, end = column_bounds(self.part, self.parties)
        return seeded(partial(ConvNet, end - first, self.dropout), self.seed + self.part)

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        """Plain SGD with momentum."""
        return collaborator_feature_optimizer(feature_model.parameters())

    def validate_context(self) -> None:
        """Check the data besides what every collaborator checks."""
        super().validate_context()
        check_digits(self.digits)


def main() -> None:
    """Read the command line and take part in the task."""
    options = read_options(__doc__, host=False)
    torch.manual_seed(options.seed + options.part)  # dropout draws from this
    collaborator = DemoCollaborator(
        options.digits,
        part=options.part,
        parties=options.parties,
        dropout=options.dropout,
        seed=options.seed,
        feature_key=options.feature_key,
        out_dir=options.out,
    )
    result = collaborator.launch_task(options.task_id, recover=options.recover)
    logger.info("%s: %d rounds done; outputs in %s", result.feature_key, result.rounds, result.out_dir)


if __name__ == "__main__":
    main()

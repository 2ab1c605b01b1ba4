"""A task that goes on until its time is over, and keeps nothing of its own that grows: what does grow is ours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.tiny import PEOPLE, Collaborator, Host

COPIES = 40
"""Of each person, so that a round has many batches and not only ends."""

BATCH_SIZE = 4
TEST_EVERY = 10


def many_ids() -> list[str]:
    """Return ids whose last digits are rows of the tiny task."""
    return [f"copy{copy}-{row:03d}" for copy in range(COPIES) for row in range(PEOPLE)]


class EndlessHost(Host):
    """Trains until its time is over."""

    ends_at = 0.0

    def load_local_ids(self) -> list[str]:
        return many_ids()

    def is_task_finished(self) -> bool:
        return time.time() >= self.ends_at

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        loss = super().train_a_batch(feature_projection, labels)
        self.losses.clear()
        self.orders.clear()
        return loss


class EndlessCollaborator(Collaborator):
    """Takes part as long as the host wants."""

    def load_local_ids(self) -> list[str]:
        return many_ids()


def arguments_of(role: str, folder: Path, parties: int) -> dict[str, Any]:
    """Return what the constructor of either gets."""
    if role != "host":
        return {"out_dir": folder / role}
    return {
        "out_dir": folder / role,
        "parties": parties,
        "max_rounds": None,
        "batch_size": BATCH_SIZE,
        "log_rounds": TEST_EVERY,
    }

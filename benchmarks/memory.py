"""How much memory a test over many rows takes at each party, above what the party had before it.

    python -m benchmarks.memory
    python -m benchmarks.memory --rows 100000 --width 256 --json

Two real parties, each a process, match their ids, train a few batches and test over all other rows. The rows are made
as they are asked for. The host looks at each batch of the test once, as it comes.

- test: the most resident memory during the test, less what there was before it.
- all: the most resident memory during the test, less what the party had when its models were made and nothing else.
  The ids of all rows and what was needed to match them is in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script from any folder

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from benchmarks.common import Json, machine, show_json, show_machine, show_table
from benchmarks.crew import Failed, crew
from benchmarks.paced import Federation
from heterofed import CollaboratorScheduler, HostScheduler, register_metrics

COLUMNS = 16
TRAIN_BATCHES = 4


class Rows:
    """What both roles do alike: rows that are made of random numbers when they are asked for."""

    rows: int
    batch: int
    width: int

    def load_local_ids(self) -> list[str]:
        """Name the rows."""
        return [f"{row:08}" for row in range(self.rows + TRAIN_BATCHES * self.batch)]

    def split_dataset(self, id_intersection: Any) -> tuple[list[str], list[str]]:
        """A few to train on, the others to test on."""
        ids = sorted(id_intersection)
        return ids[self.rows :], ids[: self.rows]

    def make_feature_model(self) -> nn.Module:
        """(rows, columns) -> (rows, width)."""
        return nn.Linear(COLUMNS, self.width)

    def make_feature_optimizer(self, feature_model: nn.Module) -> optim.Optimizer:
        """Plain SGD."""
        return optim.SGD(feature_model.parameters(), lr=0.01)


class MemoryHost(Rows, HostScheduler):
    """Has labels of two classes."""

    def __init__(self, rows: int, batch: int, width: int, **kwargs: Any) -> None:
        super().__init__(batch_size=batch, max_rounds=1, log_rounds=1, calculation_timeout=0, **kwargs)
        self.rows, self.batch, self.width = rows, batch, width

    def load_batch(self, ids: list[str]) -> tuple[Tensor, Tensor]:
        """Make rows and labels."""
        return torch.randn(len(ids), COLUMNS), torch.randint(2, (len(ids),))

    def make_infer_model(self) -> nn.Module:
        """Both embeddings -> scores (rows, 2)."""
        return nn.Linear(2 * self.width, 2)

    def make_infer_optimizer(self, infer_model: nn.Module) -> optim.Optimizer:
        """Plain SGD."""
        return optim.SGD(infer_model.parameters(), lr=0.01)

    def scores(self, feature_projection: Mapping[str, Tensor]) -> Tensor:
        """Return the infer model's scores, (rows, 2)."""
        found: Tensor = self.infer_model(torch.cat(list(feature_projection.values()), dim=1))
        return found

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Backpropagate and step."""
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.scores(feature_projection), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss

    @register_metrics(name="test_results", keys=["rows", "accuracy"])
    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Tensor]) -> None:
        """Count the right answers, batch by batch."""
        rows = right = 0
        for projection, labels in zip(batched_feature_projections, batched_labels, strict=True):
            right += int((self.scores(projection).argmax(dim=1) == labels).sum())
            rows += len(labels)
        self.get_metrics("test_results").append_metrics_item({"rows": rows, "accuracy": right / rows})


class MemoryCollaborator(Rows, CollaboratorScheduler):
    """Has columns only."""

    def __init__(self, rows: int, batch: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.batch, self.width = rows, batch, width

    def load_batch(self, ids: list[str]) -> Tensor:
        """Make rows."""
        return torch.randn(len(ids), COLUMNS)


def measure(rows: int, batch: int, width: int) -> Json:
    """Run the task and return the figures of each party, in MB."""
    given = {"rows": rows, "batch": batch, "width": width}
    with crew() as staff:
        federation = Federation(staff, staff.folder / "memory", (MemoryHost, given), [(MemoryCollaborator, given)])
        federation.gather()
        figures = federation.round()
    return {
        key: {
            "before_mb": each["before_mb"],
            "trained_mb": each["trained_mb"],
            "peak_mb": each["peak_mb"],
            "test_mb": each["peak_mb"] - each["trained_mb"],
            "all_mb": each["peak_mb"] - each["before_mb"],
        }
        for key, each in figures.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="to test on; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=1024, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=64, help="of an embedding; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args(arguments)
    described = machine()
    show_machine(described)
    try:
        parties = measure(given.rows, given.batch_size, given.width)
    except Failed as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    show_table(
        f"a test over {given.rows:,} rows, embeddings of {given.width}: MB resident",
        ["party", "models only", "before the test", "most in the test", "test", "all"],
        [
            [key, *(f"{each[name]:.0f}" for name in ("before_mb", "trained_mb", "peak_mb", "test_mb", "all_mb"))]
            for key, each in parties.items()
        ],
    )
    result: Json = {"benchmark": "memory", "machine": described, "rows": given.rows, "width": given.width}
    show_json({**result, "batch_size": given.batch_size, "parties": parties}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A task small enough for every test: 60 people, 2 to 4 parties, 3 numbers each, and the same network unsplit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from heterofed import CollaboratorScheduler, HostScheduler, register_metrics

PEOPLE = 60
WIDTH = 4
CLASSES = 3


def table(party: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the (people, 3) numbers that a party holds."""
    return torch.randn(PEOPLE, 3, generator=torch.Generator().manual_seed(100 + party), dtype=torch.float64).to(dtype)


def labels() -> Tensor:
    """Return the (people,) classes that only the host holds."""
    return torch.randint(CLASSES, (PEOPLE,), generator=torch.Generator().manual_seed(7))


def person(row: int) -> str:
    """Return the id of a row."""
    return f"person-{row:03d}"


def row_of(id_: str) -> int:
    """Return the row of an id."""
    return int(id_.rsplit("-", 1)[1])


def bottom(party: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a party's feature model; its first weights depend only on the party."""
    with torch.random.fork_rng():
        torch.manual_seed(200 + party)
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, WIDTH)).to(dtype)


def top(parties: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the infer model."""
    with torch.random.fork_rng():
        torch.manual_seed(300)
        return nn.Linear(WIDTH * parties, CLASSES).to(dtype)


class Rows:
    """What both roles do alike."""

    party = 0
    dtype = torch.float32
    feature_model: nn.Module

    def load_local_ids(self) -> list[str]:
        return [person(row) for row in range(PEOPLE)]

    def make_feature_model(self) -> nn.Module:
        return bottom(self.party, self.dtype)

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        return SGD(feature_model.parameters(), lr=0.1, momentum=0.9)

    def rows(self, ids: list[str]) -> Tensor:
        return table(self.party, self.dtype)[[row_of(each) for each in ids]]


class BareHost(Rows, HostScheduler):
    """Has the labels; does not say yet where batches come from."""

    def __init__(self, feature_key: str = "host", *, parties: int = 2, **kwargs: Any) -> None:
        kwargs.setdefault("max_rounds", 2)
        kwargs.setdefault("log_rounds", 1)
        kwargs.setdefault("batch_size", 16)
        kwargs.setdefault("shuffle", True)
        kwargs.setdefault("seed", 5)
        super().__init__(feature_key, **kwargs)
        self.parties = parties
        self.orders: list[list[str]] = []
        self.losses: list[float] = []

    def make_infer_model(self) -> nn.Module:
        return top(self.parties, self.dtype)

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        return SGD(infer_model.parameters(), lr=0.1)

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.infer_model(torch.cat(list(feature_projection.values()), dim=1)), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        return loss

    @register_metrics(name="scores", keys=["loss", "accuracy"])
    def test(self, batched_feature_projections: list[dict[str, Tensor]], batched_labels: list[Any]) -> None:
        outs = [self.infer_model(torch.cat(list(each.values()), dim=1)) for each in batched_feature_projections]
        out, truth = torch.cat(outs), torch.cat(batched_labels)
        self.get_metrics("scores").append_metrics_item(
            {"loss": F.cross_entropy(out, truth), "accuracy": (out.argmax(1) == truth).float().mean()}
        )


class Host(BareHost):
    """Lets the framework make the batches."""

    def load_batch(self, ids: list[str]) -> Any:
        self.orders.append(list(ids))
        return self.rows(ids), labels()[[row_of(each) for each in ids]]


class Collaborator(Rows, CollaboratorScheduler):
    """Has features only; follows the host's batches."""

    def __init__(self, feature_key: str = "c1", *, party: int = 1, **kwargs: Any) -> None:
        super().__init__(feature_key, **kwargs)
        self.party = party

    def load_batch(self, ids: list[str]) -> Any:
        return self.rows(ids)


def unsplit(host: BareHost, parties: int) -> tuple[list[nn.Module], nn.Module]:
    """Train the same network in one piece on the batches that a finished host has had, and return its parts.

    The batches of tests are left out: they are those of ids that were never trained on.
    """
    dtype = host.dtype
    bottoms = [bottom(party, dtype) for party in range(parties)]
    head = top(parties, dtype)
    optimizers: list[Optimizer] = [SGD(each.parameters(), lr=0.1, momentum=0.9) for each in bottoms]
    optimizers.append(SGD(head.parameters(), lr=0.1))
    trained = set(host.train_ids)
    for ids in host.orders:
        if ids[0] not in trained:
            continue
        rows = [row_of(each) for each in ids]
        for optimizer in optimizers:
            optimizer.zero_grad()
        fused = torch.cat([each(table(party, dtype)[rows]) for party, each in enumerate(bottoms)], dim=1)
        F.cross_entropy(head(fused), labels()[rows]).backward()
        for optimizer in optimizers:
            optimizer.step()
    return bottoms, head


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    """Whether two models have equal parameters and buffers, bit for bit."""
    mine, theirs = left.state_dict(), right.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)

"""The task of the kill matrix: small, and with all that makes a resumed run hard to get right.

It has dropout, momentum, schedules that step with every batch, shuffled batches, tables that fill batch by batch, tests
and ids that not all parties have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

from heterofed import register_metrics
from heterofed.training.hooks import HookBase
from tests.chaos.endless import EndlessCollaborator, EndlessHost, arguments_of
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import PEOPLE, Collaborator, Host, person, top

COLLABORATORS = ("c1", "c2")
PARTIES = ("host", *COLLABORATORS)

ROUNDS = 3
BATCH_SIZE = 5
BATCHES = 9
"""Of a round: 51 shared ids, 41 of them to train on."""

KEEP_EVERY = 3
"""Batches between two checkpoints."""


def with_chance(model: nn.Module) -> nn.Module:
    """Return the model with dropout behind it."""
    return nn.Sequential(model, nn.Dropout(0.2))


class Counting(HookBase):
    """Counts this process' batches of training; fills a table with them."""

    def __init__(self, add_row: Callable[[int], None]) -> None:
        self.done = 0
        self._add_row = add_row

    def after_step(self) -> None:
        self.done += 1
        self._add_row(self.trainer.iter)


class Counted:
    """Counts."""

    counting: Counting

    def build_hooks(self) -> list[HookBase]:
        self.counting = Counting(self.seen)
        return [*super().build_hooks(), self.counting]  # type: ignore[misc]  # of the class it is mixed into

    def seen(self, batch: int) -> None:
        """Note a batch of training."""


class AnyParty(Counted):
    """What all parties of the task have."""

    party: int

    def load_local_ids(self) -> list[str]:
        """Return the ids of this party: some are its own alone, and some only it lacks."""
        torch.rand(3)  # what is drawn before training must not change what comes then
        own = [f"{person(row)}-of-{self.party}" for row in range(5)]
        return [person(row) for row in range(PEOPLE) if row % 20 != self.party] + own

    def make_feature_model(self) -> nn.Module:
        return with_chance(super().make_feature_model())  # type: ignore[misc]  # of the class it is mixed into

    def make_schedule(self, optimizer: Optimizer) -> StepLR:
        return StepLR(optimizer, 4, 0.9)

    schedule_every: Literal["batch", "round"] = "batch"


class HostParts(AnyParty):
    """What the hosts of both variants have besides."""

    def make_infer_model(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.1), top(len(PARTIES)))

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        return Adam(infer_model.parameters(), lr=0.01)

    @register_metrics(name="batches", keys=["batch", "round", "loss"])
    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        me: Any = self
        loss = super().train_a_batch(feature_projection, labels)  # type: ignore[misc]  # of the class it is mixed into
        row = {"batch": me.trainer.iter, "round": me.current_round, "loss": loss}
        me.get_metrics("batches").append_metrics_item(row)
        return loss


class CollaboratorParts(AnyParty):
    """What the collaborators of both variants have besides."""

    @register_metrics(name="seen", keys=["batch", "draw"])
    def seen(self, batch: int) -> None:
        me: Any = self
        me.get_metrics("seen").append_metrics_item({"batch": batch, "draw": float(np.random.random())})


class PlanHost(HostParts, Host):
    """Follows the framework's batches."""


class PlanCollaborator(CollaboratorParts, Collaborator):
    """Follows the framework's batches."""


class OwnBatchesHost(HostParts, OwnHost):
    """Chooses its batches itself."""


class OwnBatchesCollaborator(CollaboratorParts, OwnCollaborator):
    """Chooses its batches itself."""


class NoisyCollaborator(PlanCollaborator):
    """Blurs its rows whenever it loads them, as augmentation does."""

    def load_batch(self, ids: list[str]) -> Any:
        rows = super().load_batch(ids)
        return rows + 0.1 * torch.randn_like(rows)


class CountedEndlessHost(Counted, EndlessHost):
    """Trains until its time is over."""


class CountedEndlessCollaborator(Counted, EndlessCollaborator):
    """Takes part as long as the host wants."""


VARIANTS: dict[str, tuple[type[Any], type[Any]]] = {
    "plan": (PlanHost, PlanCollaborator),
    "own": (OwnBatchesHost, OwnBatchesCollaborator),
    "noisy": (PlanHost, NoisyCollaborator),
    "endless": (CountedEndlessHost, CountedEndlessCollaborator),
}


def make_party(role: str, folder: Path, variant: str, seconds: float = 0.0, rejoin_timeout: float = 120.0) -> Any:
    """Return the scheduler of a party; seconds: how long an endless task goes on."""
    host, collaborator = VARIANTS[variant]
    if variant == "endless":
        arguments = arguments_of(role, folder, len(PARTIES))
    else:
        arguments = {"out_dir": folder / role, "rejoin_timeout": rejoin_timeout}
        if role == "host":
            arguments |= {"parties": len(PARTIES), "max_rounds": ROUNDS, "batch_size": BATCH_SIZE}
        if variant == "own":
            arguments["size"] = BATCH_SIZE
        elif role == "host":
            arguments["checkpoint_every"] = KEEP_EVERY
    if role != "host":
        return collaborator(role, party=COLLABORATORS.index(role) + 1, **arguments)
    made = host(role, **arguments)
    made.ends_at = time.time() + seconds
    return made

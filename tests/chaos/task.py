"""The task of the kill matrix: small, and with all that makes a resumed run hard to get right.

It has dropout, momentum, schedules that step with every batch, shuffled batches, tables that fill batch by batch, tests
and ids that not all parties have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

from heterofed import register_metrics
from heterofed.training.hooks import EarlyStopper, HookBase
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


class StoppingHost(PlanHost):
    """Has a hook that ends the training once the tests get no better."""

    def build_hooks(self) -> list[HookBase]:
        hooks = super().build_hooks()
        after_test = next(at for at, each in enumerate(hooks) if each.name == "RoundTest") + 1
        return [*hooks[:after_test], EarlyStopper("scores/loss", PATIENCE), *hooks[after_test:]]


class TurnsHost(PlanHost):
    """Lets other parties learn in each round."""

    def trainable_parties(self) -> Collection[str] | None:
        return TURNS[self.trainer.current_round - 1]


class OpenHost(PlanHost):
    """Knows by its own tables when it is enough."""

    def is_task_finished(self) -> bool:
        return len(self.get_metrics("scores")) >= ROUNDS


class CountedEndlessHost(Counted, EndlessHost):
    """Trains until its time is over."""


class CountedEndlessCollaborator(Counted, EndlessCollaborator):
    """Takes part as long as the host wants."""


PATIENCE = 2
"""The tests of the task get worse from the first one on: this ends the training after `ROUNDS` too."""

TURNS = (("c1", "c2"), ("host", "c1"), ("c2", "host"))
"""Who learns in each round."""

LASTS_S = 0.02
"""Between two checkpoints by time: a few batches."""


@dataclass(frozen=True)
class Variant:
    """A way to set up the task; each trains every batch of `ROUNDS`."""

    host: type[Any]
    collaborator: type[Any]
    at_host: Mapping[str, Any]
    """Arguments of its constructor besides those of all variants."""

    at_collaborators: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    """Whose feature models stay as they are."""


FIXED: Mapping[str, Any] = {"max_rounds": ROUNDS, "checkpoint_every": KEEP_EVERY}
OWN: Mapping[str, Any] = {"size": BATCH_SIZE}

AHEAD: Mapping[str, Any] = {"max_staleness": 2}
ROUNDED: Mapping[str, Any] = {"embedding_precision": "int8", "gradient_precision": "bfloat16"}
LARGEST_ONLY: Mapping[str, Any] = {"embedding_precision": "topk:0.5", "gradient_precision": "topk:0.5"}

VARIANTS: dict[str, Variant] = {
    "plan": Variant(PlanHost, PlanCollaborator, FIXED),
    "own": Variant(OwnBatchesHost, OwnBatchesCollaborator, {"max_rounds": ROUNDS, **OWN}, OWN),
    "noisy": Variant(PlanHost, NoisyCollaborator, FIXED),
    "early stopper": Variant(StoppingHost, PlanCollaborator, {**FIXED, "max_rounds": 2 * ROUNDS}),
    "best of rounds": Variant(PlanHost, PlanCollaborator, {**FIXED, "best_metric": "scores/loss"}),
    "last is best": Variant(PlanHost, PlanCollaborator, {**FIXED, "best_metric": "scores/loss", "best_mode": "max"}),
    "turns": Variant(TurnsHost, PlanCollaborator, FIXED),
    "c1 frozen": Variant(PlanHost, PlanCollaborator, FIXED, frozen=("c1",)),
    "by time": Variant(PlanHost, PlanCollaborator, {"max_rounds": ROUNDS, "checkpoint_every_s": LASTS_S}),
    "open end": Variant(OpenHost, PlanCollaborator, {"max_rounds": None, "checkpoint_every": KEEP_EVERY}),
    "batches ahead": Variant(PlanHost, PlanCollaborator, {**FIXED, **AHEAD}),
    "batches together": Variant(PlanHost, NoisyCollaborator, {**FIXED, **AHEAD, "batches_per_message": 2}),
    "several steps": Variant(PlanHost, PlanCollaborator, {**FIXED, "local_steps": 3}),
    "rounded": Variant(PlanHost, PlanCollaborator, {**FIXED, **ROUNDED}),
    "largest only": Variant(PlanHost, PlanCollaborator, {**FIXED, **LARGEST_ONLY}),
}


def make_party(role: str, folder: Path, variant: str, **more: Any) -> Any:
    """Return the scheduler of a party; more: arguments of its constructor."""
    chosen = VARIANTS[variant]
    arguments = {"out_dir": folder / role, "is_feature_trainable": role not in chosen.frozen, **more}
    if role == "host":
        return chosen.host(role, parties=len(PARTIES), batch_size=BATCH_SIZE, **chosen.at_host, **arguments)
    number = COLLABORATORS.index(role) + 1
    return chosen.collaborator(role, party=number, **chosen.at_collaborators, **arguments)


def make_endless_party(role: str, folder: Path, seconds: float) -> Any:
    """Return the scheduler of a party of the task that goes on for so long."""
    arguments = arguments_of(role, folder, len(PARTIES))
    if role != "host":
        return CountedEndlessCollaborator(role, party=COLLABORATORS.index(role) + 1, **arguments)
    made = CountedEndlessHost(role, **arguments)
    made.ends_at = time.time() + seconds
    return made

"""Runs of the tiny task in which one party has several processes, each beside the same run of single processes.

`RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python replica_runs.py FOLDER`, in each process. Each writes what it
saw to FOLDER/seen_RANK.json. The parties are threads of the first process, all but the shared one;
the other processes compute with that one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from heterofed import ConfigError, HeterofedError, Settings, run_locally
from heterofed.features.alignment import OrderedIds
from heterofed.features.batches import RoundOrder
from heterofed.scheduler.replicas import processes
from heterofed.scheduler.replicas.following import Follower
from heterofed.scheduler.replicas.sharing import Leader
from heterofed.scheduler.replicas.sharing_words import End
from heterofed.training.context import Context
from heterofed.training.replicas import is_shared, share_of
from heterofed.training.team import Team
from heterofed.training.triggers import TRIGGER
from tests.own_batches import OwnCollaborator
from tests.tiny import Collaborator, Host, bottom

LIMIT = timedelta(seconds=30)
HERE = Settings(progress="off", psi_protocol="ecdh")
Parties = tuple[Any, Any]
"""Host and collaborator."""


def parties(host: dict[str, Any] | None = None, other: dict[str, Any] | None = None) -> Parties:
    """Return the parties of the tiny task, whose last batch is too small to be shared."""
    return make(Host, Collaborator, host, other)


def make(
    host_class: Any, class_: Any, host: dict[str, Any] | None = None, other: dict[str, Any] | None = None
) -> Parties:
    folder = Path(tempfile.mkdtemp())
    return (
        host_class(**{"batch_size": 15, "settings": HERE, "out_dir": folder / "h", **(host or {})}),
        class_(**{"settings": HERE, "out_dir": folder / "c", **(other or {})}),
    )


# --- parties that do something out of the ordinary --------------------------------------------------------------------


class Apart(nn.Module):
    """Treats a training batch as so many shares, as processes do; the first share alone moves its buffers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shares = 1

    def forward(self, rows: Tensor) -> Any:
        if self.shares == 1 or not self.training or not is_shared(len(rows), self.shares):
            return self.inner(rows)
        first = self.inner(rows[share_of(len(rows), 0, self.shares)])
        kept = [each.clone() for each in self.inner.buffers()]
        rest = [self.inner(rows[share_of(len(rows), rank, self.shares)]) for rank in range(1, self.shares)]
        for buffer, before in zip(self.inner.buffers(), kept, strict=True):
            buffer.data.copy_(before)
        return torch.cat([first, *rest])


class Lazy(nn.Module):
    """Has a layer that is never used, and one that some batches use, or some shares of them."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.main, self.never, self.sometimes = bottom(1), nn.Linear(3, 4), nn.Linear(3, 4)
        self.by = by
        self.calls = 0
        with torch.no_grad():
            for number, each in enumerate([*self.never.parameters(), *self.sometimes.parameters()]):
                each.fill_(0.1 * (number + 1))

    def forward(self, rows: Tensor) -> Any:
        self.calls += self.training
        used = {"nothing": False, "batch": self.calls % 2 > 0, "rows": not self.training or float(rows[0, 0]) > 0}[
            self.by
        ]
        return self.main(rows) + self.sometimes(rows) if used else self.main(rows)


class LazyCollaborator(Collaborator):
    """Its optimizer would move even a parameter whose gradient is 0."""

    by = "nothing"

    def make_feature_model(self) -> nn.Module:
        return Lazy(self.by)

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        return SGD(feature_model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


class ByBatch(LazyCollaborator):
    by = "batch"


class ByRows(LazyCollaborator):
    by = "rows"

    def make_feature_model(self) -> nn.Module:
        return Apart(super().make_feature_model())


class Scheduled(Collaborator):
    """Its learning rate falls with every batch; its optimizer is Adam."""

    schedule_every = "batch"

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        return Adam(feature_model.parameters(), lr=0.01)

    def make_schedule(self, optimizer: Optimizer) -> LRScheduler | None:
        return StepLR(optimizer, 2, 0.5)


class Thawing(Collaborator):
    """Half of its model does not learn at first."""

    def make_feature_model(self) -> nn.Module:
        model = bottom(1)
        model[0].requires_grad_(False)  # type: ignore[index]  # a Sequential
        return model

    def make_feature_optimizer(self, feature_model: nn.Module) -> Optimizer:
        return SGD(feature_model.parameters(), lr=0.1)


class Normalised(Collaborator):
    """Has batch normalisation, so its test depends on buffers."""

    def make_feature_model(self) -> nn.Module:
        return Apart(nn.Sequential(bottom(1), nn.BatchNorm1d(4)))


class TurnsOnly(Host):
    """Only one party moves in each round."""

    def trainable_parties(self) -> list[str]:
        return ["c1"] if self.current_round % 2 else ["host"]


class Clipping(Host):
    """Clips gradients, and adds up those of two batches, in its own code."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        out = self.infer_model(torch.cat(list(feature_projection.values()), dim=1))
        loss = nn.functional.cross_entropy(out, labels) + sum(p.square().sum() for p in self.feature_model.parameters())
        loss.backward()
        self.losses.append(loss.item())
        if len(self.losses) % 2 == 0:
            nn.utils.clip_grad_norm_(self.feature_model.parameters(), 0.5)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss


class LeavingOut(Host):
    """Does not use its own embedding in every other batch."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        if len(self.losses) % 2:
            feature_projection = {
                key: each.detach() if key == "host" else each for key, each in feature_projection.items()
            }
        return super().train_a_batch(feature_projection, labels)


def clipped(made: Parties) -> Parties:
    """Clip the gradients of the collaborator in a hook."""

    def clip(ctx: Context) -> None:
        nn.utils.clip_grad_norm_(made[1].feature_model.parameters(), 0.01)

    made[1].trainer.register_hook_in_train(clip, TRIGGER.ON_OPTIMIZER_STEP)
    return made


def thawed(made: Parties) -> Parties:
    """Let all of the collaborator's model learn from the middle of the second round on."""

    def thaw(ctx: Context) -> None:
        if made[1].current_round == 2 and ctx.cur_batch_i == 1:
            made[1].feature_model.requires_grad_(True)

    made[1].trainer.register_hook_in_train(thaw, TRIGGER.ON_BATCH_START)
    return made


RUNS: dict[str, tuple[str, Callable[[], Parties]]] = {
    "a collaborator": ("c1", parties),
    "a host": ("host", parties),
    "a batch that all share": ("c1", lambda: parties({"batch_size": 16})),
    "batches ahead of the weights": ("c1", lambda: parties({"max_staleness": 2})),
    "batches together": ("c1", lambda: parties({"max_staleness": 3, "batches_per_message": 2, "batch_size": 6})),
    "local steps at a collaborator": ("c1", lambda: parties({"local_steps": 3})),
    "local steps at a host": ("host", lambda: parties({"local_steps": 3})),
    "local steps ahead of the weights": (
        "c1",
        lambda: parties({"local_steps": 2, "max_staleness": 2, "batch_size": 6}),
    ),
    "a layer that is never used": ("c1", lambda: make(Host, LazyCollaborator)),
    "a layer that is used in some batches": ("c1", lambda: make(Host, ByBatch)),
    "a layer that is used in some shares": ("c1", lambda: make(Host, ByRows)),
    "batch normalisation": ("c1", lambda: make(Host, Normalised)),
    "batch normalisation ahead of the weights": ("c1", lambda: make(Host, Normalised, {"max_staleness": 1})),
    "mixed precision": ("c1", lambda: parties(None, {"mixed_precision": "bfloat16"})),
    "mixed precision at the host": ("host", lambda: parties({"mixed_precision": "bfloat16"})),
    "a schedule": ("c1", lambda: make(Host, Scheduled)),
    "gradients clipped by a hook": ("c1", lambda: clipped(parties())),
    "gradients clipped and added up by train_a_batch": ("host", lambda: make(Clipping, Collaborator)),
    "an embedding that is not always used": ("host", lambda: make(LeavingOut, Collaborator)),
    "a model that thaws": ("c1", lambda: thawed(make(Host, Thawing))),
    "a frozen model": ("c1", lambda: parties(None, {"is_feature_trainable": False})),
    "a frozen model at the host": ("host", lambda: parties({"is_feature_trainable": False})),
    "rounds of one party": ("c1", lambda: make(TurnsOnly, Collaborator, {"max_rounds": 4})),
    "rounds of the other party": ("host", lambda: make(TurnsOnly, Collaborator, {"max_rounds": 4})),
}
"""Name -> (the party that is shared, what makes the parties)."""


# --- processes that fail ----------------------------------------------------------------------------------------------


def first() -> bool:
    """Whether this is the first process."""
    return dist.get_rank() == 0


class LoadsBadly(Collaborator):
    """Another process than the first cannot read its rows in the second round."""

    def load_batch(self, ids: list[str]) -> Any:
        if not first() and self.current_round == 2 and ids[0] not in self.test_ids:
            raise KeyError("secret-person")
        return super().load_batch(ids)


class LoadsNothing(Collaborator):
    """Another process cannot read the rows of its first batch."""

    good = 0

    def load_batch(self, ids: list[str]) -> Any:
        self.good -= 1
        if not first() and self.good < 0:
            raise KeyError("secret-person")
        return super().load_batch(ids)


class LoadsOne(LoadsNothing):
    good = 1


class OtherModel(Collaborator):
    """Another process has another model."""

    def make_feature_model(self) -> nn.Module:
        return bottom(1) if first() else nn.Linear(3, 4)


class OtherForm(Collaborator):
    """Another process has a model that gives other numbers."""

    def make_feature_model(self) -> nn.Module:
        model = bottom(1)
        if not first():
            model.register_forward_hook(lambda module, inputs, output: output.double())
        return model


class Raises(Collaborator):
    """The model of another process raises."""

    def make_feature_model(self) -> nn.Module:
        def fail(module: nn.Module, inputs: Any) -> None:
            raise KeyError("secret-person")

        model = bottom(1)
        if not first():
            model.register_forward_pre_hook(fail)
        return model


class Invalid(Collaborator):
    """Another process cannot take part."""

    def validate_context(self) -> None:
        super().validate_context()
        if not first():
            raise ConfigError("there is no table here", advice="Bring one.")


class Slow(Collaborator):
    """Another process takes its time."""

    def load_batch(self, ids: list[str]) -> Any:
        if not first():
            time.sleep(3)
        return super().load_batch(ids)


class Twice(Host):
    """Differentiates its own embedding twice."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        feature_projection["host"].sum().backward(retain_graph=True)
        feature_projection["host"].sum().backward()


class StepsEarly(Host):
    """Steps in the middle of its backward pass."""

    def make_feature_model(self) -> nn.Module:
        model = super().make_feature_model()
        model[2].bias.register_post_accumulate_grad_hook(lambda bias: self.optimizer.step())  # type: ignore[index]
        return model


class Stops(Host):
    """Fails in its tenth batch."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        if len(self.losses) == 9:
            raise KeyError("enough")
        return super().train_a_batch(feature_projection, labels)


FAILURES: dict[str, tuple[str, Callable[[], Parties]]] = {
    "rows that cannot be read": ("c1", lambda: make(Host, LoadsBadly)),
    "rows that cannot be read at first": ("c1", lambda: make(Host, LoadsNothing)),
    "rows that cannot be read in the second batch": ("c1", lambda: make(Host, LoadsOne)),
    "another model": ("c1", lambda: make(Host, OtherModel)),
    "another form": ("c1", lambda: make(Host, OtherForm)),
    "a model that raises": ("c1", lambda: make(Host, Raises)),
    "a check that fails": ("c1", lambda: make(Host, Invalid)),
    "two backward passes": ("host", lambda: make(Twice, Collaborator)),
    "a step within backward": ("host", lambda: make(StepsEarly, Collaborator, {"calculation_timeout": 3})),
    "another process that is slow": ("c1", lambda: make(Host, Slow, {"calculation_timeout": 1})),
}


# --- doing it ---------------------------------------------------------------------------------------------------------


def state_of(made: Parties) -> dict[str, Tensor]:
    """Return all weights of the parties."""
    models = {"host": made[0].feature_model, "infer": made[0].infer_model, "c1": made[1].feature_model}
    return {f"{name}.{key}": each for name, model in models.items() for key, each in model.state_dict().items()}


def shared_run(which: str, made: Parties, team: Team, run: Callable[[], Any]) -> None:
    """Run the task with one of its parties on all processes; in the others follow it."""
    party = made[0] if which == "host" else made[1]
    if team.rank:
        follower = Follower(party, team)
        party._replicas = follower
        follower.start("tiny")
        follower.obey()
        if follower.failure is not None:
            raise follower.failure
        return
    leader = Leader(party, team)
    try:
        leader.meet("tiny", LIMIT)
        party._replicas = leader
        run()
    except BaseException:
        team.say_at_last(End(False), timedelta(seconds=1))
        raise
    leader.part(End(True, leader.has_begun))


def compare(name: str, team: Team) -> dict[str, Any]:
    """Run a scenario on all processes and on one; return how far the two are apart."""
    which, prepare = {**RUNS, **FAILURES}[name]
    made = prepare()
    shared_run(which, made, team, lambda: run_locally(*made, seed=3))
    alone = prepare()
    for each in alone:
        each.feature_model.shares = team.size
    return difference(made, alone, state_of(prepare())) if team.rank == 0 else {}


def difference(made: Parties, alone: Parties, start: dict[str, Tensor]) -> dict[str, Any]:
    """Run one of two pairs of parties in single processes; return how far it is from the other, which has run."""
    run_locally(*alone, seed=3)
    ours, theirs = state_of(made), state_of(alone)
    return {
        "apart": max(float((ours[key] - each).abs().max()) for key, each in theirs.items()),
        "moved": {
            party: [float((each - start[key]).abs().max()) for key, each in theirs.items() if key.startswith(party)]
            for party in ("host", "c1")
        },
        "scores": [each[0].get_metrics("scores").rows() for each in (made, alone)],
    }


def resumed(name: str, team: Team) -> dict[str, Any]:
    """Let a run fail in the middle of its second round, and go on from there."""
    folder = Path(tempfile.mkdtemp())
    host = {"checkpoint_every": 2, "batch_size": 9, "out_dir": folder / "h"}
    other = {"out_dir": folder / "c"}
    cut = make(Stops, Collaborator, host, other)
    with suppress(HeterofedError):
        shared_run("c1", cut, team, lambda: run_locally(*cut, seed=3))
    made = make(Host, Collaborator, host, other)
    again = Team.join(0)
    shared_run("c1", made, again or team, lambda: run_locally(*made, seed=3, recover=True))
    if team.rank:
        return {}
    alone = parties({"batch_size": 9})
    orders = len(made[0].orders)
    return {**difference(made, alone, state_of(parties())), "batches": orders, "batches_alone": len(alone[0].orders)}


def cut_off(name: str, team: Team) -> dict[str, Any]:
    """Begin another pass in the middle of one, as a party does when another one was started again."""
    _, party = parties()
    ids = party.load_local_ids()
    seen: dict[str, Any] = {}
    if team.rank:
        follower = Follower(party, team)
        party._replicas = follower
        follower.start("tiny")
        follower.obey()
        return {"ids": [len(each) for each in (party.id_intersection, party.train_ids, party.test_ids)]}
    party._intersection, party._id_split = OrderedIds(ids), (ids[:40], ids[40:])
    leader = Leader(party, team)
    leader.meet("tiny", LIMIT)
    party._replicas = leader
    order = RoundOrder(party.train_ids, 16, b"key")
    model, rows = party.feature_model, party.rows(order.ids)
    for _ in range(3):
        batches = party._pass_over(order, train=True, with_labels=False).pending()
        next(batches)()
        next(batches)()
    with torch.no_grad():
        whole = party._pass_over(order, train=False, with_labels=False, first=1)
        made = torch.cat([each.embedding for each in whole])
        seen["apart"] = float((made - model(rows[16:])).abs().max())
        model[0].weight.zero_()
        embedding = next(party._pass_over(order, train=True, with_labels=False).pending())().embedding
        seen["apart_when_weights_moved"] = float((embedding - model(rows[:16])).abs().max())
    leader.part(End(True, leader.has_begun))
    return seen


def own_batches(name: str, team: Team) -> dict[str, Any]:
    """Launch a party that chooses its own batches."""
    processes.PARTING = timedelta(seconds=0.5)
    OwnCollaborator(settings=HERE).launch_task("no task is asked for")
    return {}


def other_parties(name: str, team: Team) -> dict[str, Any]:
    """Launch one party in the first process and another one in the second."""
    processes.PARTING = timedelta(seconds=0.5)
    parties()[team.rank].launch_task("some task")
    return {}


OTHERS: dict[str, Callable[[str, Team], dict[str, Any]]] = {
    "resumed": resumed,
    "cut off": cut_off,
    "batches of its own": own_batches,
    "other parties": other_parties,
}


def main() -> None:
    """Do all that is named, or all there is."""
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    dist.init_process_group("gloo", timeout=LIMIT)
    seen = {}
    for name in names or [*OTHERS, *RUNS, *FAILURES]:
        team = Team.join(0)
        if team is None:
            raise SystemExit("start more than one process")
        do = OTHERS.get(name, compare)
        try:
            seen[name] = do(name, team)
        except HeterofedError as error:
            seen[name] = {"error": f"{type(error).__name__}: {error}", "for_peers": error.for_peers()}
    (Path(folder) / f"seen_{dist.get_rank()}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

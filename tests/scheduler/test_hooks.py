"""A federated round runs through a trainer: a user's hook sees, at either role, what happens to every batch."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import StepLR

from heterofed import ConfigError, HeterofedError, Settings, TaskAborted, TemplateError, run_locally
from heterofed.metrics.storage import EventStorage
from heterofed.metrics.writers import EventWriter
from heterofed.training.hooks import (
    BestCheckpointer,
    CallbackHook,
    EarlyStopper,
    EvalHook,
    GradientClipper,
    HookBase,
    LRScheduler,
    NaNGuard,
)
from heterofed.training.registries import register_trainer
from heterofed.training.triggers import ALL_TRIGGERS, RUN_TRIGGERS
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import WIDTH, Collaborator, Host, bottom, labels, row_of, same_bits, table, top, unsplit

Party = Host | Collaborator | OwnHost | OwnCollaborator

TRAIN_IDS, TEST_IDS = 48, 12
BATCHES = 3
"""Of 16 rows in each round; a test has one batch."""


pytestmark = pytest.mark.usefixtures("quick_and_exact")


def two(**of_host: Any) -> tuple[Host, Collaborator]:
    return Host(**of_host), Collaborator()


def ends_of(host: Any, *others: Any) -> dict[str, BaseException]:
    """Run a task that fails and return each party's error."""
    ends: dict[str, BaseException] = {}
    for each in (host, *others):
        each.take_part = partial(noting, each.take_part, each.feature_key, ends)
    with pytest.raises(BaseException):  # noqa: B017 - whatever it is: the parties' own errors are looked at
        run_locally(host, *others)
    assert set(ends) == {each.feature_key for each in (host, *others)}, "every party ends"
    return ends


def noting(original: Callable[..., Any], key: str, ends: dict[str, BaseException], *seat: Any, **how: Any) -> Any:
    try:
        return original(*seat, **how)
    except BaseException as error:
        ends[key] = error
        raise


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "metrics.json").read_text().splitlines()]


def noting_in(told: list[Any], what: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook that keeps what a function of ctx gives."""

    def note(ctx: Any) -> None:
        told.append(what(ctx))

    return note


def saying(told: list[str], text: str) -> Callable[[Any], None]:
    """Return a hook that keeps a text."""
    return noting_in(told, lambda ctx: text)


# --- what hooks see ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("collaborators", "transport"), [(1, "memory"), (2, "memory"), (2, "zeromq")])
def test_a_hook_function_sees_every_batch_of_a_federated_run_at_every_party(
    collaborators: int, transport: Literal["memory", "zeromq"]
) -> None:
    host = Host(parties=collaborators + 1)
    others = [Collaborator(f"c{party}", party=party) for party in range(1, collaborators + 1)]
    seen: dict[str, list[tuple[int, int, int]]] = {}
    for party in (host, *others):

        def note(ctx: Any, party: Any = party) -> None:
            batch = (party.current_round, ctx.cur_batch_i, ctx.trainer.iter)
            seen.setdefault(party.feature_key, []).append(batch)

        party.trainer.register_hook_in_train(note, "on_batch_end")

    run_locally(host, *others, transport=transport)

    batches = [(round_ + 1, batch, BATCHES * round_ + batch) for round_ in range(2) for batch in range(BATCHES)]
    assert seen == {party.feature_key: batches for party in (host, *others)}
    assert all(party.trainer.run_ok and party.trainer.round == 2 for party in (host, *others))


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_the_points_of_a_round_come_in_the_documented_order_at_both_roles(
    transport: Literal["memory", "zeromq"],
) -> None:
    seen: dict[str, list[str]] = {"host": [], "c1": []}
    parties = two(max_rounds=1, batch_size=24)
    for party in parties:
        for trigger in ALL_TRIGGERS:
            told = seen[party.feature_key]
            # Gradients are made and applied by the hook that is there already: this one comes before it.
            first = 0 if trigger == "on_batch_backward" else None
            party.trainer.register_hook_in_train(saying(told, trigger), trigger, first)
            if trigger not in RUN_TRIGGERS:
                party.trainer.register_hook_in_eval(saying(told, f"test:{trigger}"), trigger)

    run_locally(*parties, transport=transport)

    forward = ["on_batch_start", "on_batch_forward", "on_batch_exchange", "on_batch_backward"]
    batch = [*forward, "on_optimizer_step", "on_batch_end"]
    test = ["on_fit_start", "on_epoch_start", *forward, "on_batch_end", "on_epoch_end", "on_fit_end"]
    expected = [
        *["before_train", "on_round_start", "on_fit_start", "on_epoch_start"],
        *[*batch, *batch, "on_epoch_end", "on_fit_end"],
        *[f"test:{each}" for each in test],
        *["on_round_end", "after_train"],
    ]
    assert seen == {"host": expected, "c1": expected}


def test_hooks_of_evaluation_see_tests_and_nothing_else() -> None:
    seen: dict[str, set[Any]] = {"host": set(), "c1": set()}
    counts = {"host": 0, "c1": 0}
    parties = two(max_rounds=3, log_rounds=2)
    for party in parties:

        def note(ctx: Any, key: str = party.feature_key) -> None:
            counts[key] += 1
            seen[key].add(
                (
                    *(ctx.cur_mode, ctx.cur_split, ctx.batch_size, ctx.model.training, torch.is_grad_enabled()),
                    *(ctx.embedding.requires_grad, "gradient" in ctx, "loss_batch" in ctx),
                )
            )

        party.trainer.register_hook_in_eval(note, "on_batch_end")

    run_locally(*parties)

    assert counts == {"host": 3, "c1": 3}  # after round 1, round 2 and the last
    expected = {("test", "test", TEST_IDS, False, False, False, False, False)}
    assert seen == {"host": expected, "c1": expected}


def test_the_context_holds_what_the_trainers_promise_at_both_roles() -> None:
    host, *others = Host(parties=3, batch_size=20), Collaborator("c1", party=1), Collaborator("c2", party=2)
    sizes: dict[str, list[int]] = {}
    losses: list[float] = []

    def at_any(ctx: Any, key: str) -> None:
        assert (ctx.cur_mode, ctx.cur_split) == ("train", "train")
        sizes.setdefault(key, []).append(ctx.batch_size)
        assert ctx.embedding.shape == (ctx.batch_size, WIDTH)
        assert ctx.embedding.requires_grad
        done = sizes[key][-(ctx.cur_batch_i + 1) :]
        assert ctx.num_samples == sum(done)

    def at_host(ctx: Any) -> None:
        at_any(ctx, "host")
        assert list(ctx.embeddings) == ["host", "c1", "c2"]
        assert ctx.embeddings["host"] is ctx.embedding
        assert {each.shape for each in ctx.embeddings.values()} == {(ctx.batch_size, WIDTH)}
        assert all(ctx.embeddings[key].is_leaf for key in ("c1", "c2"))
        assert ctx.labels is ctx.y_true
        assert torch.equal(ctx.labels, labels()[[row_of(each) for each in host.orders[train_batches()]]])
        assert ctx.loss_batch.item() == host.losses[-1]
        losses.append(ctx.loss_batch.item() * ctx.batch_size)
        of_round = losses[-(ctx.cur_batch_i + 1) :]
        assert math.isclose(ctx.loss_batch_total, sum(of_round))
        assert math.isclose(ctx.mean_loss, sum(of_round) / ctx.num_samples)

    def train_batches() -> int:
        return len(sizes["host"]) - 1 + (1 if host.current_round == 2 else 0)  # the test of round 1 had a batch

    def at_collaborator(ctx: Any) -> None:
        at_any(ctx, ctx.trainer.party.feature_key)
        assert ctx.gradient.shape == ctx.embedding.shape
        assert ctx.gradient.abs().sum() > 0
        # The host's word comes with a gradient, before the batch's own loss is known.
        assert ctx.mean_loss is None if not ctx.cur_batch_i else 0 < ctx.mean_loss < 5

    host.trainer.register_hook_in_train(at_host, "on_batch_end")
    for each in others:
        each.trainer.register_hook_in_train(at_collaborator, "on_batch_end")

    run_locally(host, *others)

    assert sizes == {key: [20, 20, 8] * 2 for key in ("host", "c1", "c2")}
    assert "embedding" not in host.trainer.ctx
    assert "num_samples" not in host.trainer.ctx


def test_a_test_counts_its_rows_too() -> None:
    rows: dict[str, list[int]] = {"host": [], "c1": []}
    parties = two(batch_size=8)
    for party in parties:
        told = rows[party.feature_key]
        party.trainer.register_hook_in_eval(noting_in(told, lambda ctx: ctx.num_samples), "on_fit_end")

    run_locally(*parties)

    assert rows == {"host": [TEST_IDS] * 2, "c1": [TEST_IDS] * 2}


def test_the_embedding_is_there_from_the_forward_and_the_gradient_from_the_exchange_on() -> None:
    seen: dict[str, list[Any]] = {"host": [], "c1": []}
    parties = two(max_rounds=1, log_rounds=0, batch_size=48)
    for party in parties:

        def note(ctx: Any, key: str = party.feature_key) -> None:
            seen[key].append([each for each in ("embedding", "embeddings", "gradient", "mean_loss") if each in ctx])

        for trigger in ("on_batch_start", "on_batch_forward", "on_batch_exchange", "on_batch_backward", "on_batch_end"):
            party.trainer.register_hook_in_train(note, trigger)

    run_locally(*parties)

    own = ["embedding"]
    assert seen["host"] == [[], own, [*own, "embeddings"], [*own, "embeddings"], [*own, "embeddings", "mean_loss"]]
    assert seen["c1"] == [[], own, [*own, "gradient"], [*own, "gradient"], [*own, "gradient", "mean_loss"]]


def test_gradients_are_there_and_parameters_unchanged_when_the_optimizer_is_about_to_step() -> None:
    changed: dict[str, set[tuple[bool, bool]]] = {"host": set(), "c1": set()}
    before: dict[str, list[Tensor]] = {}
    parties = two(max_rounds=1)
    for party in parties:

        def weights(ctx: Any) -> list[Tensor]:
            return [each.detach().clone() for model in ctx.models for each in model.parameters()]

        def start(ctx: Any, key: str = party.feature_key) -> None:
            before[key] = weights(ctx)

        def step(ctx: Any, key: str = party.feature_key) -> None:
            moved = any(not torch.equal(a, b) for a, b in zip(before[key], weights(ctx), strict=True))
            graded = all(each.grad is not None for model in ctx.models for each in model.parameters())
            changed[key].add((graded, moved))

        party.trainer.register_hook_in_train(start, "on_batch_start")
        party.trainer.register_hook_in_train(step, "on_optimizer_step")

    run_locally(*parties)

    assert changed == {"host": {(True, False)}, "c1": {(True, False)}}


def test_the_collaborators_gradient_is_the_hosts_of_the_same_embedding() -> None:
    sent: list[Tensor] = []
    got: list[Tensor] = []
    host, other = two()
    host.trainer.register_hook_in_train(lambda ctx: sent.append(ctx.embeddings["c1"].grad.clone()), "on_batch_end")
    other.trainer.register_hook_in_train(lambda ctx: got.append(ctx.gradient), "on_batch_end")

    run_locally(host, other)

    assert len(sent) == len(got) == 2 * BATCHES
    assert all(torch.equal(a, b) for a, b in zip(sent, got, strict=True))


# --- hooks that change what happens -----------------------------------------------------------------------------------


def test_a_gradient_clipper_limits_the_joint_norm_of_all_models_of_a_party() -> None:
    norms: dict[str, list[float]] = {"host": [], "c1": []}
    parties, free = two(), two()
    for party in parties:

        def note(ctx: Any, key: str = party.feature_key) -> None:
            grads = [each.grad.norm() for model in ctx.models for each in model.parameters()]
            norms[key].append(torch.stack(grads).norm().item())

        party.trainer.register_hooks([GradientClipper(0.01)])
        party.trainer.register_hook_in_train(note, "on_optimizer_step")

    run_locally(*parties)
    run_locally(*free)

    for mine, other in zip(parties, free, strict=True):
        assert len(norms[mine.feature_key]) == 2 * BATCHES
        assert all(0.0099 < norm < 0.010001 for norm in norms[mine.feature_key])
        assert not same_bits(mine.feature_model, other.feature_model)
        assert mine.storage.history("grad_norm").count == 2 * BATCHES
        assert mine.storage.history("grad_norm").latest() > 0.01


class FedProx(HookBase):
    """Pulls the parameters back to where the round began."""

    mu = 0.5

    def before_round(self) -> None:
        self.anchor = [each.detach().clone() for each in self._parameters()]

    def before_optimizer_step(self) -> None:
        pull(self._parameters(), self.anchor, self.mu)

    def _parameters(self) -> list[Tensor]:
        return [each for model in self.trainer.models.values() for each in model.parameters()]


def pull(parameters: list[Tensor], anchor: list[Tensor], mu: float) -> None:
    for each, start in zip(parameters, anchor, strict=True):
        assert each.grad is not None
        each.grad.add_(mu * (each.detach() - start))


def oracle(
    host: Host,
    *,
    begin: Callable[[list[Optimizer]], None] = lambda optimizers: None,
    before_round: Callable[[list[nn.Module]], None] = lambda models: None,
    before_step: Callable[[list[nn.Module]], None] = lambda models: None,
    after_batch: Callable[[], None] = lambda: None,
    after_round: Callable[[], None] = lambda: None,
) -> list[nn.Module]:
    """Train the network of two parties unsplit, on a finished host's batches; return host's, c1's and the top."""
    models: list[nn.Module] = [bottom(0), bottom(1), top(2)]
    optimizers: list[Optimizer] = [SGD(each.parameters(), lr=0.1, momentum=0.9) for each in models[:2]]
    optimizers.append(SGD(models[2].parameters(), lr=0.1))
    begin(optimizers)
    trained = set(host.train_ids)
    for number, ids in enumerate(each for each in host.orders if each[0] in trained):
        rows = [row_of(each) for each in ids]
        if number % BATCHES == 0:
            before_round(models)
        for optimizer in optimizers:
            optimizer.zero_grad()
        fused = torch.cat([models[party](table(party)[rows]) for party in range(2)], dim=1)
        F.cross_entropy(models[2](fused), labels()[rows]).backward()
        before_step(models)
        for optimizer in optimizers:
            optimizer.step()
        after_batch()
        if number % BATCHES == BATCHES - 1:
            after_round()
    return models


def assert_same(host: Host, other: Collaborator, models: list[nn.Module]) -> None:
    for mine, expected in zip((host.feature_model, other.feature_model, host.infer_model), models, strict=True):
        assert same_bits(mine, expected)


def test_fedprox_as_a_hook_object_equals_the_unsplit_network_with_the_same_term() -> None:
    host, other = two(max_rounds=3)
    for party in (host, other):
        party.trainer.register_hooks([FedProx()])

    run_locally(host, other)

    anchor: list[Tensor] = []

    def parameters(models: list[nn.Module]) -> list[Tensor]:
        return [each for model in models for each in model.parameters()]

    def keep(models: list[nn.Module]) -> None:
        anchor[:] = [each.detach().clone() for each in parameters(models)]

    models = oracle(host, before_round=keep, before_step=lambda models: pull(parameters(models), anchor, FedProx.mu))
    assert_same(host, other, models)
    assert not same_bits(models[1], oracle(host)[1])


class ScheduledHost(Host):
    every: ClassVar[str] = "batch"

    def build_hooks(self) -> list[HookBase]:
        return scheduled(super().build_hooks(), self.every)


class ScheduledCollaborator(Collaborator):
    every: ClassVar[str] = "batch"

    def build_hooks(self) -> list[HookBase]:
        return scheduled(super().build_hooks(), self.every)


def schedule(optimizer: Optimizer) -> StepLR:
    return StepLR(optimizer, 2, gamma=0.5)


def scheduled(hooks: list[HookBase], every: str) -> list[HookBase]:
    return [LRScheduler(schedule, every=every) if isinstance(each, LRScheduler) else each for each in hooks]


@pytest.mark.parametrize("every", ["batch", "round"])
def test_schedules_at_both_parties_equal_the_unsplit_network_with_the_same_schedules(
    every: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScheduledHost, "every", every)
    monkeypatch.setattr(ScheduledCollaborator, "every", every)
    host, other = ScheduledHost(max_rounds=4), ScheduledCollaborator()

    run_locally(host, other)

    made: list[StepLR] = []

    def begin(optimizers: list[Optimizer]) -> None:
        made.extend(schedule(each) for each in optimizers)

    def step() -> None:
        for each in made:
            each.step()

    nothing = lambda: None  # noqa: E731 - as short as what it does
    by_batch, by_round = (step, nothing) if every == "batch" else (nothing, step)
    models = oracle(host, begin=begin, after_batch=by_batch, after_round=by_round)
    assert_same(host, other, models)
    rate = 0.1 * 0.5 ** ((4 * BATCHES if every == "batch" else 4) // 2)
    assert other.feature_optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert [made[0].get_last_lr()[0]] == [group["lr"] for group in host.feature_optimizer.param_groups]
    assert not same_bits(models[0], oracle(host)[0])


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_with_all_hooks_that_only_look_a_run_has_the_bits_of_the_unsplit_network(
    transport: Literal["memory", "zeromq"], tmp_path: Path
) -> None:
    host = Host(parties=3, max_rounds=3, best_metric="scores/accuracy", out_dir=tmp_path / "h")
    others = [Collaborator(f"c{party}", party=party, out_dir=tmp_path / f"c{party}") for party in (1, 2)]
    for party in (host, *others):
        party.trainer.register_hooks([GradientClipper(math.inf), NaNGuard(parameters=True)])
    host.trainer.register_hooks([EarlyStopper("round/loss", 50)])

    run_locally(host, *others, transport=transport)

    bottoms, head = unsplit(host, 3)
    assert same_bits(host.infer_model, head)
    for scheduler, expected in zip([host, *others], bottoms, strict=True):
        assert same_bits(scheduler.feature_model, expected)


# --- ending early, and the best ---------------------------------------------------------------------------------------


class Told(Host):
    """Its test reports numbers that are given to it, round by round."""

    accuracies: ClassVar[list[float]] = [0.1, 0.5, 0.3, 0.2]

    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        row = {"loss": 1.0, "accuracy": self.accuracies[self.current_round - 1]}
        self.get_metrics("scores").append_metrics_item(row)


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_an_early_stopper_at_the_host_ends_the_training_of_all_parties(transport: Literal["memory", "zeromq"]) -> None:
    host, *others = Told(parties=3, max_rounds=20), Collaborator("c1", party=1), Collaborator("c2", party=2)
    host.trainer.register_hooks([EarlyStopper("scores/accuracy", 2, larger_is_better=True)])

    run = run_locally(host, *others, transport=transport)

    assert {key: each.rounds for key, each in run.parties.items()} == {"host": 4, "c1": 4, "c2": 4}
    assert all(each.trainer.run_ok for each in (host, *others))
    assert [row[1] for row in host.get_metrics("scores").rows()] == Told.accuracies


def test_the_round_in_which_a_hook_ends_the_training_is_tested() -> None:
    host, other = Told(max_rounds=20, log_rounds=15), Collaborator()
    host.trainer.register_hook_in_train(
        lambda ctx: ctx.trainer.stop("enough") if ctx.trainer.current_round == 3 else None, "on_round_end"
    )

    run = run_locally(host, other)

    assert run.host.rounds == 3
    assert [row[1] for row in host.get_metrics("scores").rows()] == [0.1, 0.3]


def test_the_best_round_is_the_same_at_every_party_when_a_hook_ends_the_training(tmp_path: Path) -> None:
    """The test that comes because the training ends may be the best one."""
    host = Told(max_rounds=20, log_rounds=15, best_metric="scores/accuracy", out_dir=tmp_path / "h")
    other = Collaborator(out_dir=tmp_path / "c")
    host.trainer.register_hook_in_train(
        lambda ctx: ctx.trainer.stop("enough") if ctx.trainer.current_round == 3 else None, "on_round_end"
    )

    run_locally(host, other)

    assert [best_iteration(tmp_path / party) for party in ("h", "c")] == [3 * BATCHES] * 2


def test_a_hook_that_would_end_the_training_at_a_collaborator_is_refused() -> None:
    host, other = two(max_rounds=20)
    why = CallbackHook(after_round=lambda trainer: trainer.stop("our own patience is over"))
    other.trainer.register_hooks([why])

    ends = ends_of(host, other)

    assert isinstance(ends["c1"], ConfigError)
    text = str(ends["c1"])
    assert text.startswith("c1, while ")
    assert "a hook of this collaborator would end the training (our own patience is over)" in text
    assert text.endswith("expected the host to decide when training ends. Register it at the host.")
    assert isinstance(ends["host"], TaskAborted)
    assert "a hook of this collaborator would end the training. The output of c1 says more." in str(ends["host"])
    assert "patience" not in str(ends["host"]), "its reasons are its own"


def best_iteration(party: Path) -> int:
    """Return how many batches were done when the party wrote its best checkpoint."""
    return int(torch.load(party / "checkpoints" / "model_best" / "trainer.pt", weights_only=True)["iter"])


@pytest.mark.parametrize("mode", ["max", "min"])
def test_every_party_keeps_the_checkpoint_of_the_same_best_round(tmp_path: Path, mode: Literal["max", "min"]) -> None:
    host = Told(max_rounds=4, best_metric="scores/accuracy", best_mode=mode, parties=3, out_dir=tmp_path / "host")
    others = [Collaborator(f"c{party}", party=party, out_dir=tmp_path / f"c{party}") for party in (1, 2)]
    after: dict[str, list[dict[str, Tensor]]] = {}
    for party in (host, *others):

        def keep(ctx: Any, key: str = party.feature_key) -> None:
            after.setdefault(key, []).append(copy.deepcopy(ctx.model.state_dict()))

        party.trainer.register_hook_in_train(keep, "on_round_end")

    run_locally(host, *others)

    best = 2 if mode == "max" else 1
    for key, states in after.items():
        assert best_iteration(tmp_path / key) == best * BATCHES
        stored = torch.load(tmp_path / key / "checkpoints" / "model_best" / "model.pt", weights_only=True)["feature"]
        assert all(torch.equal(stored[name], each) for name, each in states[best - 1].items())
        assert (tmp_path / key / "checkpoints" / "last_checkpoint").read_text() == "model_final"


@pytest.mark.parametrize(
    "other_best",
    [
        BestCheckpointer("round/seconds", "min", name="fastest", every="round"),
        BestCheckpointer("round/bytes_sent", "max", name="chattiest", every="round", period=2),
    ],
    ids=["of its own name", "only every second round"],
)
def test_another_best_checkpoint_of_the_host_does_not_move_the_collaborators(
    tmp_path: Path, other_best: BestCheckpointer
) -> None:
    class Falling(Told):
        accuracies: ClassVar[list[float]] = [0.9, 0.5, 0.3, 0.2]

    host = Falling(max_rounds=4, best_metric="scores/accuracy", out_dir=tmp_path / "h")
    other = Collaborator(out_dir=tmp_path / "c")
    fresh = copy.deepcopy(other_best)
    fresh.act = lambda: setattr(fresh, "improved", True)  # type: ignore[method-assign]  # always better
    host.trainer.register_hooks([fresh])

    run_locally(host, other)

    assert [best_iteration(tmp_path / party) for party in ("h", "c")] == [BATCHES] * 2


def test_the_best_value_and_where_it_was_are_part_of_every_checkpoint(tmp_path: Path) -> None:
    host = Told(max_rounds=4, best_metric="scores/accuracy", out_dir=tmp_path)

    run_locally(host, Collaborator())

    state = torch.load(tmp_path / "checkpoints" / "model_final" / "trainer.pt", weights_only=True)
    assert state["hooks"]["BestCheckpointer"]["best"] == 0.5
    assert state["hooks"]["BestCheckpointer"]["best_iteration"] == 2 * BATCHES - 1


# --- what goes wrong --------------------------------------------------------------------------------------------------


def raises(ctx: Any) -> None:
    raise KeyError("person-007 with a secret")


@pytest.mark.parametrize("culprit", ["host", "c1"])
@pytest.mark.parametrize(
    "trigger", ["before_train", "on_round_start", "on_batch_exchange", "on_optimizer_step", "on_round_end"]
)
def test_a_hook_that_raises_is_named_with_its_point_and_party_and_the_others_are_told(
    culprit: str, trigger: str
) -> None:
    parties = dict(zip(("host", "c1"), two(), strict=True))
    parties[culprit].trainer.register_hook_in_train(raises, trigger)

    ends = ends_of(*parties.values())

    error = ends[culprit]
    assert isinstance(error, TemplateError)
    expected = f"the hook raises at {trigger} raised KeyError. The traceback is in the output of {culprit}."
    assert str(error).startswith(f"{culprit}, while ")
    assert str(error).endswith(expected)
    assert isinstance(error.__cause__, KeyError)
    victim = ends["c1" if culprit == "host" else "host"]
    assert isinstance(victim, TaskAborted)
    assert expected in str(victim)
    assert not any("secret" in str(each) or "person" in str(each) for each in ends.values())


def test_a_hook_of_a_test_that_raises_is_named_too() -> None:
    host, other = two()
    other.trainer.register_hook_in_eval(raises, "on_batch_forward")

    ends = ends_of(host, other)

    assert "c1, while " in str(ends["c1"])
    assert "the hook raises at on_batch_forward raised KeyError" in str(ends["c1"])
    assert isinstance(ends["host"], TaskAborted)


def test_a_method_of_a_hook_object_that_raises_is_named_with_its_object() -> None:
    class Fragile(HookBase):
        def after_step(self) -> None:
            raises(None)

    host, other = two()
    host.trainer.register_hooks([Fragile()])

    ends = ends_of(host, other)

    assert "the hook Fragile.after_step at on_batch_end raised KeyError" in str(ends["host"])


def test_a_hook_that_raises_at_the_end_of_a_good_run_ends_the_task_of_all() -> None:
    host, other = two(max_rounds=1)
    host.trainer.register_hook_in_train(raises, "after_train")

    ends = ends_of(host, other)

    assert "the hook raises at after_train raised KeyError" in str(ends["host"])
    assert isinstance(ends["c1"], TaskAborted)


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
@pytest.mark.parametrize("culprit", ["host", "c1", "c2"])
@pytest.mark.parametrize("trigger", ["on_batch_exchange", "on_batch_end"])
def test_when_one_party_fails_the_hooks_of_every_party_hear_of_it_and_then_of_the_end(
    trigger: str, culprit: str, transport: Literal["memory", "zeromq"]
) -> None:
    host, *others = Host(parties=3), Collaborator("c1", party=1), Collaborator("c2", party=2)
    heard: dict[str, list[str]] = {}
    for party in (host, *others):
        told = heard.setdefault(party.feature_key, [])
        party.trainer.register_hook_in_train(noting_in(told, lambda ctx: type(ctx.exception).__name__), "on_exception")
        ended = noting_in(told, lambda ctx: f"ended well: {ctx.trainer.run_ok}")
        party.trainer.register_hook_in_train(ended, "after_train")
        if party.feature_key == culprit:
            party.trainer.register_hook_in_train(raises, trigger)

    with pytest.raises(TemplateError, match=f"^{culprit}, while .*the hook raises at {trigger}"):
        run_locally(host, *others, transport=transport)

    for key, told in heard.items():
        assert told == ["TemplateError" if key == culprit else "TaskAborted", "ended well: False"]


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_the_others_are_told_before_the_slow_end_of_the_party_that_fails(culprit: str) -> None:
    """What the failing party has sent when its last hooks begin is all that it sends."""
    parties = dict(zip(("host", "c1"), two(), strict=True))
    sent: list[int] = []
    party: Any = parties[culprit]
    party.trainer.register_hooks(
        [CallbackHook(after_train=lambda trainer: sent.append(party._linked.meter.bytes_sent), name="slow")]
    )
    party.trainer.register_hook_in_train(lambda ctx: sent.append(party._linked.meter.bytes_sent), "on_batch_end")
    party.trainer.register_hook_in_train(raises, "on_batch_end")

    ends_of(*parties.values())

    assert sent[1] > sent[0]
    assert party._linked.meter.bytes_sent == sent[1]


@pytest.mark.parametrize("culprit", ["host", "c1"])
def test_an_interrupt_in_a_hook_ends_every_party_and_stays_an_interrupt(culprit: str) -> None:
    ended: list[bool] = []
    parties = dict(zip(("host", "c1"), two(), strict=True))

    def interrupt(ctx: Any) -> None:
        raise KeyboardInterrupt

    parties[culprit].trainer.register_hook_in_train(interrupt, "on_batch_end")
    for party in parties.values():
        party.trainer.register_hook_in_train(lambda ctx: ended.append(ctx.trainer.run_ok), "after_train")

    ends = ends_of(*parties.values())

    assert isinstance(ends[culprit], KeyboardInterrupt)
    victim = ends["c1" if culprit == "host" else "host"]
    assert isinstance(victim, TaskAborted)
    assert "its user interrupted it" in str(victim)
    assert ended == [False, False]


def test_a_host_that_evaluates_inside_a_batch_is_refused() -> None:
    host, other = two()
    host.trainer.register_hook_in_train(lambda ctx: ctx.trainer.evaluate(), "on_batch_end")

    ends = ends_of(host, other)

    assert isinstance(ends["host"], ConfigError)
    text = "a host cannot test now: its training is not over; expected one test in a round, after its training"
    assert text in str(ends["host"])


def test_a_host_cannot_evaluate_on_a_split_that_the_others_do_not_know() -> None:
    host, other = two()
    host.trainer.register_hook_in_train(lambda ctx: ctx.trainer.evaluate("val"), "on_round_end")

    assert "a host cannot evaluate on the split 'val': the others do not have it" in str(ends_of(host, other)["host"])


def test_a_collaborator_cannot_begin_a_test() -> None:
    host, other = two()
    other.trainer.register_hooks([EvalHook(1, lambda: other.trainer.evaluate(), every="round")])

    ends = ends_of(host, other)

    assert isinstance(ends["c1"], ConfigError)
    assert "a collaborator cannot begin a test; expected the host to begin it" in str(ends["c1"])


@pytest.mark.parametrize(
    ("trigger", "why"),
    [("on_round_end", "it was tested already"), ("on_round_start", "no round is in progress")],
)
def test_a_round_has_one_test_which_comes_after_its_training(trigger: str, why: str) -> None:
    host, other = two()
    host.trainer.register_hook_in_train(lambda ctx: ctx.trainer.evaluate(), trigger)

    ends = ends_of(host, other)

    assert isinstance(ends["host"], ConfigError)
    assert f"a host cannot test now: {why}" in str(ends["host"])


def test_a_host_may_test_every_round_from_a_hook_of_its_own() -> None:
    host, other = two(log_rounds=0)
    host.trainer.register_hook_in_train(lambda ctx: ctx.trainer.evaluate(), "on_round_end")

    run_locally(host, other)

    assert len(host.get_metrics("scores")) == 2


# --- which hooks there are --------------------------------------------------------------------------------------------

PLUGIN = """
from heterofed.scheduler.batches.host_trainer import HostTrainer
from heterofed.training.hooks import HookBase
from heterofed.training.registries import register_hook, register_trainer

@register_hook("{name}_count")
class Count(HookBase):
    def __init__(self):
        self.batches = 0
    def after_step(self):
        self.batches += 1

@register_hook("{name}_function")
def add(trainer):
    trainer.counted = []
    trainer.register_hook_in_train(lambda ctx: trainer.counted.append(ctx.batch_size), "on_batch_end")

@register_trainer("{name}_host")
class Own(HostTrainer):
    pass
"""


def test_plugins_hooks_and_the_trainer_of_the_settings_are_used(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(name="settings"))
    hooks = ("settings_count", "settings_function")
    shared = {"plugins": (str(plugin),), "hooks": hooks, "psi_protocol": "ecdh", "progress": "off"}
    host = Host(settings=Settings(trainer="settings_host", **shared))  # type: ignore[arg-type]
    other = Collaborator(settings=Settings(**shared))  # type: ignore[arg-type]

    run_locally(host, other)

    assert type(host.trainer).__name__ == "Own"
    for party in (host, other):
        trainer: Any = party.trainer
        assert trainer.hooks["Count"].batches == 2 * BATCHES
        assert trainer.counted == [16] * (2 * BATCHES)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"trainer": "local"}, "the trainer local is a LocalTrainer; expected a subclass of HostTrainer"),
        ({"trainer": "nosuch"}, "there is no trainer named 'nosuch'"),
        ({"hooks": ("nosuch",)}, "there is no hook named 'nosuch'"),
        ({"plugins": ("no.such.module",)}, "the plug-in no.such.module cannot be loaded"),
    ],
    ids=["of another kind", "unknown trainer", "unknown hook", "unknown plug-in"],
)
def test_settings_that_name_what_is_not_there_are_refused_before_ids_are_matched(
    settings: dict[str, Any], text: str
) -> None:
    class Watched(Host):
        def split_dataset(self, id_intersection: Any) -> Any:
            raise RuntimeError("the ids are matched already")

    host = Watched(settings=Settings(psi_protocol="ecdh", progress="off", **settings))

    ends = ends_of(host, Collaborator())

    assert isinstance(ends["host"], ConfigError)
    assert text in str(ends["host"])


def test_a_trainer_for_the_other_role_is_refused() -> None:
    class MineForHosts(type(Host().trainer)):  # type: ignore[misc]  # the class that a host's trainer has
        pass

    register_trainer("for_hosts_only", MineForHosts)
    other = Collaborator(settings=Settings(trainer="for_hosts_only"))

    with pytest.raises(ConfigError, match="for_hosts_only is a MineForHosts; expected a subclass of Collaborator"):
        _ = other.trainer


class Remembered(EventWriter):
    def __init__(self) -> None:
        self.iterations: list[int] = []
        self.closed = 0

    def write(self, storage: EventStorage | None = None) -> None:
        assert storage is not None
        self.iterations.append(storage.iter)

    def close(self, storage: EventStorage | None = None) -> None:
        self.closed += 1


def test_a_scheduler_may_add_hooks_and_put_writers_of_its_own_in_the_place_of_ours(tmp_path: Path) -> None:
    writer, steps = Remembered(), []

    class Extended(Collaborator):
        def build_hooks(self) -> list[HookBase]:
            return [*super().build_hooks(), CallbackHook(after_step=lambda trainer: steps.append(trainer.iter))]

        def build_writers(self) -> list[EventWriter]:
            return [writer]

    run_locally(Host(), Extended(out_dir=tmp_path / "c"))

    assert steps == list(range(2 * BATCHES))
    assert writer.iterations == [BATCHES - 1, 2 * BATCHES - 1, 2 * BATCHES - 1]  # each round's end, and the run's
    assert writer.closed == 1
    assert not (tmp_path / "c" / "metrics.json").exists()


def test_a_build_hooks_that_raises_is_named() -> None:
    class Broken(Collaborator):
        def build_hooks(self) -> list[HookBase]:
            raise KeyError("secret")

    ends = ends_of(Host(), Broken())

    assert isinstance(ends["c1"], TemplateError)
    assert "Broken.build_hooks() raised KeyError" in str(ends["c1"])
    assert "secret" not in str(ends["host"])


def test_printing_a_trainer_shows_which_hooks_there_are() -> None:
    host, _ = two()
    host.trainer.register_hook_in_train(raises, "on_batch_end")

    rows = [line.split() for line in str(host.trainer).splitlines()]

    assert rows[0] == ["trigger", "(train)", "hook", "from"]
    assert ["on_batch_end", "raises", "function"] in rows
    assert ["on_batch_backward", "_hook_on_batch_backward", "default"] in rows
    assert ["on_round_end", "RoundTest.after_round", "RoundTest"] in rows
    assert ["trigger", "(eval)", "hook", "from"] in rows
    assert ["trigger", "(finetune)", "hook", "from"] in rows


def test_two_hooks_of_one_name_are_refused() -> None:
    host, _ = two()

    with pytest.raises(ConfigError, match="there are two hooks named LRScheduler; expected a name of its own"):
        host.trainer.register_hooks([LRScheduler(schedule)])


def test_every_party_has_the_default_hooks_in_the_documented_order_with_the_writer_last() -> None:
    host, other = two(best_metric="scores/accuracy")
    of_all = ["IterationTimer", "LRScheduler", "PeriodicCheckpointer", "ProgressBar", "RoundFigures"]
    of_all += ["ExchangeFigures", "PeriodicWriter"]

    assert list(other.trainer.hooks) == of_all
    assert list(host.trainer.hooks) == [*of_all[:3], "RoundTest", "BestCheckpointer", *of_all[3:]]
    for party in (host, other):
        last = [party.trainer.hooks_in_train.names(trigger)[-1] for trigger in ("on_round_end", "after_train")]
        assert last == ["PeriodicWriter.after_round", "PeriodicWriter.after_train"]


def test_a_hook_that_is_registered_before_the_launch_comes_after_the_defaults_and_before_the_writer() -> None:
    host, other = two(best_metric="scores/accuracy")
    for party in (host, other):
        party.trainer.register_hooks(
            [CallbackHook(after_step=print, after_round=print, after_train=print, name="mine")]
        )

        for trigger, point in [("on_batch_end", "after_step"), ("on_round_end", "after_round")]:
            names = party.trainer.hooks_in_train.names(trigger)
            assert names[-2:] == [f"mine.{point}", f"PeriodicWriter.{point}"]
            assert len(names) > 3


def test_what_a_hook_measures_is_on_the_line_of_its_batch_and_round(tmp_path: Path) -> None:
    host, other = two(out_dir=tmp_path)
    host.trainer.register_hooks(
        [
            CallbackHook(
                after_step=lambda trainer: trainer.storage.put_scalar("mine", trainer.iter, False),
                after_round=lambda trainer: trainer.storage.put_scalar("mine/round", trainer.current_round, False),
            )
        ]
    )

    run_locally(host, other)

    ends = {line["iteration"]: line for line in lines(tmp_path)}
    for round_ in (1, 2):
        last = round_ * BATCHES - 1
        assert (ends[last]["mine"], ends[last]["mine/round"], ends[last]["round"]) == (last, round_, round_)


# --- metrics.json -----------------------------------------------------------------------------------------------------

FIGURES = ["seconds", "compute_s", "wire_s", "bytes_sent", "bytes_received", "rows_per_s", "loss"]


def assert_measured(folder: Path, peers: list[str], rounds: int) -> dict[int, dict[str, Any]]:
    found = lines(folder)
    iterations = [line["iteration"] for line in found]
    assert iterations == sorted(set(iterations)), "one line for each iteration"
    ends = {line["round"]: line for line in found if "round/seconds" in line}
    assert [line["iteration"] for line in ends.values()] == [BATCHES * (n + 1) - 1 for n in range(rounds)]
    for line in ends.values():
        names = [f"round/{name}" for name in [*FIGURES, *(f"wait_s/{peer}" for peer in peers)]]
        assert set(names) <= line.keys()
        assert sorted(name for name in line if name.startswith("round/")) == sorted(names)
        parts = [line["round/compute_s"], line["round/wire_s"], *(line[f"round/wait_s/{peer}"] for peer in peers)]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(line["round/seconds"], rel=0.01)
        assert line["round/bytes_sent"] > 500 < line["round/bytes_received"]
        assert line["round/rows_per_s"] > 0
        assert line["loss" if "c1" in peers else "mean_loss"] > 0
    return ends


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_every_party_writes_down_what_each_round_cost_and_what_was_measured(
    tmp_path: Path, transport: Literal["memory", "zeromq"]
) -> None:
    host = Host(parties=3, max_rounds=3, log_rounds=2, out_dir=tmp_path / "host")
    others = [Collaborator(f"c{party}", party=party, out_dir=tmp_path / f"c{party}") for party in (1, 2)]

    run_locally(host, *others, transport=transport)

    ends = assert_measured(tmp_path / "host", ["c1", "c2"], 3)
    rows = host.get_metrics("scores").rows()
    assert len(rows) == 3
    for line, row in zip(ends.values(), rows, strict=True):
        assert [line["scores/loss"], line["scores/accuracy"]] == pytest.approx(row)
        assert line["lr"] == line["lr/feature"] == line["lr/infer"] == 0.1
    mean = sum(host.losses[-BATCHES:]) / BATCHES
    assert ends[3]["round/loss"] == pytest.approx(mean)
    for key in ("c1", "c2"):
        theirs = assert_measured(tmp_path / key, ["host"], 3)
        assert theirs[3]["lr"] == 0.1
        assert not any(name.startswith("scores/") for name in theirs[3])
        assert any("time" in line for line in lines(tmp_path / key))


def test_every_party_that_chooses_its_own_batches_writes_them_down_too(tmp_path: Path) -> None:
    host, other = OwnHost(out_dir=tmp_path / "h"), OwnCollaborator(out_dir=tmp_path / "c")
    seen: dict[str, list[int]] = {"host": [], "c1": []}
    for party in (host, other):
        told = seen[party.feature_key]
        party.trainer.register_hook_in_train(noting_in(told, lambda ctx: ctx.batch_size), "on_batch_end")

    run_locally(host, other)

    assert seen == {"host": [16] * 6, "c1": [16] * 6}
    assert_measured(tmp_path / "h", ["c1"], 2)
    assert_measured(tmp_path / "c", ["host"], 2)


def test_a_round_that_fails_leaves_the_measurements_of_those_before(tmp_path: Path) -> None:
    host, other = two(max_rounds=5, out_dir=tmp_path / "h")
    other.trainer.register_hook_in_train(
        lambda ctx: raises(ctx) if ctx.trainer.current_round == 3 else None, "on_round_start"
    )

    ends_of(host, other)

    assert [line["round"] for line in lines(tmp_path / "h") if "round/loss" in line] == [1, 2]
    assert len((tmp_path / "h" / "scores.csv").read_text().splitlines()) == 3


def test_a_host_that_keeps_its_loss_gives_the_collaborators_none_to_write_down(tmp_path: Path) -> None:
    host, other = Host(share_loss=False), Collaborator(out_dir=tmp_path)

    run_locally(host, other)

    assert not any("loss" in name for line in lines(tmp_path) for name in line)


def test_a_failing_hook_does_not_hide_that_another_party_failed_first(caplog: pytest.LogCaptureFixture) -> None:
    host, other = two()
    other.trainer.register_hook_in_train(raises, "on_batch_end")
    host.trainer.register_hook_in_train(raises, "on_exception")
    host.trainer.register_hook_in_train(raises, "after_train")

    with caplog.at_level(logging.ERROR, logger="heterofed"):
        ends = ends_of(host, other)

    assert isinstance(ends["host"], TaskAborted)
    assert isinstance(ends["host"], HeterofedError)
    assert any("the hook raises failed while it dealt with a TaskAborted" in each for each in caplog.messages)
    assert any("the hook raises failed at the end of the run" in each for each in caplog.messages)


def test_hooks_cost_no_wait_of_the_others_after_the_last_batch() -> None:
    """A slow hook at one party's round end is waited for, and not taken for a lost party."""
    host, other = two(max_rounds=1, calculation_timeout=5)
    other.trainer.register_hook_in_train(lambda ctx: time.sleep(0.3), "on_round_end")

    run_locally(host, other)

    assert host.trainer.run_ok

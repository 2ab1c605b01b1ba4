"""Rounds in which only some parties' models move: the others give embeddings and stay as they are, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from heterofed import ConfigError, run_locally
from heterofed.frames.messages import Gradient, Proceed
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import CLASSES, WIDTH, BareHost, Collaborator, Host, bottom, labels, row_of, same_bits, table, top

BATCHES = 3


pytestmark = pytest.mark.usefixtures("quick_and_exact")


def noisy(model: nn.Module, width: int) -> nn.Module:
    """Return a model with statistics that every batch in training mode moves, and with dropout."""
    return nn.Sequential(model, nn.BatchNorm1d(width), nn.Dropout(0.3))


class NoisyHost(Host):
    """Names the parties of each round, from the first on."""

    plan: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, plan: list[Any], **kwargs: Any) -> None:
        super().__init__(*args, max_rounds=len(plan), **kwargs)
        self.named = plan

    def trainable_parties(self) -> Any:
        return self.named[self.trainer.current_round - 1]

    def make_feature_model(self) -> nn.Module:
        return noisy(super().make_feature_model(), WIDTH)

    def make_infer_model(self) -> nn.Module:
        return noisy(super().make_infer_model(), CLASSES)

    def make_infer_optimizer(self, infer_model: nn.Module) -> Optimizer:
        return SGD(infer_model.parameters(), lr=0.1, momentum=0.9)


class NoisyCollaborator(Collaborator):
    def make_feature_model(self) -> nn.Module:
        return noisy(super().make_feature_model(), WIDTH)


def state_of(party: Any) -> dict[str, Any]:
    """Return copies of all that training moves: parameters, statistics, momentum."""
    return copy.deepcopy(
        {
            **{name: model.state_dict() for name, model in party.trainer.models.items()},
            **{f"{name}'s optimizer": each.state_dict()["state"] for name, each in party.trainer.optimizers.items()},
        }
    )


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return torch.equal(left, right) if isinstance(left, Tensor) else bool(left == right)


def noting_in(told: list[Any], what: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook that keeps what a function of ctx gives."""

    def note(ctx: Any) -> None:
        told.append(what(ctx))

    return note


def moved_in(*parties: Any, transport: Any = "memory") -> list[set[str]]:
    """Run a task and return, for each round, the parties of which anything moved."""
    states: dict[str, list[Any]] = {}
    for party in parties:
        told = states.setdefault(party.feature_key, [state_of(party)])
        party.trainer.register_hook_in_train(lambda ctx, p=party, told=told: told.append(state_of(p)), "on_round_end")
    host, *others = parties
    run_locally(host, *others, transport=transport)
    return [
        {key for key, each in states.items() if not same(each[number], each[number + 1])}
        for number in range(host.trainer.round)
    ]


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_only_the_parties_that_are_named_for_a_round_move_in_it(transport: str) -> None:
    plan: list[Any] = [["host"], ["c1"], None, {"c1", "c2"}, "c2", ("host", "c1", "c2")]
    host = NoisyHost(plan=plan, parties=3, log_rounds=2)
    others = [NoisyCollaborator(f"c{party}", party=party) for party in (1, 2)]

    moved = moved_in(host, *others, transport=transport)

    everybody = {"host", "c1", "c2"}
    assert moved == [{"host"}, {"c1"}, everybody, {"c1", "c2"}, {"c2"}, everybody]


def test_a_party_that_does_not_move_moves_as_before_when_it_is_named_again() -> None:
    """Rounds without a party leave no trace in it: momentum goes on where it stopped."""
    host, other = NoisyHost(plan=[["host"], ["c1"], ["host"], ["c1"]]), NoisyCollaborator()

    assert moved_in(host, other) == [{"host"}, {"c1"}, {"host"}, {"c1"}]
    steps = other.feature_model.state_dict()["1.num_batches_tracked"]
    assert steps == 2 * BATCHES


def test_every_model_evaluates_in_a_round_in_which_it_does_not_move() -> None:
    modes: dict[str, list[set[bool]]] = {"host": [], "c1": []}
    host, other = NoisyHost(plan=[["host"], ["c1"], None]), NoisyCollaborator()
    for party in (host, other):

        def note(ctx: Any, key: str = party.feature_key) -> None:
            modes[key].append({module.training for model in ctx.models for module in model.modules()})

        party.trainer.register_hook_in_train(note, "on_fit_start")
        party.trainer.register_hook_in_ft(note, "on_fit_start")

    run_locally(host, other)

    assert modes == {"host": [{True}, {False}, {True}], "c1": [{False}, {True}, {True}]}


def test_hooks_of_fine_tuning_run_at_every_party_and_those_of_training_do_not() -> None:
    seen: dict[str, list[str]] = {"host": [], "c1": [], "c2": []}
    host = NoisyHost(plan=[["c1"], None, ["host"]], parties=3, log_rounds=0)
    others = [NoisyCollaborator(f"c{party}", party=party) for party in (1, 2)]
    for party in (host, *others):
        told = seen[party.feature_key]
        train = noting_in(told, lambda ctx: f"train {ctx.cur_mode} {ctx.trainer.current_round}")
        fine_tune = noting_in(told, lambda ctx: f"ft {ctx.cur_mode} {ctx.trainer.current_round}")
        round_end = noting_in(told, lambda ctx: f"round {ctx.cur_mode} {ctx.trainer.current_round}")
        party.trainer.register_hook_in_train(train, "on_fit_end")
        party.trainer.register_hook_in_ft(fine_tune, "on_fit_end")
        party.trainer.register_hook_in_train(round_end, "on_round_end")

    run_locally(host, *others)

    expected = [
        *["ft finetune 1", "round None 1"],
        *["train train 2", "round None 2"],
        *["ft finetune 3", "round None 3"],
    ]
    assert seen == {"host": expected, "c1": expected, "c2": expected}


def test_optimizers_are_about_to_step_only_where_a_model_moves() -> None:
    steps: dict[str, list[int]] = {"host": [], "c1": []}
    host, other = NoisyHost(plan=[["host"], ["c1"]]), NoisyCollaborator()
    for party in (host, other):
        told = steps[party.feature_key]
        party.trainer.register_hook_in_ft(noting_in(told, lambda ctx: ctx.trainer.current_round), "on_optimizer_step")

    run_locally(host, other)

    assert steps == {"host": [1] * BATCHES, "c1": [2] * BATCHES}


def answers_to(other: Any) -> list[tuple[int, type[Any]]]:
    """Return a list that fills with (round, kind) of the host's answers to the batches of a collaborator."""
    told: list[tuple[int, type[Any]]] = []
    original: Callable[..., Any] = other.trainer._hear

    def exchanged(*args: Any) -> Any:
        answer = original(*args)
        if isinstance(answer, Gradient | Proceed):
            told.append((answer.round, type(answer)))
        return answer

    other.trainer._hear = exchanged
    return told


def test_a_party_that_does_not_move_is_sent_no_gradient() -> None:
    host, other = NoisyHost(plan=[["host"], ["c1"]], log_rounds=0), NoisyCollaborator()
    told = answers_to(other)
    gradients: list[Any] = []
    recorded: list[bool] = []
    other.trainer.register_hook_in_ft(lambda ctx: gradients.append(ctx.gradient), "on_batch_end")
    other.trainer.register_hook_in_ft(lambda ctx: recorded.append(ctx.embedding.requires_grad), "on_batch_end")

    run_locally(host, other)

    assert told == [(1, Proceed)] * BATCHES + [(2, Gradient)] * BATCHES
    assert gradients[:BATCHES] == [None] * BATCHES
    assert recorded == [False] * BATCHES + [True] * BATCHES  # autograd has nothing to do where nothing moves
    assert all(each.shape == (16, WIDTH) for each in gradients[BATCHES:])
    sent = host.storage.history("round/bytes_sent").values()
    first, second = (value for value, _ in sent)
    assert second - first > BATCHES * 16 * WIDTH * 4 - 1


def test_all_parties_named_is_an_ordinary_round() -> None:
    modes: list[str | None] = []
    named, plain = NoisyHost(plan=[["c1", "host"]] * 2), NoisyHost(plan=[None] * 2)
    others = NoisyCollaborator(), NoisyCollaborator()
    named.trainer.register_hook_in_train(lambda ctx: modes.append(ctx.cur_mode), "on_fit_start")

    run_locally(named, others[0], seed=1)
    run_locally(plain, others[1], seed=1)

    assert modes == ["train", "train"]
    assert same_bits(named.infer_model, plain.infer_model)
    assert same_bits(named.feature_model, plain.feature_model)
    assert same_bits(others[0].feature_model, others[1].feature_model)


class PlainHost(Host):
    """Has neither dropout nor statistics, so that the same can be computed unsplit."""

    def __init__(self, *args: Any, moving: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moving = moving

    def trainable_parties(self) -> Any:
        return self.moving


def unsplit_with(host: BareHost, moving: set[str]) -> list[nn.Module]:
    """Train the network of two parties in one process, stepping only some parts; host's, c1's and the top."""
    models: list[nn.Module] = [bottom(0), bottom(1), top(2)]
    steps: list[Optimizer] = []
    if "c1" in moving:
        steps.append(SGD(models[1].parameters(), lr=0.1, momentum=0.9))
    if "host" in moving:
        steps.append(SGD(models[0].parameters(), lr=0.1, momentum=0.9))
        steps.append(SGD(models[2].parameters(), lr=0.1))
    trained = set(host.train_ids)
    for ids in host.orders:
        if ids[0] not in trained:
            continue
        rows = [row_of(each) for each in ids]
        for model in models:
            model.zero_grad()
        fused = torch.cat([models[party](table(party)[rows]) for party in range(2)], dim=1)
        F.cross_entropy(models[2](fused), labels()[rows]).backward()
        for each in steps:
            each.step()
    return models


@pytest.mark.parametrize("moving", [{"c1"}, {"host"}], ids=["c1", "host"])
def test_where_one_side_stays_the_other_learns_as_in_the_unsplit_network(moving: set[str]) -> None:
    """The gradient passes an infer model that does not move, exactly."""
    host, other = PlainHost(moving=moving), Collaborator()

    run_locally(host, other)

    models = unsplit_with(host, moving)
    for mine, expected in zip((host.feature_model, other.feature_model, host.infer_model), models, strict=True):
        assert same_bits(mine, expected)
    assert same_bits(other.feature_model, bottom(1)) is ("c1" not in moving)
    assert same_bits(host.infer_model, top(2)) is ("host" not in moving)


def test_parties_that_choose_their_own_batches_can_be_named_too() -> None:
    class Naming(OwnHost):
        def trainable_parties(self) -> Any:
            return ["c1"]

    host, other = Naming(), OwnCollaborator()

    run_locally(host, other)

    models = unsplit_with(host, {"c1"})
    assert same_bits(host.infer_model, top(2))
    assert same_bits(other.feature_model, models[1])


@pytest.mark.parametrize("named", [["c1"], ["host"], ["host", "c1"]])
def test_a_frozen_model_stays_frozen_when_it_is_named(named: list[str]) -> None:
    host, other = PlainHost(moving=named), Collaborator(is_feature_trainable=False)
    told = answers_to(other)

    run_locally(host, other)

    assert {kind for _, kind in told} == {Proceed}
    assert same_bits(other.feature_model, bottom(1))
    assert same_bits(host.infer_model, top(2)) is ("host" not in named)


def test_a_host_with_a_frozen_feature_model_moves_its_infer_model_only_when_named() -> None:
    host, other = NoisyHost(plan=[["c1"], ["host"]], is_feature_trainable=False), NoisyCollaborator()
    feature, infer = state_of(host)["feature"], []
    host.trainer.register_hook_in_train(lambda ctx: infer.append(state_of(host)["infer"]), "on_round_end")
    start = state_of(host)["infer"]

    run_locally(host, other)

    assert same(state_of(host)["feature"], feature)
    assert same(start, infer[0])
    assert not same(infer[0], infer[1])


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (["c1", "c9"], r"trainable_parties\(\) named c1, c9; expected some of host, c1, or None for all"),
        ([], r"trainable_parties\(\) named nobody; expected some of host, c1, or None for all"),
        ("hots", r"trainable_parties\(\) named hots; expected some of host, c1"),
    ],
    ids=["unknown", "nobody", "misspelt"],
)
def test_who_is_no_party_is_refused(named: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^host, while .*{text}"):
        run_locally(PlainHost(moving=named), Collaborator())


def test_something_that_names_nobody_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainable_parties\(\) returned int; expected feature keys"):
        run_locally(PlainHost(moving=3), Collaborator())

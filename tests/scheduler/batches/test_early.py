"""A collaborator's next embedding leaves before the hooks at the end of a batch, where none of them can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from heterofed import HeterofedError, HookBase, run_locally
from heterofed.frames.messages import Embedding
from heterofed.scheduler.link import Link
from heterofed.training.hooks import IterationTimer
from tests.tiny import Collaborator, Host, same_bits

pytestmark = pytest.mark.usefixtures("quick_and_exact")

ROUND: dict[str, Any] = {"max_rounds": 1, "log_rounds": 0, "batch_size": 12}
"""Four batches."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens at the collaborator, in order: e0 an embedding of batch 0 leaves, d0 batch 0 is done."""
    story: list[str] = []
    send = Link.send

    def sending(link: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, Embedding):
            story.append(f"e{message.batch}")
        send(link, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", sending)
    return story


class Patient(HookBase):
    """Notes the ends of batches, and says that it does not matter when it is called."""

    patient = True

    def __init__(self, story: list[str]) -> None:
        self.story = story

    def after_step(self) -> None:
        self.story.append(f"d{self.trainer.iter}")


class Impatient(Patient):
    """Does not say so itself."""


def at(trigger: str) -> Callable[[Collaborator, list[str]], None]:
    def add(party: Collaborator, story: list[str]) -> None:
        party.trainer.register_hook_in_train(lambda ctx: None, trigger)

    return add


def impatient(party: Collaborator, story: list[str]) -> None:
    party.trainer.register_hooks([Impatient([])])


def a_timer_of_ones_own(party: Collaborator, story: list[str]) -> None:
    class Timer(IterationTimer):
        name = "Timer"

    party.trainer.register_hooks([Timer()])


EARLY = ["e0", "e1", "d0", "e2", "d1", "e3", "d2", "d3"]
IN_TURN = ["e0", "d0", "e1", "d1", "e2", "d2", "e3", "d3"]


def test_an_embedding_leaves_before_the_patient_hooks_of_the_batch_before(told: list[str]) -> None:
    host, other = Host(**ROUND), Collaborator()
    other.trainer.register_hooks([Patient(told)])

    run_locally(host, other)

    assert told == EARLY


@pytest.mark.parametrize(
    "add",
    [
        impatient,
        a_timer_of_ones_own,
        *map(at, ["on_batch_start", "on_batch_forward", "on_batch_exchange", "on_batch_backward", "on_batch_end"]),
    ],
)
def test_a_hook_that_may_look_at_the_models_is_called_first(
    add: Callable[[Collaborator, list[str]], None], told: list[str]
) -> None:
    host, other = Host(**ROUND), Collaborator()
    other.trainer.register_hooks([Patient(told)])
    add(other, told)

    run_locally(host, other)

    assert told == IN_TURN


def test_a_hook_that_is_added_in_the_middle_is_noticed(told: list[str]) -> None:
    host, other = Host(**ROUND), Collaborator()

    class Adding(Patient):
        patient = True

        def after_step(self) -> None:
            super().after_step()
            if self.trainer.iter == 1:
                self.trainer.register_hook_in_train(lambda ctx: None, "on_batch_end")

    other.trainer.register_hooks([Adding(told)])

    run_locally(host, other)

    assert told == ["e0", "e1", "d0", "e2", "d1", "d2", "e3", "d3"]


def test_a_checkpoint_within_a_round_is_of_models_that_have_not_seen_the_next_batch(told: list[str]) -> None:
    host, other = Host(**ROUND, checkpoint_every=2), Collaborator()
    other.trainer.register_hooks([Patient(told)])

    run_locally(host, other)

    assert told == ["e0", "e1", "d0", "d1", "e2", "e3", "d2", "d3"]


class Normed(Collaborator):
    """Has buffers that every forward pass changes, and draws random numbers."""

    def make_feature_model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4))


def test_the_bits_are_those_of_a_run_that_takes_everything_in_turn() -> None:
    def trained(*, early: bool) -> list[nn.Module]:
        torch.manual_seed(3)
        host, other = Host(), Normed()
        if not early:
            at("on_batch_end")(other, [])
        run_locally(host, other)
        return [host.feature_model, host.infer_model, other.feature_model]

    assert all(same_bits(a, b) for a, b in zip(trained(early=True), trained(early=False), strict=True))


def test_what_the_next_forward_pass_raises_comes_when_the_batch_before_has_ended(told: list[str]) -> None:
    class Failing(nn.Linear):
        calls = 0

        def forward(self, rows: Any) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise ValueError("private words")
            return super().forward(rows)

    class FailingCollaborator(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return Failing(3, 4)

    host, other = Host(**ROUND), FailingCollaborator()
    other.trainer.register_hooks([Patient(told)])

    with pytest.raises(HeterofedError, match="the feature model raised ValueError"):
        run_locally(host, other)

    assert told == ["e0", "e1", "d0", "d1"]
    assert other.trainer.iter == 2


@pytest.mark.parametrize("early", [True, False])
def test_the_model_sees_the_number_of_its_own_batch(early: bool) -> None:
    seen: list[tuple[int, int, int]] = []

    class Noting(nn.Linear):
        def forward(self, rows: Any) -> Any:
            trainer = other.trainer
            seen.append((trainer.iter, trainer.storage.iter, trainer.ctx.cur_batch_i))
            return super().forward(rows)

    class NotingCollaborator(Collaborator):
        def make_feature_model(self) -> nn.Module:
            return Noting(3, 4)

    host, other = Host(**ROUND), NotingCollaborator()
    if not early:
        at("on_batch_end")(other, [])

    run_locally(host, other)

    assert seen[:4] == [(batch, batch, batch) for batch in range(4)]


def test_gradients_are_cleared_before_the_next_come_and_seen_until_then() -> None:
    host, other = Host(**ROUND), Collaborator()
    seen: list[bool] = []

    class Looking(HookBase):
        patient = True

        def before_step(self) -> None:
            seen.append(all(each.grad is not None for each in other.feature_model.parameters()))

    other.trainer.register_hooks([Looking()])

    run_locally(host, other)

    assert seen == [False, True, True, True]

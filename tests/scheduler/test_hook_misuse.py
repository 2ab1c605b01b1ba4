"""What a party's hooks do wrong is found out at that party, and told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from heterofed import ConfigError, Settings, TemplateError, TrainingDiverged, run_locally
from heterofed.frames.messages import Gradient
from heterofed.frames.precision import unpack_as
from heterofed.frames.tensors import pack
from heterofed.scheduler.link import Link
from heterofed.training.hooks import BestCheckpointer, CallbackHook, EarlyStopper, HookBase
from heterofed.training.registries import register_hook
from tests.tiny import Collaborator, Host, same_bits


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are matched the faster way."""
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")


@pytest.mark.parametrize("key", ["host", "c1"])
def test_a_checkpoint_asked_for_before_a_rounds_batches_is_written_at_its_end(key: str, tmp_path: Path) -> None:
    parties = {"host": Host(out_dir=tmp_path / "host"), "c1": Collaborator(out_dir=tmp_path / "c1")}
    ask = CallbackHook(before_round=lambda trainer: trainer.request_checkpoint())
    parties[key].trainer.register_hooks([ask])

    run_locally(*parties.values())  # type: ignore[arg-type]  # host first

    names = sorted(path.name for path in (tmp_path / key / "checkpoints").glob("model_0*"))
    assert names == ["model_0000002", "model_0000005"], "after rounds of 3 batches, and nowhere else"


def test_a_host_whose_hook_changes_its_embedding_trains_on_what_the_hook_made() -> None:
    def silence(ctx: Any) -> None:
        ctx.embedding = ctx.embedding * 0

    host, other = Host(max_rounds=1), Collaborator()
    before = {name: value.clone() for name, value in host.feature_model.state_dict().items()}
    host.trainer.register_hook_in_train(silence, "on_batch_forward")

    run_locally(host, other)

    assert all(torch.equal(before[name], value) for name, value in host.feature_model.state_dict().items())
    fresh = Collaborator()
    assert not same_bits(other.feature_model, fresh.make_feature_model())


def test_a_gradient_that_is_not_finite_is_refused_by_the_collaborator_and_the_host_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = Link.send

    def spoil(self: Link, to: str, message: Any, timeout_s: float = 0.0) -> None:
        if isinstance(message, Gradient):
            values = unpack_as(message.values, None).clone().fill_(float("nan"))
            message = Gradient(message.round, message.batch, message.loss, message.keep, pack(values))
        send(self, to, message, timeout_s)

    monkeypatch.setattr(Link, "send", spoil)
    host, other = Host(), Collaborator()
    before = {name: value.clone() for name, value in other.feature_model.state_dict().items()}

    with pytest.raises(TrainingDiverged, match=r"^host, while training: sent a gradient that is NaN or infinite"):
        run_locally(host, other)

    assert all(torch.equal(before[name], value) for name, value in other.feature_model.state_dict().items())


def test_a_trainers_own_build_hooks_and_build_writers_are_asked(tmp_path: Path) -> None:
    from heterofed.scheduler.batches.host_trainer import HostTrainer
    from heterofed.training.registries import register_trainer

    asked: list[str] = []

    @register_trainer("asked_in_test_hook_misuse")
    class Asked(HostTrainer):
        def build_hooks(self) -> list[HookBase]:
            asked.append("hooks")
            return super().build_hooks()

        def build_writers(self) -> list[Any]:
            asked.append("writers")
            return super().build_writers()

    host = Host(settings=Settings(trainer="asked_in_test_hook_misuse"), max_rounds=1)
    run_locally(host, Collaborator(settings=Settings()))
    assert asked == ["hooks", "writers"]


class Nothing(Host):
    def build_hooks(self) -> Any:
        return None


class Circular(Host):
    def build_hooks(self) -> Any:
        return [*super().build_hooks(), CallbackHook(name=str(self.trainer))]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Nothing, r"Nothing\.build_hooks\(\) returned NoneType; expected a list of hooks"),
        (Circular, r"Circular\.build_hooks\(\) uses the trainer that it is to make hooks for"),
    ],
)
def test_build_hooks_that_cannot_work_is_told_by_its_name(kind: type[Host], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run_locally(kind(), Collaborator())


def test_a_registered_hook_that_cannot_be_made_is_told_by_its_name() -> None:
    @register_hook("wants_more_in_test_hook_misuse")
    class WantsMore(HookBase):
        def __init__(self, more: int) -> None:
            self.more = more

    host = Host(settings=Settings(hooks=("wants_more_in_test_hook_misuse",)))
    with pytest.raises(TemplateError, match="the hook wants_more_in_test_hook_misuse of the settings raised TypeError"):
        run_locally(host, Collaborator())


def test_a_party_is_refused_a_routine_of_its_own() -> None:
    host, other = Host(), Collaborator()
    host.trainer.register_hooks([CallbackHook(after_round=lambda trainer: trainer.train())])
    with pytest.raises(ConfigError, match="a party cannot train alone: the others would not follow"):
        run_locally(host, other)


class Scheduled(Host):
    def make_schedule(self, optimizer: Optimizer) -> Any:
        return nn.Linear(1, 1)


def test_a_schedule_that_is_none_is_told_before_the_first_batch() -> None:
    with pytest.raises(ConfigError, match="an LRScheduler got a Linear; expected a schedule of torch"):
        run_locally(Scheduled(), Collaborator())


def test_an_early_stopper_at_a_collaborator_is_refused_when_it_is_registered() -> None:
    with pytest.raises(ConfigError, match=r"EarlyStopper would end the training at a collaborator.*Register it"):
        Collaborator().trainer.register_hooks([EarlyStopper("mean_loss", patience=1)])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"best_mode": "best"}, "best_mode is 'best'"),
        ({"best_metric": "scores/accuracy", "log_rounds": 0}, "but log_rounds is 0"),
        (
            {"best_metric": "scores/acuracy"},
            "the metric set scores has no 'acuracy'; expected one of scores/loss",
        ),
    ],
)
def test_a_best_metric_that_cannot_work_is_told_before_anything_else(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run_locally(Host(**given), Collaborator())


def test_the_best_round_by_a_loss_is_the_one_with_the_least(tmp_path: Path) -> None:
    host = Host(best_metric="scores/loss", max_rounds=3, out_dir=tmp_path / "h")
    run_locally(host, Collaborator(out_dir=tmp_path / "c"))
    best = host.trainer.hooks["BestCheckpointer"]
    assert isinstance(best, BestCheckpointer)
    assert best.best == min(value for value, _ in host.storage.history("scores/loss").values())

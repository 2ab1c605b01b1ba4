"""NaNGuard and GradientClipper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from heterofed.errors import ConfigError, TrainingDiverged
from heterofed.finite import all_finite
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import GradientClipper, HookBase, NaNGuard
from heterofed.training.triggers import LIFECYCLE
from tests.training.toys import Counting, Learning


def spoil(what: str, value: float, iteration: int) -> Any:
    """Return a hook that puts a bad number into the gradients, the loss or the parameters."""

    def hook(ctx: Context) -> None:
        if ctx.trainer.iter != iteration:
            return
        if what == "loss":
            ctx.loss_batch = CtxVar(ctx.loss_batch * value, LIFECYCLE.BATCH)
        else:
            parameter = ctx.models[-1].weight
            (parameter if what == "parameter" else parameter.grad).data[0, 2] = value

    return hook


POINT = {"gradient": "on_optimizer_step", "loss": "on_batch_end", "parameter": "on_batch_end"}


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", POINT)
def test_a_guard_ends_the_run_at_the_batch_and_names_it(what: str, value: float, rounds: int) -> None:
    trainer = Learning(per_round=6 // rounds, models=2)
    trainer.register_hook_in_train(spoil(what, value, 4), POINT[what])
    trainer.register_hooks([NaNGuard(parameters=what == "parameter")])
    with pytest.raises(TrainingDiverged) as found:
        trainer.run(rounds)
    name = {"gradient": "a gradient", "loss": "the loss", "parameter": "a parameter"}[what]
    batch = "batch 4 of round 1" if rounds == 1 else "batch 1 of round 2"
    assert str(found.value) == (
        f"{name} is NaN or infinite in {batch} (iteration 4); expected finite numbers. "
        "Lower the learning rate, clip gradients, or check the inputs and labels for NaN."
    )
    assert (trainer.iter, trainer.run_ok) == (4, False)


def test_a_bad_gradient_is_found_before_it_reaches_the_parameters() -> None:
    trainer = Learning()
    trainer.register_hook_in_train(spoil("gradient", math.nan, 2), "on_optimizer_step")
    trainer.register_hooks([NaNGuard()])
    with pytest.raises(TrainingDiverged):
        trainer.run(1)
    assert all(math.isfinite(each) for row in trainer.weights() for each in row)


def test_what_a_guard_does_not_look_at_it_does_not_find() -> None:
    for guard, what in ((NaNGuard(gradients=False), "gradient"), (NaNGuard(), "parameter")):
        trainer = Learning(per_round=3)
        trainer.register_hook_in_train(spoil(what, math.inf, 2), POINT[what])
        trainer.register_hooks([guard])
        trainer.run(1)


@pytest.mark.parametrize("loss", [None, 0.5, torch.tensor(0.5), torch.tensor([1.0, 2.0])])
def test_a_guard_passes_good_losses_of_any_kind(loss: Any) -> None:
    trainer = Counting()
    trainer.ctx.loss_batch = loss
    trainer.register_hooks([NaNGuard(parameters=True)])
    trainer.run(1)
    trainer.ctx.loss_batch = math.nan
    with pytest.raises(TrainingDiverged, match="the loss is NaN"):
        trainer.run(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_sum_that_overflows_is_no_bad_number(dtype: torch.dtype) -> None:
    large = torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite([large, large])
    assert all_finite(iter([torch.tensor([1e30, -1e30]), torch.zeros(0)]))
    assert all_finite([])
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = large.clone()
        spoilt[3, 1] = bad
        assert not all_finite([large, spoilt, large])
    assert not all_finite([torch.tensor([math.inf, 1.0]), torch.tensor([-math.inf])]), "their sum would be NaN"


def test_sparse_gradients_are_looked_at() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 1, 3])).sum().backward()
    gradient = model.weight.grad
    assert gradient is not None
    assert all_finite([gradient])
    assert not all_finite([gradient * math.inf])


# --- clipping ---------------------------------------------------------------------------------------------------------


class Gradients(HookBase):
    """Keeps the gradients as the optimizer gets them."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def before_optimizer_step(self) -> None:
        models = self.trainer.models.values()
        self.seen.append(
            [each.grad.clone() for model in models for each in model.parameters() if each.grad is not None]
        )


def clipped(*hooks: HookBase, models: int = 2, rounds: int = 1) -> tuple[Learning, list[list[Tensor]]]:
    trainer, after = Learning(per_round=4 // rounds, models=models), Gradients()
    trainer.register_hooks([*hooks, after])
    trainer.run(rounds)
    return trainer, after.seen


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
@pytest.mark.parametrize("rounds", [1, 2])
def test_gradients_of_all_models_are_clipped_together(norm_type: float, rounds: int) -> None:
    before = Gradients()
    before.name = "Before"
    trainer, after = clipped(before, GradientClipper(0.5, norm_type), rounds=rounds)
    norms = trainer.storage.history("grad_norm").values()
    assert [at for _, at in norms] == [0, 1, 2, 3]
    assert any(norm > 0.5 for norm, _ in norms)
    for raw, cut, (norm, _) in zip(before.seen, after, norms, strict=True):
        stand_ins = [nn.Parameter(each) for each in raw]
        for stand_in, each in zip(stand_ins, raw, strict=True):
            stand_in.grad = each.clone()
        assert clip_grad_norm_(stand_ins, 0.5, norm_type).item() == norm
        assert all(
            torch.equal(each.grad, got) for each, got in zip(stand_ins, cut, strict=True) if each.grad is not None
        )


def test_an_infinite_limit_measures_only() -> None:
    plain, measured = Learning(models=2), Learning(models=2)
    measured.register_hooks([GradientClipper(math.inf)])
    plain.run(1)
    measured.run(1)
    assert plain.weights() == measured.weights()
    assert len(measured.storage.history("grad_norm")) == 5


def test_elements_are_limited_too() -> None:
    _, seen = clipped(GradientClipper(100.0, value=0.01))
    assert max(each.abs().max().item() for batch in seen for each in batch) == pytest.approx(0.01)


def test_what_models_share_counts_once() -> None:
    trainer = Counting()
    shared = nn.Linear(1, 1, bias=False)
    trainer.models = {"a": shared, "b": nn.Sequential(shared)}
    shared.weight.grad = torch.tensor([[3.0]])
    trainer.register_hooks([GradientClipper(1.0)])
    trainer.register_hook_in_train(lambda ctx: trainer.before_optimizer_step(), "on_batch_backward")
    trainer.per_round = 1
    trainer.run(1)
    assert trainer.storage.latest()["grad_norm"] == (3.0, 0)
    assert shared.weight.grad.item() == pytest.approx(1.0)


def test_nothing_is_recorded_without_gradients() -> None:
    trainer = Counting()
    trainer.register_hooks([GradientClipper(1.0), NaNGuard()])
    trainer.register_hook_in_train(lambda ctx: trainer.before_optimizer_step(), "on_batch_backward")
    trainer.run(1)
    assert trainer.storage.latest() == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_norm": 0}, "max_norm is 0; expected a number above 0"),
        ({"max_norm": math.nan}, "max_norm is nan"),
        ({"max_norm": 1.0, "norm_type": -1}, "norm_type is -1"),
        ({"max_norm": 1.0, "value": 0.0}, "value is 0.0"),
    ],
)
def test_limits_that_are_none_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GradientClipper(**arguments)

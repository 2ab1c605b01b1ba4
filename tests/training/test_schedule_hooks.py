"""LRScheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as schedules

from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.hooks import LRScheduler, PeriodicCheckpointer
from heterofed.training.hooks.schedules import best_group
from heterofed.training.trainer import Trainer
from tests.training.toys import Counting, Learning


def halving(optimizer: Optimizer) -> schedules.LRScheduler:
    return schedules.LambdaLR(optimizer, lambda step: 0.5**step)


def rates(trainer: Trainer, name: str = "lr") -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_learning_rate_is_recorded_before_the_step(rounds: int) -> None:
    trainer = Learning(per_round=4 // rounds, lr=0.8)
    trainer.register_hooks([LRScheduler(halving)])
    trainer.run(rounds)
    assert trainer.storage.history("lr").values() == [(0.8, 0), (0.4, 1), (0.2, 2), (0.1, 3)]
    assert trainer.storage.smoothing_hints()["lr"] is False
    assert trainer.optimizers["model0"].param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_schedule_of_rounds_steps_after_each_of_them() -> None:
    trainer = Learning(per_round=2, lr=0.8)
    trainer.register_hooks([LRScheduler(halving, every="round")])
    trainer.run(2)
    trainer.run(3)
    assert rates(trainer) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]


def test_without_a_schedule_the_rate_is_recorded_only() -> None:
    trainer = Learning(per_round=3, lr=0.8)
    hook = LRScheduler()
    trainer.register_hooks([hook])
    trainer.run(1)
    assert rates(trainer) == [0.8] * 3
    assert hook.state_dict() == {}
    nothing = Counting()
    nothing.register_hooks([LRScheduler()])
    nothing.run(1)
    assert "lr" not in nothing.storage.histories()


def test_several_optimizers_have_a_rate_each() -> None:
    trainer = Learning(per_round=2, lr=0.8, models=2)
    trainer.register_hooks([LRScheduler(halving, optimizer="model1")])
    trainer.run(1)
    assert rates(trainer) == rates(trainer, "lr/model0") == [0.8, 0.8]
    assert rates(trainer, "lr/model1") == [0.8, 0.4]
    every = Learning(per_round=2, lr=0.8, models=2)
    every.register_hooks([LRScheduler(halving)])
    every.run(1)
    assert rates(every) == rates(every, "lr/model0") == rates(every, "lr/model1") == [0.8, 0.4]


def test_a_schedule_that_is_made_already_is_taken() -> None:
    trainer = Learning(per_round=2, lr=0.8, models=2)
    ready = halving(trainer.optimizers["model1"])
    hook = LRScheduler(scheduler=ready)
    trainer.register_hooks([hook])
    trainer.run(1)
    assert hook.schedulers == {"model1": ready}
    assert rates(trainer, "lr/model1") == [0.8, 0.4]


def test_a_schedule_of_an_optimizer_that_never_steps_draws_no_warning() -> None:
    model = nn.Linear(1, 1)
    trainer = Counting()
    trainer.optimizers = {"frozen": SGD(model.parameters(), 0.8)}
    trainer.register_hooks([LRScheduler(halving)])
    trainer.run(1)
    assert rates(trainer) == [0.8, 0.4]


def test_a_routine_without_a_run_begins_with_the_schedule_s_first_rate() -> None:
    trainer = Learning(per_round=2, lr=0.8)
    trainer.register_hooks([LRScheduler(lambda o: schedules.LambdaLR(o, lambda step: 0.5 ** (step + 1)))])
    trainer.train()
    assert rates(trainer) == [0.4, 0.2]


def test_batches_of_a_routine_inside_another_step_no_schedule() -> None:
    trainer = Learning(per_round=2, lr=0.8)
    trainer.register_hooks([LRScheduler(halving)])
    trainer.register_hook_in_train(lambda ctx: trainer.finetune(), "on_batch_end")
    trainer.run(1)
    assert rates(trainer) == [0.8, 0.4]


@pytest.mark.parametrize(
    ("sizes_and_rates", "best"),
    [
        ([(2, 0.1), (5, 0.2), (1, 0.1)], 1),
        ([(1, 0.1), (1, 0.2), (1, 0.2)], 1),
        ([(3, 0.1), (3, 0.3), (1, 0.2), (3, 0.3)], 1),
        ([(1, 0.1), (1, 0.2)], 0),
    ],
)
def test_the_rate_of_the_group_with_the_most_parameters_counts_then_the_most_common(
    sizes_and_rates: list[tuple[int, float]], best: int
) -> None:
    groups: Any = [
        {"params": [nn.Parameter(torch.ones(1)) for _ in range(n)], "lr": rate} for n, rate in sizes_and_rates
    ]
    assert best_group(SGD(groups).param_groups) == best
    for group in groups:
        group["initial_lr"], group["lr"] = group["lr"], 1e-9  # what it was at first counts
    assert best_group(groups) == best


Make = Callable[[Optimizer], schedules.LRScheduler]
MAKES: dict[str, tuple[Make, str, type[Optimizer]]] = {
    "LambdaLR": (halving, "batch", SGD),
    "StepLR": (lambda o: schedules.StepLR(o, 3, 0.7), "batch", SGD),
    "StepLR of rounds": (lambda o: schedules.StepLR(o, 1, 0.7), "round", SGD),
    "MultiStepLR": (lambda o: schedules.MultiStepLR(o, [2, 4, 7], 0.5), "batch", SGD),
    "OneCycleLR": (lambda o: schedules.OneCycleLR(o, 0.2, total_steps=15), "batch", SGD),
    "OneCycleLR of Adam": (lambda o: schedules.OneCycleLR(o, 0.2, total_steps=15), "batch", Adam),
    "CosineAnnealingLR": (lambda o: schedules.CosineAnnealingLR(o, 12), "batch", SGD),
    "warm-up": (
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o, 0.1, total_iters=4), schedules.ExponentialLR(o, 0.9)], milestones=[4]
        ),
        "batch",
        SGD,
    ),
    "ReduceLROnPlateau": (lambda o: schedules.ReduceLROnPlateau(o, patience=1, factor=0.5), "batch", SGD),
    "ReduceLROnPlateau of rounds": (lambda o: schedules.ReduceLROnPlateau(o, patience=0, factor=0.5), "round", SGD),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # torch's SequentialLR calls itself so
@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("done", [3, 5, 8])
def test_a_resumed_schedule_goes_on_to_the_same_bits(tmp_path: Path, name: str, done: int) -> None:
    make, every, optimizer = MAKES[name]

    def trainer(folder: Path | None) -> Learning:
        made = Learning(folder, lr=0.1, optimizer=optimizer)

        def rising(ctx: Context) -> None:
            if made.iter % 2 == 0:
                made.storage.put_scalar("rising", made.iter)

        made.register_hook_in_train(rising, "on_batch_end")
        metric = "rising" if "Plateau" in name else ""
        made.register_hooks([LRScheduler(make, every=every, metric=metric)])
        if folder is not None:
            made.register_hooks([PeriodicCheckpointer(done, final=False)])
        return made

    class Cut(Exception):
        pass

    def cut_off(ctx: Context) -> None:
        if ctx.trainer.iter == done:
            raise Cut

    whole = trainer(None)
    whole.run(3)
    cut = trainer(tmp_path)
    cut.register_hook_in_train(cut_off, "on_batch_start")
    with pytest.raises(Cut):
        cut.run(3)
    resumed = trainer(tmp_path)
    assert resumed.resume_or_load() == f"model_{done - 1:07d}"
    resumed.run(3)
    assert rates(resumed) == rates(whole)
    assert len(set(rates(whole))) > 1
    assert resumed.weights() == whole.weights()


def test_reduce_on_plateau_steps_only_with_a_new_value_of_its_metric() -> None:
    trainer = Learning(per_round=6, lr=0.8)
    trainer.register_hooks(
        [LRScheduler(lambda o: schedules.ReduceLROnPlateau(o, patience=0, factor=0.5), metric="val/loss")]
    )

    def measure(ctx: Context) -> None:
        if trainer.iter in (1, 3):
            trainer.storage.put_scalar("val/loss", 1.0)

    trainer.register_hook_in_train(measure, "on_batch_end", insert_pos=0)
    trainer.run(1)
    assert rates(trainer) == [0.8, 0.8, 0.8, 0.8, 0.4, 0.4]


def test_what_cannot_be_scheduled_is_refused() -> None:
    with pytest.raises(ConfigError, match="both make and scheduler"):
        LRScheduler(halving, scheduler=halving(SGD([nn.Parameter(torch.ones(1))], 0.1)))
    with pytest.raises(ConfigError, match='every is \'epoch\'; expected "batch" or "round"'):
        LRScheduler(halving, every="epoch")
    wrong: list[tuple[Any, str]] = [
        (LRScheduler(halving, optimizer="other"), "there is no optimizer 'other'; expected one of model0"),
        (LRScheduler(lambda o: 0.1), "an LRScheduler got a float; expected a schedule of torch"),  # type: ignore[arg-type, return-value]
        (LRScheduler(schedules.ReduceLROnPlateau), "ReduceLROnPlateau has no metric to follow"),
    ]
    for hook, text in wrong:
        trainer = Learning()
        trainer.register_hooks([hook])
        with pytest.raises(ConfigError, match=text):
            trainer.run(1)


def test_a_checkpoint_of_other_schedules_is_refused() -> None:
    one, two = Learning(), Learning(models=2)
    hooks = LRScheduler(halving), LRScheduler(halving)
    one.register_hooks([hooks[0]])
    two.register_hooks([hooks[1]])
    with pytest.raises(ConfigError, match="has schedules for model0; expected model0, model1"):
        hooks[1].load_state_dict(hooks[0].state_dict())

"""Training and evaluation on local rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from heterofed.errors import ConfigError, DataError, OutputError
from heterofed.training.context import Context, CtxVar
from heterofed.training.data import NoBatches
from heterofed.training.hooks.base import CallbackHook
from heterofed.training.local import BaseTrainer, LocalConfig, LocalTrainer, RoutineConfig
from heterofed.training.triggers import LIFECYCLE
from tests.training.examples import (
    calls,
    chunks,
    config,
    momentum,
    network,
    one_thread,
    rows,
    same,
    splits,
    trainer,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def by_hand(model: nn.Module, epochs: int, **routine: Any) -> dict[str, torch.Tensor]:
    """Train with a loop that knows nothing of hooks."""
    optimizer = momentum(model.parameters())
    scheduler = routine["scheduler"](optimizer) if "scheduler" in routine else None
    model.train()
    for _ in range(epochs):
        for x, y in chunks(rows(20), 8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if "penalty" in routine:
                loss = loss + routine["penalty"](model)
            loss.backward()
            if "clip" in routine:
                nn.utils.clip_grad_norm_(model.parameters(), routine["clip"])
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return weights(model)


# --- the loop and its hooks ---------------------------------------------------------------------------------------


def test_triggers_fire_from_fit_start_to_fit_end_with_epochs_and_batches_between() -> None:
    of = trainer(train=RoutineConfig(local_update_steps=2, optimizer=momentum))
    seen = calls(of, "register_hook_in_train")
    of.train()
    # the hook of on_batch_backward that steps comes before ours at this trigger
    batch = [f"on_batch_{point}" for point in ("start", "forward", "exchange")]
    batch += ["on_optimizer_step", "on_batch_backward", "on_batch_end"]
    epoch = ["on_epoch_start", *batch * 3, "on_epoch_end"]
    assert seen == ["on_fit_start", *epoch * 2, "on_fit_end"]


def test_evaluation_fires_no_optimizer_step() -> None:
    of = trainer()
    seen = calls(of, "register_hook_in_eval")
    of.evaluate()
    assert seen.count("on_batch_forward") == 2
    assert "on_optimizer_step" not in seen


def test_hooks_get_only_ctx_in_list_order_and_what_they_return_is_ignored() -> None:
    of, seen = trainer(), []

    def first(*arguments: Any) -> str:
        seen.append(("first", arguments == (of.ctx,)))
        return "ignored"

    def second(*arguments: Any) -> None:
        seen.append(("second", arguments == (of.ctx,)))

    of.register_hook_in_train(second, "on_fit_start")
    of.register_hook_in_train(first, "on_fit_start", insert_pos=0)
    of.train()
    assert seen == [("first", True), ("second", True)]


LEARNING = {
    "on_fit_start": [
        "_hook_on_data_parallel_init",
        "_hook_on_fit_start_init",
        "_hook_on_fit_start_calculate_model_size",
    ],
    "on_epoch_start": ["_hook_on_epoch_start"],
    "on_batch_start": ["_hook_on_batch_start_init"],
    "on_batch_forward": [
        "_hook_on_batch_forward",
        "_hook_on_batch_forward_regularizer",
        "_hook_on_batch_forward_flop_count",
    ],
    "on_batch_backward": ["_hook_on_batch_backward"],
    "on_batch_end": ["_hook_on_batch_end"],
    "on_fit_end": ["_hook_on_fit_end"],
}
EVALUATION = {
    "on_fit_start": ["_hook_on_data_parallel_init", "_hook_on_fit_start_init"],
    "on_epoch_start": ["_hook_on_epoch_start"],
    "on_batch_start": ["_hook_on_batch_start_init"],
    "on_batch_forward": ["_hook_on_batch_forward"],
    "on_batch_end": ["_hook_on_batch_end"],
    "on_fit_end": ["_hook_on_fit_end"],
}


def test_the_default_lists_are_those_of_federatedscope() -> None:
    of = trainer()
    for hooks, expected in (
        (of.hooks_in_train, LEARNING),
        (of.hooks_in_ft, LEARNING),
        (of.hooks_in_eval, EVALUATION),
    ):
        assert {trigger: hooks.names(trigger) for trigger in hooks if hooks[trigger]} == expected
        assert {entry.source for trigger in hooks for entry in hooks[trigger]} == {"default"}
    lines = str(of.hooks_in_train).splitlines()
    assert [line.split()[1] for line in lines[2:]] == [name for names in LEARNING.values() for name in names]


def test_a_hook_is_inserted_directly_before_or_after_its_base_or_at_a_position() -> None:
    of = trainer()

    def mine(ctx: Context) -> None:
        pass

    base = "_hook_on_batch_forward_regularizer"
    of.register_hook_in_train(mine, "on_batch_forward", base_hook=base)
    assert of.hooks_in_train.names("on_batch_forward")[:3] == ["_hook_on_batch_forward", "mine", base]
    of.register_hook_in_train(mine, "on_batch_forward", base_hook=base, insert_mode="after")
    assert of.hooks_in_train.names("on_batch_forward")[2:4] == [base, "mine"]
    of.register_hook_in_train(mine, "on_batch_forward", insert_pos=-1)
    assert of.hooks_in_train.names("on_batch_forward")[-1] == "mine"
    with pytest.raises(ConfigError, match="insert_pos"):
        of.register_hook_in_train(mine, "on_batch_forward", insert_pos=9)


def test_reset_by_name_returns_the_index_and_without_one_empties_and_replace_keeps_the_position() -> None:
    of = trainer()

    def mine(ctx: Context) -> None:
        pass

    old = of.hooks_in_train["on_batch_forward"]
    of.replace_hook_in_train(mine, "on_batch_forward", "_hook_on_batch_forward_regularizer")
    assert of.hooks_in_train.names("on_batch_forward")[1] == "mine"
    assert of.reset_hook_in_train("on_batch_forward", "mine") == 1
    assert of.reset_hook_in_train("on_batch_forward") == -1
    assert of.hooks_in_train["on_batch_forward"] == []
    assert len(old) == 2  # a list that someone kept is left to them
    with pytest.raises(ConfigError, match="no hook"):
        of.replace_hook_in_train(mine, "on_batch_end", "absent")
    assert of.hooks_in_train.names("on_batch_end") == ["_hook_on_batch_end"]


@pytest.mark.parametrize("mode", ["train", "eval", "ft"])
def test_register_reset_and_replace_exist_for_every_mode_and_refuse_an_unknown_trigger(mode: str) -> None:
    of = trainer()

    def mine(ctx: Context) -> None:
        pass

    getattr(of, f"register_hook_in_{mode}")(mine, "on_epoch_end")
    getattr(of, f"replace_hook_in_{mode}")(print, "on_epoch_end", "mine")
    assert getattr(of, f"reset_hook_in_{mode}")("on_epoch_end", "print") == 0
    refused: list[Callable[[], Any]] = [
        lambda: getattr(of, f"register_hook_in_{mode}")(mine, "on_monday"),
        lambda: getattr(of, f"reset_hook_in_{mode}")("on_monday"),
        lambda: getattr(of, f"replace_hook_in_{mode}")(mine, "on_monday", "x"),
    ]
    for call in refused:
        with pytest.raises(ConfigError, match="on_monday"):
            call()


def test_a_variable_keeps_its_values_type_and_ends_with_its_batch_epoch_or_routine() -> None:
    of, seen = trainer(train=RoutineConfig(local_update_steps=2, optimizer=momentum)), []

    def begin(kind: str) -> Any:
        def put(ctx: Context) -> None:
            name = f"of_{kind}"
            seen.append((kind, name in ctx))
            ctx[name] = CtxVar(1.5, kind)
            assert type(ctx[name]) is float

        return put

    of.register_hook_in_train(begin("routine"), "on_fit_start")
    of.register_hook_in_train(begin("epoch"), "on_epoch_start")
    of.register_hook_in_train(begin("batch"), "on_batch_start")
    of.train()
    assert seen.count(("batch", False)) == 6
    assert seen.count(("epoch", False)) == 2
    assert not any(there for _, there in seen)
    assert not any(
        name in of.ctx for name in ("of_routine", "of_epoch", "of_batch", "num_samples", "ys_true", "loss_batch")
    )


@pytest.mark.parametrize("trigger", ["on_fit_start", "on_epoch_start", "on_batch_backward", "on_fit_end"])
def test_an_exception_in_a_hook_ends_all_variables_modes_and_splits(trigger: str) -> None:
    of = trainer()
    before = set(of.ctx.keys())

    def fail(ctx: Context) -> None:
        raise RuntimeError("on purpose")

    of.register_hook_in_train(fail, trigger)
    with pytest.raises(RuntimeError, match="on purpose"):
        of.train()
    assert of.ctx.cur_mode is of.ctx.cur_split is None
    assert set(of.ctx.keys()) - before <= {"total_model_size"}
    of.reset_hook_in_train(trigger, "fail")
    assert of.train()[0] == 20  # and the trainer works on


@pytest.mark.parametrize(
    "trigger", ["on_fit_start", "on_epoch_start", "on_batch_start", "on_batch_forward", "on_fit_end"]
)
@pytest.mark.parametrize("split", ["test", "train"])
def test_a_nested_evaluation_leaves_variables_mode_and_the_result_of_training_as_they_were(
    trigger: str, split: str
) -> None:
    skipped = ("eval_metrics", "ys_true", "ys_prob")  # the first is shared, arrays cannot be compared with ==
    plain, nesting, found = trainer(discharge=True, shuffle=True), trainer(discharge=True, shuffle=True), []

    def evaluate(ctx: Context) -> None:
        before = {name: ctx[name] for name in list(ctx.keys()) if name not in skipped}
        modes = [module.training for module in ctx.model.modules()]
        found.append(ctx.trainer.evaluate(split))
        assert [module.training for module in ctx.model.modules()] == modes
        assert (ctx.cur_mode, ctx.cur_split) == ("train", "train")
        assert {name: ctx[name] for name in before} == before

    nesting.register_hook_in_train(evaluate, trigger, insert_pos=0 if trigger == "on_fit_end" else -1)
    torch.manual_seed(5)
    expected = plain.train()
    torch.manual_seed(5)
    samples, parameters, metrics = nesting.train()
    assert (samples, metrics) == (expected[0], expected[2])
    assert same(parameters, expected[1])
    assert found[0][f"{split}_total"] == (9 if split == "test" else 20)


def test_a_nested_evaluation_restores_a_layer_that_was_frozen_in_training() -> None:
    of = trainer()

    def freeze(ctx: Context) -> None:
        ctx.model[1].eval()
        ctx.trainer.evaluate()
        assert ctx.model[0].training
        assert not ctx.model[1].training

    of.register_hook_in_train(freeze, "on_fit_start")
    of.train()


def test_a_nested_evaluation_does_not_move_the_model() -> None:
    of, moved = trainer(discharge=True), []
    of.discharge_model = lambda: moved.append(of.ctx.cur_mode)  # type: ignore[method-assign]  # watched
    of.model.to = lambda device: moved.append(of.ctx.cur_mode)  # type: ignore[assignment]  # watched
    of.register_hook_in_train(lambda ctx: ctx.trainer.evaluate(), "on_epoch_end")
    of.train()
    assert moved == ["train", None]  # when the routine around it begins, and after it


def test_the_mode_and_split_of_a_routine_end_with_it_and_switch_the_model() -> None:
    of, seen = trainer(), []

    def note(ctx: Context) -> None:
        seen.append((ctx.cur_mode, ctx.cur_split, ctx.model.training, torch.is_grad_enabled()))

    of.register_hook_in_train(note, "on_batch_forward")
    of.register_hook_in_eval(note, "on_batch_forward")
    of.register_hook_in_ft(note, "on_batch_forward")
    of.train()
    of.evaluate("val")
    of.evaluate("train")
    of.finetune("val")
    assert list(dict.fromkeys(seen)) == [
        ("train", "train", True, True),
        ("val", "val", False, False),
        ("test", "train", False, False),
        ("finetune", "val", True, True),
    ]
    assert of.ctx.cur_mode is of.ctx.cur_split is None


# --- results --------------------------------------------------------------------------------------------------------


def test_train_returns_samples_parameters_and_metrics() -> None:
    of = trainer(metrics=("acc", "loss_regular"))
    samples, parameters, metrics = of.train()
    assert samples == 20
    assert list(parameters) == [name for name, _ in of.model.named_parameters()]
    assert set(metrics) == {f"train_{name}" for name in ("loss", "avg_loss", "total", "acc", "loss_regular")}
    assert of.ctx.eval_metrics == metrics  # and they survive the routine
    before = weights(of.model)
    next(iter(parameters.values())).add_(1)
    assert same(weights(of.model), before)  # what is returned is a copy


def test_train_equals_a_loop_that_is_written_by_hand_to_the_last_bit() -> None:
    of, model = trainer(train=RoutineConfig(local_update_steps=3, optimizer=momentum)), network()
    torch.manual_seed(3)
    of.train()
    of.train()
    torch.manual_seed(3)
    assert same(weights(of.model), by_hand(model, 6))


def test_a_routine_can_start_with_a_fresh_optimizer() -> None:
    of = trainer(train=RoutineConfig(optimizer=momentum, fresh_optimizer=True))
    model = network()
    torch.manual_seed(3)
    of.train()
    of.train()
    torch.manual_seed(3)
    by_hand(model, 1)
    assert same(weights(of.model), by_hand(model, 1))  # its momentum begins anew
    assert of.ctx.optimizers == [of.optimizers["model"]]


def test_train_on_a_split_that_is_absent_raises_a_value_error() -> None:
    with pytest.raises(ValueError, match="no data of the split"):
        trainer(data={"test": rows(4)}).train()
    with pytest.raises(ValueError, match="holdout"):
        trainer().train("holdout")


def test_evaluate_on_a_split_that_is_absent_warns_and_returns_nothing() -> None:
    of = trainer(data={"train": rows(8)})
    of.train()
    with pytest.warns(UserWarning, match="test"):
        assert of.evaluate() == {}
    assert of.ctx.eval_metrics == {}


def test_metrics_are_named_after_their_split_whatever_its_name() -> None:
    of = trainer(data={**splits(), "holdout": rows(5, seed=9)})
    model, data = of.model, rows(5, seed=9)
    metrics = of.evaluate("holdout")
    with torch.no_grad():
        pred = model.eval()(data["x"])
    assert set(metrics) == {"holdout_loss", "holdout_avg_loss", "holdout_total", "holdout_acc"}
    assert metrics["holdout_acc"] == pytest.approx((pred.argmax(1) == data["y"]).float().mean().item())
    assert metrics["holdout_avg_loss"] == pytest.approx(nn.functional.cross_entropy(pred, data["y"]).item())
    assert of.train("holdout")[0] == 5


@pytest.mark.parametrize("unit", ["batch", "epoch"])
def test_evaluating_the_train_split_passes_it_once(unit: Any) -> None:
    of = trainer(train=RoutineConfig(local_update_steps=7, batch_or_epoch=unit))
    assert of.evaluate("train")["train_total"] == 20


def test_evaluate_takes_hooks_of_its_own_and_an_empty_set_means_none() -> None:
    of, seen = trainer(), []
    assert of.evaluate()["test_total"] == 9
    assert of.evaluate(hooks_set={"on_batch_start": [lambda ctx: seen.append(ctx.cur_batch_i)]}) == {}
    assert seen == [0, 1]
    assert of.evaluate(hooks_set={}) == {}
    before = weights(of.model)
    assert of.train(hooks_set={})[0] == 0
    assert same(weights(of.model), before)


def test_use_diff_adds_the_validation_before_and_after() -> None:
    of = trainer(use_diff=True)
    before = of.evaluate("val")
    _, _, metrics = of.train()
    assert metrics["val_avg_loss_before"] == before["val_avg_loss"]
    assert metrics["val_avg_loss_after"] == of.evaluate("val")["val_avg_loss"] != before["val_avg_loss"]
    assert metrics["val_total"] == 6
    assert metrics["train_total"] == 20
    with pytest.raises(ConfigError, match='"val"'):
        trainer(data={"train": rows(8)}, use_diff=True).train()


# --- how much is trained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "unit", "drop_last", "expected"),
    [
        (2, "epoch", False, [[0, 1, 2], [0, 1, 2]]),
        (2, "epoch", True, [[0, 1], [0, 1]]),
        (1, "batch", False, [[0]]),
        (3, "batch", True, [[0, 1], [0]]),
        (7, "batch", False, [[0, 1, 2], [0, 1, 2], [0]]),
    ],
)
def test_passes_and_batches_are_as_many_as_counted(
    steps: int, unit: Any, drop_last: bool, expected: list[list[int]]
) -> None:
    of = trainer(train=RoutineConfig(local_update_steps=steps, batch_or_epoch=unit), drop_last=drop_last)
    seen: list[list[int]] = []
    of.register_hook_in_train(lambda ctx: seen.append([]), "on_epoch_start")
    of.register_hook_in_train(lambda ctx: seen[-1].append(ctx.cur_batch_i), "on_batch_end")
    counted: list[Any] = []

    def count(ctx: Context) -> None:
        counted.append(
            (ctx.num_train_batch, ctx.num_train_batch_last_epoch, ctx.num_train_epoch, ctx.num_total_train_batch)
        )

    of.register_hook_in_train(count, "on_fit_start")
    of.train()
    assert seen == expected
    assert counted == [(len(seen[0]), len(seen[-1]), len(seen), sum(map(len, seen)))]
    assert "num_train_batch" not in of.ctx


def test_rows_that_make_no_batch_are_refused() -> None:
    of = trainer(data={"train": rows(5), "test": rows(5)}, drop_last=True)
    for call in (of.train, of.evaluate):
        with pytest.raises(NoBatches, match="number of batch is 0"):
            call()


def test_a_hook_may_change_how_many_batches_are_trained() -> None:
    of = trainer()

    def fewer(ctx: Context) -> None:
        ctx.num_train_batch_last_epoch = 1

    of.register_hook_in_train(fewer, "on_fit_start")
    assert of.train()[0] == 8


def test_data_may_be_a_dataset_a_loader_or_arrays_and_nothing_else() -> None:
    data = rows(20)
    numbers = {name: np.asarray(each) for name, each in data.items()}
    dataset = TensorDataset(data["x"], data["y"])
    results = []
    for split in (data, numbers, dataset, DataLoader(dataset, batch_size=8)):
        of = trainer(network(dropout=0.0), {"train": split})  # a DataLoader draws from the generator that dropout uses
        of.train()
        results.append(weights(of.model))
    assert all(same(each, results[0]) for each in results)
    with pytest.raises(TypeError, match="should be dict"):
        trainer(data=[data])  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="not supported"):
        trainer(data={"train": 3})


def test_a_loader_keeps_its_own_batches() -> None:
    dataset = TensorDataset(*rows(20).values())
    sizes: list[int] = []
    of = trainer(data={"train": DataLoader(dataset, batch_sampler=[[0, 1], [2, 3, 4], [5, 6]])}, batch_size=64)
    of.register_hook_in_train(lambda ctx: sizes.append(ctx.batch_size), "on_batch_end")
    of.train()
    assert sizes == [2, 3, 2]


def test_finetuning_uses_its_own_steps_optimizer_and_hooks() -> None:
    of = trainer(
        train=RoutineConfig(local_update_steps=5, optimizer=momentum),
        finetune=RoutineConfig(
            local_update_steps=2, batch_or_epoch="batch", optimizer=lambda p: torch.optim.Adam(p, lr=0.5)
        ),
    )
    seen: list[Any] = []
    of.register_hook_in_ft(lambda ctx: seen.append((ctx.cur_mode, type(ctx.optimizer).__name__)), "on_batch_end")
    metrics = of.finetune()
    assert seen == [("finetune", "Adam")] * 2
    assert metrics["train_total"] == 16
    assert not of.optimizers["model"].state  # that of training has no part in it
    of.train()
    assert len(seen) == 2


def test_a_trainer_that_is_only_for_evaluation_says_so_and_has_no_hooks_of_training() -> None:
    of = LocalTrainer(network(), splits(), only_for_eval=True)
    assert not any(of.hooks_in_train[trigger] or of.hooks_in_ft[trigger] for trigger in of.hooks_in_train)
    for call in (of.train, of.finetune):
        with pytest.raises(ConfigError, match="only for evaluation"):
            call()
    assert of.evaluate()["test_total"] == 9


# --- what is minimised ----------------------------------------------------------------------------------------------


def test_the_regularizer_counts_with_its_weight_and_is_summed_over_rows() -> None:
    def penalty(model: nn.Module) -> torch.Tensor:
        return sum((each**2).sum() for each in model.parameters())  # type: ignore[return-value]  # of a model with some

    of = trainer(regularizer=lambda ctx: penalty(ctx.model), regularizer_mu=0.01, metrics=("loss_regular",))
    parts: list[float] = []
    of.register_hook_in_train(lambda ctx: parts.append(ctx.loss_regular.item() * ctx.batch_size), "on_batch_end")
    torch.manual_seed(3)
    metrics = of.train()[2]
    torch.manual_seed(3)
    assert same(weights(of.model), by_hand(network(), 1, penalty=lambda model: 0.01 * penalty(model)))
    assert metrics["train_loss_regular"] == pytest.approx(sum(parts))


def test_gradients_are_clipped_after_the_hooks_that_look_at_them() -> None:
    of = trainer(grad_clip=0.05)
    norms: list[float] = []

    def norm(ctx: Context) -> None:
        norms.append(torch.cat([each.grad.flatten() for each in ctx.model.parameters()]).norm().item())

    of.register_hook_in_train(norm, "on_optimizer_step")
    of.register_hook_in_train(norm, "on_batch_end")
    torch.manual_seed(3)
    of.train()
    torch.manual_seed(3)
    assert same(weights(of.model), by_hand(network(), 1, clip=0.05))
    assert min(norms[0::2]) > 0.06
    assert max(norms[1::2]) < 0.0501


def half(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_the_schedule_steps_after_each_batch() -> None:
    of = trainer(train=RoutineConfig(optimizer=momentum, scheduler=half))
    torch.manual_seed(3)
    of.train()
    torch.manual_seed(3)
    assert same(weights(of.model), by_hand(network(), 1, scheduler=half))
    assert of.optimizers["model"].param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_the_schedule_may_step_once_for_a_routine() -> None:
    of = trainer(train=RoutineConfig(optimizer=momentum, scheduler=half, schedule_every="round"))
    rates: list[float] = []
    of.register_hook_in_train(lambda ctx: rates.append(ctx.optimizer.param_groups[0]["lr"]), "on_batch_start")
    of.run(2)
    assert rates == [0.1] * 3 + [0.05] * 3


@pytest.mark.parametrize(("steps", "sizes"), [(1, [8, 8]), (2, [8, 8, 4, 8])])
def test_accumulated_batches_make_one_step_with_their_mean_gradient(steps: int, sizes: list[int]) -> None:
    of = trainer(
        network(dropout=0.0),
        train=RoutineConfig(local_update_steps=steps, batch_or_epoch="batch", optimizer=momentum),
        grad_accum_count=2,
    )
    model = network(dropout=0.0)
    optimizer = momentum(model.parameters())
    taken: list[int] = []
    of.register_hook_in_train(lambda ctx: taken.append(ctx.batch_size), "on_batch_end")
    of.train()
    batches = [*chunks(rows(20), 8)] * 2
    for first in range(0, 2 * steps, 2):
        optimizer.zero_grad()
        for x, y in batches[first : first + 2]:
            (nn.functional.cross_entropy(model(x), y) / 2).backward()
        optimizer.step()
    assert taken == sizes
    assert same(weights(of.model), weights(model))


def test_the_last_batches_of_a_routine_make_a_step_though_they_are_fewer() -> None:
    of, steps = trainer(grad_accum_count=2), []
    of.register_hook_in_train(lambda ctx: steps.append(ctx.cur_batch_i), "on_optimizer_step")
    of.train()
    assert steps == [1, 2]


def test_counting_operations_disturbs_neither_the_model_nor_the_random_numbers() -> None:
    plain, counting = trainer(), trainer(count_flops=True)
    for of in (plain, counting):
        torch.manual_seed(4)
        of.train()
    assert same(weights(plain.model), weights(counting.model))
    assert counting.ctx.flops_per_sample == 2 * (4 * 6 + 6 * 2)
    assert counting.ctx.total_flops == 20 * counting.ctx.flops_per_sample
    assert "flops_per_sample" not in plain.ctx


def test_a_batch_that_is_no_pair_is_refused_in_words() -> None:
    three = TensorDataset(torch.zeros(4, 4), torch.zeros(4), torch.zeros(4))
    with pytest.raises(ConfigError, match="no pair"):
        trainer(data={"train": three}).train()


# --- parameters -----------------------------------------------------------------------------------------------------


def test_update_takes_tensors_arrays_and_lists_and_leaves_the_callers_dict_alone() -> None:
    of = trainer()
    given: dict[str, Any] = {"0.bias": [1.0] * 6, "4.bias": np.ones(2), "0.weight": torch.ones(6, 4)}
    before, own = dict(given), weights(of.model)
    of.update(given)
    assert given.keys() == before.keys()
    assert all(given[name] is before[name] for name in given)
    after = weights(of.model)
    assert all((after[name] == 1).all() for name in given)
    assert torch.equal(after["4.weight"], own["4.weight"])


def test_update_refuses_what_does_not_fit_and_changes_nothing() -> None:
    of = trainer()
    before = weights(of.model)
    for wrong in ({"4.bias": [5.0, 5.0], "0.bias": [1.0]}, {"4.bias": [5.0, 5.0], "0.bias": "text"}, [1, 2]):
        with pytest.raises(ConfigError):
            of.update(wrong)
    with pytest.raises(ConfigError, match="nobody"):
        of.update({"4.bias": [5.0, 5.0], "nobody": [1.0]}, strict=True)
    assert same(weights(of.model), before)
    of.update({"nobody": [1.0]})


def test_local_parameters_stay_here_in_both_directions() -> None:
    of = trainer(local_param=("4.",), share_non_trainable_para=True)
    sent = of.get_model_para()
    assert "1.running_mean" in sent
    assert not any(name.startswith("4.") for name in sent)
    before = weights(of.model)
    of.update({name: torch.full_like(each, 2) for name, each in weights(of.model).items()})
    after = weights(of.model)
    assert torch.equal(after["4.weight"], before["4.weight"])
    assert (after["1.running_mean"] == 2).all()
    assert "1.running_mean" not in trainer().get_model_para()


def test_a_saved_model_is_loaded_with_its_round(tmp_path: Path) -> None:
    of, other = trainer(), trainer(network(seed=7))
    of.train()
    of.save_model(tmp_path / "model.pt", cur_round=12)
    assert other.load_model(tmp_path / "model.pt") == 12
    assert same(weights(other.model), weights(of.model))
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]


def test_a_file_that_is_missing_torn_or_of_another_model_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    of = trainer()
    before = weights(of.model)
    with pytest.raises(ValueError, match="no file"):
        of.load_model(tmp_path / "absent.pt")
    of.save_model(tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=r"torn\.pt"):
        of.load_model(tmp_path / "torn.pt")
    trainer(nn.Sequential(nn.Linear(4, 6))).save_model(tmp_path / "other.pt")
    with pytest.raises(DataError, match="another model"):
        of.load_model(tmp_path / "other.pt")
    with pytest.raises(OutputError):
        of.save_model(tmp_path / "no" / "folder.pt")
    assert same(weights(of.model), before)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_of_rounds_is_as_many_routines_of_training() -> None:
    run, plain = trainer(shuffle=True), trainer(shuffle=True)
    losses: list[float] = []
    run.register_hooks([CallbackHook(after_step=lambda of: losses.append(of.storage.latest()["loss"][0]))])
    torch.manual_seed(3)
    run.run(3)
    torch.manual_seed(3)
    for _ in range(3):
        plain.train()
    assert same(weights(run.model), weights(plain.model))
    assert (run.iter, run.max_iter, run.round, len(losses)) == (9, 9, 3, 9)


def test_every_pass_has_an_order_of_its_own_that_the_seed_decides() -> None:
    def orders(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []
        data = {"train": {"x": torch.eye(20), "y": torch.zeros(20).long()}}
        of = trainer(
            nn.Linear(20, 2), data, shuffle=True, seed=seed, batch_size=20, train=RoutineConfig(local_update_steps=2)
        )
        of.register_hook_in_train(lambda ctx: seen.append(ctx.data_batch[0].argmax(1).tolist()), "on_batch_start")
        of.train()
        of.train()
        return seen

    torch.manual_seed(1)
    first = orders(5)
    torch.manual_seed(2)
    assert orders(5) == first
    assert orders(6) != first
    assert all(sorted(each) == list(range(20)) for each in first)
    assert len({tuple(each) for each in first}) == 4


def loaders(generator: torch.Generator | None) -> dict[str, Any]:
    dataset = TensorDataset(*rows(20).values())
    return {"train": DataLoader(dataset, batch_size=8, shuffle=True, generator=generator)}


@pytest.mark.parametrize("kind", ["arrays", "loader", "loader with a generator"])
@pytest.mark.parametrize(("at", "accumulated"), [(1, 1), (3, 2), (5, 1), (6, 1), (8, 2)])
def test_a_run_that_resumes_in_mid_round_ends_with_the_same_bits(
    tmp_path: Path, kind: str, at: int, accumulated: int
) -> None:
    def made(folder: Path, seed: int) -> LocalTrainer:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        data = splits() if kind == "arrays" else loaders(generator if "with" in kind else None)
        routine = RoutineConfig(
            local_update_steps=2,
            optimizer=momentum,
            scheduler=half if at == 6 else lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
            schedule_every="round" if at == 6 else "batch",
            fresh_optimizer=at == 5,
        )
        return LocalTrainer(
            network(seed),
            data,
            config=config(train=routine, shuffle=True, seed=None, grad_accum_count=accumulated),
            checkpoint_folder=folder,
        )

    whole = made(tmp_path / "whole", 1)
    whole.run(2)

    stopped = made(tmp_path / "stopped", 1)

    def stop(of: Any) -> None:
        if of.iter == at - 1:
            of.request_checkpoint()
        if of.iter == at:
            raise KeyboardInterrupt

    stopped.register_hooks([CallbackHook(after_step=stop)])
    with pytest.raises(KeyboardInterrupt):
        stopped.run(2)

    resumed = made(tmp_path / "stopped", 2)
    assert resumed.resume_or_load() is not None
    resumed.run(2)
    assert (resumed.iter, resumed.max_iter) == (12, 12)
    assert same(weights(resumed.model), weights(whole.model))
    rates = [each.optimizers["model"].param_groups[0]["lr"] for each in (resumed, whole)]
    assert rates[0] == rates[1] < 0.1


# --- the rest -------------------------------------------------------------------------------------------------------


def test_the_meta_info_tells_what_a_trainer_was_made_of() -> None:
    class Mine(BaseTrainer):
        def __init__(self, model: Any, data: Any, device: Any, depth: int = 3) -> None:
            super().__init__(model, data, device, depth=depth)

        def train(self) -> Any: ...
        def evaluate(self, target_data_split_name: str = "test") -> Any: ...
        def update(self, model_parameters: Any, strict: bool = False) -> None: ...
        def get_model_para(self) -> Any: ...

    assert Mine("m", "d", "cpu").print_trainer_meta_info() == (
        "Mine(('model', 'm'), ('data', 'd'), ('device', 'cpu'), ('depth', 3))"
    )
    text = trainer().print_trainer_meta_info()
    assert text.startswith("LocalTrainer(('model', Sequential(")
    assert "only_for_eval" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"grad_accum_count": 0},
        {"seed": -1},
        {"criterion": "mse"},
        {"regularizer": 3},
        {"grad_clip": "1"},
        {"drop_last": 1},
        {"shuffle": "no"},
        {"metrics": ("accuracy_of_nothing",)},
        {"task": "poetry"},
        {"local_param": "head"},
        {"train": {"local_update_steps": 1}},
    ],
)
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LocalConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"local_update_steps": 0},
        {"batch_or_epoch": "week"},
        {"optimizer": "sgd"},
        {"scheduler": 3},
        {"schedule_every": "epoch"},
        {"fresh_optimizer": 1},
    ],
)
def test_a_setting_of_a_routine_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RoutineConfig(**wrong)


def test_what_makes_no_optimizer_is_refused_when_the_trainer_is_made() -> None:
    with pytest.raises(ConfigError, match="optimizer"):
        trainer(train=RoutineConfig(optimizer=lambda parameters: 3))  # type: ignore[arg-type, return-value]  # on purpose
    with pytest.raises(ConfigError, match="optimizer"):
        trainer(nn.ReLU())


def test_a_trainer_computes_where_it_is_told_to() -> None:
    of = LocalTrainer(network(), splits(), "meta", config(), only_for_eval=True)
    seen: list[str] = []
    hooks = {
        trigger: [entry.function for entry in of.hooks_in_eval[trigger]]
        for trigger in ("on_fit_start", "on_epoch_start", "on_batch_start", "on_batch_forward")
    }
    hooks["on_batch_forward"].append(lambda ctx: seen.append(ctx.y_prob.device.type))
    of.evaluate(hooks_set=hooks)
    assert seen == ["meta", "meta"]


def test_a_regression_is_trained_too() -> None:
    x = rows(30)["x"]
    data = {"train": {"x": x, "y": x.sum(dim=1, keepdim=True)}}
    routine = RoutineConfig(local_update_steps=20)
    of = trainer(nn.Linear(4, 1), data, train=routine, criterion=nn.MSELoss(), task="regression", metrics=("rmse",))
    of.train()
    assert of.evaluate("train")["train_rmse"] < 0.1


def test_a_copy_of_a_configuration_is_no_trainers_state() -> None:
    shared = config()
    one = LocalTrainer(network(), splits(), config=shared)
    before = copy.deepcopy(weights(one.model))
    LocalTrainer(network(seed=3), splits(), config=shared).train()
    assert same(weights(one.model), before)
    assert LIFECYCLE.ROUTINE == "routine"

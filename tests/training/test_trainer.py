"""The loop: in which order hooks are called, what is true at each point, and what an exception leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from heterofed.errors import ConfigError
from heterofed.metrics.storage import get_event_storage
from heterofed.metrics.writers import EventWriter
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import CallbackHook, HookBase
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import LIFECYCLE
from tests.training.toys import Counting, Learning, record


class Boom(Exception):
    """Raised on purpose."""


def booming(*when: int) -> Callable[[Context], None]:
    """Return a hook that raises in these iterations."""

    def boom(ctx: Context) -> None:
        if ctx.trainer.iter in when:
            raise Boom(f"in iteration {ctx.trainer.iter}")

    return boom


BATCH = ["on_batch_start", "on_batch_forward", "on_batch_exchange", "on_batch_backward", "on_batch_end"]
ROUTINE = ["on_fit_start", "on_epoch_start", *BATCH, *BATCH, "on_epoch_end", "on_fit_end"]


# --- order ------------------------------------------------------------------------------------------------------------


def test_triggers_fire_in_the_order_of_the_loop() -> None:
    seen: list[str] = []
    trainer = Counting()
    record(trainer, seen)
    trainer.run(2)
    rounds = ["on_round_start", *ROUTINE, "on_round_end"]
    assert seen == ["before_train", *rounds, *rounds, "after_train"]


def test_each_mode_has_hooks_of_its_own() -> None:
    seen: list[str] = []
    trainer = Counting()
    record(trainer, seen)
    trainer.train()
    assert seen == ROUTINE
    seen.clear()
    trainer.evaluate()
    assert seen == [f"eval:{each}" for each in ROUTINE]
    seen.clear()
    trainer.finetune()
    assert seen == [f"ft:{each}" for each in ROUTINE]


def test_hooks_get_only_ctx_in_the_order_of_the_list() -> None:
    trainer = Counting(per_round=1)
    seen: list[Any] = []
    trainer.register_hook_in_train(lambda *given: seen.append(("b", given)), "on_batch_end")
    trainer.register_hook_in_train(lambda *given: seen.append(("a", given)), "on_batch_end", insert_pos=0)
    trainer.train()
    assert seen == [("a", (trainer.ctx,)), ("b", (trainer.ctx,))]


def test_before_train_then_steps_then_after_train() -> None:
    seen: list[str] = []

    class Steps(Counting):
        def run_step(self) -> None:
            seen.append(f"run_step {self.iter}")

    trainer = Steps()
    names = ("before_train", "before_step", "after_step", "after_train")
    callbacks: Any = {name: (lambda _, name=name: seen.append(name)) for name in names}
    trainer.register_hooks([CallbackHook(**callbacks)])
    trainer.run(1)
    step = ["before_step", "run_step 0", "after_step"]
    assert seen == ["before_train", *step, "before_step", "run_step 1", "after_step", "after_train"]


def test_hooks_given_for_one_routine_are_called_instead_of_the_modes_own() -> None:
    seen: list[str] = []
    trainer = Counting()
    record(trainer, seen)
    trainer.train(hooks_set={"on_batch_end": [lambda ctx: seen.append("own")]})
    assert seen == ["own", "own"]
    seen.clear()
    trainer.train()
    assert seen == ROUTINE


def test_run_step_build_hooks_and_build_writers_can_be_overridden() -> None:
    written: list[str] = []

    class Notes(EventWriter):
        def write(self, storage: Any = None) -> None:
            written.append("write")

        def close(self, storage: Any = None) -> None:
            written.append("close")

    class Own(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.register_hooks(self.build_hooks())

        def run_step(self) -> None:
            self.storage.put_scalar("batch", self.ctx.data_batch)

        def build_writers(self) -> list[EventWriter]:
            return [Notes()]

        def build_hooks(self) -> list[HookBase]:
            return [CallbackHook(after_train=lambda _: [each.close() for each in self.build_writers()])]

    assert (Counting().build_hooks(), Counting().build_writers()) == ([], [])
    trainer = Own()
    trainer.run(1)
    assert trainer.storage.history("batch").values() == [(0.0, 0), (1.0, 1)]
    assert written == ["close"]


def test_a_trainer_without_batches_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"Trainer does not say where batches come from\. Write batches\(\)"):
        Trainer({}, {}).train()


# --- counting ---------------------------------------------------------------------------------------------------------


def test_iterations_and_rounds_are_counted_over_runs() -> None:
    trainer = Counting()
    seen: list[Any] = []

    def note(ctx: Context) -> None:
        storage = get_event_storage()
        seen.append((trainer.iter, trainer.round, trainer.current_round, storage.iter, ctx.cur_batch_i, ctx.data_batch))

    trainer.register_hook_in_train(note, "on_batch_end")
    trainer.run(2)
    trainer.run(3)
    assert seen == [
        (0, 0, 1, 0, 0, 0),
        (1, 0, 1, 1, 1, 1),
        (2, 1, 2, 2, 0, 0),
        (3, 1, 2, 3, 1, 1),
        (4, 2, 3, 4, 0, 0),
        (5, 2, 3, 5, 1, 1),
    ]
    assert (trainer.iter, trainer.start_iter, trainer.round, trainer.max_rounds) == (6, 4, 3, 3)


def test_what_a_round_s_end_measures_is_of_its_last_batch() -> None:
    trainer = Counting()
    trainer.register_hook_in_train(lambda ctx: trainer.storage.put_scalar("score", 1), "on_round_end")
    trainer.run(2)
    assert [at for _, at in trainer.storage.history("score").values()] == [1, 3]
    assert trainer.storage.round_of("score") == 2


def test_samples_are_counted_where_the_batch_size_is_known() -> None:
    trainer = Learning(per_round=3)
    trainer.run(1)
    assert trainer.storage.samples == 24


def test_stop_ends_the_run_after_the_round(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Counting()
    trainer.register_hook_in_train(lambda ctx: trainer.stop("enough") if trainer.iter == 2 else None, "on_batch_end")
    with caplog.at_level(logging.INFO, "heterofed"):
        trainer.run()
    assert (trainer.iter, trainer.round, trainer.run_ok, trainer.stopping) == (4, 2, True, True)
    assert caplog.messages == ["training ends after round 2: enough"]
    trainer.run(3)
    assert trainer.round == 3, "a run after that goes on"


def test_the_iterations_reach_the_last_one_only_on_success() -> None:
    class Planned(Counting):
        def planned_iterations(self) -> int | None:
            return None if self.max_rounds is None else self.max_rounds * self.per_round

    fine, broken = Planned(), Planned()
    fine.run(2)
    assert fine.iter == fine.max_iter == 4
    broken.register_hook_in_train(booming(3), "on_batch_end")
    with pytest.raises(Boom):
        broken.run(2)
    assert (broken.iter, broken.max_iter) == (3, 4)


# --- routines inside each other ---------------------------------------------------------------------------------------


def test_an_evaluate_in_a_hook_of_training_keeps_the_outer_variables_mode_and_gradients() -> None:
    seen: list[Any] = []
    trainer = Counting()
    model = trainer.models["only"] = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))

    def outside(ctx: Context) -> Any:
        inside = ctx.get("mine"), ctx.data_batch, ctx.cur_batch_i, ctx.cur_mode, ctx.cur_split, model.training
        return *inside, torch.is_grad_enabled(), trainer.iter, trainer.storage.iter

    def evaluate(ctx: Context) -> None:
        ctx.mine = CtxVar(ctx.cur_batch_i + 10, LIFECYCLE.BATCH)
        before = outside(ctx)
        trainer.evaluate("val")
        assert outside(ctx) == before
        seen.append("back")

    def inner(ctx: Context) -> None:
        seen.append((ctx.cur_mode, ctx.cur_split, model.training, torch.is_grad_enabled(), "mine" in ctx, ctx.nested))
        ctx.mine = CtxVar("inner", LIFECYCLE.BATCH)

    trainer.register_hook_in_train(evaluate, "on_batch_forward")
    trainer.register_hook_in_eval(inner, "on_batch_end")
    trainer.run(1)
    once = [("val", "val", False, False, False, True)] * 2 + ["back"]
    assert seen == once * 2
    assert (trainer.iter, trainer.round) == (2, 1)


def test_an_evaluate_that_fails_in_a_hook_which_deals_with_it_changes_nothing() -> None:
    trainer = Counting()
    seen: list[Any] = []
    trainer.register_hook_in_eval(booming(0, 1), "on_batch_forward")

    def evaluate(ctx: Context) -> None:
        with pytest.raises(Boom):
            trainer.evaluate()
        seen.append((ctx.cur_mode, ctx.cur_batch_i, trainer.models["only"].training, torch.is_grad_enabled()))

    trainer.register_hook_in_train(evaluate, "on_batch_end")
    trainer.run(1)
    assert seen == [("train", 0, True, True), ("train", 1, True, True)]


def test_a_finetuning_inside_training_counts_no_iterations() -> None:
    trainer = Counting()
    seen: list[int] = []
    trainer.register_hook_in_train(lambda ctx: trainer.finetune(), "on_batch_end")
    trainer.register_hook_in_ft(lambda ctx: seen.append(trainer.iter), "on_batch_end")
    trainer.run(1)
    assert seen == [0, 0, 1, 1]
    assert trainer.iter == 2

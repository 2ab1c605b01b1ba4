"""A routine whose batches are run one at a time, between the lines of somebody else's code."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import torch

from heterofed.errors import ConfigError
from heterofed.training.context import Context, CtxVar
from heterofed.training.triggers import LIFECYCLE, MODE
from tests.training.toys import Counting, record


def modes() -> tuple[bool, bool, bool]:
    """Whether autograd records, in inference mode, with automatic mixed precision."""
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


class Outcomes(Counting):
    """Gives each batch's number and what torch's modes were while it ran."""

    def __init__(self, per_round: int = 3) -> None:
        super().__init__(per_round)
        self.modes: list[tuple[Any, ...]] = []

    def run_step(self) -> None:
        self.modes.append((*modes(), self.models["only"].training))

    def outcome(self) -> Any:
        return self.ctx.data_batch * 10


AS_IN_A_TEST = (False, False, False, False)


def test_batches_run_when_they_are_asked_for_with_all_their_hooks() -> None:
    seen: list[str] = []
    trainer = Outcomes()

    def noting(trigger: str) -> Any:
        return lambda ctx: seen.append(trigger)

    for trigger in ("on_fit_start", "on_epoch_start", "on_batch_end", "on_epoch_end", "on_fit_end"):
        trainer.register_hook_in_eval(noting(trigger), trigger)

    with trainer.stepwise(MODE.TEST, "test") as steps:
        assert seen == ["on_fit_start"]
        assert next(steps) == 0
        assert seen == ["on_fit_start", "on_epoch_start", "on_batch_end"]
        assert list(steps) == [10, 20]
        assert seen[3:] == ["on_batch_end", "on_batch_end", "on_epoch_end"]

    assert seen[6:] == ["on_fit_end"]


def test_the_order_is_that_of_the_loop_whoever_drives_it() -> None:
    by_itself: list[str] = []
    driven: list[str] = []
    one, other = Counting(), Counting()
    record(one, by_itself)
    record(other, driven)

    one.evaluate()
    with other.stepwise(MODE.TEST, "test") as steps:
        for _ in steps:
            pass

    assert driven == by_itself


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_batches_that_were_not_asked_for_run_at_the_end(asked: int) -> None:
    trainer = Outcomes()

    with trainer.stepwise(MODE.TEST, "test") as steps:
        for _ in range(asked):
            next(steps)

    assert len(trainer.modes) == 3


def test_between_two_batches_there_is_no_variable_of_a_batch_and_the_models_evaluate() -> None:
    trainer = Outcomes()
    trainer.register_hook_in_eval(lambda ctx: ctx.put(LIFECYCLE.BATCH, mine=1), "on_batch_start")

    with trainer.stepwise(MODE.TEST, "test") as steps:
        for _ in steps:
            assert "mine" not in trainer.ctx
            assert "data_batch" not in trainer.ctx
            assert trainer.ctx.cur_mode == "test"
            assert not torch.is_grad_enabled()
            assert not trainer.models["only"].training

    assert trainer.ctx.cur_mode is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "disturb",
    [torch.enable_grad, torch.inference_mode, partial(torch.autocast, "cpu", torch.bfloat16)],
    ids=["gradients", "inference", "precision"],
)
def test_modes_of_torch_that_the_code_around_sets_do_not_reach_the_batches(disturb: Any) -> None:
    trainer = Outcomes()

    with trainer.stepwise(MODE.TEST, "test") as steps, disturb():
        mine = modes()
        for _ in steps:
            assert modes() == mine

    assert trainer.modes == [AS_IN_A_TEST] * 3


def test_a_model_that_the_code_around_sets_to_training_evaluates_in_the_batches_all_the_same() -> None:
    trainer = Outcomes()
    model = trainer.models["only"]

    with trainer.stepwise(MODE.TEST, "test") as steps:
        model.train()
        for _ in steps:
            assert model.training
            model.train()

    assert trainer.modes == [AS_IN_A_TEST] * 3


def test_a_mode_that_a_hook_sets_holds_for_the_batches_that_follow() -> None:
    """Dropout at work in a test, for example."""
    trainer = Outcomes()
    trainer.register_hook_in_eval(lambda ctx: trainer.models["only"].train(), "on_epoch_start")

    with trainer.stepwise(MODE.TEST, "test") as steps:
        list(steps)

    assert [each[3] for each in trainer.modes] == [True] * 3


class Boom(Exception):
    """Raised on purpose."""


def booming(ctx: Context) -> None:
    if ctx.cur_batch_i == 1:
        raise Boom("in batch 1")


def test_what_a_batch_raises_comes_out_though_the_code_around_catches_it() -> None:
    trainer = Outcomes()
    trainer.register_hook_in_eval(booming, "on_batch_end")
    caught: list[Exception] = []

    with pytest.raises(Boom), trainer.stepwise(MODE.TEST, "test") as steps:
        for _ in range(5):
            try:
                next(steps)
            except Boom as error:
                caught.append(error)

    assert len(caught) == 4
    assert len(set(map(id, caught))) == 1


def test_what_a_batch_raises_comes_out_though_the_code_around_makes_another_error_of_it() -> None:
    trainer = Outcomes()
    trainer.register_hook_in_eval(booming, "on_batch_end")

    with pytest.raises(Boom), trainer.stepwise(MODE.TEST, "test") as steps:
        try:
            list(steps)
        except Exception as error:
            raise ValueError("something went wrong") from error


def test_an_interrupt_that_the_code_around_swallows_comes_out() -> None:
    trainer = Outcomes()

    def interrupt(ctx: Context) -> None:
        raise KeyboardInterrupt

    trainer.register_hook_in_eval(interrupt, "on_batch_end")

    with pytest.raises(KeyboardInterrupt), trainer.stepwise(MODE.TEST, "test") as steps, suppress(BaseException):
        next(steps)


def test_what_the_code_around_raises_leaves_nothing_behind() -> None:
    ended: list[str] = []

    class Closing(Outcomes):
        def batches(self, epoch: int) -> Iterator[Any]:
            try:
                yield from super().batches(epoch)
            finally:
                ended.append("closed")

    trainer = Closing()
    trainer.register_hook_in_eval(lambda ctx: ended.append("on_fit_end"), "on_fit_end")

    with pytest.raises(ValueError, match="in between"), trainer.stepwise(MODE.TEST, "test") as steps:
        next(steps)
        raise ValueError("in between")

    assert ended == ["closed"]
    assert trainer.ctx.cur_mode is None
    assert len(trainer.modes) == 1
    trainer.evaluate()
    assert len(trainer.modes) == 4


def test_a_hook_that_asks_for_the_next_batch_is_told_so() -> None:
    trainer = Outcomes()
    trainer.register_hook_in_eval(lambda ctx: next(ctx.steps), "on_batch_end")

    problem = "a batch was asked for while the one before it is still being run"
    with pytest.raises(ConfigError, match=problem), trainer.stepwise(MODE.TEST, "test") as steps:
        trainer.ctx.steps = CtxVar(steps, LIFECYCLE.ROUTINE)
        next(steps)


def test_the_trainer_does_not_hold_what_it_has_given() -> None:
    class Large(Outcomes):
        def outcome(self) -> Any:
            made = torch.zeros(3)
            given.append(weakref.ref(made))
            return made

    given: list[weakref.ref[Any]] = []
    held: list[int] = []
    trainer = Large()
    trainer.register_hook_in_eval(lambda ctx: held.append(sum(each() is not None for each in given)), "on_batch_start")

    with trainer.stepwise(MODE.TEST, "test") as steps:
        for _ in range(3):
            next(steps)

    assert held == [0, 0, 0]


def test_batches_of_training_count_when_they_are_driven() -> None:
    trainer = Outcomes()

    with trainer.stepwise(MODE.TRAIN, "train") as steps:
        next(steps)
        assert trainer.iter == 1

    assert trainer.iter == trainer.done_in_routine == 3

"""EvalHook and EarlyStopper."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.hooks import EarlyStopper, EvalHook, HookBase, PeriodicCheckpointer
from tests.training.toys import Counting


class Cut(Exception):
    """Raised on purpose."""


def fail(ctx: Context) -> None:
    raise Cut


def evaluations(trainer: Counting, hook_period: int, *, every: str, rounds: int) -> list[int]:
    """Return after how many batches the function was called."""
    seen: list[int] = []

    def function() -> None:
        in_batch = trainer.ctx.cur_mode is not None
        seen.append(trainer.iter + in_batch)

    trainer.register_hooks([EvalHook(hook_period, function, every=every)])
    trainer.run(rounds)
    return seen


@pytest.mark.parametrize(
    ("period", "every", "per_round", "rounds", "expected"),
    [
        (2, "batch", 5, 1, [2, 4, 5]),
        (2, "batch", 4, 1, [2, 4]),
        (0, "batch", 4, 1, [4]),
        (7, "batch", 4, 1, [4]),
        (2, "batch", 3, 2, [2, 4, 6]),
        (1, "round", 3, 2, [3, 6]),
        (2, "round", 3, 3, [6, 9]),
        (0, "round", 3, 2, [6]),
    ],
)
def test_an_eval_hook_evaluates_periodically_and_once_finally(
    period: int, every: str, per_round: int, rounds: int, expected: list[int]
) -> None:
    assert evaluations(Counting(per_round), period, every=every, rounds=rounds) == expected


@pytest.mark.parametrize("every", ["batch", "round"])
@pytest.mark.parametrize("trigger", ["before_train", "on_batch_end", "on_round_end"])
def test_an_eval_hook_never_evaluates_after_a_failure_not_even_of_the_last_step(every: str, trigger: str) -> None:
    trainer = Counting(1)
    seen: list[int] = []
    trainer.register_hook_in_train(fail, trigger)
    trainer.register_hooks([EvalHook(1, lambda: seen.append(1), every=every)])
    with pytest.raises(Cut):
        trainer.run(1)
    expected = [1] if (every, trigger) == ("batch", "on_round_end") else []
    assert seen == expected


def test_an_eval_hook_serves_several_runs() -> None:
    trainer = Counting(2)
    assert evaluations(trainer, 0, every="round", rounds=1) == [2]
    seen: list[int] = []
    trainer.remove_hook("EvalHook")
    trainer.register_hooks([EvalHook(0, lambda: seen.append(trainer.iter))])
    trainer.run(2)
    trainer.run(3)
    assert seen == [4, 6]


def test_the_last_evaluation_is_not_repeated_by_a_resumed_run(tmp_path: Path) -> None:
    def make() -> tuple[Counting, list[int]]:
        trainer, seen = Counting(2, checkpoint_folder=tmp_path), list[int]()
        trainer.register_hooks([EvalHook(1, lambda: seen.append(trainer.iter)), PeriodicCheckpointer(final=False)])
        return trainer, seen

    cut, _ = make()
    cut.register_hook_in_train(fail, "on_fit_end")
    with pytest.raises(Cut):
        cut.run(1)
    resumed, seen = make()
    resumed.resume_or_load()
    resumed.run(1)
    assert seen == []


def test_nested_results_become_scalars_that_are_not_smoothed() -> None:
    trainer = Counting(2)
    results = {"test": {"accuracy": 0.5, "by": {"class": torch.tensor([3.0], requires_grad=True)}}, "n": np.int64(4)}
    trainer.register_hooks([EvalHook(2, lambda: results)])
    trainer.run(1)
    assert trainer.storage.latest() == {"test/accuracy": (0.5, 1), "test/by/class": (3.0, 1), "n": (4.0, 1)}
    assert not any(trainer.storage.smoothing_hints().values())


@pytest.mark.parametrize("nothing", [None, {}, [], False, {"a": {}}])
def test_nothing_to_report_is_fine(nothing: Any) -> None:
    trainer = Counting(1)
    trainer.register_hooks([EvalHook(1, lambda: nothing)])
    trainer.run(1)
    assert trainer.storage.latest() == {}


@pytest.mark.parametrize("result", [0.5, 0.0, [1], "text", np.zeros(2)])
def test_a_result_that_is_no_dict_is_refused(result: Any) -> None:
    trainer = Counting(1)
    trainer.register_hooks([EvalHook(1, lambda: result, name="Test")])
    text = f"the function of Test returned a {type(result).__name__}; expected a dict, name -> number, or None"
    with pytest.raises(ConfigError, match=text):
        trainer.run(1)


@pytest.mark.parametrize("value", ["0.5", None, [1.0], torch.ones(2), np.ones(2), object()])
def test_a_value_that_is_no_number_is_a_value_error_and_nothing_is_stored(value: Any) -> None:
    trainer = Counting(1)
    trainer.register_hooks([EvalHook(1, lambda: {"good": 1.0, "a": {"b": value}})])
    with pytest.raises(ValueError, match=rf"a/b of an evaluation is a {type(value).__name__}; it has to be one number"):
        trainer.run(1)
    assert trainer.storage.latest() == {}


def test_an_evaluation_that_trains_does_not_evaluate_itself() -> None:
    trainer = Counting(2)
    seen: list[int] = []

    def function() -> None:
        seen.append(trainer.iter)
        trainer.finetune()

    trainer.register_hooks([EvalHook(3, function)])
    trainer.run(1)
    assert seen == [2], "at the end of the run, but not after the third batch, which is one of the function's"
    trainer.run(2)
    assert seen == [2, 5], "the sixth batch's fine-tuning is inside of it and not counted"


def test_two_eval_hooks_need_names() -> None:
    trainer = Counting(1)
    hooks = [EvalHook(1, dict, name="test"), EvalHook(1, dict, name="val"), EvalHook(1, dict)]
    trainer.register_hooks(hooks)
    assert list(trainer.hooks) == ["test", "val", "EvalHook"]
    with pytest.raises(ConfigError, match="an EvalHook evaluates with a dict; expected a function"):
        EvalHook(1, {})  # type: ignore[arg-type]  # on purpose


# --- early stopping ---------------------------------------------------------------------------------------------------


class Losses(HookBase):
    """Puts one loss at the end of each round, or batch; None: nothing."""

    def __init__(self, losses: list[float | None], every: str = "round") -> None:
        self._losses = losses
        self._every = every

    def _put(self, at: int) -> None:
        loss = self._losses[at] if at < len(self._losses) else None
        if loss is not None:
            self.trainer.storage.put_scalar("val/loss", loss, smoothing_hint=False)

    def after_step(self) -> None:
        if self._every == "batch":
            self._put(self.trainer.iter)

    def after_round(self) -> None:
        if self._every == "round":
            self._put(self.trainer.round)


def stopping(losses: list[float | None], folder: Path | None = None, every: str = "round", **options: Any) -> Counting:
    trainer = Counting(3, checkpoint_folder=folder)
    hooks: list[HookBase | None] = [
        Losses(losses, every),
        EarlyStopper("val/loss", every=every, **options),
        None if folder is None else PeriodicCheckpointer(final=False),
    ]
    trainer.register_hooks(hooks)
    return trainer


@pytest.mark.parametrize(
    ("losses", "options", "rounds"),
    [
        ([1.0, 0.9, 0.95, 0.96, 0.5], {"patience": 2}, 4),
        ([1.0, 0.9, None, 0.95, None, 0.96], {"patience": 2}, 6),
        ([1.0, 0.95, 0.93, 0.5, 0.49], {"patience": 2, "delta": 0.1}, 3),
        ([0.1, 0.2, 0.15, 0.12, 0.3], {"patience": 2, "larger_is_better": True}, 4),
        ([1.0, 0.8, 0.85, 0.9, 0.7], {"patience": 2, "mode": "mean"}, 4),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], {"patience": 0}, 8),
    ],
)
def test_early_stopping_honours_patience_delta_and_mode(
    losses: list[float | None], options: dict[str, Any], rounds: int
) -> None:
    trainer = stopping(losses, **options)
    trainer.run(8)
    assert trainer.round == rounds
    assert trainer.run_ok


def test_the_reason_names_the_metric_the_best_value_and_the_patience(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "heterofed"):
        stopping([1.0, 0.9, 0.95, 0.96], patience=2).run(9)
        stopping([float("nan")] * 3, patience=1, mode="mean").run(9)
    assert caplog.messages == [
        "training ends after round 4: val/loss is no better than the best one, with a patience of 2 "
        "(best 0.9; less counts as better)",
        "training ends after round 1: val/loss is no better than the mean of those before, with a patience of 1 "
        "(no finite value so far; less counts as better)",
    ]


def test_stopping_by_batches_ends_after_the_round() -> None:
    trainer = stopping([1.0, 2.0, 0.5], every="batch", patience=1)
    trainer.run(4)
    assert (trainer.iter, trainer.round) == (3, 1)


def test_a_run_after_a_stop_goes_on() -> None:
    trainer = stopping([1.0, 2.0, 0.5, 0.4], patience=1)
    trainer.run(9)
    assert trainer.round == 2
    trainer.run(4)
    assert trainer.round == 4


def interrupted(trainer: Counting, iteration: int, trigger: str) -> None:
    def cut_off(ctx: Context) -> None:
        if trainer.iter == iteration:
            raise Cut

    trainer.register_hook_in_train(cut_off, trigger)
    with pytest.raises(Cut):
        trainer.run(9)


def test_the_patience_so_far_survives_a_resume(tmp_path: Path) -> None:
    losses: list[float | None] = [1.0, 0.9, 0.95, 0.96, 0.97]
    interrupted(stopping(losses, tmp_path, patience=2), 10, "on_batch_start")
    resumed = stopping(losses, tmp_path, patience=2)
    resumed.resume_or_load()
    resumed.run(9)
    assert resumed.round == 4


def test_a_run_that_was_about_to_end_ends_when_it_resumes(tmp_path: Path) -> None:
    losses: list[float | None] = [1.0, 2.0, 0.5, 0.4]
    trainer = Counting(3, checkpoint_folder=tmp_path)
    trainer.register_hooks(
        [Losses(losses), EarlyStopper("val/loss", 1), PeriodicCheckpointer(every="round", final=False)]
    )
    trainer.run(9)
    resumed = stopping(losses, tmp_path, patience=1)
    resumed.resume_or_load()
    resumed.run(9)
    assert (resumed.round, resumed.iter) == (2, 6)


def test_a_round_that_was_to_be_the_last_is_completed_when_it_resumes(tmp_path: Path) -> None:
    losses: list[float | None] = [1.0, 2.0, 0.5, 0.4, 0.3]
    interrupted(stopping(losses, tmp_path, "batch", patience=1), 2, "on_batch_start")
    resumed = stopping(losses, tmp_path, "batch", patience=1)
    resumed.resume_or_load()
    assert resumed.done_in_routine == 2
    resumed.run(9)
    assert (resumed.round, resumed.iter) == (1, 3)


def test_a_metric_that_is_never_measured_draws_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    stopping([], patience=1).run(3)
    assert caplog.messages == ["EarlyStopper: no scalar 'val/loss' was measured so far; there are: none"]

"""PeriodicCheckpointer and BestCheckpointer."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.hooks import BestCheckpointer, HookBase, PeriodicCheckpointer
from heterofed.training.trainer import Trainer
from tests.training.toys import Counting


class Cut(Exception):
    """Raised on purpose."""


class Scores(HookBase):
    """Puts one score after each batch or round; None: nothing."""

    def __init__(self, scores: list[float | None], every: str = "batch") -> None:
        self._scores = scores
        self._every = every

    def _put(self, at: int) -> None:
        score = self._scores[at]
        if score is not None:
            self.trainer.storage.put_scalar("score", score, smoothing_hint=False)

    def after_step(self) -> None:
        if self._every == "batch":
            self._put(self.trainer.iter)

    def after_round(self) -> None:
        if self._every == "round":
            self._put(self.trainer.round)


class Best(BestCheckpointer):
    """Notes what each look found."""

    def act(self) -> None:
        super().act()
        self.looks = [*getattr(self, "looks", []), self.improved]


def written(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# --- periodic ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_written_every_so_many_batches_and_at_the_end(tmp_path: Path) -> None:
    trainer = Counting(5, checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(2)])
    trainer.run(1)
    assert written(tmp_path) == ["last_checkpoint", "model_0000001", "model_0000003", "model_final"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final"


def test_a_checkpoint_is_written_every_so_many_rounds_of_all_runs(tmp_path: Path) -> None:
    trainer = Counting(2, checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(2, every="round", final=False)])
    trainer.run(3)
    assert written(tmp_path) == ["last_checkpoint", "model_0000003"]
    trainer.run(4)
    assert written(tmp_path) == ["last_checkpoint", "model_0000003", "model_0000007"]


def test_a_failed_run_has_no_final_checkpoint(tmp_path: Path) -> None:
    trainer = Counting(2, checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(1, every="round")])

    def fail(ctx: Context) -> None:
        if trainer.round == 1:
            raise Cut

    trainer.register_hook_in_train(fail, "on_round_end")
    with pytest.raises(Cut):
        trainer.run(2)
    assert written(tmp_path) == ["last_checkpoint", "model_0000001"]


def test_a_checkpoint_holds_what_hooks_behind_the_checkpointer_have_done(tmp_path: Path) -> None:
    trainer = Counting(1, checkpoint_folder=tmp_path)

    def change(ctx: Context) -> None:
        with torch.no_grad():
            ctx.model.weight.fill_(7.0)

    trainer.register_hooks([PeriodicCheckpointer(final=False)])
    trainer.register_hook_in_train(change, "on_batch_end")
    trainer.run(1)
    again = Counting(1, checkpoint_folder=tmp_path)
    again.resume_or_load()
    assert again.ctx.model.weight.item() == 7.0


def test_batches_of_a_routine_inside_another_ask_for_no_checkpoint(tmp_path: Path) -> None:
    trainer = Counting(2, checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(1, final=False)])
    trainer.reset_hook_in_train("on_batch_end")
    trainer.register_hook_in_train(lambda ctx: trainer.finetune(), "on_batch_end")
    trainer.run(1)
    assert not list(tmp_path.iterdir())


def test_a_period_of_0_leaves_the_final_checkpoint(tmp_path: Path) -> None:
    trainer = Counting(2, checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(0)])
    trainer.run(1)
    assert written(tmp_path) == ["last_checkpoint", "model_final"]


@pytest.mark.parametrize("hook", [PeriodicCheckpointer(), BestCheckpointer("score")])
def test_a_checkpointer_without_a_folder_fails_before_the_first_batch(hook: HookBase) -> None:
    trainer = Counting()
    trainer.register_hooks([hook])
    with pytest.raises(ConfigError, match="this trainer has no folder for checkpoints"):
        trainer.run(1)
    assert trainer.iter == 0


def test_other_periods_are_refused() -> None:
    for period in (-1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match=f"period is {period!r}; expected a whole number, 0 or more"):
            PeriodicCheckpointer(period)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ConfigError, match="every is 'epoch'"):
        PeriodicCheckpointer(1, "epoch")


# --- best -------------------------------------------------------------------------------------------------------------


def run_best(folder: Path, scores: list[float | None], every: str = "batch", **options: Any) -> tuple[Best, Trainer]:
    """Run one score a batch or round; return the hook and its trainer."""
    trainer = Counting(len(scores) if every == "batch" else 1, checkpoint_folder=folder)
    hook = Best("score", every=every, **options)
    trainer.register_hooks([Scores(scores, every), hook])
    trainer.run(1 if every == "batch" else len(scores))
    return hook, trainer


@pytest.mark.parametrize("every", ["batch", "round"])
@pytest.mark.parametrize(
    ("mode", "scores", "better", "best", "at"),
    [
        ("max", [0.5, 0.5, 0.4, 0.6, 0.1], [True, False, False, True, False], 0.6, 3),
        ("min", [0.5, 0.5, 0.6, 0.4, 0.9], [True, False, False, True, False], 0.4, 3),
        ("max", [math.nan, math.inf, 0.1, math.inf, 0.2], [False, False, True, False, True], 0.2, 4),
        ("min", [-math.inf, 0.1, -math.inf, math.nan, 0.2], [False, True, False, False, False], 0.1, 1),
    ],
)
def test_the_best_checkpoint_is_the_strictly_best_finite_value(
    tmp_path: Path, every: str, mode: str, scores: list[float | None], better: list[bool], best: float, at: int
) -> None:
    hook, _ = run_best(tmp_path, scores, every, mode=mode)
    assert hook.looks == [*better, False], "the last look is that at the end of the run"
    assert (hook.best, hook.best_iteration) == (best, at)
    assert written(tmp_path) == ["model_best"], "no run goes on from it"


def test_a_value_counts_once(tmp_path: Path) -> None:
    hook, trainer = run_best(tmp_path, [0.5, None, None, 0.6, None])
    assert hook.looks == [True, False, False, True, False, False]
    hook.best = None  # it would be an improvement, if it were new
    trainer.storage.put_scalar("other", 1.0)
    hook.act()
    assert not hook.improved
    trainer.storage.put_scalar("score", 0.6, smoothing_hint=False)  # of the same iteration, but new
    hook.act()
    assert hook.improved


def test_a_scalar_that_is_not_there_draws_one_warning_that_names_those_that_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Counting(3, checkpoint_folder=tmp_path)
    trainer.register_hooks([Scores([1.0, 2.0, 3.0]), BestCheckpointer("accuracy")])
    trainer.run(1)
    assert caplog.messages == ["BestCheckpointer: no scalar 'accuracy' was measured so far; there are: score"]
    assert not list(tmp_path.iterdir())


def test_the_best_value_survives_a_resume(tmp_path: Path) -> None:
    def trainer(scores: list[float | None]) -> tuple[Counting, Best]:
        made, hook = Counting(4, checkpoint_folder=tmp_path), Best("score")
        made.register_hooks([PeriodicCheckpointer(final=False), Scores(scores), hook])
        return made, hook

    scores: list[float | None] = [0.3, 0.9, None, 0.5]
    cut, _ = trainer(scores)

    def fail(ctx: Context) -> None:
        if cut.iter == 2:
            raise Cut

    cut.register_hook_in_train(fail, "on_batch_start")
    with pytest.raises(Cut):
        cut.run(1)
    resumed, hook = trainer(scores)
    resumed.resume_or_load()
    assert (hook.best, hook.best_iteration) == (0.9, 1)
    resumed.run(1)
    assert hook.looks == [False, False, False]
    assert hook.best == 0.9


def test_what_is_measured_at_the_end_counts_only_if_the_run_went_well(tmp_path: Path) -> None:
    class Final(HookBase):
        def after_train(self) -> None:
            self.trainer.storage.put_scalar("score", 1.0)

    good = Counting(1, checkpoint_folder=tmp_path / "good")
    best = Best("score")
    good.register_hooks([Final(), best])
    good.run(1)
    assert written(tmp_path / "good") == ["model_best"]

    bad = Counting(1, checkpoint_folder=tmp_path / "bad")
    best = Best("score")
    bad.register_hooks([Final(), best])

    def fail(ctx: Context) -> None:
        raise Cut

    bad.register_hook_in_train(fail, "on_batch_forward")
    with pytest.raises(Cut):
        bad.run(1)
    assert best.best is None
    assert not (tmp_path / "bad").exists()


def test_it_looks_every_so_often(tmp_path: Path) -> None:
    hook, _ = run_best(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.3], period=2)
    assert hook.looks == [True, True, False]
    assert (hook.best, hook.best_iteration) == (0.4, 3)


def test_two_scalars_can_have_a_best_checkpoint_each_but_not_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Counting(1, checkpoint_folder=tmp_path)
    trainer.register_hooks([Scores([0.5]), BestCheckpointer("score"), BestCheckpointer("score", "min", "lowest")])
    with caplog.at_level(logging.INFO, "heterofed"):
        trainer.run(1)
    assert written(tmp_path) == ["lowest", "model_best"]
    assert caplog.messages == ["score is 0.5, the first: model_best", "score is 0.5, the first: lowest"]
    with pytest.raises(ConfigError, match="two hooks named BestCheckpointer"):
        trainer.register_hooks([BestCheckpointer("other")])
    with pytest.raises(ConfigError, match='mode is \'best\'; expected "max" or "min"'):
        BestCheckpointer("score", "best")

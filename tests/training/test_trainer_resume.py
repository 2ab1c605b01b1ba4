"""A run that goes on where a checkpoint left off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heterofed.errors import ConfigError, DataError
from heterofed.training.context import Context
from heterofed.training.hooks import HookBase, PeriodicCheckpointer
from tests.training.toys import Counting, Learning


class Boom(Exception):
    """Raised on purpose."""


def booming(*when: int) -> Callable[[Context], None]:
    """Return a hook that raises in these iterations."""

    def boom(ctx: Context) -> None:
        if ctx.trainer.iter in when:
            raise Boom(f"in iteration {ctx.trainer.iter}")

    return boom


@pytest.mark.parametrize("done", range(1, 10))
def test_a_resumed_run_skips_the_batches_that_are_done_and_ends_with_the_same_bits(tmp_path: Path, done: int) -> None:
    whole = Learning()
    whole.run(2)

    cut = Learning(tmp_path)
    cut.register_hooks([PeriodicCheckpointer(done)])
    cut.register_hook_in_train(booming(done), "on_batch_start")
    with pytest.raises(Boom):
        cut.run(2)

    resumed = Learning(tmp_path)
    resumed.register_hooks([PeriodicCheckpointer(done, final=False)])
    seen: list[Any] = []
    resumed.register_hook_in_train(lambda ctx: seen.append((resumed.iter, ctx.cur_batch_i)), "on_batch_start")
    assert resumed.resume_or_load() == f"model_{done - 1:07d}"
    assert (resumed.iter, resumed.start_iter) == (done, done)
    resumed.run(2)
    assert seen == [(number, number % 5) for number in range(done, 10)]
    assert resumed.weights() == whole.weights()
    assert resumed.storage.history("loss").values() == whole.storage.history("loss").values()
    assert (resumed.round, resumed.storage.samples) == (whole.round, whole.storage.samples)


def test_a_resumed_round_of_two_routines_skips_over_the_first() -> None:
    class Two(Counting):
        def run_round(self) -> None:
            self.train()
            self.evaluate()
            self.train()

    trainer = Two(per_round=3)
    trainer.resume_at(iteration=4, round_=0, done_in_routine=4)
    seen: list[Any] = []
    trainer.register_hook_in_train(lambda ctx: seen.append((trainer.iter, ctx.data_batch)), "on_batch_end")
    trainer.run(2)
    assert seen == [(4, 1), (5, 2), *((6 + number, number % 3) for number in range(6))]


def test_what_a_subclass_and_its_hooks_keep_comes_back(tmp_path: Path) -> None:
    class Keeping(Counting):
        kept = 0

        def own_state(self) -> dict[str, Any]:
            return {"kept": self.kept}

        def load_own_state(self, state: Any) -> None:
            self.kept = state["kept"]

    class Counter(HookBase):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1

        def state_dict(self) -> dict[str, Any]:
            return {"steps": self.steps}

        def load_state_dict(self, state: Any) -> None:
            self.steps = state["steps"]

    def make() -> tuple[Keeping, Counter]:
        trainer, counter = Keeping(checkpoint_folder=tmp_path), Counter()
        trainer.register_hooks([PeriodicCheckpointer(every="round", final=False), counter])
        return trainer, counter

    trainer, _ = make()
    trainer.kept = 7
    trainer.run(2)
    again, counter = make()
    again.resume_or_load()
    assert (again.kept, counter.steps, again.iter, again.round) == (7, 4, 4, 2)


def test_a_hook_that_is_gone_draws_a_warning_when_a_run_resumes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Remembers(HookBase):
        def state_dict(self) -> dict[str, Any]:
            return {"it": 1}

    trainer = Counting(checkpoint_folder=tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(final=False), Remembers()])
    trainer.run(1)
    Counting(checkpoint_folder=tmp_path).resume_or_load()
    assert caplog.messages == ["the checkpoint has a state of the hook Remembers, which is not registered now"]


def test_a_checkpoint_that_a_failed_run_asked_for_is_not_written_by_the_next(tmp_path: Path) -> None:
    trainer = Counting(checkpoint_folder=tmp_path)
    failing = booming(1)

    def ask(ctx: Context) -> None:
        if trainer.iter == 1:
            trainer.request_checkpoint("model_best", tag=False)

    trainer.register_hook_in_train(ask, "on_batch_start")
    trainer.register_hook_in_train(failing, "on_batch_end")
    with pytest.raises(Boom):
        trainer.run(1)
    trainer.reset_hook_in_train("on_batch_end")
    trainer.reset_hook_in_train("on_batch_start")
    trainer.run(1)
    assert not list(tmp_path.glob("model_*"))


def test_the_best_checkpoint_is_written_before_one_that_knows_of_it(tmp_path: Path) -> None:
    trainer = Counting(per_round=1, checkpoint_folder=tmp_path)

    def ask(ctx: Context) -> None:
        trainer.request_checkpoint()
        trainer.request_checkpoint("model_best", tag=False)

    trainer.register_hook_in_train(ask, "on_batch_end")
    trainer.run(1)
    best, numbered = (tmp_path / name / "model.pt" for name in ("model_best", "model_0000000"))
    assert best.stat().st_mtime_ns <= numbered.stat().st_mtime_ns
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000"


def test_a_trainer_without_a_folder_says_so() -> None:
    with pytest.raises(ConfigError, match=r"no folder for checkpoints\. Give it checkpoint_folder="):
        Counting().resume_or_load()


# --- back to a checkpoint while the run goes on -----------------------------------------------------------------------


def rewinding(trainer: Learning, at: int, to: str) -> list[int]:
    """Let a trainer go back once, when a round is to begin after `at` batches; return the batches that were run."""
    seen: list[int] = []
    trainer.register_hook_in_train(lambda ctx: seen.append(trainer.iter), "on_batch_start")
    next_round = trainer.next_round

    def next_or_back() -> bool:
        if trainer.iter == at and len(seen) == at:
            trainer.rewind(to)
            return True
        return next_round()

    trainer.next_round = next_or_back  # type: ignore[method-assign]  # as a party's trainer does when it is told
    return seen


@pytest.mark.parametrize("done", [3, 5, 8])
def test_a_run_that_goes_back_comes_to_the_bits_that_it_would_have_had(tmp_path: Path, done: int) -> None:
    whole = Learning()
    whole.run(3)

    trainer = Learning(tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(1, final=False)])
    seen = rewinding(trainer, 10, f"model_{done - 1:07d}")
    trainer.run(3)

    assert seen == [*range(10), *range(done, 15)]
    assert trainer.weights() == whole.weights()
    assert trainer.storage.history("loss").values() == whole.storage.history("loss").values()
    assert (trainer.round, trainer.iter, trainer.storage.samples) == (3, 15, whole.storage.samples)
    assert trainer.run_ok


def test_hooks_are_told_before_and_after_and_have_then_what_the_checkpoint_kept(tmp_path: Path) -> None:
    class Counter(HookBase):
        def __init__(self) -> None:
            self.batches = 0
            self.told: list[tuple[str, int]] = []

        def after_step(self) -> None:
            self.batches += 1

        def before_rewind(self) -> None:
            self.told.append(("before", self.batches))

        def after_rewind(self) -> None:
            self.told.append(("after", self.batches))

        def state_dict(self) -> dict[str, Any]:
            return {"batches": self.batches}

        def load_state_dict(self, state: Any) -> None:
            self.batches = state["batches"]

    trainer, counter = Learning(tmp_path), Counter()
    trainer.register_hooks([counter, PeriodicCheckpointer(1, final=False)])
    rewinding(trainer, 10, "model_0000006")
    trainer.run(3)

    assert counter.told == [("before", 10), ("after", 7)]
    assert counter.batches == 15


def test_what_was_asked_for_before_a_run_goes_back_is_forgotten(tmp_path: Path) -> None:
    trainer = Learning(tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(5, final=False)])

    rewind = trainer.rewind

    def asking(name: str) -> None:
        trainer.stop("enough")
        trainer.request_checkpoint("asked")
        rewind(name)

    trainer.rewind = asking  # type: ignore[method-assign]  # a hook may have done so in the round that is void
    rewinding(trainer, 10, "model_0000004")
    trainer.run(3)

    assert trainer.round == 3
    assert not trainer.stopping
    assert not trainer.checkpointer.has("asked")


def test_a_checkpoint_that_cannot_be_read_ends_the_run_that_would_go_back_to_it(tmp_path: Path) -> None:
    trainer = Learning(tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(5, final=False)])
    rewinding(trainer, 10, "model_0000004")
    torn = tmp_path / "model_0000004" / "model.pt"
    trainer.register_hook_in_train(
        lambda ctx: torn.write_bytes(b"torn") if trainer.iter == 9 else None, "on_batch_start"
    )

    with pytest.raises(DataError, match=r"model\.pt cannot be read"):
        trainer.run(3)
    assert not trainer.run_ok

"""What a failing run does, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from heterofed.errors import ConfigError, OutputError
from heterofed.metrics.storage import active_event_storage
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import CallbackHook, HookBase
from heterofed.training.trainer import RunState, Trainer
from heterofed.training.triggers import LIFECYCLE
from tests.training.toys import Counting, record


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


@pytest.mark.parametrize(
    ("trigger", "iteration"),
    [("before_train", 0), ("on_round_start", 0), ("on_fit_start", 2), ("on_batch_backward", 1), ("on_round_end", 4)],
)
def test_exceptions_are_raised_again_after_after_train(trigger: str, iteration: int) -> None:
    trainer = Counting()
    seen: list[Any] = []
    trainer.register_hooks(
        [CallbackHook(after_train=lambda t: seen.append((t.run_ok, t.state, active_event_storage() is t.storage)))]
    )
    trainer.register_hook_in_train(booming(iteration), trigger)
    with pytest.raises(Boom, match=f"in iteration {iteration}"):
        trainer.run(2)
    assert seen == [(False, RunState.FAILED, True)]
    assert active_event_storage() is None


def test_after_train_knows_that_a_run_went_well() -> None:
    trainer = Counting()
    seen: list[Any] = []
    trainer.register_hook_in_train(lambda ctx: seen.append(trainer.run_ok), "on_batch_end")
    trainer.register_hooks([CallbackHook(after_train=lambda t: seen.append((t.run_ok, t.iter)))])
    trainer.run(1)
    assert seen == [False, False, (True, 2)]


def test_a_keyboard_interrupt_calls_after_train_and_comes_out() -> None:
    trainer = Counting()
    seen: list[str] = []
    record(trainer, seen)

    def interrupt(ctx: Context) -> None:
        raise KeyboardInterrupt

    trainer.register_hook_in_train(interrupt, "on_batch_forward")
    with pytest.raises(KeyboardInterrupt):
        trainer.run(1)
    assert seen[-2:] == ["on_batch_forward", "after_train"]
    assert not trainer.run_ok


def test_on_exception_gets_the_error() -> None:
    class Watching(HookBase):
        def __init__(self) -> None:
            self.found: Exception | None = None

        def on_exception(self, error: Exception) -> None:
            self.found = error

    trainer, hook = Counting(), Watching()
    seen: list[str] = []
    trainer.register_hooks([hook])
    trainer.register_hook_in_train(lambda ctx: seen.append(str(ctx.exception)), "on_exception")
    trainer.register_hook_in_train(lambda ctx: seen.append("after_train"), "after_train")
    trainer.register_hook_in_train(booming(1), "on_batch_start")
    with pytest.raises(Boom) as raised:
        trainer.run(1)
    assert hook.found is raised.value
    assert seen == ["in iteration 1", "after_train"]
    assert "exception" not in trainer.ctx


def test_hooks_that_fail_in_a_failed_run_do_not_hide_its_error(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Counting()
    seen: list[str] = []

    def fail(ctx: Context) -> None:
        raise ValueError("another")

    for trigger in ("on_exception", "after_train"):
        trainer.register_hook_in_train(fail, trigger)
        trainer.register_hook_in_train(lambda ctx, name=trigger: seen.append(name), trigger)  # type: ignore[misc]  # a default binds it now
    trainer.register_hook_in_train(booming(0), "on_batch_end")
    with pytest.raises(Boom):
        trainer.run(1)
    assert seen == ["on_exception", "after_train"]
    assert caplog.messages == [
        "the hook fail failed while it dealt with a Boom",
        "the hook fail failed at the end of the run",
    ]


def test_an_after_train_that_raises_keeps_no_other_from_its_end_and_comes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Counting()
    seen: list[str] = []
    trainer.register_hook_in_train(booming(2), "after_train")
    trainer.register_hook_in_train(lambda ctx: seen.append("after"), "after_train")
    trainer.register_hook_in_train(booming(2), "after_train")
    with pytest.raises(Boom):
        trainer.run(1)
    assert seen == ["after"]
    assert caplog.messages == ["the hook boom failed at the end of the run"]


def test_a_subclass_may_raise_another_error_for_a_hook_s() -> None:
    class Named(Counting):
        def hook_failed(self, entry: Any, trigger: Any, error: Exception) -> Exception:
            return ConfigError(f"the hook {entry.name} at {trigger} failed")

    trainer = Named()
    trainer.register_hook_in_train(booming(1), "on_batch_end")
    with pytest.raises(ConfigError, match="the hook boom at on_batch_end failed") as raised:
        trainer.run(1)
    assert isinstance(raised.value.__cause__, Boom)
    trainer.register_hook_in_train(booming(trainer.iter), "after_train")
    with pytest.raises(ConfigError, match="on_batch_end"):
        trainer.run(2)


@pytest.mark.parametrize("trigger", [*dict.fromkeys(ROUTINE), "on_round_end"])
def test_no_variable_of_a_scope_survives_an_exception(trigger: str) -> None:
    trainer = Counting()

    def put(ctx: Context) -> None:
        for kind in LIFECYCLE.SCOPES:
            ctx[f"{kind}_it"] = CtxVar(1, kind)

    trainer.register_hook_in_train(put, "on_batch_start")
    trainer.register_hook_in_train(booming(0, 2), trigger)
    before = set(trainer.ctx.keys())
    with pytest.raises(Boom):
        trainer.run(1)
    assert set(trainer.ctx.keys()) == before
    assert (trainer.ctx.cur_mode, trainer.ctx.cur_split) == (None, None)
    assert torch.is_grad_enabled()


def test_a_trainer_that_failed_runs_again_from_its_round_s_first_batch() -> None:
    trainer = Counting()
    failing = booming(1)
    trainer.register_hook_in_train(failing, "on_batch_end")
    with pytest.raises(Boom):
        trainer.run(1)
    trainer.reset_hook_in_train("on_batch_end", failing)
    seen: list[Any] = []
    trainer.register_hook_in_train(lambda ctx: seen.append((ctx.data_batch, trainer.done_in_routine)), "on_batch_end")
    trainer.run(1)
    assert seen == [(0, 0), (1, 1)]
    assert trainer.run_ok


def test_one_run_at_a_time() -> None:
    trainer = Counting()
    trainer.register_hook_in_train(lambda ctx: trainer.run(1), "on_batch_end")
    with pytest.raises(ConfigError, match="this trainer is running already"):
        trainer.run(1)


def test_a_run_whose_last_checkpoint_cannot_be_written_has_not_gone_well(tmp_path: Path) -> None:
    trainer = Counting(checkpoint_folder=tmp_path / "checkpoints")
    trainer.register_hooks([CallbackHook(after_train=lambda each: each.request_checkpoint("model_final"))])
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(OutputError):
        trainer.run(1)
    assert not trainer.run_ok


def test_an_interrupt_at_the_end_of_a_run_does_not_keep_other_hooks_from_their_end() -> None:
    def interrupt(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    ended: list[bool] = []
    trainer = Counting()
    first, second = CallbackHook(after_train=interrupt), CallbackHook(after_train=lambda each: ended.append(True))
    second.name = "second"
    trainer.register_hooks([first, second])
    with pytest.raises(KeyboardInterrupt):
        trainer.run(1)
    assert ended == [True]
    assert not trainer.run_ok


def test_an_untagged_checkpoint_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="an untagged checkpoint has no name; expected a name"):
        Counting().request_checkpoint(tag=False)

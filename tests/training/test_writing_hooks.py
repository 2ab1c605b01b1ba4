"""PeriodicWriter, and the default hooks in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import StepLR

from heterofed.errors import ConfigError, OutputError
from heterofed.metrics.storage import EventStorage
from heterofed.metrics.writers import EventWriter, JSONWriter
from heterofed.training.context import Context
from heterofed.training.hooks import (
    CallbackHook,
    EvalHook,
    HookBase,
    PeriodicCheckpointer,
    PeriodicWriter,
    default_hooks,
)
from tests.training.toys import Counting, Learning


class Cut(Exception):
    """Raised on purpose."""


class Notes(EventWriter):
    """Notes when it is called, and fails on demand."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[Any] = []
        self._fails = fails

    def write(self, storage: EventStorage | None = None) -> None:
        assert storage is not None
        self.calls.append(storage.iter)
        self._fail("write")

    def close(self, storage: EventStorage | None = None) -> None:
        self.calls.append("close")
        self._fail("close")

    def _fail(self, method: str) -> None:
        if self._fails == method:
            raise OutputError("the disk is full")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def loss(trainer: Counting) -> None:
    trainer.register_hook_in_train(lambda ctx: trainer.storage.put_scalar("loss", trainer.iter), "on_batch_end")


def test_writers_write_every_so_often_at_the_end_of_rounds_and_close_at_the_end() -> None:
    trainer, notes = Counting(5), Notes()
    loss(trainer)
    trainer.register_hooks([PeriodicWriter([notes], period=2)])
    trainer.run(2)
    assert notes.calls == [1, 3, 4, 5, 7, 9, 9, 9, "close"]
    notes.calls.clear()
    trainer.run(3)
    assert notes.calls == [11, 13, 14, 14, "close"]
    rounds = Notes()
    trainer.remove_hook("PeriodicWriter")
    trainer.register_hooks([PeriodicWriter([rounds], period=0)])
    trainer.run(4)
    assert rounds.calls == [19, 19, "close"]


@pytest.mark.parametrize(("every", "rounds"), [("batch", 1), ("round", 2)])
def test_the_final_evaluation_is_written(tmp_path: Path, every: str, rounds: int) -> None:
    trainer = Counting(3)
    loss(trainer)
    path = tmp_path / "metrics.json"
    evaluate = EvalHook(0, lambda: {"test": {"accuracy": 0.9}}, every=every)
    trainer.register_hooks([PeriodicWriter([JSONWriter(path)], period=1), evaluate])
    trainer.run(rounds)
    written = lines(path)
    assert [line["iteration"] for line in written] == list(range(3 * rounds))
    assert written[-1]["test/accuracy"] == 0.9
    assert "test/accuracy" not in written[-2]


def test_what_a_round_s_end_measures_is_written_with_its_last_batch(tmp_path: Path) -> None:
    trainer = Counting(2)
    loss(trainer)
    path = tmp_path / "metrics.json"
    trainer.register_hooks(
        [
            PeriodicWriter([JSONWriter(path)], period=100),
            CallbackHook(after_round=lambda t: t.storage.put_scalar("round/loss", t.round, smoothing_hint=False)),
        ]
    )
    trainer.run(2)
    assert [(line["iteration"], line["round"], line["round/loss"]) for line in lines(path)] == [
        (1, 1, 0.0),
        (3, 2, 1.0),
    ]


def test_a_failed_run_is_written_up_to_where_it_failed(tmp_path: Path) -> None:
    trainer = Counting(5)
    loss(trainer)
    path = tmp_path / "metrics.json"

    def fail(ctx: Context) -> None:
        if trainer.iter == 3:
            raise Cut

    trainer.register_hook_in_train(fail, "on_batch_start")
    trainer.register_hooks([PeriodicWriter([JSONWriter(path)])])
    with pytest.raises(Cut):
        trainer.run(1)
    assert [line["iteration"] for line in lines(path)] == [2]


@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_writer_that_fails_at_the_end_keeps_no_other_from_closing(fails: str) -> None:
    trainer, notes = Counting(1), Notes()
    loss(trainer)
    trainer.register_hook_in_train(lambda ctx: trainer.hooks_in_train.reset("on_round_end"), "on_fit_end")
    trainer.register_hooks([PeriodicWriter([Notes(fails), notes], period=0)])
    with pytest.raises(OutputError, match="the disk is full"):
        trainer.run(1)
    assert notes.calls == [0, "close"]


def test_a_writer_that_fails_after_a_failed_run_does_not_hide_its_error(caplog: pytest.LogCaptureFixture) -> None:
    trainer, notes = Counting(1), Notes()
    loss(trainer)

    def fail(ctx: Context) -> None:
        raise Cut

    trainer.register_hook_in_train(fail, "on_batch_end")
    trainer.register_hooks([PeriodicWriter([Notes("close"), Notes("close"), notes], period=0)])
    with pytest.raises(Cut):
        trainer.run(1)
    assert notes.calls == [0, "close"]
    assert caplog.messages == [
        "Notes failed too at the end of the run: the disk is full.",
        "the hook PeriodicWriter.after_train failed at the end of the run: the disk is full.",
    ]


def test_a_run_that_fails_at_once_leaves_an_earlier_run_s_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n')
    trainer = Counting()

    def fail(ctx: Context) -> None:
        raise Cut

    trainer.register_hook_in_train(fail, "before_train")
    trainer.register_hooks([PeriodicWriter([JSONWriter(path)])])
    with pytest.raises(Cut):
        trainer.run(1)
    assert path.read_text() == '{"iteration": 0}\n'


def test_no_line_is_lost_between_a_checkpoint_and_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"

    def make(start_iter: int) -> Counting:
        trainer = Counting(8, checkpoint_folder=tmp_path)
        loss(trainer)
        trainer.register_hooks([PeriodicCheckpointer(5, final=False)])
        trainer.register_hooks([PeriodicWriter([JSONWriter(path, start_iter=start_iter)], period=3)])
        return trainer

    on_disk: list[bytes] = []

    def die(ctx: Context) -> None:
        if ctx.trainer.iter == 7:
            on_disk.append(path.read_bytes())
            raise Cut

    killed = make(0)
    killed.register_hook_in_train(die, "on_batch_start")
    with pytest.raises(Cut):
        killed.run(1)
    path.write_bytes(on_disk[0])  # what there is when a process is killed
    resumed = make(5)
    resumed.resume_or_load()
    resumed.run(1)
    # Each line has the newest of what is smoothed since the last write: those of the checkpoint's batches included.
    assert [line["iteration"] for line in lines(path)] == [2, 5, 7]


def test_only_event_writers_can_be_given() -> None:
    with pytest.raises(ConfigError, match="a writer is a str; expected an object of an EventWriter"):
        PeriodicWriter(["metrics.json"])  # type: ignore[list-item]  # on purpose
    with pytest.raises(ConfigError, match="period is -1"):
        PeriodicWriter([], -1)


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_the_default_hooks_are_in_the_documented_order_with_the_writer_last(tmp_path: Path) -> None:
    trainer = Counting(checkpoint_folder=tmp_path)
    hooks = default_hooks(trainer, evaluate=dict, best_metric="test/accuracy", writers=[Notes()])
    assert [type(each).__name__ for each in hooks] == [
        "IterationTimer",
        "LRScheduler",
        "PeriodicCheckpointer",
        "EvalHook",
        "BestCheckpointer",
        "PeriodicWriter",
    ]
    trainer.register_hooks(hooks)
    trainer.register_hooks([CallbackHook(after_step=print, after_train=print, name="mine")])
    for trigger in ("on_batch_end", "after_train"):
        names = [each.split(".")[0] for each in trainer.hooks_in_train.names(trigger)]
        assert names[0] == "IterationTimer"
        assert names[-2:] == ["mine", "PeriodicWriter"]


def test_default_hooks_leave_out_what_nothing_asks_for(tmp_path: Path) -> None:
    def names(trainer: Counting, **options: Any) -> list[str]:
        return [type(each).__name__ for each in default_hooks(trainer, **options)]

    assert names(Counting()) == ["IterationTimer", "LRScheduler"]
    assert names(Counting(), best_metric="x", evaluate=dict) == ["IterationTimer", "LRScheduler", "EvalHook"]
    stores = Counting(checkpoint_folder=tmp_path)
    assert names(stores) == ["IterationTimer", "LRScheduler", "PeriodicCheckpointer"]
    assert names(stores, best_metric="x")[-1] == "BestCheckpointer"


@pytest.mark.parametrize("every", ["batch", "round"])
def test_a_trainer_builds_its_default_hooks_and_writers(tmp_path: Path, every: str) -> None:
    class Own(Learning):
        def __init__(self) -> None:
            super().__init__(tmp_path, per_round=4)
            self.register_hooks(self.build_hooks())

        def build_writers(self) -> list[EventWriter]:
            return [JSONWriter(tmp_path / "metrics.json")]

        def build_hooks(self) -> list[HookBase]:
            return default_hooks(
                self,
                every=every,
                schedule=lambda optimizer: StepLR(optimizer, 2),
                checkpoint_period=2,
                evaluate=lambda: {"test": {"loss": float(self.iter)}},
                best_metric="test/loss",
                best_mode="min",
                write_period=2,
            )

    trainer = Own()
    trainer.run(2)
    names = {each.name for each in tmp_path.iterdir()}
    assert {"model_best", "model_final", "last_checkpoint", "metrics.json", "model_0000007"} <= names
    assert lines(tmp_path / "metrics.json")[-1].keys() >= {"lr", "loss", "time", "data_time", "test/loss", "round"}


def test_what_a_run_that_goes_back_has_written_from_there_on_is_written_again_and_not_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    trainer = Learning(tmp_path / "checkpoints")
    writing = PeriodicWriter(lambda: [JSONWriter(path, start_iter=trainer.start_iter)], period=1)
    trainer.register_hooks([PeriodicCheckpointer(1, final=False), writing])
    went_back: list[int] = []
    seen: list[list[int]] = []
    next_round = trainer.next_round

    def next_or_back() -> bool:
        if trainer.iter == 10 and not went_back:
            went_back.append(1)
            seen.append([line["iteration"] for line in lines(path)])
            trainer.rewind("model_0000006")
            return True
        return next_round()

    trainer.next_round = next_or_back  # type: ignore[method-assign]  # as a party's trainer does when it is told
    trainer.run(3)

    assert seen == [[*range(10)]]
    assert [line["iteration"] for line in lines(path)] == [*range(15)]
    whole, expected = Learning(), tmp_path / "whole.json"
    whole.register_hooks([PeriodicWriter([JSONWriter(expected)], period=1)])
    whole.run(3)
    assert lines(path) == lines(expected)


def test_a_writer_that_was_given_as_an_object_stays_open_when_a_run_goes_back(tmp_path: Path) -> None:
    """It cannot be made again; what it makes of iterations that come twice is its own affair."""
    notes = Notes()
    hook = PeriodicWriter([notes])

    hook.before_rewind()
    hook.after_rewind()

    assert notes.calls == []
    assert hook.writers == [notes]


def test_writers_that_are_made_again_are_closed_first_and_then_new_ones() -> None:
    made: list[Notes] = []

    def make() -> list[EventWriter]:
        made.append(Notes())
        return [made[-1]]

    trainer = Counting()
    hook = PeriodicWriter(make)
    trainer.register_hooks([hook])
    hook.before_train()
    hook.before_rewind()
    assert (made[0].calls, hook.writers) == (["close"], [])
    hook.after_rewind()

    assert len(made) == 2
    assert hook.writers == [made[1]]
    assert made[1].calls == []

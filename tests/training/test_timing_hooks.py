"""IterationTimer and ProgressBar."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
import torch

from heterofed.errors import ConfigError
from heterofed.metrics.progress import NoProgress
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import IterationTimer, ProgressBar
from heterofed.training.triggers import LIFECYCLE
from tests.training.toys import Counting, Learning


@pytest.mark.parametrize(("rounds", "per_round"), [(1, 6), (3, 2)])
def test_the_iteration_timer_skips_the_warm_up(rounds: int, per_round: int) -> None:
    trainer = Counting(per_round)
    trainer.register_hooks([IterationTimer(warmup_iter=2)])
    trainer.run(rounds)
    for name in ("time", "data_time"):
        values = trainer.storage.history(name).values()
        assert [at for _, at in values] == [2, 3, 4, 5]
        assert all(0 <= seconds < 1 for seconds, _ in values)


def test_a_batch_s_time_is_that_of_its_work_and_data_time_that_of_its_data() -> None:
    class Slow(Counting):
        def batches(self, epoch: int) -> Any:
            for number in range(self.per_round):
                time.sleep(0.02)
                yield number

        def run_step(self) -> None:
            time.sleep(0.05)

    trainer = Slow()
    trainer.register_hooks([IterationTimer(0)])
    trainer.register_hook_in_train(lambda ctx: time.sleep(0.2), "on_round_end")
    trainer.run(2)
    assert all(0.05 <= seconds < 0.15 for seconds, _ in trainer.storage.history("time").values())
    assert all(0.02 <= seconds < 0.1 for seconds, _ in trainer.storage.history("data_time").values())


def test_the_iteration_timer_logs_the_speed_and_the_whole_time(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Counting(5)
    trainer.register_hooks([IterationTimer()])
    with caplog.at_level(logging.INFO, "heterofed"):
        trainer.run(1)
        assert re.fullmatch(r"speed: 2 batches in 0:00, \S+ s each, and \S+ s between two", caplog.messages[0])
        assert caplog.messages[1:] == ["the run took 0:00 for 5 batches"]
        caplog.clear()
        trainer.run(2)
        assert caplog.messages[0].startswith("speed: 2 batches"), "the warm-up of the second run is left out too"
        caplog.clear()
        trainer.per_round = 1
        trainer.run(3)
        assert caplog.messages == ["the run took 0:00 for 1 batches"]


def test_batches_of_a_routine_inside_another_are_not_timed() -> None:
    trainer = Counting()
    timer = IterationTimer(0)
    trainer.register_hooks([timer])

    def finetune(ctx: Context) -> None:
        time.sleep(0.02)
        trainer.finetune()

    trainer.register_hook_in_train(finetune, "on_batch_forward")
    trainer.run(1)
    values = trainer.storage.history("time").values()
    assert [at for _, at in values] == [0, 1]
    assert all(seconds >= 0.02 for seconds, _ in values)


def test_a_timer_without_a_count_of_batches_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_iter is -1; expected a whole number, 0 or more"):
        IterationTimer(-1)


# --- progress ---------------------------------------------------------------------------------------------------------


class Told(NoProgress):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__("party")
        self.calls: list[Any] = []

    def begin_round(self, number: int, rounds: int | None, rows_total: int) -> None:
        super().begin_round(number, rounds, rows_total)
        self.calls.append(("begin", number, rounds, rows_total))

    def advance(self, rows: int, loss: float | None) -> None:
        super().advance(rows, loss)
        self.calls.append((rows, loss))

    def end_round(self) -> None:
        super().end_round()
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")


def test_a_progress_bar_follows_rounds_rows_and_the_mean_loss() -> None:
    told, trainer = Told(), Learning(per_round=2)
    trainer.register_hooks([ProgressBar(told, rows_total=16)])
    trainer.run(2)
    batches = [(8, None), (8, None)]
    assert told.calls == [("begin", 1, 2, 16), *batches, "end", ("begin", 2, 2, 16), *batches, "end"]


def test_a_progress_bar_learns_the_rows_of_a_round_and_shows_a_loss_of_any_kind() -> None:
    told, trainer = Told(), Learning(per_round=2)
    trainer.ctx.mean_loss = torch.tensor(0.5)
    trainer.register_hooks([ProgressBar(told)])
    trainer.register_hook_in_train(lambda ctx: trainer.stop("done") if trainer.round else None, "on_round_end")
    trainer.run()
    batches = [(8, 0.5), (8, 0.5)]
    assert told.calls == [("begin", 1, None, 0), *batches, "end", ("begin", 2, None, 16), *batches, "end"]
    other = Told()
    known = Counting()
    known.ctx.num_train_data = 2
    known.register_hooks([ProgressBar(other)])
    known.register_hook_in_train(lambda ctx: known.finetune(), "on_batch_end")
    known.train()
    assert other.calls == [("begin", 0, None, 2), (0, None), (0, None), "end"]


def test_a_progress_bar_of_its_own_is_closed_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def make(form: str, party: str) -> Told:
        made.append((form, party, Told()))
        return made[-1][2]  # type: ignore[no-any-return]  # it is a Told

    monkeypatch.setattr("heterofed.training.hooks.timing.make_progress", make)
    trainer = Counting()
    trainer.storage.reporter = "bank"
    trainer.register_hooks([ProgressBar()])

    def fail(ctx: Context) -> None:
        raise ValueError

    trainer.register_hook_in_train(fail, "on_batch_end")
    with pytest.raises(ValueError):
        trainer.run(1)
    assert [each[:2] for each in made] == [("auto", "bank")]
    assert made[0][2].calls == [("begin", 1, 1, 0), (0, None), "close"]


def test_a_progress_that_was_given_stays_open_for_its_owner() -> None:
    told, trainer = Told(), Counting()
    trainer.register_hooks([ProgressBar(told)])
    trainer.register_hook_in_train(
        lambda ctx: ctx.merge_from_dict({"batch_size": CtxVar(3, LIFECYCLE.BATCH)}), "on_batch_start"
    )
    trainer.run(1)
    assert "close" not in told.calls
    assert told.now.rows == 6

"""Hooks that look at the clock: how long batches take, and how far the training is."""

from __future__ import annotations

import time
from collections.abc import Callable

from heterofed.checks import check_count
from heterofed.metrics.progress import Progress, clock, logger, make_progress
from heterofed.training.hooks.base import HookBase


class IterationTimer(HookBase):
    """Measures batches. Register it first, so that a batch's time is that of the batch and not of other hooks.

    Scalars, in seconds:
        time: from a batch's start to its end.
        data_time: from the end of the batch before it to its start: fetching its data, and the hooks that come after
            this one. What lies between two routines, as a test, is not in it.

    Args:
        warmup_iter: how many batches of a run come before the first one that is measured: these are slower.

    Raises:
        ConfigError: that is below 0.
    """

    patient = True

    def __init__(self, warmup_iter: int = 3) -> None:
        check_count("warmup_iter", warmup_iter, 0)
        self._warmup_iter = warmup_iter
        self._batches = 0
        self._began = self._ended = self._run_began = time.perf_counter()
        self._batches_s = self._between_s = 0.0

    def before_train(self) -> None:
        """Start anew."""
        self._batches = 0
        self._batches_s = self._between_s = 0.0
        self._run_began = self._ended = time.perf_counter()

    def before_fit(self) -> None:
        """Leave out what lay between two routines."""
        if not self.trainer.ctx.nested:
            self._ended = time.perf_counter()

    def before_step(self) -> None:
        """Note when the batch began."""
        if not self.trainer.ctx.nested:
            self._began = time.perf_counter()

    def after_step(self) -> None:
        """Put the two scalars, except in the warm-up."""
        trainer = self.trainer
        if trainer.ctx.nested:
            return
        ended = time.perf_counter()
        self._batches += 1
        if self._batches > self._warmup_iter:
            batch_s, between_s = ended - self._began, self._began - self._ended
            self._batches_s += batch_s
            self._between_s += between_s
            trainer.storage.put_scalar("time", batch_s)
            trainer.storage.put_scalar("data_time", between_s)
        self._ended = ended

    def after_train(self) -> None:
        """Log how fast it was."""
        if not self.trainer.run_ok:
            return  # there is something more important to read
        total_s = time.perf_counter() - self._run_began
        measured = self._batches - self._warmup_iter
        if measured > 0:
            logger.info(
                "speed: %d batches in %s, %.4g s each, and %.4g s between two",
                measured,
                clock(self._batches_s),
                self._batches_s / measured,
                self._between_s / measured,
            )
        logger.info("the run took %s for %d batches", clock(total_s), self._batches)


class ProgressBar(HookBase):
    """Shows how far each round is: a bar in terminals and notebooks, lines elsewhere.

    It reads `ctx.batch_size` (rows) and `ctx.mean_loss` (the round's mean loss so far), where these are set.

    Args:
        progress: what draws, or a function that returns it when the run begins; by default a view of its own.
        rows_total: rows of one round, or such a function; by default what the one before had, and
            `ctx.num_train_data` in the first.

    Raises:
        ConfigError: `rows_total` is below 0.
    """

    patient = True

    def __init__(
        self,
        progress: Progress | Callable[[], Progress] | None = None,
        rows_total: int | Callable[[], int] | None = None,
    ) -> None:
        if not callable(rows_total):
            check_count("rows_total", rows_total, 0, or_none="what the round before had")
        self._progress_of = progress
        self._progress = None if callable(progress) else progress
        self._own: Progress | None = None
        self._rows_total = rows_total
        self._rows = self._rows_before = 0

    def before_train(self) -> None:
        """Ask for what was not known before."""
        if callable(self._progress_of):
            self._progress = self._progress_of()

    def before_fit(self) -> None:
        """Begin the round's bar."""
        trainer = self.trainer
        if trainer.ctx.nested:
            return
        total = self._rows_total() if callable(self._rows_total) else self._rows_total
        if total is None:
            total = self._rows_before or int(trainer.ctx.get("num_train_data") or 0)
        self._rows = 0
        self._view().begin_round(trainer.current_round, trainer.max_rounds, total)

    def after_step(self) -> None:
        """Move it."""
        ctx = self.trainer.ctx
        if ctx.nested:
            return
        rows, loss = ctx.get("batch_size", 0), ctx.get("mean_loss")
        self._rows += rows
        self._view().advance(rows, None if loss is None else float(loss))

    def after_fit(self) -> None:
        """End it."""
        if not self.trainer.ctx.nested:
            self._rows_before = self._rows
            self._view().end_round()

    def after_train(self) -> None:
        """Give the terminal back, if the view is our own."""
        if self._own is not None:
            self._own.close()

    def _view(self) -> Progress:
        if self._progress is not None:
            return self._progress
        if self._own is None:
            self._own = make_progress("auto", self.trainer.storage.reporter or "training")
        return self._own

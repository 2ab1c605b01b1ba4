"""The loop in which everything learns: a party of a federation, or a model on local data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from heterofed.checks import check_count
from heterofed.errors import ConfigError, HeterofedError
from heterofed.metrics.progress import logger
from heterofed.metrics.writers import EventWriter
from heterofed.training.checkpoint import Checkpointer
from heterofed.training.context import CtxVar
from heterofed.training.hooks.base import HookBase
from heterofed.training.routines import Routines
from heterofed.training.state import parts_of
from heterofed.training.triggers import LIFECYCLE, TRIGGER


class RunState(Enum):
    """How far a trainer's run is."""

    IDLE = "idle"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Trainer(Routines):
    """Runs rounds of batches and calls the hooks. It assumes nothing about where batches come from.

        run(rounds):
            before_train
            for each round:
                on_round_start
                run_round():                        by default train()
                on_round_end
                (checkpoints that hooks have asked for are written)
            on_exception                            only where something raised
            after_train                             always; `run_ok` tells how it ended

        train(), evaluate(), finetune():            a routine; each mode has hooks of its own
            on_fit_start
            for each epoch:
                on_epoch_start
                for each batch of batches():
                    on_batch_start
                    run_step():
                        on_batch_forward            rows -> embedding or prediction
                        on_batch_exchange           with the other parties; nothing where there are none
                        on_batch_backward           gradients; then on_optimizer_step, just before parameters change
                    on_batch_end
                on_epoch_end
            on_fit_end

    What happens at a point is a hook; the defaults are hooks like any other and can be replaced.

    Args:
        models: name -> model; `ctx.model` is the first, `ctx.models` all of them.
        optimizers: name -> optimizer, for checkpoints and schedules; `ctx.optimizer` is the first.
        checkpoint_folder: where checkpoints go; None: none are written.
        max_to_keep: how many numbered checkpoints to keep; None: all.

    Attributes:
        iter: number of the current batch of training, from 0; between two batches, how many are done.
        start_iter: the first one of this run; more than 0 where it resumed.
        max_iter: batches of training in all, where that is known.
        round: rounds completed.
        max_rounds: rounds in all, where that is known.
        storage: what was measured.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        *,
        checkpoint_folder: Path | None = None,
        max_to_keep: int | None = None,
    ) -> None:
        super().__init__(models, optimizers)
        self.start_iter = self.round = 0
        self.max_iter: int | None = None
        self.max_rounds: int | None = None
        self.state = RunState.IDLE
        self.checkpoint_folder = checkpoint_folder
        self._max_to_keep = max_to_keep
        self._requested: dict[str, bool] = {}
        self._stop_reason: str | None = None

    def build_hooks(self) -> list[HookBase]:
        """Return the hook objects that the trainer has from the start; override it. See `default_hooks`.

        Called once, at the end of the constructor: what a subclass needs for it has to be set before.
        """
        return []

    def build_writers(self) -> list[EventWriter]:
        """Return what shows the run's measurements, for `default_hooks`; override it."""
        return []

    # --- a run --------------------------------------------------------------------------------------------------------

    @property
    def run_ok(self) -> bool:
        """Whether the last run came to its end; False while it runs and after a failure."""
        return self.state is RunState.SUCCEEDED

    @property
    def ended(self) -> bool:
        """Whether a run has come to an end, well or not."""
        return self.state in (RunState.SUCCEEDED, RunState.FAILED)

    @property
    def current_round(self) -> int:
        """Number of the round in progress, from 1; between two runs that of the last one."""
        return self.storage.round

    def stop(self, reason: str) -> None:
        """End the run after this round; the reason goes to the log."""
        if self._stop_reason is None:
            logger.info("training ends after round %d: %s", self.current_round, reason)
        self._stop_reason = reason

    @property
    def stopping(self) -> bool:
        """Whether something has called `stop`."""
        return self._stop_reason is not None

    def is_finished(self) -> bool:
        """Whether no further round is to come; asked before each one."""
        return self.stopping or (self.max_rounds is not None and self.round >= self.max_rounds)

    def run(self, rounds: int | None = None) -> None:
        """Train until so many rounds are complete, those of the run that this one resumes included.

        Args:
            rounds: 1 or more; None: until `stop()` or an overridden `is_finished()`.

        Raises:
            ConfigError: it is running already, or the number is below 1.
            Exception: what a hook or a batch raised, after `after_train`.
        """
        if self.state is RunState.RUNNING:
            raise ConfigError("this trainer is running already", expected="one run at a time")
        check_count("rounds", rounds, 1, or_none="until the training is stopped")
        self.max_rounds, self._stop_reason, self._requested = rounds, None, {}
        self.start_iter = self.iter
        self.max_iter = self.planned_iterations()
        with self._storage_open(), self.ctx.scope(LIFECYCLE.RUN):
            self.state = RunState.RUNNING
            try:
                self.fire(TRIGGER.BEFORE_TRAIN)
                while self.next_round():
                    pass
                self.state = RunState.SUCCEEDED
            except BaseException as error:
                self.state = RunState.FAILED
                self.failed(error)
                raise
            finally:
                self._end_run()

    @contextmanager
    def _storage_open(self) -> Iterator[None]:
        with self.storage:
            self._in_storage = True
            try:
                yield
            finally:
                self._in_storage = False

    def next_round(self) -> bool:
        """Run a round, unless there is none to come; return whether there was one."""
        if self.is_finished():
            return False
        self._one_round()
        return True

    def rewind(self, name: str) -> None:
        """Go back to a checkpoint while the run goes on; hooks are told before and after.

        Raises:
            DataError, ConfigError: as `Checkpointer.load`.
        """
        for hook in self.hooks.values():
            hook.before_rewind()
        self._requested, self._stop_reason = {}, None
        self.checkpointer.load(name)
        for hook in self.hooks.values():
            hook.after_rewind()

    def _one_round(self) -> None:
        with self.ctx.scope(LIFECYCLE.ROUND):
            self.storage.round = self.round + 1
            self.done_in_routine = self._skip  # what a failed run had begun is begun anew
            self.fire(TRIGGER.ON_ROUND_START)
            self.run_round()
            self.fire(TRIGGER.ON_ROUND_END)
            self.round_done()
            self.round += 1
            self.done_in_routine = self._skip = 0
            self._write_requested()
            self.close_round()

    def run_round(self) -> None:
        """One round's work; override it for more than one routine of training."""
        self.train()

    def batch_done(self) -> None:
        """Write the checkpoints that hooks have asked for."""
        if self._requested:
            self._write_requested()

    def round_done(self) -> None:
        """Called when a round's hooks are done, before it counts as complete and its checkpoint is written."""

    def close_round(self) -> None:
        """Called when a round's hooks are done and its checkpoint is written."""

    def planned_iterations(self) -> int | None:
        """Return the batches of training in all, where they are known; override it."""
        return None

    def failed(self, error: BaseException) -> None:
        """Called at once when a run fails, before `after_train`: calls the hooks of `on_exception`."""
        if not isinstance(error, Exception):
            return
        self.ctx.exception = CtxVar(error, LIFECYCLE.RUN)
        for entry in list(self.hooks_in_train[TRIGGER.ON_EXCEPTION]):
            try:
                entry.function(self.ctx)
            except Exception:
                logger.exception("the hook %s failed while it dealt with a %s", entry.name, type(error).__name__)

    def _end_run(self) -> None:
        """Call every `after_train`, even when one of them raises; what it raises comes out in a run that went well."""
        first: BaseException | None = None
        for entry in list(self.hooks_in_train[TRIGGER.AFTER_TRAIN]):
            try:
                entry.function(self.ctx)
            except Exception as error:
                if first is not None or not self.run_ok:
                    if isinstance(error, HeterofedError):  # its text says all
                        logger.error("the hook %s failed at the end of the run: %s", entry.name, error)
                    else:
                        logger.exception("the hook %s failed at the end of the run", entry.name)
                    continue
                first = self.hook_failed(entry, TRIGGER.AFTER_TRAIN, error)
            except BaseException as stop:  # an interrupt: the other hooks still get their turn
                first = stop
        if first is None and self.run_ok:
            try:
                self._write_requested()
            except BaseException as error:
                first = error
        if first is not None:
            self.state = RunState.FAILED
            raise first

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def checkpointer(self) -> Checkpointer:
        """Writes and reads this trainer's state.

        Raises:
            ConfigError: it has no folder.
        """
        if self.checkpoint_folder is None:
            raise ConfigError("this trainer has no folder for checkpoints", advice="Give it checkpoint_folder=….")
        return Checkpointer(self.checkpoint_folder, parts_of(self), max_to_keep=self._max_to_keep)

    def keep_all_checkpoints(self) -> None:
        """Keep every numbered checkpoint from now on."""
        self._max_to_keep = None

    def request_checkpoint(self, name: str = "", *, tag: bool = True) -> None:
        """Write a checkpoint once the hooks at hand are done, so that it holds what they have changed.

        Args:
            name: of the checkpoint; by default that of the last finished batch, model_0000019.
            tag: whether `last_checkpoint` names it.

        Raises:
            ConfigError: it is untagged and has no name: a numbered one is always the last.
        """
        if not name and not tag:
            raise ConfigError("an untagged checkpoint has no name", expected='a name, as "model_best"')
        self._requested[name] = tag

    def _write_requested(self, *, tagged: bool = True) -> None:
        """Write what was asked for; the tagged ones wait for another time unless they are wanted too."""
        requested = {name: tag for name, tag in self._requested.items() if tagged or not tag}
        self._requested = {name: tag for name, tag in self._requested.items() if name not in requested}
        # A best one first: the others remember that it is the best, and must not be there without it.
        for name, tag in sorted(requested.items(), key=lambda each: each[1]):
            if name:
                self.checkpointer.save(name, tag=tag)
            else:
                self.keep_point()

    def keep_point(self) -> None:
        """Write the numbered checkpoint of the last finished batch."""
        self.checkpointer.save_iteration(max(0, self.iter - 1))

    def resume_or_load(self, path: str | Path = "", *, resume: bool = True) -> str | None:
        """Go on where the last checkpoint left off, or begin with the weights of another run.

        Args:
            path: a checkpoint's folder; of it only the weights are taken, and only if there is nothing to resume.
            resume: whether to look for a checkpoint of our own first.

        Returns:
            The name of the checkpoint that the run resumes, None where it begins anew.

        Raises:
            ConfigError: that run has finished.
            DataError: a file cannot be read or does not fit.
        """
        return self.checkpointer.resume_or_load(path, resume=resume)

    def own_state(self) -> dict[str, Any]:
        """Return what a subclass wants to keep in checkpoints, in plain types; by default nothing."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take what `own_state` gave."""

    def resume_at(self, *, iteration: int, round_: int, done_in_routine: int) -> None:
        """Take the place in the run that a checkpoint names; the next routine skips the batches that are done."""
        self.iter = self.start_iter = iteration
        self.round = round_
        self.done_in_routine = self._skip = done_in_routine
        self.storage.iter, self.storage.round = max(0, iteration - 1), round_

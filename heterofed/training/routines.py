"""A routine: the loop over epochs and batches that trains, evaluates or fine-tunes, and the calls of its hooks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from heterofed.errors import ConfigError
from heterofed.metrics.storage import EventStorage
from heterofed.training.context import Context, CtxVar
from heterofed.training.hook_objects import HookObjects
from heterofed.training.hook_registry import HookEntry, HookSet
from heterofed.training.steps import Steps, as_now
from heterofed.training.triggers import LIFECYCLE, MODE, RUN_TRIGGERS, TRIGGER


class Routines(HookObjects):
    """What of `Trainer` lies inside a round; see there.

    Args:
        models: name -> model; `ctx.model` is the first, `ctx.models` all of them.
        optimizers: name -> optimizer; `ctx.optimizer` is the first.
    """

    def __init__(self, models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        super().__init__()
        self.models = dict(models)
        self.optimizers = dict(optimizers)
        self.iter = self.done_in_routine = 0
        self.storage = EventStorage()
        self.ctx = Context(
            apply_mode=self.apply_mode,
            keep_mode=self._keep_mode,
            trainer=weakref.proxy(self),
            models=list(self.models.values()),
            model=next(iter(self.models.values()), None),
            optimizers=list(self.optimizers.values()),
            optimizer=next(iter(self.optimizers.values()), None),
        )
        self._active: list[HookSet] = []
        self._skip = 0
        self._in_storage = False

    # --- routines -----------------------------------------------------------------------------------------------------

    def train(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Run a routine that learns on a split of the data."""
        return self.run_routine(MODE.TRAIN, target_data_split_name, hooks_set)

    def finetune(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Run a routine that learns, with the hooks of fine-tuning."""
        return self.run_routine(MODE.FINETUNE, target_data_split_name, hooks_set)

    def evaluate(self, target_data_split_name: str = "test", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Run a routine that evaluates; it may be called in a hook of training."""
        mode = MODE.VAL if target_data_split_name == "val" else MODE.TEST
        return self.run_routine(mode, target_data_split_name, hooks_set)

    def run_routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> None:
        """Run the loop of a routine.

        Args:
            mode: one of `MODE`.
            split: which part of the data.
            hooks_set: trigger -> functions, instead of the mode's own hooks.
        """
        with self._routine(mode, split, hooks_set) as batches:
            for _ in batches:
                pass

    @contextmanager
    def stepwise(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> Iterator[Steps[Any]]:
        """Frame a routine whose batches run as the body asks for them; those that it did not ask for run at its end.

        Between two batches the body sees what a hook of `on_fit_end` sees: the models in the routine's mode, and no
        variable of a batch. What a batch raises comes out of the frame even if the body catches it.

        Args:
            mode, split, hooks_set: as in `run_routine`.

        Yields:
            What runs a batch at each `next` and gives its `outcome()`.
        """
        with self._routine(mode, split, hooks_set) as batches:
            surroundings = as_now(self.models.values(), self._keep_mode, lambda: self.apply_mode(mode))
            steps = Steps(batches, surroundings)
            try:
                yield steps
            except Exception:
                if steps.failure is None:
                    raise
            for _ in steps:
                pass

    @contextmanager
    def _routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None) -> Iterator[Iterator[Any]]:
        hooks = self.hooks_in(mode) if hooks_set is None else HookSet.of(hooks_set)
        counted = mode in MODE.LEARNING and not self._active
        with ExitStack() as frame:
            if not self._in_storage and not self._active:
                frame.enter_context(self.storage)
            frame.enter_context(self.ctx.routine(mode, split))
            frame.enter_context(torch.set_grad_enabled(self.needs_gradients(mode)))
            self._active.append(hooks)
            frame.callback(self._active.pop)
            self._skip, skip = (0, self._skip) if counted else (self._skip, 0)
            self.fire(TRIGGER.ON_FIT_START)
            batches = self._run_epochs(skip, counted=counted)
            frame.callback(batches.close)
            yield batches
            self.fire(TRIGGER.ON_FIT_END)

    def _run_epochs(self, skip: int, *, counted: bool) -> Generator[Any, None, None]:
        """Run the batches of all epochs but those that a resumed run has done, one at each `next`."""
        for epoch in range(self.epochs()):
            with self.ctx.scope(LIFECYCLE.EPOCH):
                self.ctx.cur_epoch_i = CtxVar(epoch, LIFECYCLE.EPOCH)
                self.fire(TRIGGER.ON_EPOCH_START)
                with self.ctx.scope(LIFECYCLE.BATCH):
                    skip = yield from self._run_batches(epoch, skip, counted=counted)
                self.fire(TRIGGER.ON_EPOCH_END)
        if counted:
            self._skip = skip  # a round may have another routine, to which the rest belongs

    def _run_batches(self, epoch: int, skip: int, *, counted: bool) -> Generator[Any, None, int]:
        """Run the batches of an epoch; return how many are still to skip."""
        ctx = self.ctx
        for batch_i, item in enumerate(self.batches(epoch)):
            if skip:
                skip -= 1
                continue
            try:
                if item is None:
                    ctx.put(LIFECYCLE.BATCH, cur_batch_i=batch_i)
                else:
                    ctx.put(LIFECYCLE.BATCH, cur_batch_i=batch_i, data_batch=item)
                if counted:
                    self.storage.iter = self.iter
                self.fire(TRIGGER.ON_BATCH_START)
                self.run_step()
                if counted:
                    self.storage.samples += ctx.get("batch_size", 0)
                self.fire(TRIGGER.ON_BATCH_END)
                outcome = self.outcome()
            finally:
                ctx.renew()
            if counted:
                self.iter += 1
                self.done_in_routine += 1
                self.batch_done()
            yield outcome
            outcome = None  # it may be large, and is somebody else's now
        return skip

    def outcome(self) -> Any:
        """Return what `stepwise` gives of the batch at hand, whose hooks are done; override it."""
        return None

    def batch_done(self) -> None:
        """Called when a batch of training and its hooks are done and it is counted."""

    def epochs(self) -> int:
        """Return how many passes this routine makes; override it."""
        return 1

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield an item for each batch of an epoch, which becomes `ctx.data_batch` unless it is None; override it.

        Raises:
            ConfigError: it is not overridden.
        """
        raise ConfigError(f"{type(self).__name__} does not say where batches come from", advice="Write batches().")

    def run_step(self) -> None:
        """One batch between its start and its end; override it to do something else with batches."""
        self.fire(TRIGGER.ON_BATCH_FORWARD)
        self.fire(TRIGGER.ON_BATCH_EXCHANGE)
        self.fire(TRIGGER.ON_BATCH_BACKWARD)

    def before_optimizer_step(self) -> None:
        """Call the hooks that look at the gradients of a batch; whoever steps an optimizer calls this first."""
        if self._active:
            self.fire(TRIGGER.ON_OPTIMIZER_STEP)

    # --- calling hooks ------------------------------------------------------------------------------------------------

    def fire(self, trigger: str) -> None:
        """Call the hooks of a trigger, in order.

        Raises:
            Exception: what a hook raises, as `hook_failed` returns it.
        """
        hooks = self._active[-1] if self._active and trigger not in RUN_TRIGGERS else self.hooks_in_train
        entries = hooks[trigger]
        if not entries:
            return
        ctx = self.ctx
        entry = entries[0]
        try:
            for entry in tuple(entries):  # a hook may add others
                entry.function(ctx)
        except Exception as error:
            found = self.hook_failed(entry, trigger, error)
            if found is error:
                raise
            raise found from error

    def hook_failed(self, entry: HookEntry, trigger: str, error: Exception) -> Exception:
        """Return what to raise for an error of a hook; the error itself unless overridden."""
        return error

    # --- modes --------------------------------------------------------------------------------------------------------

    def apply_mode(self, mode: str) -> None:
        """Switch the models to training or to evaluation; override it where some never train."""
        for model in self.models.values():
            model.train(mode in MODE.LEARNING)

    def needs_gradients(self, mode: str) -> bool:
        """Whether autograd records in a mode."""
        return mode in MODE.LEARNING

    def _keep_mode(self) -> Callable[[], None]:
        kept = [(module, module.training) for model in self.models.values() for module in model.modules()]

        def restore() -> None:
            for module, training in kept:
                module.training = training

        return restore

"""The hooks that most runs want, in the order that works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from heterofed.metrics.writers import EventWriter
from heterofed.training.hooks.base import HookBase
from heterofed.training.hooks.checkpoints import BestCheckpointer, PeriodicCheckpointer
from heterofed.training.hooks.evaluation import EvalHook
from heterofed.training.hooks.schedules import LRScheduler
from heterofed.training.hooks.timing import IterationTimer
from heterofed.training.hooks.writing import PeriodicWriter

if TYPE_CHECKING:
    from heterofed.training.trainer import Trainer


def default_hooks(
    trainer: Trainer,
    *,
    every: str = "round",
    schedule: Callable[[Optimizer], TorchScheduler] | None = None,
    schedule_every: str = "batch",
    checkpoint_period: int = 1,
    evaluate: Callable[[], Any] | None = None,
    eval_period: int = 1,
    best_metric: str = "",
    best_mode: str | None = None,
    writers: Sequence[EventWriter] | None = None,
    write_period: int = 20,
) -> list[HookBase]:
    """Return IterationTimer, LRScheduler, PeriodicCheckpointer, EvalHook, BestCheckpointer, PeriodicWriter.

    The timer comes first, so that it measures batches and not hooks; what looks at a scalar comes after what puts it.
    Checkpointers are left out where the trainer has no folder for checkpoints, and each hook where nothing asks for
    it. For `Trainer.build_hooks`, or to be registered at once.

    Args:
        trainer: whose hooks these will be.
        every: checkpoints and evaluations come after so many of these: "batch" or "round".
        schedule, schedule_every: as `make` and `every` of `LRScheduler`; without a schedule it records only.
        checkpoint_period: 0: only model_final.
        evaluate, eval_period: as in `EvalHook`.
        best_metric, best_mode: as in `BestCheckpointer`.
        writers: by default what `trainer.build_writers()` returns.
        write_period: as in `PeriodicWriter`.

    Raises:
        ConfigError: as these hooks.
    """
    writers = trainer.build_writers() if writers is None else writers
    stores = trainer.checkpoint_folder is not None
    hooks: list[HookBase] = [IterationTimer(), LRScheduler(schedule, every=schedule_every)]
    if stores:
        hooks.append(PeriodicCheckpointer(checkpoint_period, every))
    if evaluate is not None:
        hooks.append(EvalHook(eval_period, evaluate, every=every))
    if stores and best_metric:
        hooks.append(BestCheckpointer(best_metric, best_mode, every=every))
    if writers:
        hooks.append(PeriodicWriter(writers, write_period))
    return hooks

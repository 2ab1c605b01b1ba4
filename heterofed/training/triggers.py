"""The points of a run where hooks are called, the modes of a routine, and how long a variable of the context lives."""

from __future__ import annotations

from enum import Enum
from typing import Final


class MODE:
    """What a routine does with the models; `ctx.cur_mode`."""

    TRAIN: Final = "train"
    FINETUNE: Final = "finetune"
    VAL: Final = "val"
    TEST: Final = "test"

    LEARNING: Final = (TRAIN, FINETUNE)
    """Modes in which parameters change; in the others the models evaluate."""


class LIFECYCLE:
    """How long a `CtxVar` lives: until its scope ends. The scopes lie inside each other in this order."""

    RUN: Final = "run"
    ROUND: Final = "round"
    ROUTINE: Final = "routine"
    EPOCH: Final = "epoch"
    BATCH: Final = "batch"
    NONE: Final = None
    """Never cleared."""

    SCOPES: Final = (RUN, ROUND, ROUTINE, EPOCH, BATCH)


class TRIGGER(str, Enum):
    """The points of a run, outermost first. `Trainer` draws them in their order."""

    BEFORE_TRAIN = "before_train"
    ON_ROUND_START = "on_round_start"
    ON_FIT_START = "on_fit_start"
    ON_EPOCH_START = "on_epoch_start"
    ON_BATCH_START = "on_batch_start"
    ON_BATCH_FORWARD = "on_batch_forward"
    ON_BATCH_EXCHANGE = "on_batch_exchange"
    ON_BATCH_BACKWARD = "on_batch_backward"
    ON_OPTIMIZER_STEP = "on_optimizer_step"
    ON_BATCH_END = "on_batch_end"
    ON_EPOCH_END = "on_epoch_end"
    ON_FIT_END = "on_fit_end"
    ON_ROUND_END = "on_round_end"
    ON_EXCEPTION = "on_exception"
    AFTER_TRAIN = "after_train"

    @classmethod
    def contains(cls, item: object) -> bool:
        """Whether a text names a trigger."""
        return item in ALL_TRIGGERS


ALL_TRIGGERS: Final = tuple(each.value for each in TRIGGER)

RUN_TRIGGERS: Final = frozenset(
    each.value
    for each in (
        TRIGGER.BEFORE_TRAIN,
        TRIGGER.ON_ROUND_START,
        TRIGGER.ON_ROUND_END,
        TRIGGER.ON_EXCEPTION,
        TRIGGER.AFTER_TRAIN,
    )
)
"""Points outside of any routine. Their hooks are registered with those of training."""

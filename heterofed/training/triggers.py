"""The points of a run where hooks are called, the modes of a routine, and how long a variable of the context lives."""

from __future__ import annotations

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


class TRIGGER:
    """The points of a run, outermost first. `Trainer` draws them in their order."""

    BEFORE_TRAIN: Final = "before_train"
    ON_ROUND_START: Final = "on_round_start"
    ON_FIT_START: Final = "on_fit_start"
    ON_EPOCH_START: Final = "on_epoch_start"
    ON_BATCH_START: Final = "on_batch_start"
    ON_BATCH_FORWARD: Final = "on_batch_forward"
    ON_BATCH_EXCHANGE: Final = "on_batch_exchange"
    ON_BATCH_BACKWARD: Final = "on_batch_backward"
    ON_OPTIMIZER_STEP: Final = "on_optimizer_step"
    ON_BATCH_END: Final = "on_batch_end"
    ON_EPOCH_END: Final = "on_epoch_end"
    ON_FIT_END: Final = "on_fit_end"
    ON_ROUND_END: Final = "on_round_end"
    ON_EXCEPTION: Final = "on_exception"
    AFTER_TRAIN: Final = "after_train"

    @classmethod
    def contains(cls, item: object) -> bool:
        """Whether a text names a trigger."""
        return item in ALL_TRIGGERS


ALL_TRIGGERS: Final[tuple[str, ...]] = tuple(
    value for name, value in vars(TRIGGER).items() if name.isupper() and isinstance(value, str)
)

RUN_TRIGGERS: Final = frozenset(
    {TRIGGER.BEFORE_TRAIN, TRIGGER.ON_ROUND_START, TRIGGER.ON_ROUND_END, TRIGGER.ON_EXCEPTION, TRIGGER.AFTER_TRAIN}
)
"""Points outside of any routine. Their hooks are registered with those of training."""

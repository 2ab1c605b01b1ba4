"""Hooks as objects: methods that are called at the points of a run, with the trainer at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from heterofed.training.triggers import TRIGGER

if TYPE_CHECKING:
    from heterofed.training.trainer import Trainer

POINTS: dict[str, str] = {
    "before_train": TRIGGER.BEFORE_TRAIN,
    "before_round": TRIGGER.ON_ROUND_START,
    "before_fit": TRIGGER.ON_FIT_START,
    "before_step": TRIGGER.ON_BATCH_START,
    "after_exchange": TRIGGER.ON_BATCH_EXCHANGE,
    "before_optimizer_step": TRIGGER.ON_OPTIMIZER_STEP,
    "after_step": TRIGGER.ON_BATCH_END,
    "after_fit": TRIGGER.ON_FIT_END,
    "after_round": TRIGGER.ON_ROUND_END,
    "on_exception": TRIGGER.ON_EXCEPTION,
    "after_train": TRIGGER.AFTER_TRAIN,
}
"""Method of a hook -> where it is called, in the order of a run."""


class HookBase:
    """A hook with a memory of its own; override what you need.

    `self.trainer` is there from `register_hooks` on: a weak reference, so that neither keeps the other alive.
    `before_step` should be cheap; do work in `after_step`. Methods of routines and steps are called in training and
    fine-tuning, not in evaluation. One object may serve several runs, one after the other.

    Attributes:
        name: what it is called in tables, errors and checkpoints; the class's name unless set. Unique in a trainer.
        last: whether it stays behind hooks that are registered after it, as those do that write what others measure.
        part: the file of a checkpoint that keeps its state.
        patient: whether nobody could tell if `before_step` and `after_step` came after the next batch's forward pass:
            they look at nothing that it changes (buffers of models, random generators) and change nothing that it
            uses. A collaborator all of whose hooks at batches are patient sends its embeddings earlier. It holds for
            the class that says so, not for its subclasses.
    """

    trainer: Trainer = None  # type: ignore[assignment]  # a trainer from register_hooks on
    name: str = ""
    last: bool = False
    part: str = "trainer"
    patient: bool = False
    skips: frozenset[str] = frozenset()
    """Points at which this object does nothing, though its class has a method for them: they cost no call."""

    def before_train(self) -> None:
        """Before the first round of a run."""

    def before_round(self) -> None:
        """Before the batches of a round."""

    def before_fit(self) -> None:
        """Before the batches of a routine of training or fine-tuning."""

    def before_step(self) -> None:
        """Before a batch."""

    def after_exchange(self) -> None:
        """After the parties have exchanged what a batch needs; nothing is exchanged where one party trains alone."""

    def before_optimizer_step(self) -> None:
        """When the gradients of a batch are there and not yet applied."""

    def after_step(self) -> None:
        """After a batch."""

    def after_fit(self) -> None:
        """After the batches of a routine of training or fine-tuning."""

    def after_round(self) -> None:
        """After the batches of a round, and its test if there was one."""

    def on_exception(self, error: Exception) -> None:
        """When the run fails, before `after_train`; `error` is raised again afterwards."""

    def after_train(self) -> None:
        """At the end of a run, however it ends: `self.trainer.run_ok` tells."""

    def before_rewind(self) -> None:
        """Before a run goes back to a checkpoint in its middle, because another party was started again."""

    def after_rewind(self) -> None:
        """After it went back, with the states of that checkpoint loaded; rounds and batches come again from there."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this hook, in plain types; by default nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave. Called when a run resumes, before `before_train`, and when it goes back."""


class CallbackHook(HookBase):
    """Calls functions, each with the trainer.

    Args:
        before_train, after_train, before_step, after_step: called at these points.
        name: as in `HookBase`.
        others: any other method of `HookBase` by its name, for example `after_round=…`.

    Raises:
        TypeError: there is no such point.
    """

    def __init__(
        self,
        *,
        before_train: Callable[[Trainer], object] | None = None,
        after_train: Callable[[Trainer], object] | None = None,
        before_step: Callable[[Trainer], object] | None = None,
        after_step: Callable[[Trainer], object] | None = None,
        name: str = "",
        **others: Callable[[Trainer], object] | None,
    ) -> None:
        self.name = name
        given = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
            **others,
        }
        unknown = sorted(given.keys() - POINTS.keys())
        if unknown:
            raise TypeError(f"CallbackHook has no point {unknown[0]!r}; the points are {', '.join(POINTS)}")
        for point, function in given.items():
            if function is not None:
                setattr(self, point, self._calling(function))

    def _calling(self, function: Callable[[Trainer], object]) -> Callable[..., None]:
        def call(*error: Exception) -> None:
            function(self.trainer)

        return call


_NEVER_CALLED = {
    **{trigger: point for point, trigger in POINTS.items() if trigger != point},
    "on_epoch_start": "",
    "on_epoch_end": "",
    "on_batch_forward": "",
    "on_batch_backward": "",
    "before_batch": "before_step",
    "after_batch": "after_step",
}
"""Names that look like methods of a hook and are none -> what may be meant; nothing: only functions go there."""


def misnamed(hook: HookBase) -> tuple[str, str] | None:
    """Return a method that would never be called, and the one that may be meant; None where all is well."""
    for name, meant in _NEVER_CALLED.items():
        if callable(getattr(hook, name, None)):
            return name, meant
    return None


def points_of(hook: HookBase) -> dict[str, Callable[..., None]]:
    """Return the methods that a hook overrides, in the order of a run: name of the point -> bound method."""
    return {
        point: getattr(hook, point)
        for point in POINTS
        if point not in hook.skips
        and (point in vars(hook) or getattr(type(hook), point) is not getattr(HookBase, point))
    }

"""A batch that is made and sent before its turn, while the hooks at the end of the one before are still to come.

The host waits for embeddings, and for nothing else that a collaborator does. So the next one leaves as soon as the step
before it is done, if nobody can tell: no hook lies between the two that might look at what the forward pass changes
(buffers, random generators), or change what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

from heterofed.features.embedder import LocalBatch, PendingBatch, as_made
from heterofed.training.hook_registry import HookEntry, HookSet
from heterofed.training.hooks import HookBase
from heterofed.training.routines import Routines
from heterofed.training.triggers import TRIGGER

_ONLY_DEFAULT = (TRIGGER.ON_BATCH_FORWARD, TRIGGER.ON_BATCH_EXCHANGE, TRIGGER.ON_BATCH_BACKWARD)
_ONLY_PATIENT = (TRIGGER.ON_BATCH_START, TRIGGER.ON_BATCH_END)


class Watchers:
    """Knows whether a hook can tell in which order the end of a batch and the next embedding come."""

    def __init__(self) -> None:
        self._known: list[list[HookEntry]] = []
        self._none = False

    def none_in(self, hooks: HookSet, objects: Mapping[str, HookBase]) -> bool:
        """Whether none of these hooks can.

        Args:
            hooks: of the routine in progress; they may have changed since this was last asked.
            objects: the trainer's hook objects by name.
        """
        now = [hooks[trigger] for trigger in (*_ONLY_DEFAULT, *_ONLY_PATIENT)]
        if now != self._known:
            self._known = [list(each) for each in now]
            alone = all(len(hooks[each]) == 1 and hooks[each][0].source == "default" for each in _ONLY_DEFAULT)
            self._none = alone and all(_is_patient(each, objects) for at in _ONLY_PATIENT for each in hooks[at])
        return self._none


def _is_patient(entry: HookEntry, objects: Mapping[str, HookBase]) -> bool:
    if entry.source == "default":
        return True
    hook = objects.get(entry.source)
    return hook is not None and vars(type(hook)).get("patient") is True  # a subclass may do more: it has to say so


class EarlyBatches(Iterator[PendingBatch]):
    """The batches of a pass in order, of which the next may be made before the loop asks for it.

    Args:
        made: the batches.
    """

    def __init__(self, made: Iterator[PendingBatch]) -> None:
        self._made = made
        self._next: PendingBatch | None = None

    def __next__(self) -> PendingBatch:
        """Return the next batch; one that was made early is embedded already."""
        if self._next is None:
            return next(self._made)
        found, self._next = self._next, None
        return found

    def make_next(self, send: Callable[[LocalBatch], None]) -> bool:
        """Make the next batch and send it; return whether it has left.

        What is raised is raised again in the batch's own turn: until then, all that belongs to the one before is done.
        """
        try:
            pending = next(self._made, None)
            if pending is None:
                return False
            local = pending()
            send(local)
        except Exception as error:
            self._next = partial(_raised, error)
            return False
        self._next = partial(as_made, local)
        return True


@contextmanager
def numbered(trainer: Routines, batch: int) -> Iterator[None]:
    """Let the user's model see the numbers of the batch that it runs on, while the one before has not ended."""
    ctx, storage = trainer.ctx, trainer.storage
    ctx.cur_batch_i = batch
    trainer.iter += 1
    storage.iter = trainer.iter
    try:
        yield
    finally:
        trainer.iter -= 1
        storage.iter = trainer.iter
        ctx.cur_batch_i = batch - 1


def _raised(error: Exception) -> NoReturn:
    raise error

"""Stop points: where a party of the kill matrix waits while something is done to it, or to its links.

They are hooked into from outside: nothing in heterofed knows of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heterofed.scheduler.link import Link
from heterofed.training import checkpoint
from heterofed.training.checkpoint import Checkpointer
from heterofed.training.triggers import MODE
from tests.chaos.task import BATCHES

STOP_AT = 13
"""A stop point "batch" is in this one, counted from 0: in the middle of round 2, one after a checkpoint."""

IN_ROUND = STOP_AT - BATCHES
"""Its number in round 2."""


class Flag:
    """Where a party and the controller meet."""

    def __init__(self, path: Path) -> None:
        self._here = path.with_name(path.name + ".here")
        self._go = path.with_name(path.name + ".go")

    def wait(self) -> None:
        """Say that this party is here, once, and wait for the word to go on."""
        if self._here.exists():
            return
        self._here.write_text("here")
        deadline = time.monotonic() + 60
        while not self._go.exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    @property
    def reached(self) -> bool:
        """Whether the party is there."""
        return self._here.exists()

    def go(self) -> None:
        """Let the party go on."""
        self._go.write_text("go")


@dataclass(frozen=True)
class AtMessage:
    """A stop point where a message is sent."""

    message: str
    """Name of its class."""

    before: bool = False
    """Stop before it is sent, not after."""

    when: Callable[[Any, Any], bool] = lambda scheduler, message: True
    """Given the scheduler and the message: whether this is the one."""

    nth: int = 1
    """The first of those that this process sends is 1."""


def _in_batch(scheduler: Any, message: Any) -> bool:
    learning = scheduler.trainer.ctx.get("cur_mode") in MODE.LEARNING
    return bool(learning and (message.round, message.batch) == (2, IN_ROUND))


def _in_round(number: int) -> Callable[[Any, Any], bool]:
    return lambda scheduler, message: bool(scheduler.trainer.current_round == number)


def _in_test(scheduler: Any, message: Any) -> bool:
    return bool(scheduler.trainer.current_round == 2 and scheduler.trainer.ctx.get("cur_mode") == MODE.TEST)


POINTS: dict[str, tuple[AtMessage, AtMessage]] = {
    # The host's are where one collaborator has heard it and the other one has not.
    "check-in": (AtMessage("Welcome"), AtMessage("CheckIn")),
    "psi": (AtMessage("PsiPart"), AtMessage("PsiPart")),
    "batch": (AtMessage("Gradient", when=_in_batch), AtMessage("Embedding", when=_in_batch)),
    "test": (AtMessage("Proceed", when=_in_test), AtMessage("Embedding", when=_in_test)),
    "round start": (AtMessage("BatchPlan", when=_in_round(2)), AtMessage("RoundReady", before=True, when=_in_round(2))),
    "round end": (AtMessage("CloseRound", when=_in_round(2)), AtMessage("RoundClosed", before=True, when=_in_round(2))),
    "last round end": (AtMessage("CloseRound", when=_in_round(3)), AtMessage("RoundClosed", when=_in_round(3))),
    "closing": (AtMessage("CompleteTask"), AtMessage("Completed", before=True)),
    "dismissal": (AtMessage("Dismissed"), AtMessage("Completed")),
    # A party that lived gathers again because another was started again.
    "check-in again": (AtMessage("Welcome", nth=3), AtMessage("CheckIn", nth=2)),
}
"""Name -> (at the host, at a collaborator)."""

CHECKPOINTS: dict[str, tuple[int, bool]] = {
    "before keeping 3": (3, False),
    "before keeping 12": (12, False),
    "after keeping 12": (12, True),
}
"""Name -> (after how many batches the checkpoint is, whether it is written by then)."""

NAMES = (*POINTS, *CHECKPOINTS, "checkpoint", "trouble")
"""All stop points; "checkpoint" is between two files of one, "trouble" where the user's code raises an exception."""


class OurTrouble(Exception):
    """What the user's code raises at the stop point "trouble"."""


def stop_at(point: str, flag: Flag, scheduler: Any) -> None:
    """Make this process stop at a point."""
    if point == "checkpoint":
        _stop_in_checkpoint(flag, scheduler)
        return
    if point == "trouble":
        _stop_before_trouble(flag, scheduler)
        return
    if point in CHECKPOINTS:
        _stop_around_checkpoint(flag, *CHECKPOINTS[point])
        return
    at = POINTS[point][0 if scheduler.feature_key == "host" else 1]
    left = at.nth

    def watched(says: Callable[..., Any]) -> Callable[..., Any]:
        def says_and_stops(self: Link, to: str, said: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            messages = said if isinstance(said, Sequence) else [said]
            is_it = any(type(each).__name__ == at.message and at.when(scheduler, each) for each in messages)
            if is_it:
                left -= 1
                is_it = left == 0
            if is_it and at.before:
                flag.wait()
            answer = says(self, to, said, *args, **kwargs)
            if is_it and not at.before:
                flag.wait()
            return answer

        return says_and_stops

    for name in ("send", "send_together", "tell"):
        setattr(Link, name, watched(getattr(Link, name)))  # in this process only


def _stop_before_trouble(flag: Flag, scheduler: Any) -> None:
    name = "train_a_batch" if scheduler.feature_key == "host" else "load_batch"
    does = getattr(scheduler, name)

    def fails(*args: Any) -> Any:
        if scheduler.trainer.iter == STOP_AT:
            flag.wait()
            raise OurTrouble
        return does(*args)

    setattr(scheduler, name, fails)


def _stop_in_checkpoint(flag: Flag, scheduler: Any) -> None:
    module: Any = checkpoint
    write = module.write_state

    def writes(state: Any, path: Path, name: str, **how: Any) -> None:
        write(state, path, name, **how)
        if name == "optimizer" and scheduler.trainer.iter >= STOP_AT - 1:
            flag.wait()

    module.write_state = writes  # in this process only


def _stop_around_checkpoint(flag: Flag, batches: int, written: bool) -> None:
    save = Checkpointer.save_iteration

    def saves(self: Checkpointer, iteration: int) -> Path:
        if iteration != batches - 1:
            return save(self, iteration)
        if not written:
            flag.wait()
        target = save(self, iteration)
        if written:
            flag.wait()
        return target

    Checkpointer.save_iteration = saves  # type: ignore[method-assign]  # in this process only

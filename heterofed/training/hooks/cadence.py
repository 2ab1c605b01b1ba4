"""When a hook acts, every so many batches or rounds, and what it finds then: the newest value of a scalar, once."""

from __future__ import annotations

from typing import Literal

from heterofed.checks import check_count
from heterofed.errors import ConfigError
from heterofed.metrics.progress import logger
from heterofed.metrics.storage import EventStorage
from heterofed.training.hooks.base import HookBase

Every = Literal["batch", "round"]
_EVERY: tuple[Every, ...] = ("batch", "round")


def checked_every(every: str) -> Every:
    """Return "batch" or "round".

    Raises:
        ConfigError: it is neither.
    """
    for known in _EVERY:
        if every == known:
            return known
    raise ConfigError(f"every is {every!r}", expected='"batch" or "round"')


class PeriodicHook(HookBase):
    """Calls `act` at the end of every `period`-th batch or round of training.

    Batches of a routine inside another one, as a fine-tuning that a hook starts, are not counted.

    Args:
        period: 1 for each of them, 2 for every other one; 0: never.
        every: "batch" or "round".

    Raises:
        ConfigError: an argument is none of these.
    """

    def __init__(self, period: int, every: str) -> None:
        check_count("period", period, 0)
        self.period = period
        self.every = checked_every(every)
        own_step = type(self).after_step is PeriodicHook.after_step
        if own_step and (self.every == "round" or not self.period):
            self.skips = frozenset({"after_step"})

    def after_step(self) -> None:
        """Act, if it is time and batches count."""
        if self.every == "batch" and self.period and self.done() % self.period == 0 and not self.trainer.ctx.nested:
            self.act()

    def after_round(self) -> None:
        """Act, if it is time and rounds count."""
        if self.every == "round" and self.period and self.done() % self.period == 0:
            self.act()

    def done(self) -> int:
        """Return how many batches or rounds are done, the one that ends just now included."""
        return self.trainer.iter + 1 if self.every == "batch" else self.trainer.round + 1

    def act(self) -> None:
        """What is to be done; override it."""


class Latest:
    """The newest value of a scalar, each only once, even if several come in one iteration.

    Args:
        metric: the scalar's name in the storage.
        who: the name of the hook that looks, for the warning.
    """

    def __init__(self, metric: str, who: str) -> None:
        self.metric = metric
        self.seen = 0
        """How many values the series had at the last look."""
        self._who = who
        self._warned = False

    def look(self, storage: EventStorage) -> tuple[float, int] | None:
        """Return (value, iteration), None if nothing is new. The first time that nothing is there draws a warning."""
        history = storage.histories().get(self.metric)
        if history is None:
            if not self._warned:
                there = ", ".join(sorted(storage.histories())) or "none"
                logger.warning("%s: no scalar %r was measured so far; there are: %s", self._who, self.metric, there)
                self._warned = True
            return None
        if history.count == self.seen:
            return None
        self.seen = history.count
        return history.latest(), history.latest_iteration

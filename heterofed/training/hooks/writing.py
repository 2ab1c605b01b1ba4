"""The hook that lets writers show what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from heterofed.errors import ConfigError
from heterofed.metrics.progress import logger
from heterofed.metrics.writers import EventWriter
from heterofed.training.hooks.cadence import PeriodicHook


class PeriodicWriter(PeriodicHook):
    """Lets writers write every `period` batches and at the end of each round, and close at the end of the run.

    It stays behind all other hooks, so that a batch's line has what they measured, and a final evaluation is written.

    Args:
        writers: what shows the storage: JSONWriter, CommonMetricPrinter, …; or a function that returns them, called
            when a run begins.
        period: after how many batches; 0: only at the end of rounds.

    Attributes:
        shown_until: the newest iteration that they had shown when the checkpoint was written which the run goes on
            from; -1: none. What a run shows at its end comes on top, and is void where it goes on from a checkpoint.

    Raises:
        ConfigError: one of them is no EventWriter, or the period is below 0.
    """

    last = True
    patient = True

    def __init__(self, writers: Iterable[EventWriter] | Callable[[], Iterable[EventWriter]], period: int = 20) -> None:
        super().__init__(period, "batch")
        self._make = writers if callable(writers) else None
        self.writers = [] if callable(writers) else _checked(writers)
        self.shown_until = -1

    def state_dict(self) -> dict[str, Any]:
        """Keep up to where the writers have written."""
        return {"shown_until": self.shown_until}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.shown_until = state["shown_until"]

    def before_train(self) -> None:
        """Make the writers that could not be made before."""
        if self._make is not None:
            self.writers = _checked(self._make())

    def before_rewind(self) -> None:
        """Close the writers that can be made again: what they have written from that checkpoint on is void."""
        if self._make is not None:
            self.after_train()
            self.writers = []

    def after_rewind(self) -> None:
        """Make them again, to go on from there."""
        self.before_train()

    def act(self) -> None:
        """Let each writer write."""
        storage = self.trainer.storage
        for writer in self.writers:
            writer.write(storage)
        self.shown_until = storage.iter

    def after_round(self) -> None:
        """Let each writer write what the round's end has measured."""
        self.act()

    def after_train(self) -> None:
        """Let each writer write what is left, and close; one that cannot does not keep the others from it."""
        storage = self.trainer.storage
        first: Exception | None = None
        for writer in self.writers:
            # Where nothing was measured, as when the run fails at once, an earlier run's file stays as it is.
            for call in (writer.write, writer.close) if storage.histories() else (writer.close,):
                try:
                    call(storage)
                except Exception as error:
                    if first is not None:
                        logger.error("%s failed too at the end of the run: %s", type(writer).__name__, error)
                    first = first or error
        if first is not None:
            raise first


def _checked(writers: Iterable[EventWriter]) -> list[EventWriter]:
    found = list(writers)
    for each in found:
        if not isinstance(each, EventWriter):
            raise ConfigError(f"a writer is a {type(each).__name__}", expected="an object of an EventWriter")
    return found

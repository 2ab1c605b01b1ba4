"""What may have happened to a training: `handle` takes note of it, then `next` goes on.

An event is a row first (`rows`), and is handled once. Its class is found by its name, so a broker carries nothing but
plain words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heterofed.errors import ConfigError
from heterofed.hub.coordinator.training import Training, TrainingState
from heterofed.tasks.course import ReportKind

if TYPE_CHECKING:
    from heterofed.hub.coordinator.trainer import ModelTrainer

_LONGEST_REASON = 2000  # characters


class ModelTrainerEvent(ABC):
    """Something that happened.

    Args:
        trainer: of the training that it happened to.
        payload: {"round": …} and what else the event tells; without a round it is the one that comes next.
    """

    def __init__(self, trainer: ModelTrainer, payload: Mapping[str, Any] | None = None) -> None:
        self.trainer = trainer
        self.payload = dict(payload or {})
        self.round: int = self.payload.get("round", self._usual_round())

    @property
    def training(self) -> Training:
        """The training that it happened to."""
        return self.trainer.training

    def ready(self) -> bool:
        """Whether it can be handled by now; what is not waits for the events before it."""
        return True

    @abstractmethod
    def handle(self) -> None:
        """Take note of what happened."""

    @abstractmethod
    def next(self) -> None:
        """Go on."""

    def _usual_round(self) -> int:
        return self.training.round

    def _reason(self, otherwise: str) -> str:
        reason = self.payload.get("reason")
        return reason[:_LONGEST_REASON] if isinstance(reason, str) and reason else otherwise


class TrainingRoundFinished(ModelTrainerEvent):
    """Every awaited party has finished a round."""

    def _usual_round(self) -> int:
        return self.training.round + 1

    def ready(self) -> bool:
        """Whether each of them has said so."""
        return not self.training.missing(ReportKind.ROUND_FINISHED, self.round)

    def handle(self) -> None:
        """Count the round.

        Raises:
            ConfigError: an awaited party has not finished it.
        """
        waiting_for = self.training.missing(ReportKind.ROUND_FINISHED, self.round)
        if waiting_for:
            raise ConfigError(
                f"round {self.round} of task {self.training.task_id} is not finished",
                expected=f"a report of {', '.join(waiting_for)}",
            )
        # The parties do not wait for the hub: a later round may be known already.
        self.training.round = max(self.training.round, self.round)
        self.training.save()

    def next(self) -> None:
        """Have the model tested, where the options say so; else do what follows a test."""
        if not self.training.is_running or self.round < self.training.round:
            return
        options, target = self.trainer.options, self.training.target_rounds
        is_last = target is not None and self.round >= target
        if not options.skip_model_tests and (options.model_test_after_each_round or is_last):
            self.trainer.test_round()
        else:
            ModelTestFinished(self.trainer, {"round": self.round}).next()


class SWAGRoundFinished(TrainingRoundFinished):
    """Every awaited party has collected the moments of its weights after a round. They stay where they are."""

    def _usual_round(self) -> int:
        return self.training.round

    def ready(self) -> bool:
        """Whether each of them has said so, and the round itself was counted."""
        return self.training.round >= self.round and not self.training.missing(ReportKind.SWAG_FINISHED, self.round)

    def handle(self) -> None:
        """Check that nobody is missing.

        Raises:
            ConfigError: an awaited party has not said so.
        """
        waiting_for = self.training.missing(ReportKind.SWAG_FINISHED, self.round)
        if waiting_for:
            raise ConfigError(
                f"the SWAG round {self.round} of task {self.training.task_id} is not finished",
                expected=f"a report of {', '.join(waiting_for)}",
            )

    def next(self) -> None:
        """Go on as after any other round."""
        if self.training.state is TrainingState.SWAG_ROUND and self.round >= self.training.round:
            self.training.state = TrainingState.ONGOING
            self.training.save()
        super().next()


class ModelTestFinished(ModelTrainerEvent):
    """The host has tested the model of a round."""

    def ready(self) -> bool:
        """Whether the round itself was counted, and its moments; a host may be faster than its collaborators."""
        training = self.training
        if training.state is TrainingState.SWAG_ROUND and self.round >= training.round:
            return False
        return training.round >= self.round

    def handle(self) -> None:
        """Nothing: the scores are with the report, and the host keeps the model."""

    def next(self) -> None:
        """Start the next round, or finish after the last one."""
        if not self.training.is_running or self.round < self.training.round:
            return  # the parties are further already
        if self.training.target_rounds is None or self.round < self.training.target_rounds:
            self.trainer.start_round()
        else:
            self.trainer.finish()


class PartyLost(ModelTrainerEvent):
    """The host waits for a party whose link is down.

    In a split network nobody can go on without it, and mostly it comes back. So it is awaited still; a host that
    has waited long enough says TaskFailed.
    """

    def handle(self) -> None:
        """Nothing: people read it among the task's events."""

    def next(self) -> None:
        """Nothing: the round is still waiting."""


class TaskFailed(ModelTrainerEvent):
    """The task cannot go on: the host gave up, or somebody cancelled it."""

    def handle(self) -> None:
        """Note why, and tell everybody."""
        if self.training.is_running:
            self.trainer.fail(self._reason("the host gave up"))

    def next(self) -> None:
        """Nothing follows, until the task is launched again."""


class TaskCompleted(ModelTrainerEvent):
    """The host says that it is done; where no number of rounds was set, only the host knows."""

    def handle(self) -> None:
        """Nothing: the rounds were counted as they were reported."""

    def next(self) -> None:
        """Finish, unless the last round did."""
        if self.training.state is not TrainingState.COMPLETED:
            self.trainer.finish()


EVENTS: Mapping[str, type[ModelTrainerEvent]] = {
    each.__name__: each
    for each in (TrainingRoundFinished, SWAGRoundFinished, ModelTestFinished, PartyLost, TaskFailed, TaskCompleted)
}
"""Name -> class, of every event that a worker handles."""

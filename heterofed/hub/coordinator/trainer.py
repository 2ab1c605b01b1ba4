"""`ModelTrainer`: starts a training, its rounds and tests, and finishes it, by telling the parties.

The parties train on their own; what is told here is for those who listen, and the record of what was told is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heterofed.hub.coordinator.events import EVENTS, ModelTrainerEvent, TrainingRoundFinished
from heterofed.hub.coordinator.notifications import (
    SWAGRoundStartNotification,
    TaskFailedNotification,
    TrainingFinishedNotification,
    TrainingModelTestNotification,
    TrainingRoundStartNotification,
    TrainingStartNotification,
)
from heterofed.hub.coordinator.rows import Work, add_event
from heterofed.hub.coordinator.training import Training, TrainingState, UncertaintyMethod
from heterofed.tasks.course import ReportKind
from heterofed.tasks.model import TaskStatus
from heterofed.tasks.options import TrainerOptions


class ModelTrainer:
    """Leads a training. Calling it gives the class that suits the training, see `get_trainer_class`.

    Args:
        training: the training, in the transaction of its caller.
        options: the task's own where None.
    """

    training: Training
    options: TrainerOptions

    def __new__(cls, training: Training, options: TrainerOptions | None = None) -> ModelTrainer:
        """Make a trainer of the class that suits the training."""
        suitable = cls.get_trainer_class(training)
        trainer = object.__new__(suitable)
        if not issubclass(suitable, cls):
            # Python calls __init__ only on an instance of the class that was called.
            suitable.__init__(trainer, training, options)
        return trainer

    @classmethod
    def get_trainer_class(cls, training: Training) -> type[ModelTrainer]:
        """Return the class for a training: by its uncertainty method, or the subclass of it that was called."""
        suitable = get_trainer_class(training)
        own = cls not in (ModelTrainer, SWAGModelTrainer) and issubclass(cls, suitable)
        return cls if own else suitable

    def __init__(self, training: Training, options: TrainerOptions | None = None) -> None:
        self.training = training
        self.options = training.options if options is None else options
        self.works: list[Work] = []
        """What became due meanwhile, to be handled after the transaction."""

    def start(self) -> None:
        """Start the training: tell every party, and announce the round."""
        self.training.state = TrainingState.ONGOING
        self.training.cause = None
        self.training.removed = {}
        self.training.save()
        TrainingStartNotification.from_training(self.training).send()
        TrainingRoundStartNotification.from_training(self.training).send()

    def finish(self) -> None:
        """Finish the training, and tell every party and the task's owner."""
        self.training.state = TrainingState.COMPLETED
        self.training.save()
        TrainingFinishedNotification.from_training(self.training).send()

    def start_round(self) -> None:
        """Announce the next round."""
        TrainingRoundStartNotification.from_training(self.training).send()

    def test_round(self) -> None:
        """Announce the test of the finished round."""
        TrainingModelTestNotification.from_training(self.training).send()

    def fail(self, cause: str, *, task_too: bool = True) -> None:
        """Give up: the state is ERROR and keeps the cause, everybody is told, and the task is FAILED.

        Args:
            cause: for people.
            task_too: False leaves the task as it is.
        """
        self.training.state = TrainingState.ERROR
        self.training.cause = cause
        self.training.save()
        TaskFailedNotification.from_training(self.training, cause).send()
        if task_too:
            self.training.move_task(TaskStatus.FAILED, cause)

    def recheck(self) -> None:
        """Go on with every round that was only waiting for a party that is not waited for any more."""
        training = self.training
        if not training.awaited:
            if training.is_running:
                self.fail("no party is left that could be waited for")
            return
        for kind, name, beyond in (
            (ReportKind.ROUND_FINISHED, "TrainingRoundFinished", training.round),
            (ReportKind.SWAG_FINISHED, "SWAGRoundFinished", training.round - 1),
        ):
            for round in training.rounds_reported(kind, beyond):
                if not training.missing(kind, round):
                    self.works += add_event(training.connection, training.task_id, name, round)

    def handle(self, event: ModelTrainerEvent) -> None:
        """Handle an event, and go on."""
        event.handle()
        event.next()

    def handle_cls(self, event_cls: type[ModelTrainerEvent], payload: Mapping[str, Any] | None = None) -> None:
        """Handle an event of a class."""
        self.handle(event_cls(self, payload))


class SWAGModelTrainer(ModelTrainer):
    """After each round the parties collect the moments of their weights, and then go on.

    SWAG: Maddox et al., "A Simple Baseline for Bayesian Uncertainty in Deep Learning", NeurIPS 2019.
    """

    def start_swag_round(self) -> None:
        """Announce that the moments of the finished round are to be collected."""
        self.training.state = TrainingState.SWAG_ROUND
        self.training.save()
        SWAGRoundStartNotification.from_training(self.training).send()

    def handle(self, event: ModelTrainerEvent) -> None:
        """Handle an event, and go on; a finished round goes on with the moments."""
        event.handle()
        if type(event) is not TrainingRoundFinished:
            event.next()
        elif self.training.is_running and event.round >= self.training.round:
            self.start_swag_round()


def get_trainer_class(training: Training) -> type[ModelTrainer]:
    """Return the class of trainer for a training."""
    return SWAGModelTrainer if training.uncertainty_method is UncertaintyMethod.SWAG else ModelTrainer


__all__ = ["EVENTS", "ModelTrainer", "SWAGModelTrainer", "get_trainer_class"]

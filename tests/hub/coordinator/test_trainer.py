"""The trainer tells the parties what happens, in order. Items of the checklist are named where a test is theirs."""

from __future__ import annotations

import pytest

from heterofed.errors import ConfigError
from heterofed.hub.coordinator.events import (
    EVENTS,
    ModelTestFinished,
    ModelTrainerEvent,
    SWAGRoundFinished,
    TrainingRoundFinished,
)
from heterofed.hub.coordinator.trainer import ModelTrainer, SWAGModelTrainer
from heterofed.hub.coordinator.training import Training, TrainingState, UncertaintyMethod
from heterofed.tasks import TaskStatus
from heterofed.tasks.database import Database
from heterofed.tasks.options import TrainerOptions
from tests.hub.coordinator.course import HOST, KINDS, SHOP, Course

NONE, SWAG = UncertaintyMethod.NONE, UncertaintyMethod.SWAG


class Mine(ModelTrainer):
    """A user's own."""


class MineWithMoments(SWAGModelTrainer):
    """A user's own, of the other kind."""


@pytest.mark.parametrize(
    ("called", "method", "made"),
    [
        (ModelTrainer, NONE, ModelTrainer),
        (ModelTrainer, UncertaintyMethod.ENSEMBLE, ModelTrainer),
        (ModelTrainer, SWAG, SWAGModelTrainer),
        (SWAGModelTrainer, SWAG, SWAGModelTrainer),
        (SWAGModelTrainer, NONE, ModelTrainer),
        (Mine, NONE, Mine),
        (Mine, SWAG, SWAGModelTrainer),
        (MineWithMoments, SWAG, MineWithMoments),
    ],
)
def test_the_trainer_is_of_the_class_that_suits_its_training_and_is_initialised(
    course: Course, called: type[ModelTrainer], method: UncertaintyMethod, made: type[ModelTrainer]
) -> None:
    """Item 42. The source returned an object without attributes where a subclass was called."""
    with course.database.transaction(write=True) as connection:
        training = Training.create(connection, course.id, method)
        options = TrainerOptions(skip_model_tests=True)

        trainer = called(training, options)

        assert type(trainer) is made
        assert trainer.training is training
        assert trainer.options is options
        assert called(training).options == TrainerOptions()


def test_start_tells_every_party_of_the_training_and_then_of_its_first_round(course: Course) -> None:
    """Item 43."""
    course.start()

    assert course.training().state is TrainingState.ONGOING
    for party in (HOST, SHOP):
        assert course.told(party) == [("TRAINING_START", 0), ("UPDATE_ROUND_START", 1)]
    assert course.bodies()[0] == {"round": 0, "rounds": 3}


def test_a_launched_task_waits_for_its_parties(course: Course) -> None:
    course.start()

    assert course.store.get(course.id).status is TaskStatus.GATHERING
    assert [event.kind for event in course.store.events(course.id)][:3] == [
        "TASK_CREATED",
        "TRAINING_START",
        "TASK_STATUS",
    ]


def test_finish_tells_the_parties_and_the_owner_and_nobody_twice(course: Course) -> None:
    """Item 44: the source's actor is the owner here."""
    course.add_user("boss", role="owner")
    anna = course.add_user("anna", role="party", party=SHOP)
    course.start()
    with course.database.transaction(write=True) as connection:
        training = Training.load(connection, course.id)
        assert training is not None
        ModelTrainer(training).finish()

    finished = [row for row in course.notifications() if row.notification_type == "TRAINING_FINISHED"]

    assert course.training().state is TrainingState.COMPLETED
    assert [row.party for row in finished] == [HOST, SHOP, None]
    assert finished[1].user_id == anna
    assert course.told(None) == [("TRAINING_FINISHED", 0)]


def test_an_owner_who_is_a_party_too_hears_of_the_end_once(course: Course) -> None:
    """Item 44."""
    course.add_user("anna", role="owner", party=SHOP)
    course.start()
    course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)

    assert [row.party for row in course.notifications() if row.notification_type == "TRAINING_FINISHED"] == [HOST, SHOP]


def test_handling_an_event_is_its_handle_and_then_its_next(course: Course) -> None:
    """Item 45."""
    done: list[str] = []

    class Noted(ModelTrainerEvent):
        def handle(self) -> None:
            done.append(f"handle {self.round} of {self.training.task_id}")

        def next(self) -> None:
            done.append("next")

    with course.database.transaction(write=True) as connection:
        trainer = ModelTrainer(Training.create(connection, course.id))
        trainer.handle(Noted(trainer))
        trainer.handle_cls(Noted, {"round": 2})

    assert done == [f"handle 0 of {course.id}", "next", f"handle 2 of {course.id}", "next"]


def test_an_event_of_a_round_that_somebody_has_not_finished_is_refused(course: Course) -> None:
    """Item 46. The source said "does nothing" and raised; here the text says who is missing."""
    course.start()
    course.report(HOST, KINDS.ROUND_FINISHED, 1)
    with course.database.transaction(write=True) as connection:
        training = Training.load(connection, course.id)
        assert training is not None
        with pytest.raises(
            ConfigError, match=f"round 1 of task {course.id} is not finished; expected a report of shop"
        ):
            ModelTrainer(training).handle_cls(TrainingRoundFinished)

    assert course.training().round == 0


TOLD = {
    "each": ["MODEL_TEST_ROUND", "UPDATE_ROUND_START", "MODEL_TEST_ROUND", "TRAINING_FINISHED"],
    "last": ["UPDATE_ROUND_START", "MODEL_TEST_ROUND", "TRAINING_FINISHED"],
    "skip": ["UPDATE_ROUND_START", "TRAINING_FINISHED"],
}
OPTIONS = {
    "each": TrainerOptions(),
    "last": TrainerOptions(model_test_after_each_round=False),
    "skip": TrainerOptions(skip_model_tests=True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_task_s_own_options_say_which_rounds_are_tested(database: Database, name: str) -> None:
    """Item 47. In the source nobody could set them."""
    course = Course(database, rounds=2, options=OPTIONS[name])
    course.start()
    for round in (1, 2):
        course.all_say(KINDS.ROUND_FINISHED, round)
        if name == "each" or (name == "last" and round == 2):
            course.say(HOST, KINDS.TEST_FINISHED, round, {"scores": {"auc": 0.7}})

    assert [kind for kind, _ in course.told()][2:] == TOLD[name]
    assert course.training().state is TrainingState.COMPLETED
    assert course.training().round == 2


def test_a_finished_test_starts_the_next_round_until_the_last_one_finishes(course: Course) -> None:
    """Item 48."""
    course.start()
    for round in (1, 2, 3):
        course.all_say(KINDS.ROUND_FINISHED, round)
        assert course.told()[-1] == ("MODEL_TEST_ROUND", round)
        course.say(HOST, KINDS.TEST_FINISHED, round)
        assert course.told()[-1] == (("UPDATE_ROUND_START", round + 1) if round < 3 else ("TRAINING_FINISHED", 3))
    assert course.training().state is TrainingState.COMPLETED


def test_without_a_number_of_rounds_the_host_s_own_word_finishes(database: Database) -> None:
    course = Course(database, rounds=None)
    course.start()
    for round in range(1, 6):
        course.all_say(KINDS.ROUND_FINISHED, round)
        course.say(HOST, KINDS.TEST_FINISHED, round)
    assert course.told()[-1] == ("UPDATE_ROUND_START", 6)

    course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)

    assert course.told()[-1] == ("TRAINING_FINISHED", 5)
    assert course.training().state is TrainingState.COMPLETED


def test_a_host_that_stops_early_finishes_the_training(course: Course) -> None:
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)

    course.move(TaskStatus.ONGOING, TaskStatus.COMPLETED)

    assert course.told()[-1] == ("TRAINING_FINISHED", 1)


def test_a_training_with_moments_collects_them_after_each_round_and_goes_on(course: Course) -> None:
    """Item 49: every party says that it has its moments; they never leave it, so none can be taken for another's."""
    course.start(SWAG)
    course.all_say(KINDS.ROUND_FINISHED, 1)
    assert course.training().state is TrainingState.SWAG_ROUND
    assert course.told()[-1] == ("SWAG_ROUND_START", 1)

    course.say(HOST, KINDS.SWAG_FINISHED, 1)
    assert course.training().state is TrainingState.SWAG_ROUND
    course.say(SHOP, KINDS.SWAG_FINISHED, 1)

    assert course.training().state is TrainingState.ONGOING
    assert course.told()[-1] == ("MODEL_TEST_ROUND", 1)
    course.say(HOST, KINDS.TEST_FINISHED, 1)
    assert course.told()[-1] == ("UPDATE_ROUND_START", 2)


def test_a_swag_round_that_somebody_has_not_finished_is_refused(course: Course) -> None:
    """Item 49. The source compared three numbers with one chained comparison, and let a mismatch pass."""
    course.start(SWAG)
    course.all_say(KINDS.ROUND_FINISHED, 1)
    course.say(HOST, KINDS.SWAG_FINISHED, 1)
    with course.database.transaction(write=True) as connection:
        training = Training.load(connection, course.id)
        assert training is not None
        with pytest.raises(ConfigError, match=r"the SWAG round 1 .* expected a report of shop"):
            ModelTrainer(training).handle_cls(SWAGRoundFinished)


def test_a_test_that_is_faster_than_the_moments_is_handled_after_them(course: Course) -> None:
    course.start(SWAG)
    course.all_say(KINDS.ROUND_FINISHED, 1)
    course.say(HOST, KINDS.TEST_FINISHED, 1)
    assert course.told()[-1] == ("SWAG_ROUND_START", 1)

    course.all_say(KINDS.SWAG_FINISHED, 1)

    assert [kind for kind, _ in course.told()][3:] == ["MODEL_TEST_ROUND", "UPDATE_ROUND_START"]


def test_moments_that_nobody_asked_for_change_nothing(course: Course) -> None:
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)

    course.all_say(KINDS.SWAG_FINISHED, 1)

    assert course.training().state is TrainingState.ONGOING
    assert course.told()[-1] == ("MODEL_TEST_ROUND", 1)


def test_a_task_of_moments_has_a_training_of_moments(database: Database) -> None:
    """Item 42, for a real task: nobody has to name the method at the launch."""
    course = Course(database, uncertainty="swag")
    course.start()
    course.all_say(KINDS.ROUND_FINISHED, 1)

    assert course.training().uncertainty_method is SWAG
    assert course.training().state is TrainingState.SWAG_ROUND
    assert course.told()[-1] == ("SWAG_ROUND_START", 1)


def test_a_task_of_moments_that_was_launched_by_hand_has_a_training_of_moments(database: Database) -> None:
    course = Course(database, uncertainty="swag")
    course.come_in()
    course.move(TaskStatus.GATHERING, TaskStatus.ONGOING)
    course.all_say(KINDS.ROUND_FINISHED, 1)

    assert course.training().state is TrainingState.SWAG_ROUND


def test_every_event_is_found_by_its_name() -> None:
    assert EVENTS["TrainingRoundFinished"] is TrainingRoundFinished
    assert EVENTS["ModelTestFinished"] is ModelTestFinished
    assert {"SWAGRoundFinished", "PartyLost", "TaskFailed"} <= EVENTS.keys()
    assert all(name == each.__name__ for name, each in EVENTS.items())

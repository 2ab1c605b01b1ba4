"""Two workers race for every event, and each event is handled once.

HETEROFED_TEST_RACES says how many events each time; 1000 takes some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from heterofed.hub.coordinator import dispatch
from heterofed.tasks.course import ReportKind
from heterofed.tasks.database import Database
from heterofed.tasks.options import TrainerOptions
from tests.hub.coordinator.course import Course
from tests.hub.coordinator.racer import race

RACES = int(os.environ.get("HETEROFED_TEST_RACES", "100"))
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(60 + RACES)


def ready(database: Database, rounds: int) -> Course:
    """A task all of whose rounds were reported, and none handled."""
    course = Course(database, rounds=rounds, options=TrainerOptions(model_test_after_each_round=False))
    course.start()
    with database.transaction(write=True) as connection:
        for round in range(1, rounds + 1):
            for party in course.parties:
                course.store.report(course.id, party, ReportKind.ROUND_FINISHED, round, within=connection)
                dispatch.reported(connection, course.id, party, ReportKind.ROUND_FINISHED, round)
    return course


def check_each_once(course: Course, rounds: int, done: list[int]) -> None:
    assert sum(done) == rounds
    assert [row.state for row in course.events()] == ["DONE"] * rounds
    expected = [("TRAINING_START", 0), *(("UPDATE_ROUND_START", round) for round in range(1, rounds + 1))]
    assert course.told() == [*expected, ("MODEL_TEST_ROUND", rounds)]
    assert course.training().round == rounds
    assert course.lock() == (None, None)


def race_threads(course: Course, rounds: int) -> list[int]:
    done: list[int] = []
    start = threading.Barrier(2)

    def run() -> None:
        start.wait(10)
        done.append(race(course.database, course.id, rounds))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50 + rounds)
    return done


def race_processes(course: Course, where: str, rounds: int) -> list[int]:
    command = [sys.executable, "-m", "tests.hub.coordinator.racer", where, course.id, str(rounds)]
    racers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        return [int(racer.communicate(timeout=50 + rounds)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_two_threads_that_race_for_each_event_handle_it_once(database: Database) -> None:
    """Item 55."""
    course = ready(database, RACES)

    check_each_once(course, RACES, race_threads(course, RACES))


def test_two_processes_that_race_for_each_event_handle_it_once(database: Database) -> None:
    """Item 55."""
    course = ready(database, RACES)

    check_each_once(course, RACES, race_processes(course, database.where, RACES))


def test_two_threads_that_race_on_postgresql_handle_each_event_once(server_database: Database) -> None:
    """Item 55."""
    course = ready(server_database, RACES)

    check_each_once(course, RACES, race_threads(course, RACES))


def test_two_processes_that_race_on_postgresql_handle_each_event_once(server_database: Database) -> None:
    """Item 55."""
    course = ready(server_database, RACES)

    check_each_once(course, RACES, race_processes(course, server_database.where, RACES))

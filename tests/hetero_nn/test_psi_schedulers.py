"""The source system's classes for the intersection alone, in threads that find each other by task id."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from heterofed import AlignmentError, ConfigError, HeterofedError, Settings, TaskAborted
from heterofed.hetero_nn.psi import RSAPSICollaboratorScheduler, RSAPSIInitiatorScheduler
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import TaskStatus


def ids(numbers: range) -> list[str]:
    return [f"person-{number}" for number in numbers]


def together(*calls: Callable[[], set[str]]) -> list[set[str] | HeterofedError]:
    """Run the parties at once; return what each got or raised."""
    ends: list[set[str] | HeterofedError] = [set()] * len(calls)

    def run(index: int) -> None:
        try:
            ends[index] = calls[index]()
        except HeterofedError as error:
            ends[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)
    return ends


def test_three_parties_learn_what_all_of_them_have() -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("psi", ["a", "b", "c"])

    ends = together(
        RSAPSIInitiatorScheduler(task.id, "a", ids(range(40)), ["b", "c"]).make_intersection,
        RSAPSICollaboratorScheduler(task.id, "b", ids(range(10, 60))).collaborate_intersection,
        RSAPSICollaboratorScheduler(task.id, "c", ids(range(30, 90))).collaborate_intersection,
    )

    assert ends == [set(ids(range(30, 40)))] * 3
    assert store.get(task.id).status is TaskStatus.COMPLETED


def test_no_common_id_is_an_error_at_every_party() -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])

    first, second = together(
        RSAPSIInitiatorScheduler(task.id, "a", ids(range(10)), ["b"]).make_intersection,
        RSAPSICollaboratorScheduler(task.id, "b", ids(range(10, 20))).collaborate_intersection,
    )

    assert isinstance(first, AlignmentError)
    assert isinstance(second, TaskAborted)
    assert "no id is common to all 2 parties" in str(first)
    assert "no id is common to all 2 parties" in str(second)


def test_ids_and_parties_that_cannot_be_are_refused() -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])

    with pytest.raises(AlignmentError, match="2 ids of which 1 repeat"):
        RSAPSIInitiatorScheduler(task.id, "a", ["x", "x"], ["b"])
    with pytest.raises(ConfigError, match="collaborator_ids are c; expected b, as the task says"):
        RSAPSIInitiatorScheduler(task.id, "a", ["x"], ["c"]).make_intersection()

"""The source system's classes for the intersection alone, in threads that find each other by task id."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("protocol", ["rsa", "ecdh"])
@pytest.mark.parametrize("pairwise", ["0", "1"], ids=["joint", "pairwise"])
def test_three_parties_learn_what_all_of_them_have(
    protocol: str, pairwise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", protocol)
    monkeypatch.setenv("HETEROFED_PSI_PAIRWISE", pairwise)
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


def test_settings_given_by_hand_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])
    curve = Settings.from_env({**os.environ, "HETEROFED_PSI_PROTOCOL": "ecdh"})
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "rsa")

    ends = together(
        RSAPSIInitiatorScheduler(task.id, "a", ids(range(10)), ["b"], settings=curve).make_intersection,
        RSAPSICollaboratorScheduler(task.id, "b", ids(range(5, 20)), settings=curve).collaborate_intersection,
    )

    assert ends == [set(ids(range(5, 10)))] * 2


def test_parties_that_match_in_different_ways_are_told_both() -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])
    curve = Settings.from_env({**os.environ, "HETEROFED_PSI_PROTOCOL": "ecdh"})

    first, second = together(
        RSAPSIInitiatorScheduler(task.id, "a", ids(range(10)), ["b"]).make_intersection,
        RSAPSICollaboratorScheduler(task.id, "b", ids(range(10)), settings=curve).collaborate_intersection,
    )

    assert isinstance(first, ConfigError)
    assert isinstance(second, TaskAborted)
    for each in (first, second):
        assert "a, while " in str(each)
        assert "b would match ids by ecdh: " in str(each)
        assert "expected what the host would do (rsa: " in str(each)


def test_what_scripts_for_the_source_system_pass_besides_is_ignored() -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])
    contractor = object()

    ends = together(
        RSAPSIInitiatorScheduler(task.id, "a", ids(range(9)), ["b"], contractor, (30, 60)).make_intersection,
        RSAPSICollaboratorScheduler(task.id, "b", ids(range(5)), contractor, (30, 60)).collaborate_intersection,
    )

    assert ends == [set(ids(range(5)))] * 2


def test_ids_and_parties_that_cannot_be_are_refused() -> None:
    task = open_directory(Settings.from_env()).store.create("psi", ["a", "b"])

    with pytest.raises(AlignmentError, match="2 ids of which 1 repeat"):
        RSAPSIInitiatorScheduler(task.id, "a", ["x", "x"], ["b"])
    for scheduler in (
        lambda: RSAPSIInitiatorScheduler(task.id, "a", ["Zoe\u0308"], ["b"]),
        lambda: RSAPSICollaboratorScheduler(task.id, "b", ["Zoe\u0308"]),
    ):
        with pytest.raises(
            AlignmentError, match=r"1 of 1 ids that are not in Unicode normal form C; .* psi\.normalise_ids"
        ):
            scheduler()
    with pytest.raises(ConfigError, match="collaborator_ids are c; expected b, as the task says"):
        RSAPSIInitiatorScheduler(task.id, "a", ["x"], ["c"]).make_intersection()

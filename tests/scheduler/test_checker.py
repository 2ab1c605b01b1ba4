"""A party's check of its own data, and what it does to the task."""

from __future__ import annotations

from typing import Any

import pytest

from heterofed import ConfigError, DataChecker, Settings, TemplateError, UnknownTask
from heterofed.tasks.directory import open_directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.model import PartyStatus, Task, TaskStatus
from tests.tiny import Host


@pytest.fixture
def store() -> Tasks:
    return open_directory(Settings.from_env()).store


@pytest.fixture
def task(store: Tasks) -> Task:
    return store.create("tiny", ["host", "c1"])


def checker(task_id: str, outcome: Any, feature_key: str | None = None) -> DataChecker:
    class Checker(DataChecker):
        def verify_data(self) -> Any:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    return Checker(task_id, feature_key)


def test_a_task_is_verified_when_all_its_parties_are(store: Tasks, task: Task) -> None:
    assert checker(task.id, True, "host").execute_verification() is True
    assert store.get(task.id).status is TaskStatus.VERIFYING
    assert [party.status for party in store.get(task.id).parties] == [PartyStatus.VERIFIED, PartyStatus.INVITED]

    assert checker(task.id, (True, ""), "c1").execute_verification() is True

    assert store.get(task.id).status is TaskStatus.VERIFIED


def test_without_a_feature_key_it_speaks_for_every_party_of_this_machine(store: Tasks, task: Task) -> None:
    checker(task.id, True).execute_verification()

    assert store.get(task.id).status is TaskStatus.VERIFIED


@pytest.mark.parametrize(("outcome", "reason"), [(False, None), ((False, "no rows"), "no rows")])
def test_refused_data_keep_their_party_from_launching_until_a_later_check(
    outcome: Any, reason: str | None, store: Tasks, task: Task
) -> None:
    assert checker(task.id, outcome, "host").execute_verification() is False
    assert store.get(task.id).party("host").status is PartyStatus.REJECTED
    assert store.get(task.id).party("host").reason == f"Checker: {reason or 'no reason given'}"

    with pytest.raises(
        ConfigError, match=f"host: the data check of task {task.id} said no: Checker: .*; expected data"
    ):
        Host().launch_task(task.id)

    checker(task.id, True, "host").execute_verification()
    assert store.get(task.id).party("host").status is PartyStatus.VERIFIED


def test_a_check_that_raises_counts_as_refused_and_keeps_its_cause(store: Tasks, task: Task) -> None:
    with pytest.raises(TemplateError, match=r"host, while checking its data: Checker\.verify_data\(\) raised KeyError"):
        checker(task.id, KeyError("secret"), "host").execute_verification()

    party = store.get(task.id).party("host")
    assert party.status is PartyStatus.REJECTED
    assert "raised KeyError" in str(party.reason)
    assert "secret" not in str(party.reason)


def test_a_check_that_names_no_party_does_not_lift_what_another_class_refused(store: Tasks, task: Task) -> None:
    class Strict(DataChecker):
        def verify_data(self) -> bool:
            return False

    Strict(task.id).execute_verification()
    checker(task.id, True).execute_verification()
    assert [party.status for party in store.get(task.id).parties] == [PartyStatus.REJECTED] * 2

    Strict.verify_data = lambda self: True  # type: ignore[method-assign]  # the data are mended
    Strict(task.id).execute_verification()
    assert store.get(task.id).status is TaskStatus.VERIFIED


def test_a_check_that_names_no_party_leaves_running_ones_alone(store: Tasks, task: Task) -> None:
    store.set_party(task.id, "c1", status=PartyStatus.ONLINE)

    checker(task.id, False).execute_verification()

    assert store.get(task.id).party("c1").status is PartyStatus.ONLINE


@pytest.mark.parametrize("outcome", [None, 1, "yes", (True,), (True, 3), ("yes", "no")])
def test_an_outcome_that_is_neither_yes_nor_no_is_refused(outcome: Any, task: Task) -> None:
    with pytest.raises(ConfigError, match=r"verify_data\(\) returned .*; expected True, False, or \(bool, reason\)"):
        checker(task.id, outcome).execute_verification()


def test_the_task_and_the_party_must_exist(task: Task) -> None:
    with pytest.raises(ConfigError, match="task_id is ''"):
        checker("", True)
    with pytest.raises(UnknownTask):
        checker("nosuchtask", True).execute_verification()
    with pytest.raises(ConfigError, match="has no party 'c9'"):
        checker(task.id, True, "c9").execute_verification()

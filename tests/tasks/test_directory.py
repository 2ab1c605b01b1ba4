from __future__ import annotations

import threading
from pathlib import Path

import pytest

from heterofed.config import Settings
from heterofed.errors import ConfigError, UnknownTask
from heterofed.tasks import Directory, GuestList, HostAddress, TaskStatus, open_directory
from heterofed.tasks.directory import host_in
from tests.tasks.lives import BANK_KEY, HOST_KEY, expire, go_to


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return open_directory(Settings(home=tmp_path / "home"))


@pytest.fixture
def task_id(directory: Directory) -> str:
    return directory.store.create("t", ["host", "bank", "shop"]).id


def test_the_store_lies_under_the_home_of_the_settings(directory: Directory, tmp_path: Path) -> None:
    assert directory.home == tmp_path / "home"
    assert (tmp_path / "home" / "tasks.db").is_file()


def test_a_host_is_found_while_it_is_up_and_only_then(directory: Directory, task_id: str) -> None:
    assert host_in(directory.find(task_id)) is None
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:1", HOST_KEY)
    assert host_in(directory.find(task_id)) == HostAddress("host", "tcp://127.0.0.1:1", HOST_KEY)
    directory.store.set_party(task_id, "host", endpoint=None)
    assert host_in(directory.find(task_id)) is None
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:2", HOST_KEY)
    found = host_in(directory.find(task_id))
    assert found is not None
    assert found.endpoint == "tcp://127.0.0.1:2"


def test_a_second_host_is_refused_and_changes_nothing(directory: Directory, task_id: str) -> None:
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:1", HOST_KEY)
    with pytest.raises(ConfigError, match="host is; expected one host"):
        directory.announce_host(task_id, "bank", "tcp://127.0.0.1:2", BANK_KEY)
    assert host_in(directory.find(task_id)) == HostAddress("host", "tcp://127.0.0.1:1", HOST_KEY)
    assert directory.find(task_id).owner_of(BANK_KEY) is None


def test_a_collaborator_with_the_feature_key_of_the_running_host_is_refused(directory: Directory, task_id: str) -> None:
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:1", HOST_KEY)
    with pytest.raises(ConfigError, match=r"running host .* Give this party its own feature_key"):
        directory.announce_collaborator(task_id, "host", BANK_KEY)
    assert directory.find(task_id).owner_of(HOST_KEY) == "host"


def test_a_wrong_feature_key_at_the_host_can_be_put_right(directory: Directory, task_id: str) -> None:
    directory.announce_host(task_id, "bank", "tcp://127.0.0.1:1", BANK_KEY)
    directory.store.set_party(task_id, "bank", endpoint=None)
    directory.announce_collaborator(task_id, "bank", BANK_KEY)
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:2", HOST_KEY)
    assert [party.role for party in directory.find(task_id).parties] == ["host", "collaborator", None]


def test_only_keys_of_this_task_are_let_in_also_from_another_thread(directory: Directory, task_id: str) -> None:
    other = directory.store.create("other", ["x", "y"]).id
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:1", HOST_KEY)
    directory.announce_collaborator(task_id, "bank", BANK_KEY)
    directory.announce_collaborator(other, "x", b"x" * 40)
    answers: list[str | None] = []

    def ask() -> None:
        guests = GuestList(directory, task_id)
        answers.extend(guests.party_of(key) for key in (HOST_KEY, BANK_KEY, b"x" * 40, b"s" * 40, b""))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(timeout=10)
    assert answers == ["host", "bank", None, None, None]
    assert GuestList(directory, other).party_of(b"x" * 40) == "x"
    with pytest.raises(UnknownTask):
        GuestList(directory, "nothere").party_of(HOST_KEY)


@pytest.mark.parametrize("end", [TaskStatus.COMPLETED, TaskStatus.CANCELLED, None])
def test_a_task_that_is_over_admits_nobody(directory: Directory, task_id: str, end: TaskStatus | None) -> None:
    directory.announce_collaborator(task_id, "bank", BANK_KEY)
    assert GuestList(directory, task_id).party_of(BANK_KEY) == "bank"
    if end is None:
        expire(directory.store, task_id)
    else:
        go_to(directory.store, task_id, end)
    assert GuestList(directory, task_id).party_of(BANK_KEY) is None


def test_a_task_that_failed_may_be_launched_again_and_admits_its_parties(directory: Directory, task_id: str) -> None:
    directory.announce_collaborator(task_id, "bank", BANK_KEY)
    go_to(directory.store, task_id, TaskStatus.FAILED)
    assert GuestList(directory, task_id).party_of(BANK_KEY) == "bank"


def test_a_party_without_a_key_is_nobodys(directory: Directory, task_id: str) -> None:
    assert directory.find(task_id).owner_of(b"") is None


def test_an_unknown_task_or_party_is_named(directory: Directory, task_id: str) -> None:
    with pytest.raises(UnknownTask, match="nothere"):
        directory.find("nothere")
    with pytest.raises(UnknownTask):
        directory.announce_collaborator("nothere", "bank", BANK_KEY)
    with pytest.raises(ConfigError, match="one of host, bank, shop"):
        directory.announce_collaborator(task_id, "bnk", BANK_KEY)

"""Whom a host lets in, and what a crowd at the door may cost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from heterofed.config import Settings
from heterofed.errors import HeterofedError, OutputError
from heterofed.tasks import Directory, Task, TaskStatus, open_directory
from heterofed.tasks.guests import LOOKUPS_PER_S, GuestList
from tests.tasks.lives import BANK_KEY, HOST_KEY, expire, go_to

STRANGER = b"s" * 40


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Counting(Directory):
    """Counts readings of the record."""

    readings = 0
    broken = False

    def find(self, task_id: str) -> Task:
        self.readings += 1
        if self.broken:
            raise OutputError("the task store is away")
        return super().find(task_id)


@pytest.fixture
def directory(tmp_path: Path) -> Counting:
    opened = open_directory(Settings(home=tmp_path / "home"))
    return Counting(opened.store, opened.home)


@pytest.fixture
def task_id(directory: Counting) -> str:
    task_id = directory.store.create("t", ["host", "bank"], lives_for=timedelta(hours=1)).id
    directory.announce_host(task_id, "host", "tcp://127.0.0.1:1", HOST_KEY)
    directory.announce_collaborator(task_id, "bank", BANK_KEY)
    return task_id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guests(directory: Counting, task_id: str, clock: Clock) -> GuestList:
    return GuestList(directory, task_id, clock)


def test_the_keys_of_the_task_come_in_and_no_others(guests: GuestList, directory: Counting) -> None:
    other = directory.store.create("other", ["x", "y"]).id
    directory.announce_collaborator(other, "x", b"x" * 40)
    assert [guests.party_of(key) for key in (HOST_KEY, BANK_KEY, STRANGER, b"x" * 40, b"")] == [
        "host",
        "bank",
        None,
        None,
        None,
    ]


def test_a_key_that_was_listed_a_moment_ago_is_known(guests: GuestList, directory: Counting, task_id: str) -> None:
    assert guests.party_of(STRANGER) is None
    directory.announce_collaborator(task_id, "bank", STRANGER)
    assert guests.party_of(STRANGER) == "bank"
    assert guests.party_of(BANK_KEY) is None


def test_a_flood_of_unknown_keys_reads_the_record_twenty_times_a_second_at_most(
    guests: GuestList, directory: Counting, clock: Clock
) -> None:
    for n in range(10_000):
        assert guests.party_of(b"%040d" % n) is None
    assert directory.readings <= LOOKUPS_PER_S
    for n in range(10_000):
        clock.now += 1 / 1000
        assert guests.party_of(b"%040d" % n) is None
    assert directory.readings <= LOOKUPS_PER_S * 11 + 1
    assert guests.party_of(BANK_KEY) == "bank"


def test_a_key_listed_during_a_flood_comes_in_within_a_twentieth_of_a_second(
    guests: GuestList, directory: Counting, task_id: str, clock: Clock
) -> None:
    for n in range(100):
        guests.party_of(b"%040d" % n)
    directory.announce_collaborator(task_id, "bank", STRANGER)
    clock.now += 0.051
    assert guests.party_of(STRANGER) == "bank"


@pytest.mark.parametrize("end", [TaskStatus.COMPLETED, None])
def test_who_is_inside_comes_in_again_after_the_task_was_completed_or_expired_and_nobody_else(
    guests: GuestList, directory: Counting, task_id: str, end: TaskStatus | None
) -> None:
    """Its line may break while it writes its outputs."""
    assert guests.party_of(BANK_KEY) == "bank"
    if end is None:
        expire(directory.store, task_id)
    else:
        go_to(directory.store, task_id, end)
    assert guests.party_of(BANK_KEY) == "bank"
    assert guests.party_of(HOST_KEY) is None
    assert GuestList(directory, task_id).party_of(BANK_KEY) is None


def test_a_cancelled_task_admits_nobody_and_a_failed_one_admits_its_parties(
    guests: GuestList, directory: Counting, task_id: str
) -> None:
    go_to(directory.store, task_id, TaskStatus.FAILED)
    assert guests.party_of(BANK_KEY) == "bank"
    go_to(directory.store, task_id, TaskStatus.CANCELLED)
    assert guests.party_of(BANK_KEY) is None


def test_a_record_that_cannot_be_read_lets_nobody_in(guests: GuestList, directory: Counting, clock: Clock) -> None:
    assert guests.party_of(BANK_KEY) == "bank"
    directory.broken = True
    for _ in range(50):
        clock.now += 0.1
        with pytest.raises(HeterofedError):
            guests.party_of(BANK_KEY)
    directory.broken = False
    assert guests.party_of(BANK_KEY) == "bank"

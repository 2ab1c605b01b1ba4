"""Who may take a place in a task: not in one that is over, and only with the key that the task trusts."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from heterofed import Settings
from heterofed.errors import ConfigError, PeerTimeout, TaskAborted
from heterofed.scheduler.launch import seat_in
from heterofed.tasks.directory import Directory, open_directory
from heterofed.tasks.model import TaskStatus
from heterofed.wire.keys import KeyPair, load_or_create
from tests.tasks.lives import expire, go_to


@pytest.fixture
def directory() -> Directory:
    return open_directory(Settings.from_env())


@pytest.fixture
def task_id(directory: Directory) -> str:
    return directory.store.create("t", ["host", "c1"], lives_for=timedelta(hours=1)).id


def take_place(task_id: str, feature_key: str) -> None:
    with seat_in(task_id, feature_key, Settings.from_env(), host=feature_key == "host") as seat:
        _, transport = seat.connect()
        transport.close()


@pytest.mark.parametrize("party", ["host", "c1"])
@pytest.mark.parametrize(
    ("end", "text"),
    [
        (TaskStatus.CANCELLED, "is CANCELLED: wrong table"),
        (TaskStatus.COMPLETED, "is COMPLETED"),
        (None, r"expired at 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
    ],
)
def test_a_task_that_is_over_is_not_launched(
    directory: Directory, task_id: str, party: str, end: TaskStatus | None, text: str
) -> None:
    if end is None:
        expire(directory.store, task_id)
    else:
        go_to(directory.store, task_id, end, "wrong table")
    with pytest.raises(
        ConfigError, match=rf"^{party}: task {task_id} {text}; expected a task that is not over\. Create"
    ):
        take_place(task_id, party)
    assert directory.find(task_id).party(party).public_key is None


def test_a_task_that_failed_may_be_launched_again(directory: Directory, task_id: str) -> None:
    go_to(directory.store, task_id, TaskStatus.FAILED, "c1 never came")
    take_place(task_id, "host")


@pytest.mark.parametrize(("end", "error"), [(TaskStatus.CANCELLED, TaskAborted), (None, ConfigError)])
def test_a_collaborator_stops_waiting_for_the_host_when_the_task_is_over(
    directory: Directory, task_id: str, end: TaskStatus | None, error: type[Exception]
) -> None:
    def finish() -> None:
        if end is None:
            expire(directory.store, task_id)
        else:
            go_to(directory.store, task_id, end)

    timer = threading.Timer(0.5, finish)
    timer.start()
    with pytest.raises(error, match=f"task {task_id} (was cancelled|expired at)"):
        take_place(task_id, "c1")
    timer.join()


@pytest.mark.parametrize("party", ["host", "c1"])
def test_a_party_whose_key_is_not_the_trusted_one_gets_no_place(
    directory: Directory, task_id: str, party: str, home: Path
) -> None:
    trusted = KeyPair.generate().public
    directory.store.trust(task_id, party, trusted)
    own = load_or_create(home / "keys", party)
    with pytest.raises(ConfigError, match=f"^{party}: {party} comes with another key than the one that") as caught:
        take_place(task_id, party)
    assert directory.find(task_id).party(party).public_key == trusted
    assert own.secret.decode() not in str(caught.value)


def test_a_party_whose_key_is_trusted_takes_its_place(
    directory: Directory, task_id: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_GATHER_TIMEOUT_S", "0.1")
    for party in ("host", "c1"):
        directory.store.trust(task_id, party, load_or_create(home / "keys", party).public)
    take_place(task_id, "host")
    with pytest.raises(PeerTimeout, match="no host was started"):
        take_place(task_id, "c1")

"""The store does what `Tasks` promises, in a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from heterofed.errors import ConfigError, OutputError
from heterofed.tasks import Measurement, ReportKind, Tasks, TaskStatus, TaskStore
from heterofed.tasks.tables import TABLES
from tests.hub.servers import PostgreSQL, postgresql
from tests.tasks.contract import Contract
from tests.tasks.lives import expire

__all__ = ["postgresql"]


class TestStore(Contract):
    @pytest.fixture
    def tasks(self, tmp_path: Path) -> Tasks:
        return TaskStore(tmp_path / "home" / "tasks.db")


@pytest.fixture(scope="module")
def on_postgresql(postgresql: PostgreSQL) -> Iterator[TaskStore]:
    store = TaskStore(postgresql.new_database())
    yield store
    store.database.close()


class TestStoreOnPostgreSQL(Contract):
    @pytest.fixture
    def tasks(self, on_postgresql: TaskStore) -> Tasks:
        with on_postgresql.transaction(write=True) as connection:
            for table in reversed(TABLES):
                connection.execute(table.delete())
        return on_postgresql


# -- what only a store has --------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    return TaskStore(tmp_path / "tasks.db", max_output_bytes=1000)


def test_several_calls_in_one_transaction_happen_together_or_not_at_all(store: TaskStore) -> None:
    kept = store.create("kept", ["a", "b"])
    with pytest.raises(ConfigError, match="cannot become"), store.transaction(write=True) as one:
        lost = store.create("lost", ["a", "b"], within=one)
        store.set_party(kept.id, "a", role="host", within=one)
        store.put_metrics(kept.id, "a", [Measurement("s", 0, 1, {"x": 1})], within=one)
        store.put_output(kept.id, "a", "x.csv", b"x", within=one)
        store.log(kept.id, "a", "text", within=one)
        store.start(kept.id, within=one)
        assert store.report(kept.id, "a", ReportKind.ROUND_FINISHED, 1, within=one)
        assert [task.id for task in store.list(within=one)] == [lost.id, kept.id]
        store.move(kept.id, TaskStatus.COMPLETED, within=one)

    assert store.list() == (kept,)
    assert (store.metrics(kept.id), store.outputs(kept.id), store.logs(kept.id)) == ((), (), ())
    assert [event.kind for event in store.events(kept.id)] == ["TASK_CREATED"]


def test_a_store_takes_the_id_of_a_task_that_was_made_elsewhere_once(store: TaskStore) -> None:
    task = store.create("t", ["a", "b"])
    other = TaskStore(Path(store.where).with_name("other.db"))
    assert other.create("t", ["a", "b"], task_id=task.id).id == task.id
    with pytest.raises(ConfigError, match=f"there is a task {task.id} already"):
        other.create("t", ["a", "b"], task_id=task.id)
    for wrong in ("", "short", "../../../etc", "ABCDEFGHJKMN"):
        with pytest.raises(ConfigError, match="a task id is wrong"):
            other.create("t", ["a", "b"], task_id=wrong)


def test_rows_can_be_chosen_by_party_set_and_number(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    for party in "ab":
        rows = [Measurement(name, row, None, {}) for name in ("x", "y") for row in range(3)]
        store.put_metrics(task_id, party, rows)
    chosen = store.metrics(task_id, party="b", set="y")
    assert [(each.party, each.set, each.row) for each in chosen] == [("b", "y", 0), ("b", "y", 1), ("b", "y", 2)]
    assert store.metrics(task_id, party="b", set="y", after=chosen[0].number, limit=1) == chosen[1:2]


def test_a_listing_can_be_of_some_tasks_only(store: TaskStore) -> None:
    first, _, third = (store.create(name, ["a", "b"]) for name in ("one", "two", "three"))
    assert store.list(ids=[first.id, third.id, "nosuch"]) == (third, first)
    assert store.list(ids=[]) == ()


def test_a_file_that_is_too_large_is_refused_with_the_limit(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.put_output(task_id, "a", "x", b"x" * 1000)
    with pytest.raises(ConfigError, match="an output of 1001 bytes is too large; expected at most 1000 bytes"):
        store.put_output(task_id, "a", "x", b"x" * 1001)
    assert store.output(task_id, "a", "x") == b"x" * 1000


def test_an_expired_task_cannot_be_launched(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    expire(store, task_id)
    with pytest.raises(ConfigError, match=r"expired at .* UTC, and cannot be launched"):
        store.start(task_id)


def test_after_a_new_launch_the_host_may_give_up_in_the_same_round_again(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.set_party(task_id, "a", role="host")
    assert store.report(task_id, "a", ReportKind.ROUND_FINISHED, 1)
    assert store.report(task_id, "a", ReportKind.TASK_FAILED, 1, {"reason": "b vanished"})
    store.move(task_id, TaskStatus.FAILED, "b vanished")
    store.start(task_id)
    assert store.report(task_id, "a", ReportKind.TASK_FAILED, 1, {"reason": "b vanished"})
    assert not store.report(task_id, "a", ReportKind.ROUND_FINISHED, 1)
    assert store.events(task_id)[-1].text == "a gave up in round 1: b vanished"


def test_a_text_that_no_database_takes_is_kept_as_far_as_it_goes(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.log(task_id, "a", "zero \x00 half \ud800")
    assert store.logs(task_id)[0].text == "zero � half ?"


def test_followers_of_a_store_hear_how_tasks_end(store: TaskStore) -> None:
    first, second = store.create("one", ["a", "b"]).id, store.create("two", ["a", "b"]).id
    store.start(first)
    store.move(first, TaskStatus.GATHERING)
    store.move(first, TaskStatus.FAILED, "b vanished")
    store.move(second, TaskStatus.GATHERING)
    store.move(second, TaskStatus.ONGOING)
    store.move(second, TaskStatus.COMPLETED)
    stop, heard = threading.Event(), []
    for each in store.follow(stop=stop):
        heard.append((each.notification_type, each.training_uuid, each.body.get("reason")))
        if len(heard) == 3:
            stop.set()
    assert heard == [
        ("TRAINING_START", first, None),
        ("TASK_FAILED", first, "b vanished"),
        ("TRAINING_FINISHED", second, None),
    ]


def test_a_follower_of_a_store_that_fails_is_told(store: TaskStore) -> None:
    Path(store.where).write_bytes(b"no database" * 1000)
    for rest in ("-wal", "-shm"):
        Path(store.where + rest).unlink(missing_ok=True)
    with pytest.raises(OutputError, match="cannot be used"):
        next(store.follow(stop=threading.Event()))

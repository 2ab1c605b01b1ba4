from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from heterofed.errors import ConfigError, OutputError, UnknownTask
from heterofed.tasks import PartyStatus, TaskStatus, TaskStore
from heterofed.tasks import database as database_module

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    return TaskStore(tmp_path / "home" / "tasks.db")


def test_a_new_task_is_there_for_another_store_on_the_same_file(store: TaskStore) -> None:
    task = store.create("digits", ["host", "bank"])
    assert TaskStore(store.where).get(task.id) == task
    assert task.status is TaskStatus.CREATED
    assert task.name == "digits"
    assert task.feature_keys == ("host", "bank")
    assert {party.status for party in task.parties} == {PartyStatus.INVITED}
    assert abs(task.created_at - datetime.now(timezone.utc)) < timedelta(seconds=10)


def test_task_ids_are_short_safe_to_paste_and_never_repeat(store: TaskStore) -> None:
    ids = {store.create("t", ["a", "b"]).id for _ in range(50)}
    assert len(ids) == 50
    assert all(len(task_id) == 12 and task_id.isalnum() and task_id.islower() for task_id in ids)


def test_tasks_are_listed_newest_first_with_their_own_parties(store: TaskStore) -> None:
    assert store.list() == ()
    first, second = store.create("one", ["a", "b"]), store.create("two", ["d", "c", "e"])
    assert store.list() == (second, first)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_a_wrong_name_or_wrong_parties_create_nothing(store: TaskStore, name: str) -> None:
    with pytest.raises(ConfigError, match="printable"):
        store.create(name, ["a", "b"])
    with pytest.raises(ConfigError, match="more than once"):
        store.create("t", ["a", "a"])
    assert store.list() == ()


@pytest.mark.parametrize("task_id", ["nothere", "", None, 7, "x" * 5000])
def test_an_unknown_task_says_where_we_looked_and_what_to_do(store: TaskStore, task_id: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get(task_id),
        lambda: store.move(task_id, TaskStatus.GATHERING),
        lambda: store.set_party(task_id, "a", reason="x"),
        lambda: store.claim_host(task_id, "a"),
        lambda: store.log(task_id, "a", "text"),
        lambda: store.logs(task_id),
    ]
    for call in calls:
        with pytest.raises(UnknownTask, match=r"tasks\.db\. Look at `heterofed task list`.*HETEROFED_HOME") as caught:
            call()
        assert len(str(caught.value)) < 400


# -- moves -----------------------------------------------------------------------------------------------------


def test_a_move_is_kept_with_its_reason_and_a_later_one_clears_it(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.move(task_id, TaskStatus.GATHERING)
    assert store.move(task_id, TaskStatus.FAILED, "b vanished").reason == "b vanished"
    assert store.get(task_id).status is TaskStatus.FAILED
    assert store.move(task_id, TaskStatus.GATHERING).reason is None


def test_an_illegal_move_changes_nothing(store: TaskStore) -> None:
    task = store.create("t", ["a", "b"])
    with pytest.raises(ConfigError, match="CREATED cannot become ONGOING"):
        store.move(task.id, TaskStatus.ONGOING, "no")
    assert store.get(task.id) == task


def test_to_say_again_what_a_task_is_changes_nothing(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    failed = store.move(task_id, TaskStatus.FAILED, "the first reason")
    assert store.move(task_id, TaskStatus.FAILED, "the second") == failed


# -- parties ---------------------------------------------------------------------------------------------------


def test_only_what_is_given_of_a_party_is_changed_and_none_clears(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.set_party(task_id, "a", status=PartyStatus.REJECTED, reason="no data")
    store.set_party(task_id, "a", endpoint="tcp://127.0.0.1:1", public_key=b"k" * 40, role="host")
    party = store.get(task_id).party("a")
    assert (party.status, party.reason, party.role) == (PartyStatus.REJECTED, "no data", "host")
    assert (party.endpoint, party.public_key) == ("tcp://127.0.0.1:1", b"k" * 40)
    cleared = store.set_party(task_id, "a", reason=None, role=None, public_key=None, endpoint=None).party("a")
    assert (cleared.status, cleared.reason, cleared.role) == (PartyStatus.REJECTED, None, None)
    assert (cleared.public_key, cleared.endpoint) == (None, None)
    assert store.get(task_id).party("b").status is PartyStatus.INVITED


def test_an_unknown_party_names_those_of_the_task(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.set_party(task_id, "a", public_key=b"k" * 40)
    for call in (
        lambda: store.set_party(task_id, "c", reason="x"),
        lambda: store.claim_host(task_id, "c"),
        lambda: store.log(task_id, "c", "text"),
    ):
        with pytest.raises(ConfigError, match="no party 'c'; expected one of a, b"):
            call()


def test_wrong_values_of_a_party_are_refused(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    with pytest.raises(ConfigError, match="public_key is wrong"):
        store.set_party(task_id, "a", public_key="text")  # type: ignore[arg-type]  # the fault under test
    with pytest.raises(ConfigError, match="endpoint is wrong"):
        store.set_party(task_id, "a", endpoint="x" * 1001)
    with pytest.raises(ConfigError, match="role is wrong"):
        store.set_party(task_id, "a", role="guest")  # type: ignore[arg-type]  # the fault under test
    with pytest.raises(ConfigError, match="status is wrong"):
        store.set_party(task_id, "a", status="ONLINE")  # type: ignore[arg-type]  # the fault under test


def test_a_second_host_is_refused_and_the_first_may_claim_again(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.claim_host(task_id, "a")
    store.claim_host(task_id, "a")
    with pytest.raises(ConfigError, match=r"b cannot be the host .*: a is; expected one host"):
        store.claim_host(task_id, "b")
    with pytest.raises(ConfigError, match="one host"):
        store.set_party(task_id, "b", role="host", endpoint="tcp://127.0.0.1:1")
    assert [party.role for party in store.get(task_id).parties] == ["host", None]
    assert store.get(task_id).party("b").endpoint is None
    other = store.create("other", ["a", "b"]).id
    assert store.claim_host(other, "b").party("b").role == "host"


def test_one_public_key_cannot_be_two_parties(store: TaskStore) -> None:
    task_id, other = store.create("t", ["a", "b"]).id, store.create("u", ["a", "b"]).id
    store.set_party(task_id, "a", public_key=b"k" * 40)
    store.set_party(task_id, "a", public_key=b"k" * 40)
    store.set_party(other, "b", public_key=b"k" * 40)
    with pytest.raises(ConfigError, match="same public key") as caught:
        store.set_party(task_id, "b", public_key=b"k" * 40)
    assert "kkkk" not in str(caught.value)


def test_the_database_itself_refuses_a_second_host_and_a_shared_key(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    connection = sqlite3.connect(store.where)
    try:
        connection.execute("update parties set role = 'collaborator' where task_id = ?", (task_id,))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("update parties set role = 'host' where task_id = ?", (task_id,))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("update parties set public_key = x'00' where task_id = ?", (task_id,))
    finally:
        connection.close()


# -- the log ---------------------------------------------------------------------------------------------------


def test_the_log_gives_the_last_lines_oldest_first(store: TaskStore) -> None:
    task_id, other = store.create("t", ["a", "b"]).id, store.create("u", ["a", "b"]).id
    store.log(other, "a", "elsewhere")
    for number in range(5):
        store.log(task_id, "ab"[number % 2], f"line {number}")
    lines = store.logs(task_id, limit=3)
    assert [(line.party, line.text) for line in lines] == [("a", "line 2"), ("b", "line 3"), ("a", "line 4")]
    assert lines[0].at <= lines[2].at <= datetime.now(timezone.utc)
    assert len(store.logs(task_id)) == 5
    assert store.logs(task_id, limit=0) == ()


def test_an_empty_line_is_refused_and_a_long_one_is_cut(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    with pytest.raises(ConfigError, match="empty"):
        store.log(task_id, "a", "")
    store.log(task_id, "a", "x" * 10_000)
    assert len(store.logs(task_id)[0].text) == 4000


# -- the file --------------------------------------------------------------------------------------------------


def test_the_folder_and_the_file_are_for_this_user_alone(tmp_path: Path) -> None:
    TaskStore(tmp_path / "home" / "tasks.db").create("t", ["a", "b"])
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "tasks.db").stat().st_mode) == 0o600


def test_a_sqlite_url_is_the_same_store_as_its_path(store: TaskStore) -> None:
    task = store.create("t", ["a", "b"])
    assert TaskStore(f"sqlite:///{store.where}").get(task.id) == task


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nosuch://host/db", "://"])
def test_a_url_that_no_other_party_could_use_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        TaskStore(url)


def test_a_file_that_is_no_database_is_an_output_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "tasks.db"
    file.write_bytes(b"important notes, not a database" * 100)
    with pytest.raises(OutputError, match=r"tasks\.db cannot be used: .*HETEROFED_HOME"):
        TaskStore(file)
    assert file.read_bytes().startswith(b"important notes")


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be used"):
        TaskStore(tmp_path / "file" / "tasks.db")


def test_a_reader_does_not_wait_for_a_writer_and_a_second_writer_gives_up_in_time(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = store.create("t", ["a", "b"])
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.2)
    impatient = TaskStore(store.where)
    with sqlite3.connect(store.where, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("update tasks set name = 'half done'")
        assert impatient.get(task.id) == task
        with pytest.raises(OutputError, match="locked"):
            impatient.move(task.id, TaskStatus.GATHERING)
        writer.execute("ROLLBACK")
    writer.close()
    assert impatient.move(task.id, TaskStatus.GATHERING).status is TaskStatus.GATHERING


def test_a_writer_does_not_wait_for_a_reader(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    reader = sqlite3.connect(store.where, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("select * from tasks").fetchall()
        begin = time.monotonic()
        store.move(task_id, TaskStatus.GATHERING)
        assert time.monotonic() - begin < database_module.BUSY_TIMEOUT_S / 2
        assert reader.execute("select status from tasks").fetchone() == ("CREATED",)
    finally:
        reader.close()


def test_a_first_opener_waits_for_another_one(tmp_path: Path) -> None:
    file = tmp_path / "tasks.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        other.execute("create table something (x)")
        other.execute("BEGIN")
        other.execute("select * from something").fetchall()  # while this lasts, the journal cannot be changed
        release = threading.Timer(0.2, other.execute, ["COMMIT"])
        release.start()
        begin = time.monotonic()
        TaskStore(file).create("t", ["a", "b"])
        assert time.monotonic() - begin >= 0.15
        release.join(timeout=10)
    finally:
        other.close()


def test_an_error_of_the_database_shows_no_values(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    connection = sqlite3.connect(store.where)
    connection.execute("drop table task_log")
    connection.close()
    with pytest.raises(OutputError) as caught:
        store.log(task_id, "a", "very private")
    assert "very private" not in f"{caught.value} {caught.value.__cause__}"


# -- many at once ----------------------------------------------------------------------------------------------

WORK = """
import sys
from heterofed.tasks import TaskStore, PartyStatus
path, go, task_id, key = sys.argv[1:]
print("up", flush=True)
sys.stdin.readline()
store = TaskStore(path)
if task_id == "-":
    for number in range(10):
        store.create(key, ["a", "b"])
else:
    try:
        store.claim_host(task_id, key)
        print("host", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
    for number in range(30):
        store.set_party(task_id, key, reason=str(number))
        store.log(task_id, key, str(number))
        store.get(task_id)
"""


def run_two(path: Path, task_id: str, keys: tuple[str, str]) -> list[str]:
    """Start two processes, let both go at once, and return what each printed last."""
    parties = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORK, str(path), "-", task_id, key],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for key in keys
    ]
    for party in parties:
        if party.stdout is None or party.stdin is None or party.stdout.readline() != "up\n":
            raise AssertionError("a process did not start")
    for party in parties:
        if party.stdin is not None:
            party.stdin.write("go\n")
            party.stdin.flush()
    said = [party.communicate(timeout=30)[0] for party in parties]
    assert [party.returncode for party in parties] == [0, 0], said
    return said


@pytest.mark.processes
def test_two_processes_may_create_one_store_at_the_same_moment(tmp_path: Path) -> None:
    run_two(tmp_path / "home" / "tasks.db", "-", ("one", "two"))
    names = [task.name for task in TaskStore(tmp_path / "home" / "tasks.db").list()]
    assert sorted(names) == ["one"] * 10 + ["two"] * 10


@pytest.mark.processes
def test_two_processes_writing_at_once_lose_nothing_and_agree_on_one_host(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    said = run_two(Path(store.where), task_id, ("a", "b"))
    assert sorted(said) == ["ConfigError\n", "host\n"]
    task = store.get(task_id)
    assert [party.reason for party in task.parties] == ["29", "29"]
    assert sorted(party.role or "" for party in task.parties) == ["", "host"]
    for key in ("a", "b"):
        own = [line.text for line in store.logs(task_id, limit=1000) if line.party == key]
        assert own == [str(number) for number in range(30)]


def test_threads_of_one_store_that_move_a_task_at_once_move_it_once(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.move(task_id, TaskStatus.GATHERING)
    store.move(task_id, TaskStatus.ONGOING)
    barrier = threading.Barrier(8)
    refused: list[str] = []

    def move(status: TaskStatus) -> None:
        barrier.wait(timeout=10)
        try:
            store.move(task_id, status, status.value)
        except ConfigError as error:
            refused.append(str(error))

    ends = [TaskStatus.COMPLETED, TaskStatus.CANCELLED] * 4
    threads = [threading.Thread(target=move, args=(status,)) for status in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    task = store.get(task_id)
    assert task.status in (TaskStatus.COMPLETED, TaskStatus.CANCELLED)
    assert task.reason == task.status.value
    assert len(refused) == 4


# -- how long a task lives -------------------------------------------------------------------------------------------


def test_a_task_expires_when_it_is_told_to_and_otherwise_never(store: TaskStore) -> None:
    mortal = store.create("t", ["a", "b"], lives_for=timedelta(hours=2))
    assert mortal.expires_at is not None
    assert abs(mortal.expires_at - mortal.created_at - timedelta(hours=2)) < timedelta(milliseconds=1)
    assert store.get(mortal.id).expires_at == mortal.expires_at
    assert store.create("t", ["a", "b"]).expires_at is None
    with pytest.raises(ConfigError, match="expire before it begins"):
        store.create("t", ["a", "b"], lives_for=timedelta())


EARLIER_LAYOUT = """
CREATE TABLE tasks (
    id VARCHAR(32) NOT NULL, name VARCHAR(200) NOT NULL, status VARCHAR(16) NOT NULL, reason TEXT,
    created_at FLOAT NOT NULL, PRIMARY KEY (id)
);
CREATE TABLE parties (
    task_id VARCHAR(32) NOT NULL, feature_key VARCHAR(64) NOT NULL, position INTEGER NOT NULL,
    status VARCHAR(16) NOT NULL, reason TEXT, role VARCHAR(16), public_key BLOB, endpoint VARCHAR(1000),
    PRIMARY KEY (task_id, feature_key), CONSTRAINT one_party_per_key UNIQUE (task_id, public_key),
    FOREIGN KEY(task_id) REFERENCES tasks (id)
);
CREATE UNIQUE INDEX one_host ON parties (task_id) WHERE role = 'host';
CREATE TABLE task_log (
    number INTEGER NOT NULL, task_id VARCHAR(32) NOT NULL, at FLOAT NOT NULL, party VARCHAR(64) NOT NULL,
    text TEXT NOT NULL, PRIMARY KEY (number), FOREIGN KEY(task_id) REFERENCES tasks (id)
);
CREATE INDEX ix_task_log_task_id ON task_log (task_id);
INSERT INTO tasks VALUES ('oldtask', 'digits', 'ONGOING', NULL, 1700000000.0);
INSERT INTO parties VALUES ('oldtask', 'a', 0, 'ONLINE', NULL, 'host', x'6161', NULL);
INSERT INTO parties VALUES ('oldtask', 'b', 1, 'ONLINE', NULL, 'collaborator', x'6262', NULL);
INSERT INTO task_log VALUES (1, 'oldtask', 1700000001.0, 'a', 'round 1');
"""


def earlier_store(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.executescript(EARLIER_LAYOUT)
    connection.close()
    return path


def test_a_store_of_the_layout_before_expiry_is_brought_up_to_date_in_its_place(tmp_path: Path) -> None:
    path = earlier_store(tmp_path / "tasks.db")
    store = TaskStore(path)
    task = store.get("oldtask")
    assert (task.status, task.expires_at, task.parties[0].key_trusted) == (TaskStatus.ONGOING, None, False)
    assert task.owner_of(b"bb") == "b"
    assert [line.text for line in store.logs("oldtask")] == ["round 1"]
    store.trust("oldtask", "b", b"c" * 40)
    mortal = store.create("t", ["a", "b"], lives_for=timedelta(days=1))
    assert set(TaskStore(path).list()) == {mortal, store.get("oldtask")}
    with sqlite3.connect(path) as connection:  # as a process of the version before would
        connection.execute("INSERT INTO tasks (id, name, status, created_at) VALUES ('late', 't', 'CREATED', 1.0)")
    connection.close()
    assert store.get("late").expires_at is None


@pytest.mark.processes
def test_two_processes_may_bring_one_store_up_to_date_at_the_same_moment(tmp_path: Path) -> None:
    run_two(earlier_store(tmp_path / "tasks.db"), "-", ("one", "two"))
    assert len(TaskStore(tmp_path / "tasks.db").list()) == 21


# -- whose key it is ---------------------------------------------------------------------------------------------------


def test_a_trusted_key_is_listed_at_once_and_no_other_can_be_announced(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.set_party(task_id, "a", public_key=b"x" * 40)
    trusted = store.trust(task_id, "a", b"k" * 40)
    assert (trusted.party("a").public_key, trusted.party("a").key_trusted) == (b"k" * 40, True)
    assert (trusted.owner_of(b"k" * 40), trusted.owner_of(b"x" * 40)) == ("a", None)
    store.set_party(task_id, "a", role="host", public_key=b"k" * 40)
    for other in (b"x" * 40, None):
        with pytest.raises(
            ConfigError,
            match=rf"^a: a comes with another key than the one that task {task_id} trusts; expected the key that was "
            rf"given to `heterofed keys trust`\. If .*: heterofed keys trust {task_id} a \"\$\(heterofed keys show a",
        ) as caught:
            store.set_party(task_id, "a", role="collaborator", public_key=other)
        assert "k" * 40 not in str(caught.value)
    assert store.get(task_id).party("a").role == "host"
    assert store.get(task_id).party("b").key_trusted is False


def test_trust_can_be_given_to_another_key_but_not_to_one_of_another_party(store: TaskStore) -> None:
    task_id = store.create("t", ["a", "b"]).id
    store.trust(task_id, "a", b"k" * 40)
    store.trust(task_id, "a", b"l" * 40)
    with pytest.raises(ConfigError, match=r"b and a of task .* have the same public key"):
        store.trust(task_id, "b", b"l" * 40)
    with pytest.raises(ConfigError, match="no party 'c'"):
        store.trust(task_id, "c", b"m" * 40)
    with pytest.raises(UnknownTask):
        store.trust("nothere", "a", b"m" * 40)
    assert [each.public_key for each in store.get(task_id).parties] == [b"l" * 40, None]

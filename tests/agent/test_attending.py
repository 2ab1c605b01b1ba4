"""What an agent does about a task, with the agent in this process and its parties as child processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from heterofed import ConfigError, Settings
from heterofed.agent import agent as module
from heterofed.agent import children
from heterofed.agent.agent import Agent
from heterofed.agent.registered import Served, parse, with_checkers
from heterofed.agent.state import Book, Run, is_running
from heterofed.tasks.directory import open_directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.agent.test_agent import party_processes
from tests.scheduler.away import wait_until

ROOT = Path(__file__).resolve().parents[2]
BANK = Served("host", "tests.agent.parties:Bank", True)
SHOP = Served("c1", "tests.agent.parties:Shop", False)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]

Serve = Callable[..., Agent]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HETEROFED_PSI_PROTOCOL": "ecdh",
        "HETEROFED_PROGRESS": "plain",
        "HETEROFED_GATHER_TIMEOUT_S": "60",
        "HETEROFED_REJOIN_TIMEOUT_S": "60",
        "TEST_FOLDER": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def tasks() -> Tasks:
    return open_directory(Settings.from_env()).store


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[tuple[Agent, threading.Thread]] = []

    def start(*served: Served) -> Agent:
        agent = Agent(served, Settings.from_env(), tmp_path / "out", look_every_s=0.3)
        thread = threading.Thread(target=agent.run)
        thread.start()
        running.append((agent, thread))
        return agent

    yield start
    for agent, thread in running:
        agent.stop()
        thread.join(30)
        for child in agent._children.values():
            child.process.kill()
            child.process.wait()
        agent.close()
    for pid in party_processes(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_data_that_are_refused_are_not_started_and_the_record_says_why(
    serve: Serve, tasks: Tasks, tmp_path: Path
) -> None:
    """Item 60: False, or an exception, is kept as the cause."""
    task_id = tasks.create("t", ["host", "c1"]).id

    serve(replace(BANK, checker="tests.agent.parties:Bad"), replace(SHOP, checker="tests.agent.parties:Raising"))
    wait_until(lambda: all(each.status is PartyStatus.REJECTED for each in tasks.get(task_id).parties), 60)

    task = tasks.get(task_id)
    assert task.party("host").reason == "Bad: a column is missing"
    assert "Raising.verify_data() raised KeyError" in (task.party("c1").reason or "")
    assert "secret-person" not in (task.party("c1").reason or "")
    assert party_processes(tmp_path) == []


def test_a_checker_that_cannot_be_run_refuses_the_data_and_says_where_to_look(serve: Serve, tasks: Tasks) -> None:
    task_id = tasks.create("t", ["host", "c1"]).id

    serve(replace(SHOP, checker="tests.agent.parties:NoParty"))
    wait_until(lambda: tasks.get(task_id).party("c1").status is PartyStatus.REJECTED, 60)

    assert tasks.get(task_id).party("c1").reason == (
        "its data check did not come to an end; the log of its agent says more"
    )


def test_a_party_whose_process_is_lost_is_started_again_and_the_task_is_completed(
    serve: Serve, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_ROUNDS", "10")
    monkeypatch.setenv("TEST_BATCH_S", "0.1")
    task_id = tasks.create("t", ["host", "c1"]).id
    serve(BANK, SHOP)
    tasks.start(task_id)
    wait_until(lambda: tasks.get(task_id).round >= 1, 60)

    [first] = party_processes(tmp_path, "c1")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: tasks.get(task_id).status is TaskStatus.COMPLETED, 60)

    assert "c1 is started again soon: its process was lost (signal 9)" in caplog.text


def test_a_task_that_failed_and_is_launched_again_is_started_again(
    serve: Serve, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_ROUNDS", "6")
    monkeypatch.setenv("TEST_BATCH_S", "0.1")
    task_id = tasks.create("t", ["host", "c1"]).id
    serve(BANK, SHOP)
    tasks.start(task_id)
    wait_until(lambda: tasks.get(task_id).round >= 1, 60)
    [host] = party_processes(tmp_path, "host")
    os.kill(host, signal.SIGINT)  # as its user; it tells the other, and the task fails
    wait_until(lambda: tasks.get(task_id).status is TaskStatus.FAILED, 60)
    wait_until(lambda: party_processes(tmp_path) == [], 60)

    tasks.start(task_id)
    wait_until(lambda: tasks.get(task_id).status is TaskStatus.COMPLETED, 60)


def test_nothing_is_imported_that_the_owner_has_not_registered_whatever_the_task_says(
    serve: Serve, tasks: Tasks, tmp_path: Path
) -> None:
    task_id = tasks.create("tests.agent.evil:Evil", ["host", "tests.agent.evil", "c1"]).id
    tasks.log(task_id, "host", "tests.agent.evil:Evil")
    serve(replace(SHOP, checker="tests.agent.parties:Good"))
    wait_until(lambda: tasks.get(task_id).party("c1").status is PartyStatus.VERIFIED, 60)

    tasks.start(task_id)
    wait_until(lambda: len(party_processes(tmp_path)) == 1, 60)

    assert (tmp_path / "checked-c1").exists()
    assert party_processes(tmp_path) == party_processes(tmp_path, "c1")
    assert not (tmp_path / "evil").exists()
    assert tasks.get(task_id).party("tests.agent.evil").status is PartyStatus.INVITED


class Started:
    """Stands for `children.start`; a child that ends with given codes, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *codes: int) -> None:
        self.recovered: list[bool] = []
        self.codes = list(codes)
        monkeypatch.setattr(children, "start", self)
        monkeypatch.setattr(module, "MOST_PAUSE_S", 0.0)

    def __call__(self, what: str, thing: str, task_id: str, key: str, out: Path, *, recover: bool) -> object:
        self.recovered.append(recover)
        code = self.codes.pop(0)

        class Ended:
            pid = 2**22 + 1
            log = Path("log")
            began = 0.0
            what = "run"

            def ended(self) -> int:
                return code

        return Ended()


def looks(agent: Agent, times: int = 30) -> None:
    for _ in range(times):
        agent.look()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent([SHOP], Settings.from_env(), tmp_path / "out")
    yield made
    made.close()


def test_a_party_whose_process_is_lost_again_and_again_is_given_up_and_the_record_says_so(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOES_WELL_S", float("inf"))
    started = Started(monkeypatch, *[-9] * 10)
    task_id = tasks.create("t", ["host", "c1"]).id
    tasks.start(task_id)

    looks(agent)

    assert started.recovered == [False] + [True] * module.MOST_TRIES
    party = tasks.get(task_id).party("c1")
    assert party.status is PartyStatus.FAILED
    assert party.reason == "its process was lost (signal 9) 6 times in a row"


def test_a_hub_that_is_not_reached_is_tried_without_end(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOES_WELL_S", float("inf"))
    started = Started(monkeypatch, *[75] * 12, 0)
    tasks.start(tasks.create("t", ["host", "c1"]).id)

    looks(agent)

    assert len(started.recovered) == 13


def test_a_party_that_cannot_run_as_it_is_registered_is_not_tried_again(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch, 78, 0)
    task_id = tasks.create("t", ["host", "c1"]).id
    tasks.start(task_id)

    looks(agent)

    assert started.recovered == [False]
    assert "what its agent has registered cannot run" in (tasks.get(task_id).party("c1").reason or "")


def test_a_party_that_ended_well_or_with_an_error_is_not_started_again_for_the_same_launch(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (0, 1):
        started = Started(monkeypatch, code)
        tasks.start(tasks.create("t", ["host", "c1"]).id)

        looks(agent)

        assert started.recovered == [False]


def test_a_task_that_nobody_has_launched_is_not_started_nor_one_that_is_over(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch)
    tasks.create("t", ["host", "c1"])
    cancelled = tasks.create("t", ["host", "c1"]).id
    tasks.start(cancelled)
    tasks.move(cancelled, TaskStatus.CANCELLED)
    tasks.start(tasks.create("t", ["host", "somebody"]).id)
    refused = tasks.create("t", ["host", "c1"]).id
    tasks.start(refused)
    tasks.verify(refused, "c1", False, "no")

    looks(agent)

    assert started.recovered == []


def test_a_task_that_failed_long_ago_is_not_started_by_an_agent_that_does_not_know_it(
    agent: Agent, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch, 0)
    task_id = tasks.create("t", ["host", "c1"]).id
    tasks.start(task_id)
    tasks.move(task_id, TaskStatus.FAILED, "yesterday")
    monkeypatch.setattr(module, "OLD_LAUNCH", timedelta())

    looks(agent)
    assert started.recovered == []

    monkeypatch.setattr(module, "OLD_LAUNCH", timedelta(minutes=10))
    looks(agent)
    assert started.recovered == [False]


def test_the_book_of_runs_is_kept_whole_and_a_torn_one_is_begun_anew(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(home, "c1")
    book.put("task", Run(datetime.now(timezone.utc).isoformat(), 77))
    book.close()
    again = Book(home, "c1")
    found = again.get("task")
    assert found is not None and found.pid == 77
    again.end("task")
    again.close()

    (home / "agents" / "c1.json").write_text('{"task": ')
    torn = Book(home, "c1")
    assert torn.get("task") is None
    assert "cannot be used" in caplog.text
    torn.close()


def test_another_process_of_the_same_number_is_not_taken_for_a_party(home: Path) -> None:
    assert not is_running(os.getpid(), "task", "c1", home)
    assert not is_running(None, "task", "c1", home)


# --- what is registered -----------------------------------------------------------------------------------------------


def test_a_registered_name_has_a_module_a_class_and_maybe_a_party() -> None:
    assert parse("pkg.mod:Thing").key is None
    assert parse("bank=pkg.mod:Outer.Thing") == parse("bank=pkg.mod:Outer.Thing")
    assert (parse("bank=pkg.mod:Thing").key, parse("bank=pkg.mod:Thing").thing) == ("bank", "pkg.mod:Thing")


@pytest.mark.parametrize(
    "text", ["import os", "pkg.mod", "pkg.mod:", ":Thing", "a=b=pkg:Thing", "pkg:Thing()", "", "p:é"]
)
def test_what_names_no_class_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no class"):
        parse(text)


def test_a_party_of_an_impossible_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="a feature_key is"):
        parse("../x=pkg.mod:Thing")


def test_a_checker_without_a_party_is_for_all_that_have_none_of_their_own() -> None:
    served = with_checkers([BANK, SHOP], [parse("m:Any"), parse("c1=m:Own")])

    assert [each.checker for each in served] == ["m:Any", "m:Own"]


@pytest.mark.parametrize(
    ("served", "checkers", "said"),
    [
        ([BANK, BANK], [], "--serve is given twice for host"),
        ([BANK], ["m:A", "m:B"], "--check is given twice for every party"),
        ([BANK], ["host=m:A", "host=m:B"], "--check is given twice for host"),
        ([BANK], ["c1=m:A"], "--check c1=m:A is for no party of --serve; expected host"),
    ],
)
def test_what_is_registered_twice_or_for_nobody_is_refused(
    served: list[Served], checkers: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        with_checkers(served, [parse(each) for each in checkers])


@pytest.mark.parametrize(
    ("thing", "key", "said"),
    [
        ("tests.agent.parties:Missing", None, "cannot be imported: AttributeError"),
        ("tests.agent.nowhere:Bank", None, "cannot be imported: ModuleNotFoundError"),
        ("tests.agent.parties:NoParty", None, "makes a NoParty; expected a subclass of HostScheduler or"),
        ("tests.agent.parties:not_a_class", None, "makes a NoneType; expected a subclass of HostScheduler or"),
        ("tests.agent.parties:never_made", "c1", "cannot be made: RuntimeError: no data here"),
        ("tests.agent.parties:never_made", None, "If it wants a feature_key, name it: KEY="),
        ("tests.agent.parties:Shop", "host", "is registered for host, but is c1"),
        ("tests.agent.parties:os", None, "is a module; expected a class"),
    ],
)
def test_a_registered_class_that_cannot_be_a_party_says_why(thing: str, key: str | None, said: str) -> None:
    from heterofed.agent.party import describe

    with pytest.raises(ConfigError, match=said):
        describe(thing, key)


def test_a_registered_class_says_which_party_it_is_and_gets_the_name_that_it_is_registered_for() -> None:
    from heterofed.agent.party import describe

    assert describe("tests.agent.parties:Bank", "bank") == {"feature_key": "bank", "host": True}
    assert describe("tests.agent.parties:Shop", None) == {"feature_key": "c1", "host": False}

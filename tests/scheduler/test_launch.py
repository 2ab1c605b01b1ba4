"""Parties as processes of their own, found by task id, over encrypted TCP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from heterofed import ConfigError, DataError, OutputError, Settings, UnknownTask, run_locally
from heterofed.metrics.progress import NoProgress
from heterofed.scheduler.doors import CollaboratorDoor
from heterofed.scheduler.launch import ended_by_sigterm
from heterofed.scheduler.record import StoreRecord
from heterofed.tasks.directory import Directory, host_in, open_directory
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.forked import Forked
from tests.tiny import Collaborator, Host, same_bits, unsplit

PARTY = Path(__file__).resolve().parents[1] / "party.py"
ENDS_WITHIN_S = 90.0

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def directory() -> Directory:
    return open_directory(Settings.from_env())


@pytest.fixture
def task_id(directory: Directory) -> str:
    return directory.store.create("tiny", ["host", "c1"]).id


class Process:
    """A party's process and what it said."""

    started: ClassVar[list[Process]] = []

    def __init__(self, what: str, task_id: str, *arguments: str, **environment: str) -> None:
        self.process = Forked(PARTY, [what, task_id, *arguments], {**os.environ, "OMP_NUM_THREADS": "1", **environment})
        self.started.append(self)

    def end(self) -> tuple[int, str]:
        """Return the exit code and all output."""
        return self.process.wait(ENDS_WITHIN_S), self.process.said()

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    Process.started.clear()
    yield
    for each in Process.started:
        each.kill()


def test_two_processes_train_to_the_same_bits_as_the_unsplit_network(
    directory: Directory, task_id: str, tmp_path: Path
) -> None:
    host = Process("host", task_id, f"out_dir={str(tmp_path / 'h')!r}")
    other = Process("collaborator", task_id, f"out_dir={str(tmp_path / 'c')!r}")

    for party in (host, other):
        code, output = party.end()
        assert code == 0, output

    reference = reference_run()
    for path, model in [
        (tmp_path / "h" / "feature_model_host.pt", reference[0]),
        (tmp_path / "c" / "feature_model_c1.pt", reference[1]),
        (tmp_path / "h" / "infer_model.pt", reference[2]),
    ]:
        state = torch.load(path, weights_only=True)
        assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())
    task = directory.find(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert [party.status for party in task.parties] == [PartyStatus.FINISHED] * 2
    assert host_in(directory.find(task_id)) is None


def test_without_encryption_both_say_so_and_the_task_is_done(task_id: str, directory: Directory) -> None:
    parties = [
        Process(what, task_id, HETEROFED_ENCRYPTION="off", HETEROFED_PROGRESS="plain")
        for what in ("host", "collaborator")
    ]

    for party in parties:
        code, output = party.end()
        assert code == 0, output
        assert "encryption is off: everybody on this machine can read what the parties say" in output
    assert directory.find(task_id).status is TaskStatus.COMPLETED


@pytest.mark.parametrize(("host", "collaborator", "said"), [("off", "on", "without"), ("on", "off", "with")])
def test_parties_of_which_one_encrypts_and_one_does_not_end_with_the_setting_to_change(
    task_id: str, host: str, collaborator: str, said: str
) -> None:
    parties = [
        Process("host", task_id, HETEROFED_ENCRYPTION=host),
        Process("collaborator", task_id, HETEROFED_ENCRYPTION=collaborator),
    ]

    for party in parties:
        code, output = party.end()
        assert code == 1
        assert f"the host runs {said} encryption" in output
    assert "Set HETEROFED_ENCRYPTION alike" in output


@pytest.mark.parametrize("setting", ["HETEROFED_BIND", "HETEROFED_ADVERTISE"])
def test_a_host_for_other_machines_does_not_start_without_encryption(task_id: str, setting: str) -> None:
    code, output = Process("host", task_id, HETEROFED_ENCRYPTION="off", **{setting: "192.0.2.7:0"}).end()

    assert code == 1
    assert "encryption is off, and 192.0.2.7:0 is not an address of this machine alone" in output


def test_a_collaborator_may_be_started_long_before_its_host(task_id: str) -> None:
    other = Process("collaborator", task_id)
    time.sleep(3)
    host = Process("host", task_id)

    assert [party.end()[0] for party in (host, other)] == [0, 0]


def test_a_host_that_dies_before_all_are_there_can_be_started_again(task_id: str, directory: Directory) -> None:
    """The waiting collaborator follows it to its new address."""
    directory.store.create("other", ["x", "y"])
    first = Process("host", task_id, HETEROFED_GATHER_TIMEOUT_S="60")
    wait_until(lambda: host_in(directory.find(task_id)) is not None)
    first.kill()
    other = Process("collaborator", task_id)
    time.sleep(3)  # it connects to where nobody listens any more
    second = Process("host", task_id)

    assert [party.end()[0] for party in (second, other)] == [0, 0]


def test_an_unknown_task_ends_with_one_message() -> None:
    code, output = Process("host", "nosuchtask").end()

    assert code == 1
    assert output.splitlines()[1:] == ["See docs/reference/errors.md#unknowntask"]
    assert output.startswith("UnknownTask: there is no task 'nosuchtask'")
    assert "heterofed task list" in output


def test_a_party_that_is_not_in_the_task_is_told_who_is(task_id: str) -> None:
    with pytest.raises(ConfigError, match=f"task {task_id} has no party 'c9'; expected one of host, c1"):
        Collaborator("c9").launch_task(task_id)


def test_a_collaborator_that_never_comes_is_named(task_id: str, directory: Directory) -> None:
    code, output = Process("host", task_id, HETEROFED_GATHER_TIMEOUT_S="2").end()

    assert code == 1
    assert (
        "PeerTimeout: c1, while gathering the parties: no check-in within 2 s; expected all of c1. Start the" in output
    )
    assert "Traceback" not in output
    assert directory.find(task_id).status is TaskStatus.FAILED


def test_a_host_that_never_comes_is_said_so(task_id: str) -> None:
    code, output = Process("collaborator", task_id, HETEROFED_GATHER_TIMEOUT_S="2").end()

    assert code == 1
    assert "PeerTimeout: c1, while gathering the parties: no host was started within 2 s; expected a host of" in output


def test_waiting_says_for_whom(task_id: str) -> None:
    _, output = Process(
        "host",
        task_id,
        HETEROFED_GATHER_TIMEOUT_S="4",
        HETEROFED_NOTICE_EVERY_S="1",
        HETEROFED_PROGRESS="plain",
    ).end()

    assert "waiting for c1: check-in (1 of 4 s)" in output


def test_a_second_process_under_one_feature_key_is_refused_and_the_first_goes_on(
    task_id: str, directory: Directory
) -> None:
    host = Process("host", task_id)
    wait_until(lambda: host_in(directory.find(task_id)) is not None)
    other = Process("collaborator", task_id, "feature_key='host'")
    code, output = other.end()
    right = Process("collaborator", task_id)

    assert code == 1
    assert "another process of this machine already runs as host in task" in output
    assert [party.end()[0] for party in (host, right)] == [0, 0]


def test_two_hosts_of_one_task_are_refused(task_id: str, directory: Directory) -> None:
    first = Process("host", task_id)
    wait_until(lambda: host_in(directory.find(task_id)) is not None)
    code, output = Process("host", task_id, "feature_key='c1'").end()
    other = Process("collaborator", task_id)

    assert code == 1
    assert f"c1 cannot be the host of task {task_id}: host is" in output
    assert [party.end()[0] for party in (first, other)] == [0, 0]


def test_a_collaborator_that_was_killed_and_is_not_started_again_in_time_ends_the_host(
    task_id: str, directory: Directory
) -> None:
    host, other = Process("host", task_id), Process("collaborator/dying", task_id)

    assert other.end()[0] == -signal.SIGKILL
    killed = time.monotonic()
    code, output = host.end()

    assert code == 1
    assert time.monotonic() - killed < 30
    assert "PeerGone: c1, while " in output
    assert "its link is down for" in output
    assert "look at its output, then start all parties again with recover=True." in output
    assert directory.find(task_id).status is TaskStatus.FAILED


def test_a_host_that_was_killed_and_is_not_started_again_in_time_ends_its_collaborators(
    task_id: str, directory: Directory
) -> None:
    host = Process("host/slow", task_id, "max_rounds=1000")
    other = Process("collaborator", task_id)
    wait_until(lambda: directory.find(task_id).status is TaskStatus.ONGOING)
    host.kill()
    killed = time.monotonic()

    code, output = other.end()

    assert code == 1
    assert time.monotonic() - killed < 30
    assert "PeerGone: host, while " in output


def test_ctrl_c_at_one_party_ends_the_other_with_its_name(task_id: str, directory: Directory) -> None:
    host = Process("host/slow", task_id, "max_rounds=1000")
    other = Process("collaborator", task_id)
    wait_until(lambda: directory.find(task_id).status is TaskStatus.ONGOING)
    host.process.send_signal(signal.SIGINT)

    code, output = host.end()
    assert code != 0
    *_, how, last = output.splitlines()
    assert how.endswith("host was interrupted; to go on, start all parties again with recover=True (--recover)")
    assert last == "interrupted"
    assert "Traceback" not in output
    code, output = other.end()
    assert code == 1
    assert "TaskAborted: host, while " in output
    assert "its user interrupted it" in output


@pytest.mark.parametrize("ended", ["host", "c1"])
def test_a_party_that_is_told_to_end_tells_the_other_before_it_does(
    task_id: str, directory: Directory, ended: str
) -> None:
    parties = {"host": Process("host/slow", task_id, "max_rounds=1000"), "c1": Process("collaborator", task_id)}
    wait_until(lambda: directory.find(task_id).status is TaskStatus.ONGOING)
    parties.pop(ended).process.send_signal(signal.SIGTERM)

    code, output = Process.started[ended == "c1"].end()
    assert code == 128 + signal.SIGTERM
    assert output.splitlines()[-1].endswith(
        f"{ended} was told to end (SIGTERM); to go on, start all parties again with recover=True (--recover)"
    )
    (other,) = parties.values()
    code, output = other.end()
    assert code == 1
    assert f"TaskAborted: {ended}, while " in output
    assert "its process was told to end (SIGTERM)" in output
    assert directory.find(task_id).status is TaskStatus.FAILED


def test_a_handler_of_the_users_own_stays_in_place(task_id: str) -> None:
    heard: list[int] = []

    def mine(number: int, frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_while_a_party_runs_sigterm_raises_and_afterwards_it_is_as_it_was() -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    with pytest.raises(SystemExit) as caught, ended_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_address_that_is_told_may_be_another_than_the_one_that_is_listened_at(
    task_id: str, directory: Directory
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = Process(
        "host",
        task_id,
        HETEROFED_BIND=f"127.0.0.1:{port}",
        HETEROFED_ADVERTISE=f"localhost:{port}",
        HETEROFED_PROGRESS="plain",
    )
    wait_until(lambda: host_in(directory.find(task_id)) is not None)
    address = host_in(directory.find(task_id))
    other = Process("collaborator", task_id)

    assert address is not None
    assert address.endpoint == f"tcp://localhost:{port}"
    code, output = host.end()
    assert (code, other.end()[0]) == (0, 0)
    assert f"host listens at tcp://127.0.0.1:{port}, told as tcp://localhost:{port}" in output


@pytest.mark.parametrize("killed", ["host", "c1"])
def test_a_party_that_is_killed_and_started_again_goes_on_to_the_same_bits(
    task_id: str, directory: Directory, tmp_path: Path, killed: str
) -> None:
    """The host comes back at another address."""
    folders = {key: tmp_path / key for key in ("host", "c1")}
    whats = {"host": "host/slow", "c1": "collaborator"}
    more = {"host": ["checkpoint_every=2", "max_rounds=4"], "c1": []}
    patient = {"HETEROFED_REJOIN_TIMEOUT_S": "60", "HETEROFED_PROGRESS": "plain"}

    def start(key: str, *words: str) -> Process:
        return Process(whats[key], task_id, f"out_dir={str(folders[key])!r}", *more[key], *words, **patient)

    parties = {key: start(key) for key in ("host", "c1")}
    wait_until(lambda: (folders[killed] / "checkpoints" / "model_0000003").exists())
    parties[killed].kill()
    parties[killed] = start(killed, "recover")

    for party in parties.values():
        code, output = party.end()
        assert code == 0, output
        assert "goes on after" in output
    reference = Host(max_rounds=4), Collaborator()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_locally(*reference)
    torch.set_num_threads(threads)
    for path, model in [
        (folders["host"] / "feature_model_host.pt", reference[0].feature_model),
        (folders["c1"] / "feature_model_c1.pt", reference[1].feature_model),
        (folders["host"] / "infer_model.pt", reference[0].infer_model),
    ]:
        state = torch.load(path, weights_only=True)
        assert all(torch.equal(state[name], each) for name, each in model.state_dict().items())
    task = directory.find(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert [party.status for party in task.parties] == [PartyStatus.FINISHED] * 2


def test_a_party_that_was_killed_when_all_was_done_gets_its_result_when_it_is_started_again(
    task_id: str, directory: Directory, tmp_path: Path
) -> None:
    parties = Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c")
    threads = [threading.Thread(target=each.launch_task, args=(task_id,)) for each in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ENDS_WITHIN_S)
    assert directory.find(task_id).status is TaskStatus.COMPLETED

    for again, first, key in (
        (Host(out_dir=tmp_path / "h"), parties[0], "host"),
        (Collaborator(out_dir=tmp_path / "c"), parties[1], "c1"),
    ):
        result = again.launch_task(task_id, recover=True)
        assert (result.task_id, result.feature_key, result.rounds) == (task_id, key, 2)
        assert {"model.zip", "report.zip", f"feature_model_{key}.pt"} <= {path.name for path in result.files}
        assert same_bits(again.feature_model, first.feature_model)
    assert (
        Host(out_dir=tmp_path / "h").launch_task(task_id, recover=True).metrics["scores"].rows()
        == parties[0].get_metrics("scores").rows()
    )
    with pytest.raises(DataError, match=r"there is no checkpoint .*model_final"):
        Host(out_dir=tmp_path / "elsewhere").launch_task(task_id, recover=True)


def test_a_party_that_takes_too_long_is_named(task_id: str) -> None:
    host = Process("host", task_id, "calculation_timeout=2", "shuffle=False")
    Process("collaborator/stuck", task_id)

    code, output = host.end()

    assert code == 1
    assert "PeerTimeout: c1, while training" in output
    assert "no embedding of round 1, batch 1 within 2 s" in output


def test_user_code_that_raises_shows_its_traceback_here_and_its_name_there(task_id: str) -> None:
    host, other = Process("host", task_id), Process("collaborator/raising", task_id)

    code, output = other.end()
    assert code == 1
    assert "KeyError: 'secret-person'" in output
    assert output.splitlines()[-2].startswith("TemplateError: c1, while ")
    code, output = host.end()
    assert code == 1
    assert "TaskAborted: c1, while " in output
    assert "Raising.load_batch() raised KeyError" in output
    assert "secret" not in output


def test_a_collaborator_that_fails_before_check_in_ends_the_host(task_id: str, directory: Directory) -> None:
    host = Process("host", task_id)
    wait_until(lambda: host_in(directory.find(task_id)) is not None)
    other = Process("collaborator/repeating", task_id)

    assert other.end()[0] == 1
    code, output = host.end()
    assert code == 1
    assert "TaskAborted: c1: ended the task: c1, while starting: load_local_ids" in output


def test_unequal_batch_sizes_end_both_processes_with_the_same_reason(task_id: str) -> None:
    host = Process("host/own", task_id, "size=12")
    other = Process("collaborator/own", task_id, "size=48")

    for party in (host, other):
        code, output = party.end()
        assert code == 1
        assert "sent 48 rows in round 1, batch 0; expected 12 as at host" in output


def test_a_failed_task_can_be_launched_again_and_a_completed_one_cannot(task_id: str, directory: Directory) -> None:
    assert Process("host", task_id, HETEROFED_GATHER_TIMEOUT_S="1").end()[0] == 1
    host, other = Process("host", task_id), Process("collaborator", task_id)
    assert [party.end()[0] for party in (host, other)] == [0, 0]
    assert directory.find(task_id).status is TaskStatus.COMPLETED

    with pytest.raises(ConfigError, match=f"task {task_id} is COMPLETED; expected a task that is not over"):
        Host().launch_task(task_id)


def test_a_record_that_vanishes_does_not_end_a_running_task(task_id: str, directory: Directory, home: Path) -> None:
    host, other = Process("host/slow", task_id, "max_rounds=30"), Process("collaborator", task_id)
    wait_until(lambda: directory.find(task_id).status is TaskStatus.ONGOING)
    for each in home.glob("tasks.db*"):
        each.unlink()

    ends = [party.end() for party in (host, other)]

    assert [code for code, _ in ends] == [0, 0], ends
    assert "the task's record" in ends[0][1]


def test_a_record_that_cannot_be_read_does_not_tell_whether_the_host_moved(
    task_id: str, directory: Directory, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = directory.find(task_id)
    record = StoreRecord(directory, task, "c1")
    door = CollaboratorDoor(directory, task, "c1", Settings.from_env(), NoProgress("c1"), record)
    for each in home.glob("tasks.db*"):
        each.unlink()

    assert door.host_moved() is False
    assert caplog.messages == []


def test_what_cannot_be_noted_of_a_task_that_was_cancelled_is_no_news(
    task_id: str, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    record = StoreRecord(directory, directory.find(task_id), "host")
    directory.store.move(task_id, TaskStatus.CANCELLED)

    record.task_is(TaskStatus.FAILED, "task was cancelled")
    assert caplog.messages == []
    assert directory.find(task_id).status is TaskStatus.CANCELLED
    record.task_is(TaskStatus.COMPLETED)
    assert caplog.messages[0].startswith("the task's record was not updated: ")


def test_a_full_store_on_a_cancelled_task_says_nothing(
    task_id: str, directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = StoreRecord(directory, directory.find(task_id), "host")

    def full(*what: object, **more: object) -> None:
        raise OutputError("the task store is full")

    directory.store.move(task_id, TaskStatus.CANCELLED)
    monkeypatch.setattr(directory.store, "move", full)
    record.task_is(TaskStatus.FAILED, "task was cancelled")
    assert caplog.messages == []

    record.task_is(TaskStatus.ONGOING)
    assert caplog.messages == ["the task's record was not updated: the task store is full."]


@pytest.mark.parametrize("when", ["before it looks for the host", "while it does"])
def test_one_that_was_killed_after_its_last_word_gets_its_result_though_the_task_is_completed_meanwhile(
    task_id: str, directory: Directory, tmp_path: Path, when: str
) -> None:
    """It is started again while the host completes the task, and finds no host any more."""
    written = Collaborator(out_dir=tmp_path / "c")
    run_locally(Host(out_dir=tmp_path / "h"), written)
    for status in (TaskStatus.GATHERING, TaskStatus.ALIGNING, TaskStatus.ONGOING):
        directory.store.move(task_id, status)

    class Late(Collaborator):
        def load_local_ids(self) -> list[str]:
            wait_s = 0.0 if when.startswith("before") else 0.7
            timer = threading.Timer(wait_s, lambda: directory.store.move(task_id, TaskStatus.COMPLETED))
            timer.start()
            if not wait_s:
                timer.join()
            return super().load_local_ids()

    again = Late(out_dir=tmp_path / "c")
    result = again.launch_task(task_id, recover=True)

    assert (result.task_id, result.feature_key, result.rounds) == (task_id, "c1", 2)
    assert same_bits(again.feature_model, written.feature_model)
    assert directory.find(task_id).party("c1").status is PartyStatus.FINISHED


def test_one_that_comes_too_late_for_the_first_time_is_told_so(
    task_id: str, directory: Directory, tmp_path: Path
) -> None:
    for status in (TaskStatus.GATHERING, TaskStatus.ALIGNING, TaskStatus.ONGOING):
        directory.store.move(task_id, status)

    class Late(Collaborator):
        def load_local_ids(self) -> list[str]:
            directory.store.move(task_id, TaskStatus.COMPLETED)
            return super().load_local_ids()

    with pytest.raises(ConfigError, match=rf"^c1.*: task {task_id} was completed before this party was there"):
        Late(out_dir=tmp_path / "c").launch_task(task_id)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_full_stdout_does_not_end_a_party(task_id: str, directory: Directory, tmp_path: Path, form: str) -> None:
    with Path("/dev/full").open("w") as full:
        processes = [
            subprocess.Popen(
                [sys.executable, str(PARTY), what, task_id, f"out_dir={str(tmp_path / what)!r}"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HETEROFED_PROGRESS": form},
            )
            for what in ("host", "collaborator")
        ]
    try:
        errors = [each.communicate(timeout=ENDS_WITHIN_S)[1] for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.wait()

    assert directory.find(task_id).status is TaskStatus.COMPLETED, errors
    assert [each.returncode for each in processes] == [0, 0], errors
    assert "Traceback" not in "".join(errors)
    assert (tmp_path / "host" / "infer_model.pt").exists()


def test_launching_needs_a_task_id() -> None:
    with pytest.raises(ConfigError, match="task_id is ''; expected the id that"):
        Host().launch_task("")
    with pytest.raises(UnknownTask):
        Host().launch_task("nosuchtask")


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def reference_run() -> list[torch.nn.Module]:
    """Return the unsplit network's parts for the tiny task's default arguments."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    host, other = Host(), Collaborator()
    run_locally(host, other)
    bottoms, top = unsplit(host, 2)
    torch.set_num_threads(threads)
    assert same_bits(other.feature_model, bottoms[1])
    return [*bottoms, top]

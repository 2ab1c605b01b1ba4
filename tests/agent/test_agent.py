"""Agents at two parties: they check data and start parties when a task is launched, over a hub and a local store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from heterofed import Settings
from heterofed.tasks.client import HubClient
from heterofed.tasks.directory import open_directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.invitation import Invitation
from heterofed.tasks.joined import Joined, remember
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.hub.running import RunningHub, running_hub

ROOT = Path(__file__).resolve().parents[2]
ENDS_WITHIN_S = 60.0

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

_PROGRAM = """
import sys
from pathlib import Path
from heterofed.agent.commands import serve
from heterofed.scheduler.plainly import print_errors_plainly
print_errors_plainly()
options = sys.argv[2:]
checks = [each for each in options[1].split(",") if each]
serve(options[0].split(","), checks, out=Path(sys.argv[1]), look_every_s=0.5)
"""


class Agents:
    """Agents as processes; those that are left at the end are killed, and the parties they started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment: dict[str, str] = {}

    def start(self, serve: str, check: str = "", name: str = "agent", **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.folder / "out"), serve, check],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "HETEROFED_PSI_PROTOCOL": "ecdh",
                    "HETEROFED_PROGRESS": "plain",
                    "HETEROFED_GATHER_TIMEOUT_S": "60",
                    "HETEROFED_REJOIN_TIMEOUT_S": "60",
                    "TEST_FOLDER": str(self.folder),
                    **self.environment,
                    **environment,
                },
            )
        self.running.append(process)
        return process

    def said(self, name: str = "agent") -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def all_said(self) -> str:
        return "\n".join(f"--- {each}\n{each.read_text()}" for each in sorted(self.folder.rglob("*.log")))

    def end(self) -> None:
        for each in self.running:
            each.kill()
            each.wait()
        for pid in party_processes(self.folder):
            os.kill(pid, signal.SIGKILL)


def party_processes(folder: Path, key: str = "") -> list[int]:
    """Return the processes of parties whose results go below a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            said = (each / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = b"heterofed.agent.party" in said and b"run" in said and str(folder / "out").encode() in said
        if mine and (not key or key.encode() in said):
            found.append(int(each.name))
    return found


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(tmp_path)
    yield made
    made.end()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as running:
        yield running


def wait_until(condition: Callable[[], bool], agents: Agents, timeout_s: float = ENDS_WITHIN_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it never came to that\n{agents.all_said()}"
        time.sleep(0.1)


def status(tasks: Tasks, task_id: str) -> TaskStatus:
    return tasks.get(task_id).status


@pytest.mark.parametrize("place", ["local", "hub"])
def test_two_agents_verify_start_and_train_a_task_that_is_launched(
    place: str, agents: Agents, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if place == "hub":
        hub: RunningHub = request.getfixturevalue("hub")
        tasks: Tasks = HubClient(hub.url, hub.token)
        task_id = tasks.create("t", ["host", "c1"], lives_for=timedelta(days=1)).id
        homes = [tmp_path / "home-h", tmp_path / "home-c"]
        for home, party in zip(homes, ("host", "c1"), strict=True):
            invited = Invitation.parse(hub.hub.invite(hub.owner, task_id, party, url=hub.url).invitation)
            remember(home, task_id, Joined(party, invited.hub or "", invited.token or ""))
    else:
        tasks = open_directory(Settings.from_env()).store
        task_id = tasks.create("t", ["host", "c1"]).id
        homes = [tmp_path / "home", tmp_path / "home"]
    good = "tests.agent.parties:Good"
    agents.start("host=tests.agent.parties:Bank", good, "host", HETEROFED_HOME=str(homes[0]))
    agents.start("tests.agent.parties:Shop", good, "shop", HETEROFED_HOME=str(homes[1]))

    wait_until(lambda: status(tasks, task_id) is TaskStatus.VERIFIED, agents)
    time.sleep(1.0)
    assert party_processes(tmp_path) == []  # nobody has launched it
    tasks.start(task_id)
    wait_until(lambda: status(tasks, task_id) is TaskStatus.COMPLETED, agents)
    wait_until(lambda: all(each.status is PartyStatus.FINISHED for each in tasks.get(task_id).parties), agents)
    wait_until(lambda: "host is done" in agents.said("host") and "c1 is done" in agents.said("shop"), agents)

    assert (tmp_path / "out" / task_id / "host" / "infer_model.pt").exists()
    assert (tmp_path / "out" / task_id / "c1" / "feature_model_c1.pt").exists()
    own = (tmp_path / "out" / task_id / "host" / "scores.csv").read_bytes()
    assert tasks.output(task_id, "host", "scores.csv") == own
    assert "listening at" in agents.said("host")
    time.sleep(1.5)
    assert party_processes(tmp_path) == []  # a task that is over is not started again


def test_a_party_and_its_agent_that_are_killed_go_on_and_end_with_the_same_bits(agents: Agents, tmp_path: Path) -> None:
    tasks = open_directory(Settings.from_env()).store
    agents.environment["TEST_ROUNDS"] = "12"
    agents.environment["TEST_BATCH_S"] = "0.1"
    task_id = tasks.create("t", ["host", "c1"]).id
    agents.start("host=tests.agent.parties:Bank", name="host")
    shop = agents.start("tests.agent.parties:Shop", name="shop")
    tasks.start(task_id)
    wait_until(lambda: tasks.get(task_id).round >= 2, agents)

    shop.kill()  # as a machine that loses its power
    shop.wait()
    [first] = party_processes(tmp_path, "c1")
    os.kill(first, signal.SIGKILL)
    agents.start("tests.agent.parties:Shop", name="shop2")
    wait_until(lambda: status(tasks, task_id) is TaskStatus.COMPLETED, agents)

    assert "c1 goes on" in agents.said("shop2")
    assert [
        each.round for each in tasks.events(task_id) if (each.kind, each.party) == ("ROUND_FINISHED", "c1")
    ] == list(range(1, 13))
    undisturbed = tasks.create("t", ["host", "c1"]).id
    agents.environment["TEST_BATCH_S"] = "0"
    tasks.start(undisturbed)
    wait_until(lambda: status(tasks, undisturbed) is TaskStatus.COMPLETED, agents)
    for name in ("host/infer_model.pt", "host/feature_model_host.pt", "c1/feature_model_c1.pt"):
        left = torch.load(tmp_path / "out" / task_id / name, weights_only=True)
        right = torch.load(tmp_path / "out" / undisturbed / name, weights_only=True)
        assert all(torch.equal(left[each], right[each]) for each in left), name


def test_an_agent_that_is_killed_alone_leaves_its_parties_running_the_next_one_takes_them_up_and_cancel_ends_them(
    agents: Agents, hub: RunningHub, tmp_path: Path
) -> None:
    tasks = HubClient(hub.url, hub.token)
    agents.environment.update(TEST_ROUNDS="100000", HETEROFED_HUB=hub.url, HETEROFED_TOKEN=hub.token)
    task_id = tasks.create("t", ["host", "c1"]).id
    first = agents.start("host=tests.agent.parties:Bank,tests.agent.parties:Shop")
    tasks.start(task_id)
    wait_until(lambda: tasks.get(task_id).round >= 1, agents)
    before = sorted(party_processes(tmp_path))
    assert len(before) == 2

    first.kill()
    first.wait()
    agents.start("host=tests.agent.parties:Bank,tests.agent.parties:Shop", name="second")
    wait_until(lambda: "listening at" in agents.said("second"), agents)
    time.sleep(2)
    assert sorted(party_processes(tmp_path)) == before

    tasks.move(task_id, TaskStatus.CANCELLED, "wrong table")
    wait_until(lambda: party_processes(tmp_path) == [], agents, 30)
    time.sleep(1)

    assert party_processes(tmp_path) == []
    assert status(tasks, task_id) is TaskStatus.CANCELLED
    logs = [(tmp_path / "out" / task_id / f"{key}.log").read_text() for key in ("host", "c1")]
    assert any("was cancelled: wrong table" in each for each in logs), logs
    assert "process" not in agents.said("second")  # it has started nothing


def test_what_cannot_be_served_and_what_is_served_already_is_said_at_the_start(agents: Agents) -> None:
    wrong = agents.start("host=tests.agent.parties:Missing", name="wrong")
    agents.start("tests.agent.parties:Shop", name="first")
    assert wrong.wait(60) == 1
    assert "tests.agent.parties:Missing cannot be imported: AttributeError" in agents.said("wrong")
    wait_until(lambda: "listening at" in agents.said("first"), agents)

    second = agents.start("tests.agent.parties:Shop", name="second")

    assert second.wait(60) == 1
    assert "another agent of this HETEROFED_HOME serves c1" in agents.said("second")

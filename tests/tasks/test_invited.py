"""Two parties with a HETEROFED_HOME each, brought together by one pasted line, train the tiny task over TCP."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heterofed.cli import app
from heterofed.config import Settings
from heterofed.tasks import TaskStatus, TaskStore, open_directory
from heterofed.tasks.client import HubClient
from tests.forked import Forked
from tests.hub.running import running_hub

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
PARTY = ROOT / "tests" / "party.py"


class Machine:
    """A machine as far as heterofed sees it: a home, and variables of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.home = folder / "home"
        folder.mkdir()
        self._folder = folder
        self._environ = {**os.environ, "HETEROFED_HOME": str(self.home), **variables}

    def types(self, line: str) -> list[str]:
        """Run a line that starts with `heterofed`; return the lines that it prints, without what is for people."""
        words = shlex.split(line)
        assert words.pop(0) == "heterofed"
        done = CliRunner().invoke(app, words, env=self._environ)
        assert done.exit_code == 0, done.exception or done.stderr
        return done.stdout.splitlines()

    @contextmanager
    def runs(self, role: str, task_id: str, **arguments: str) -> Iterator[Forked]:
        """Start a party."""
        given = [f"{name}={value!r}" for name, value in {"out_dir": str(self._folder / "out"), **arguments}.items()]
        process = Forked(PARTY, [role, task_id, *given], self._environ, self._folder)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def trained(host: Machine, collaborator: Machine, task_id: str) -> None:
    """Let both train, and see that they did."""
    with (
        collaborator.runs("collaborator", task_id, feature_key="shop") as second,
        host.runs("host", task_id, feature_key="bank") as first,
    ):
        for process in (first, second):
            said, _ = process.communicate(timeout=80)
            assert process.returncode == 0, said


def test_without_a_hub_two_homes_train_after_one_line_each_way(tmp_path: Path) -> None:
    port = free_port()
    host = Machine(tmp_path / "a", HETEROFED_BIND=f"127.0.0.1:{port}")
    collaborator = Machine(tmp_path / "b")
    (task_id,) = host.types("heterofed task create --name credit --parties bank,shop")

    (line,) = host.types(f"heterofed task invite {task_id} shop")
    (answer,) = collaborator.types(line)
    assert answer.startswith(f"heterofed keys trust {task_id} shop '")
    assert host.types(answer) == []
    trained(host, collaborator, task_id)

    record = open_directory(Settings(home=host.home)).find(task_id)
    assert record.status is TaskStatus.COMPLETED
    assert all(party.key_trusted or party.role == "host" for party in record.parties)
    copy = open_directory(Settings(home=collaborator.home)).find(task_id)
    assert (copy.name, copy.party("bank").key_trusted, copy.party("shop").status.value) == ("credit", True, "FINISHED")


def test_a_party_whose_key_the_host_was_not_told_is_kept_out(tmp_path: Path) -> None:
    port = free_port()
    host = Machine(tmp_path / "a", HETEROFED_BIND=f"127.0.0.1:{port}", HETEROFED_GATHER_TIMEOUT_S="3")
    collaborator = Machine(tmp_path / "b", HETEROFED_GATHER_TIMEOUT_S="3")
    (task_id,) = host.types("heterofed task create --parties bank,shop")
    collaborator.types(host.types(f"heterofed task invite {task_id} shop")[0])

    with (
        host.runs("host", task_id, feature_key="bank") as first,
        collaborator.runs("collaborator", task_id, feature_key="shop") as second,
    ):
        assert first.communicate(timeout=80)[0]
        assert second.communicate(timeout=80)[0]
        assert (first.returncode, second.returncode) == (1, 1)
    assert open_directory(Settings(home=host.home)).find(task_id).party("shop").public_key is None


def test_at_a_hub_two_homes_train_after_one_line(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        host = Machine(tmp_path / "a", HETEROFED_HUB=hub.url, HETEROFED_TOKEN=hub.token)
        collaborator = Machine(tmp_path / "b")
        (task_id,) = host.types("heterofed task create --name credit --parties bank,shop")

        (line,) = host.types(f"heterofed task invite --host bank {task_id} shop")
        (answer,) = collaborator.types(line)
        assert host.types(answer) == []
        trained(host, collaborator, task_id)

        tasks = HubClient(hub.url, hub.token)
        record = tasks.get(task_id)
        tasks.close()
        assert record.status is TaskStatus.COMPLETED
        assert [party.status.value for party in record.parties] == ["FINISHED", "FINISHED"]
        assert hub.token not in "".join(path.read_text() for path in tmp_path.rglob("joined.json"))
    for machine in (host, collaborator):
        assert not (machine.home / "tasks.db").exists() or TaskStore(machine.home / "tasks.db").list() == ()

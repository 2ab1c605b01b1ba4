"""A hub that is killed in the middle of a task: training goes on, what was said meanwhile comes later, and once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from heterofed import run_locally
from heterofed.tasks.client import HubClient
from heterofed.tasks.course import Event, ReportKind
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.forked import Forked
from tests.hub.running import HubProcess, hub_process
from tests.tiny import Collaborator, Host

PARTY = Path(__file__).resolve().parents[1] / "party.py"
ROUNDS = 40
ENDS_WITHIN_S = 90.0

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path / "hub") as process:
        yield process


def party(what: str, task_id: str, home: Path, out: Path, hub: HubProcess, **arguments: object) -> Forked:
    return Forked(
        PARTY,
        [what, task_id, *(f"{name}={value!r}" for name, value in {"out_dir": str(out), **arguments}.items())],
        {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HETEROFED_HOME": str(home),
            "HETEROFED_HUB": hub.url,
            "HETEROFED_TOKEN": hub.token,
            "HETEROFED_PSI_PROTOCOL": "ecdh",
            "HETEROFED_PROGRESS": "plain",
            "HETEROFED_GATHER_TIMEOUT_S": "60",
        },
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_training_goes_on_when_the_hub_is_killed_and_events_catch_up_once_each(hub: HubProcess, tmp_path: Path) -> None:
    tasks = HubClient(hub.url, hub.token)
    task_id = tasks.create("tiny", ["host", "c1"], lives_for=timedelta(days=1), rounds=ROUNDS).id
    parties = [
        party("host/slow", task_id, tmp_path / "home-h", tmp_path / "h", hub, max_rounds=3),
        party("collaborator", task_id, tmp_path / "home-c", tmp_path / "c", hub),
    ]
    try:
        wait_until(lambda: tasks.get(task_id).round >= 3)

        hub.kill()
        # The host's own table of figures grows while nobody can hear of it.
        lines = tmp_path / "h" / "metrics.json"
        before = rounds_written(lines)
        wait_until(lambda: rounds_written(lines) >= before + 5)
        hub.start()
        outputs = [each.communicate(timeout=ENDS_WITHIN_S)[0] for each in parties]
    finally:
        for each in parties:
            each.kill()

    assert [each.returncode for each in parties] == [0, 0], outputs
    task = tasks.get(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert [each.status for each in task.parties] == [PartyStatus.FINISHED] * 2
    assert "is not reached; training goes on" in outputs[0]
    assert "is reached again" in outputs[0]

    events: list[Event] = []
    while page := tasks.events(task_id, after=events[-1].number if events else 0):
        events += page
    for kind, of in [(ReportKind.ROUND_FINISHED, "host"), (ReportKind.ROUND_FINISHED, "c1")]:
        told = [each.round for each in events if each.kind == kind.value and each.party == of]
        assert told == list(range(1, ROUNDS + 1)), of
    told = [each.round for each in events if each.kind == ReportKind.TEST_FINISHED.value]
    assert told == list(range(1, ROUNDS + 1))

    rows = [each for each in tasks.metrics(task_id) if each.set == "scores"]
    assert [each.row for each in rows] == list(range(ROUNDS))
    assert [each.round for each in rows] == list(range(1, ROUNDS + 1))
    assert tasks.table(task_id, "host", "scores") == (tmp_path / "h" / "scores.csv").read_bytes()
    assert tasks.output(task_id, "host", "scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()

    before_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_locally(
            Host(max_rounds=ROUNDS, out_dir=tmp_path / "lh"), Collaborator(out_dir=tmp_path / "lc"), task_id="alone"
        )
    finally:
        torch.set_num_threads(before_threads)
    for ours, theirs in [
        ("h/infer_model.pt", "lh/infer_model.pt"),
        ("h/feature_model_host.pt", "lh/feature_model_host.pt"),
        ("c/feature_model_c1.pt", "lc/feature_model_c1.pt"),
    ]:
        with_hub = torch.load(tmp_path / ours, weights_only=True)
        without = torch.load(tmp_path / theirs, weights_only=True)
        assert all(torch.equal(with_hub[name], without[name]) for name in without), ours


def rounds_written(path: Path) -> int:
    """Return the last round that the host has written a line of."""
    try:
        return max((json.loads(line).get("round", 0) for line in path.read_text().splitlines() if line), default=0)
    except (FileNotFoundError, ValueError):
        return 0

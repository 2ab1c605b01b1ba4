"""Real parties over a real hub: a task that is launched again from its beginning, and one that collects moments."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heterofed import HeterofedError
from heterofed.hub.coordinator.training import Training, TrainingState, UncertaintyMethod
from heterofed.scheduler.base import Scheduler
from heterofed.tasks import PartyStatus, Task, TaskStatus
from heterofed.tasks.client import HubClient
from heterofed.tasks.course import RUN_BEGAN, ReportKind
from heterofed.training.hooks import HookBase
from heterofed.uncertainty import SwagHook
from tests.hub.running import RunningHub, running_hub
from tests.tiny import Collaborator, Host

pytestmark = pytest.mark.timeout(120)
ROUNDS = 3


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with running_hub(tmp_path, requests_per_minute=100_000) as running:
        monkeypatch.setenv("HETEROFED_HUB", running.url)
        monkeypatch.setenv("HETEROFED_TOKEN", running.token)
        monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
        yield running
    torch.set_num_threads(before)


@pytest.fixture
def tasks(hub: RunningHub) -> Iterator[HubClient]:
    with closing(HubClient(hub.url, hub.token)) as client:
        yield client


def launched(task_id: str, *parties: Scheduler, recover: bool = False) -> dict[str, HeterofedError]:
    """Launch parties in threads of this process, each over a socket of its own, and return their errors."""
    errors: dict[str, HeterofedError] = {}

    def run(party: Any) -> None:
        try:
            party.launch_task(task_id, recover=recover)
        except HeterofedError as error:
            errors[party.feature_key] = error

    threads = [threading.Thread(target=run, args=(party,)) for party in parties]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    return errors


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def training(hub: RunningHub, task_id: str) -> Training:
    with hub.hub.store.transaction(write=True) as connection:
        found = Training.load(connection, task_id)
    assert found is not None
    return found


def told(tasks: HubClient, task_id: str, kind: str, party: str) -> list[int | None]:
    events = tasks.events(task_id, limit=1000)
    return [each.round for each in events if (each.kind, each.party) == (kind, party)]


class Failing(Host):
    """Fails in its second round."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        if self.current_round == 2:
            raise KeyError("a bug")
        return super().train_a_batch(feature_projection, labels)


def fail_in_round_two(hub: RunningHub, tasks: HubClient, tmp_path: Path) -> Task:
    """A task whose first run has one round, of another seed than the runs after it."""
    task = tasks.create("tiny", ["host", "c1"], rounds=ROUNDS)
    tasks.start(task.id)
    failing = Failing(out_dir=tmp_path / "h", seed=99)
    assert launched(task.id, failing, Collaborator(out_dir=tmp_path / "c")).keys() == {"host", "c1"}
    failed = tasks.get(task.id)
    assert (failed.status, failed.round) == (TaskStatus.FAILED, 1)
    wait_until(lambda: training(hub, task.id).state is TrainingState.ERROR)
    wait_until(lambda: training(hub, task.id).round == 1)
    return failed


@pytest.mark.parametrize("by", ["button", "hand", "recover without a checkpoint"])
def test_a_task_that_failed_and_begins_again_has_its_rounds_counted_again_and_shows_only_the_new_run(
    hub: RunningHub, tasks: HubClient, tmp_path: Path, by: str
) -> None:
    task_id = fail_in_round_two(hub, tasks, tmp_path).id
    [old] = [each for each in tasks.metrics(task_id) if each.set == "scores"]
    if by == "button":
        tasks.start(task_id)
    recover = by.startswith("recover")
    if recover:
        shutil.rmtree(tmp_path / "h")
        shutil.rmtree(tmp_path / "c")

    parties = Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c")
    assert launched(task_id, *parties, recover=recover) == {}

    assert (tasks.get(task_id).status, tasks.get(task_id).round) == (TaskStatus.COMPLETED, ROUNDS)
    wait_until(lambda: training(hub, task_id).state is TrainingState.COMPLETED)
    assert training(hub, task_id).round == ROUNDS
    for party in ("host", "c1"):
        assert told(tasks, task_id, RUN_BEGAN, party) == [None]
        assert told(tasks, task_id, "ROUND_FINISHED", party) == [1, 1, 2, 3]
    assert told(tasks, task_id, "TEST_FINISHED", "host") == [1, 1, 2, 3]

    rows = tasks.metrics(task_id)
    scores = [each for each in rows if each.set == "scores"]
    assert [(each.row, each.round) for each in scores] == [(0, 1), (1, 2), (2, 3)]
    assert scores[0].values != old.values
    assert min(each.number for each in rows) > old.number  # who follows behind a number misses none
    for party in ("host", "c1"):
        for name in ("progress", "time"):
            mine = [each.row for each in rows if (each.party, each.set) == (party, name)]
            assert mine == [0, 1, 2], (party, name)
    assert tasks.table(task_id, "host", "scores") == (tmp_path / "h" / "scores.csv").read_bytes()
    assert tasks.output(task_id, "host", "scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()

    heard = [each for each in hub.hub.notifications(hub.owner, limit=1000) if each.party == "c1"]
    started = [each.body["round"] for each in heard if each.notification_type == "UPDATE_ROUND_START"]
    assert started[-3:] == [1, 2, 3]
    assert started.count(1) == 2


def test_a_task_that_failed_and_goes_on_keeps_what_it_has(hub: RunningHub, tasks: HubClient, tmp_path: Path) -> None:
    task_id = fail_in_round_two(hub, tasks, tmp_path).id
    [old] = [each for each in tasks.metrics(task_id) if each.set == "scores"]

    parties = Host(out_dir=tmp_path / "h", seed=99), Collaborator(out_dir=tmp_path / "c")
    assert launched(task_id, *parties, recover=True) == {}

    for party in ("host", "c1"):
        assert told(tasks, task_id, RUN_BEGAN, party) == []
        assert told(tasks, task_id, "ROUND_FINISHED", party) == [1, 2, 3]
    scores = [each for each in tasks.metrics(task_id) if each.set == "scores"]
    assert scores[0] == old
    assert [each.row for each in scores] == [0, 1, 2]
    assert tasks.table(task_id, "host", "scores") == (tmp_path / "h" / "scores.csv").read_bytes()


# --- moments ----------------------------------------------------------------------------------------------------------


def moments(party: Scheduler) -> dict[str, int]:
    [hook] = [each for each in party.trainer.hooks.values() if isinstance(each, SwagHook)]
    return {name: each.collected for name, each in hook.moments.items()}


class Late(Collaborator):
    """Collects moments by itself, and only when its weights have come to rest."""

    def build_hooks(self) -> list[HookBase]:
        return [*super().build_hooks(), SwagHook(from_round=3)]


@pytest.mark.parametrize("other", [Collaborator, Late])
def test_a_task_of_moments_collects_them_at_every_party_after_each_round(
    hub: RunningHub, tasks: HubClient, tmp_path: Path, other: type[Collaborator]
) -> None:
    """Item 49, end to end: every party reports its moments after each round; the training goes on when all have."""
    task_id = tasks.create("tiny", ["host", "c1"], rounds=ROUNDS, uncertainty="swag").id
    tasks.start(task_id)
    host, shop = Host(out_dir=tmp_path / "h"), other(out_dir=tmp_path / "c")

    assert launched(task_id, host, shop) == {}

    assert moments(host) == {"feature": ROUNDS, "infer": ROUNDS}
    assert moments(shop) == {"feature": ROUNDS if other is Collaborator else 1}  # its own hook is the only one
    for party in ("host", "c1"):
        assert told(tasks, task_id, ReportKind.SWAG_FINISHED.value, party) == [1, 2, 3]
    wait_until(lambda: training(hub, task_id).state is TrainingState.COMPLETED)
    found = training(hub, task_id)
    assert (found.uncertainty_method, found.round) == (UncertaintyMethod.SWAG, ROUNDS)
    assert tasks.get(task_id).status is TaskStatus.COMPLETED
    assert [each.status for each in tasks.get(task_id).parties] == [PartyStatus.FINISHED] * 2
    heard = [each for each in hub.hub.notifications(hub.owner, limit=1000) if each.party == "c1"]
    collected = [each.body["round"] for each in heard if each.notification_type == "SWAG_ROUND_START"]
    assert collected == sorted(set(collected))
    assert collected[:1] == [1]


def test_moments_are_there_again_when_a_task_of_moments_goes_on(
    hub: RunningHub, tasks: HubClient, tmp_path: Path
) -> None:
    task_id = tasks.create("tiny", ["host", "c1"], rounds=ROUNDS, uncertainty="swag").id
    assert launched(task_id, Failing(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))
    host, shop = Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c")

    assert launched(task_id, host, shop, recover=True) == {}

    assert moments(host) == {"feature": ROUNDS, "infer": ROUNDS}
    assert told(tasks, task_id, ReportKind.SWAG_FINISHED.value, "c1") == [1, 2, 3]

    again = Host(out_dir=tmp_path / "h")
    again.launch_task(task_id, recover=True)  # it is completed: what it wrote is read
    assert moments(again) == {"feature": ROUNDS, "infer": ROUNDS}


def test_a_task_without_a_method_collects_nothing(hub: RunningHub, tasks: HubClient, tmp_path: Path) -> None:
    task_id = tasks.create("tiny", ["host", "c1"], rounds=1).id
    host = Host(out_dir=tmp_path / "h")

    assert launched(task_id, host, Collaborator(out_dir=tmp_path / "c")) == {}

    assert not any(isinstance(each, SwagHook) for each in host.trainer.hooks.values())
    assert told(tasks, task_id, ReportKind.SWAG_FINISHED.value, "host") == []

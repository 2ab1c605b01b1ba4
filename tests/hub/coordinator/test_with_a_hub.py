"""The whole of it: a hub process with its workers, a real Redis, a real PostgreSQL, and parties that report by HTTP."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from heterofed.tasks.client import HubClient
from heterofed.tasks.course import ReportKind
from tests.hub.coordinator.endpoint import endpoint
from tests.hub.running import HubProcess, hub_process
from tests.hub.servers import PostgreSQL, RedisServer

ROUNDS = 6

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]


def told(hub: HubProcess, task_id: str, party: str) -> list[tuple[str, int]]:
    """What the stream has for a party."""
    with hub.client() as client:
        answer = client.get("/api/notifications").raise_for_status().json()["notifications"]
    mine = [each for each in answer if each["training_uuid"] == task_id and each["party"] == party]
    return [(each["notification_type"], each["body"]["round"]) for each in mine]


def train(hub: HubProcess, task_id: str, *rounds: int) -> None:
    """Report, as the parties do: all there is to say is said again, as after a break."""
    with closing(HubClient(hub.url, hub.token)) as client:
        for round in rounds:
            for _ in range(2):
                for party in ("bank", "shop"):
                    client.report(task_id, party, ReportKind.ROUND_FINISHED, round)
                client.report(task_id, "bank", ReportKind.TEST_FINISHED, round, {"scores": {"auc": 0.5}})


def until_told(hub: HubProcess, task_id: str, what: tuple[str, int], within_s: float = 60.0) -> list[tuple[str, int]]:
    deadline = time.monotonic() + within_s
    while what not in (heard := told(hub, task_id, "shop")):
        assert time.monotonic() < deadline, (heard, hub.said.read_text()[-4000:])
        time.sleep(0.1)
    return heard


def test_a_hub_its_workers_and_redis_may_all_be_killed_and_every_round_is_told_once(
    tmp_path: Path, redis_server: RedisServer, postgresql: PostgreSQL
) -> None:
    options = [f"database={postgresql.new_database()}", f"broker={redis_server.url}", "workers=2"]
    with endpoint() as boss, hub_process(tmp_path, *options) as hub:
        with closing(HubClient(hub.url, hub.token)) as client:
            task = client.create("scores", ["bank", "shop"], rounds=ROUNDS)
            for party in task.feature_keys:
                client.set_party(task.id, party, role="host" if party == "bank" else "collaborator")
            client.start(task.id)
        with hub.client() as owner:
            body = {"url": boss.url, "secret": "sixteen letters.."}
            owner.put("/api/users/me/endpoint", json=body).raise_for_status()

        train(hub, task.id, 1, 2)
        until_told(hub, task.id, ("UPDATE_ROUND_START", 3))
        hub.kill()
        hub.start()
        train(hub, task.id, 3)
        redis_server.stop()
        train(hub, task.id, 4, 5)
        redis_server.start()
        train(hub, task.id, 6)
        heard = until_told(hub, task.id, ("TRAINING_FINISHED", ROUNDS))
        deadline = time.monotonic() + 20
        while boss.types() != ["TRAINING_FINISHED"]:
            assert time.monotonic() < deadline, boss.types()
            time.sleep(0.05)

    assert max(Counter(heard).values()) == 1
    tests = [each for each in heard if each[0] == "MODEL_TEST_ROUND"]
    assert tests == [("MODEL_TEST_ROUND", round) for round in range(1, ROUNDS + 1)]

"""Schemathesis reads the OpenAPI document and tries to make the hub fail.

HETEROFED_FUZZ=500 tries 500 requests of each route instead of a few, HETEROFED_FUZZ_DATABASE=postgresql://… elsewhere
than in SQLite.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings

from heterofed.hub import api
from tests.hub.running import RunningHub, running_hub

TRIES = int(os.environ.get("HETEROFED_FUZZ", "8"))
STREAM = "/api/notifications/stream"
"""It has no end, so test_serving.py reads it."""


KNOWN: dict[str, list[Any]] = {"key": ["h", "c"], "name": ["loss", "a.bin", "bank"], "number": [10**6]}
_chance = random.Random(1)

_app = FastAPI()
_app.include_router(api.router)
schema = schemathesis.openapi.from_dict(_app.openapi()).exclude(path=STREAM)


@schema.hook
def map_path_parameters(_: object, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Let most requests be about tasks, parties and users that there are."""
    if path_parameters is None:
        return None
    for name in path_parameters:
        if name in KNOWN and _chance.random() < 0.8:
            path_parameters[name] = _chance.choice(KNOWN[name])
    return path_parameters


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder = tmp_path_factory.mktemp("hub")
    database = os.environ.get("HETEROFED_FUZZ_DATABASE", str(folder / "hub.db"))
    with running_hub(folder, database=database, requests_per_minute=10_000_000) as running:
        tasks = [running.hub.create_task(running.owner, name, ["h", "c"], rounds=3) for name in ("one", "two")]
        for key, role in (("h", "host"), ("c", "collaborator")):
            running.hub.set_party(running.owner, tasks[0].id, key, role="host" if role == "host" else "collaborator")
        running.hub.start(running.owner, tasks[0].id)
        running.hub.make_user(running.owner, "bank", "party")
        KNOWN["task_id"] = [task.id for task in tasks]
        yield running


@schema.parametrize()
@settings(
    max_examples=TRIES,
    deadline=None,
    derandomize=TRIES < 100,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_hub_fail(case: schemathesis.Case[Any], hub: RunningHub) -> None:
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = case.call(base_url=hub.url, headers=headers, timeout=10)

    assert answer.status_code < 500, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.json().keys() == {"error", "message", "advice"}

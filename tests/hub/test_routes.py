"""Who may call which route: one table of all routes and everybody who may come by."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from heterofed.hub import accounts
from heterofed.hub.access import Actor
from heterofed.hub.app import create_app
from heterofed.hub.schema import token_table
from heterofed.hub.settings import HubSettings
from heterofed.tasks.course import Measurement
from tests.hub.running import RunningHub, running_hub

ACTORS = ("outsider", "foreigner", "viewer", "other", "itself", "owner", "admin")
"""Beside those without a token that works: an owner of other tasks, a party of another task, a viewer of this task,
another party of it, the party of the path, who is its host, the task's owner, and who is in charge of the hub."""

ALL = frozenset(ACTORS)
MEMBERS = frozenset({"viewer", "other", "itself", "owner", "admin"})
OWNERS = frozenset({"owner", "admin"})
ITSELF = frozenset({"itself"})
MAKERS = frozenset({"outsider", "owner", "admin"})

KEY = "h" * 40
LAUNCH = {"status": "GATHERING"}
ROW = {"set": "loss", "row": 1, "round": 1, "values": {"loss": 0.5}}


@dataclass(frozen=True)
class Row:
    """One route: what is sent, what those get who may, and who they are; everybody else gets 403."""

    method: str
    path: str
    status: int
    who: frozenset[str]
    body: Mapping[str, object] | None = None


TASK, PARTY = "/api/tasks/{task_id}", "/api/tasks/{task_id}/parties/{key}"
ROUTES = [
    Row("POST", "/api/tasks", 201, MAKERS, {"name": "new", "parties": ["a", "b"]}),
    Row("GET", "/api/tasks", 200, ALL),
    Row("GET", TASK, 200, MEMBERS),
    Row("POST", TASK + "/start", 202, OWNERS),
    Row("POST", TASK + "/cancel", 200, OWNERS | ITSELF, {"reason": "no"}),
    Row("PUT", TASK + "/status", 200, ITSELF, LAUNCH),
    Row("GET", TASK + "/log", 200, MEMBERS),
    Row("GET", TASK + "/events", 200, MEMBERS),
    Row("GET", TASK + "/metrics", 200, MEMBERS),
    Row("GET", TASK + "/outputs", 200, MEMBERS),
    Row("GET", TASK + "/members", 200, OWNERS),
    Row("PATCH", PARTY, 200, ITSELF, {"reason": "because"}),
    Row("PUT", PARTY + "/trust", 200, ITSELF | OWNERS, {"public_key": KEY}),
    Row("POST", PARTY + "/verification", 200, ITSELF, {"verified": True}),
    Row("POST", PARTY + "/invitation", 201, OWNERS),
    Row("PUT", PARTY + "/member", 200, OWNERS, {"user": "olga"}),
    Row("DELETE", PARTY + "/member", 200, OWNERS),
    Row("POST", PARTY + "/log", 204, ITSELF, {"text": "hello"}),
    Row("POST", PARTY + "/reports", 201, ITSELF, {"kind": "ROUND_FINISHED", "round": 1}),
    Row("POST", PARTY + "/beginning", 200, ITSELF, {"launch": "one"}),
    Row("POST", PARTY + "/metrics", 200, ITSELF, {"rows": [ROW]}),
    Row("GET", PARTY + "/metrics/{name}.csv", 200, MEMBERS),
    Row("PUT", PARTY + "/outputs/{name}", 204, ITSELF, {"any": "bytes"}),
    Row("GET", PARTY + "/outputs/{name}", 200, OWNERS | ITSELF),
    Row("GET", "/api/users/me", 200, ALL),
    Row("PUT", "/api/users/me/endpoint", 200, ALL, {"url": None}),
    Row("GET", "/api/users", 200, MAKERS),
    Row("POST", "/api/users", 201, MAKERS, {"name": "new-{count}", "role": "party"}),
    Row("POST", "/api/users/{user}/tokens", 201, OWNERS | ITSELF, {}),
    Row("DELETE", "/api/tokens/{number}", 204, OWNERS | ITSELF),
    Row("GET", "/api/audit", 200, frozenset({"admin"})),
    Row("GET", "/api/notifications", 200, ALL),
    Row("GET", "/api/notifications/stream", 200, ALL),
]
OPEN = {("GET", "/healthz")}
"""Routes without a token."""


class World:
    """A hub with everybody, who make a fresh task for each request."""

    def __init__(self, running: RunningHub, client: httpx.Client) -> None:
        self.running, self.hub, self.client = running, running.hub, client
        self.count = itertools.count()
        self.owner = self._user("olga", "owner", running.owner)
        self._host = self._user("hana", "party", self.owner)
        outsider = self._user("otto", "owner", running.owner)
        self._user("vera", "viewer", self.owner)
        foreign = self.hub.create_task(outsider, "another", ["h", "c"])
        expired = self.hub.make_token(self.owner, "hana", lives_for=timedelta(seconds=9))
        revoked = self.hub.make_token(self.owner, "hana")
        self.hub.revoke_token(self.owner, revoked.id)
        with self.hub.store.transaction(write=True) as connection:
            old = token_table.update().where(token_table.c.id == expired.id)
            connection.execute(old.values(expires_at=1.0))
        self.tokens = {
            "nobody": "",
            "a guess": "hub_" + "x" * 43,
            "expired": expired.token,
            "revoked": revoked.token,
            "outsider": self._token("otto"),
            "foreigner": running.make_party_token(foreign.id, "h"),
            "viewer": self._token("vera"),
            "itself": self._token("hana"),
            "owner": self._token("olga"),
            "admin": running.token,
        }
        self.shared = self._make_task()
        self.hub.put_metrics(self._host, self.shared, "h", [Measurement("loss", 0, 1, {"loss": 1.0})])
        self.hub.put_output(self._host, self.shared, "h", "loss", b"bytes")

    def _token(self, name: str) -> str:
        return self.hub.local_token(name, None, None, "test").token

    def _user(self, name: str, role: str, by: Actor) -> Actor:
        self.hub.make_user(by, name, role)
        return self.hub.authenticate(self._token(name))

    def _make_task(self) -> str:
        task = self.hub.create_task(self.owner, "t", ["h", "c"])
        self.hub.set_member(self.owner, task.id, "h", "hana")
        self.hub.add_viewer(self.owner, task.id, "vera")
        self.hub.set_party(self._host, task.id, "h", role="host")
        return task.id

    def ask(self, row: Row, who: str) -> tuple[int, dict[str, str], str]:
        """Make the request of a row, on a task of its own if it may change it; return status, headers and error."""
        changes = row.method != "GET" and who in ACTORS and "{" in row.path
        task_id = self._make_task() if changes else self.shared
        if row.path.endswith("/reports") and changes:
            self.hub.start(self.owner, task_id)
        number = self.hub.make_token(self.owner, "hana").id if "{number}" in row.path else 0
        token = self.running.make_party_token(task_id, "c") if who == "other" else self.tokens[who]
        path = row.path.format(task_id=task_id, key="h", name="loss", user="hana", number=number)
        body = {
            name: value.format(count=next(self.count)) if isinstance(value, str) else value
            for name, value in (row.body or {}).items()
        }
        sent = body if row.body is not None else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self.client.stream(row.method, path, json=sent, headers=headers) as answer:
            failed = answer.status_code >= 400 and json_of(answer.read())
            return answer.status_code, dict(answer.headers), failed["error"] if failed else ""


def json_of(content: bytes) -> dict[str, str]:
    read: dict[str, str] = json.loads(content)
    return read


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hub")
    with (
        running_hub(folder, requests_per_minute=100_000, strangers_per_minute=100_000) as running,
        running.client("") as client,
    ):
        yield World(running, client)


def name_of(row: Row) -> str:
    return f"{row.method} {row.path}"


@pytest.mark.parametrize("row", ROUTES, ids=name_of)
def test_without_a_token_that_works_every_route_is_refused(world: World, row: Row) -> None:
    for who in ("nobody", "a guess", "expired", "revoked"):
        status, headers, error = world.ask(row, who)

        assert (status, error, headers["www-authenticate"]) == (401, "NotAllowed", "Bearer"), who


@pytest.mark.parametrize("row", ROUTES, ids=name_of)
def test_a_route_lets_in_those_of_the_table_and_nobody_else(world: World, row: Row) -> None:
    """Item 56 (and its kin): a stranger to the task gets 403."""
    answers = {who: world.ask(row, who) for who in ACTORS}

    assert {who: status for who, (status, _, _) in answers.items()} == {
        who: row.status if who in row.who else 403 for who in ACTORS
    }
    assert {error for status, _, error in answers.values() if status == 403} <= {"NotAllowed"}


def test_every_route_of_the_hub_is_in_the_table(world: World) -> None:
    paths = world.client.get("/openapi.json").json()["paths"]
    there = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    told = {(row.method, row.path.replace("{user}", "{name}")) for row in ROUTES}

    assert there == told | OPEN


def test_there_is_no_route_that_the_document_does_not_show(home: object) -> None:
    app: FastAPI = create_app(HubSettings(), page=False)
    shown = app.openapi()["paths"]
    hidden = {path for each in app.routes if (path := getattr(each, "path", "")) not in shown}

    assert hidden <= {"/openapi.json", "/", ""}


def test_a_token_is_stored_as_its_hash_alone(world: World) -> None:
    token = world.tokens["owner"]
    with world.hub.store.transaction() as connection:
        rows = connection.execute(token_table.select()).all()

    assert accounts.digest(token) in {row.sha256 for row in rows}
    assert not [row for row in rows if token in map(str, row)]

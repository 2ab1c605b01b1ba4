"""The REST interface: what is sent, what comes back, and what is refused."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heterofed.metrics.tables import MetricsTable
from heterofed.tasks.course import Measurement
from heterofed.tasks.forms import measurement_form
from tests.hub.running import RunningHub, running_hub


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def hub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder = tmp_path_factory.mktemp("hub")
    database = str(folder / "hub.db")
    if request.param == "postgresql":
        database = request.getfixturevalue("postgresql").new_database().replace("+psycopg", "")
    with running_hub(folder, requests_per_minute=100_000, database=database) as running:
        yield running


@pytest.fixture
def client(hub: RunningHub) -> Iterator[httpx.Client]:
    with hub.client() as made:
        yield made


def create(client: httpx.Client, **more: object) -> str:
    answer = client.post("/api/tasks", json={"name": "t", "parties": ["h", "c"], **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def launch(client: httpx.Client, **more: object) -> str:
    """A task whose parties have come in."""
    task_id = create(client, **more)
    for key, role in (("h", "host"), ("c", "collaborator")):
        client.patch(f"/api/tasks/{task_id}/parties/{key}", json={"role": role}).raise_for_status()
    assert client.post(f"/api/tasks/{task_id}/start").status_code == 202
    return task_id


def report(client: httpx.Client, task_id: str, key: str, kind: str, round: int, **body: object) -> httpx.Response:
    form = {"kind": kind, "round": round, "body": body}
    return client.post(f"/api/tasks/{task_id}/parties/{key}/reports", json=form)


def test_a_task_is_created_as_it_was_asked_for_and_listed(client: httpx.Client) -> None:
    """Item 57."""
    options = {"skip_model_tests": True, "delete_local_models_after_aggregation": False}
    task_id = create(client, rounds=7, lives_for_s=3600, options=options)

    task = client.get(f"/api/tasks/{task_id}").json()

    assert (task["rounds"], task["round"], task["status"], task["launched_at"]) == (7, 0, "CREATED", None)
    assert task["options"] == {
        "skip_model_tests": True,
        "model_test_after_each_round": True,
        "delete_local_models_after_aggregation": False,
    }
    assert [each["feature_key"] for each in task["parties"]] == ["h", "c"]
    assert task["expires_at"] > task["created_at"]
    assert client.get("/api/tasks").json()["tasks"][0] == task


def test_what_is_absent_stays_and_null_clears(client: httpx.Client) -> None:
    path = f"/api/tasks/{create(client)}/parties/h"
    client.patch(path, json={"role": "host", "endpoint": "tcp://h.example:7", "public_key": "k" * 40, "reason": "up"})

    party = client.patch(path, json={"endpoint": None, "status": "ONLINE"}).json()["parties"][0]

    assert (party["role"], party["public_key"], party["reason"]) == ("host", "k" * 40, "up")
    assert (party["endpoint"], party["status"]) == (None, "ONLINE")
    assert client.patch(path, json={"status": None}).status_code == 400


def test_a_report_counts_once(client: httpx.Client) -> None:
    """Item 56: a duplicate is refused, and nothing happens twice."""
    task_id = launch(client)

    first = [report(client, task_id, key, "ROUND_FINISHED", 1, loss=0.5) for key in ("h", "c")]
    again = report(client, task_id, "c", "ROUND_FINISHED", 1, loss=0.4)
    events = client.get(f"/api/tasks/{task_id}/events").json()["events"]

    assert [each.status_code for each in first] == [201, 201]
    assert again.status_code == 409
    assert again.json()["message"] == f"c reported ROUND_FINISHED of round 1 of task {task_id} before."
    told = [(each["party"], each["body"]) for each in events if each["kind"] == "ROUND_FINISHED"]
    assert told == [("h", {"loss": 0.5}), ("c", {"loss": 0.5})]


def test_a_report_of_a_round_or_of_a_state_that_cannot_be_is_refused(client: httpx.Client) -> None:
    """Item 56: wrong state and wrong round are 400, and leave nothing behind."""
    not_launched, running, cancelled = create(client), launch(client, rounds=3), launch(client)
    client.post(f"/api/tasks/{cancelled}/cancel", json={"reason": "no"}).raise_for_status()

    refused = [
        report(client, not_launched, "h", "ROUND_FINISHED", 1),
        report(client, running, "h", "ROUND_FINISHED", 0),
        report(client, running, "h", "ROUND_FINISHED", 4),
        report(client, running, "c", "TEST_FINISHED", 1),
        report(client, running, "h", "PARTY_LOST", 1, party="nobody"),
        report(client, cancelled, "h", "ROUND_FINISHED", 1),
    ]

    assert [each.status_code for each in refused] == [400] * 6
    assert {each.json()["error"] for each in refused} == {"ConfigError"}
    assert report(client, running, "h", "ROUND_FINISHED", 1).status_code == 201
    kinds = [each["kind"] for each in client.get(f"/api/tasks/{running}/events").json()["events"]]
    assert (kinds.count("ROUND_FINISHED"), kinds.count("PARTY_LOST")) == (1, 0)


def test_a_task_is_launched_once(client: httpx.Client) -> None:
    task_id = launch(client)

    answer = client.post(f"/api/tasks/{task_id}/start")

    assert answer.status_code == 400
    assert "is launched already" in answer.json()["message"]


def rows_of(table: MetricsTable) -> list[dict[str, Any]]:
    rows = enumerate(table.trace())
    return [measurement_form(Measurement("scores", place, place + 1, values)) for place, values in rows]


def test_a_table_is_downloaded_as_the_bytes_of_the_partys_own_file(client: httpx.Client, tmp_path: Path) -> None:
    table = MetricsTable(["loss", "accuracy", "note", "best"])
    values = [0.1 + 0.2, math.nan, math.inf, -math.inf, 1e-320, 3]
    for number, loss in enumerate(values):
        note = ["plain", 'with "quotes", commas', "two\nlines", "ünïcödé 数", "", None][number]
        table.append_metrics_item({"loss": loss, "accuracy": number / 7, "note": note, "best": number % 2 == 0})
    table.to_csv(tmp_path / "scores.csv")
    task_id = create(client)
    path = f"/api/tasks/{task_id}/parties/c/metrics"
    rows = rows_of(table)

    # Out of order, and partly twice: rows travel as the network lets them.
    new = [client.post(path, json={"rows": part}).json()["new"] for part in (rows[3:], rows[:4], rows)]
    answer = client.get(f"{path}/scores.csv")

    assert new == [3, 3, 0]
    assert answer.content == (tmp_path / "scores.csv").read_bytes()
    assert len(list(csv.reader(answer.text.splitlines(keepends=True)))) == len(values) + 1
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="scores.csv"'


def test_metrics_are_read_on_behind_the_last_one(client: httpx.Client) -> None:
    task_id = create(client)
    rows = [{"set": "loss", "row": number, "round": number, "values": {"loss": number / 3}} for number in range(7)]
    client.post(f"/api/tasks/{task_id}/parties/h/metrics", json={"rows": rows}).raise_for_status()

    first = client.get(f"/api/tasks/{task_id}/metrics", params={"limit": 4}).json()
    after = first["metrics"][-1]["number"]
    rest = client.get(f"/api/tasks/{task_id}/metrics", params={"after": after, "limit": 4}).json()

    assert (len(first["metrics"]), first["more"]) == (4, True)
    assert (len(rest["metrics"]), rest["more"]) == (3, False)
    got = first["metrics"] + rest["metrics"]
    assert [each["values"]["loss"] for each in got] == [number / 3 for number in range(7)]
    assert {each["party"] for each in got} == {"h"}


def test_a_file_is_replaced_and_listed_with_its_digest(client: httpx.Client) -> None:
    task_id = create(client)
    path = f"/api/tasks/{task_id}/parties/h/outputs/report.zip"
    for content in (b"first", bytes(range(256)) * 100):
        assert client.put(path, content=content).status_code == 204

    (listed,) = client.get(f"/api/tasks/{task_id}/outputs").json()["outputs"]

    assert client.get(path).content == bytes(range(256)) * 100
    assert (listed["party"], listed["name"], listed["size"]) == ("h", "report.zip", 25_600)
    assert client.get(path).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "x" * 121, "a\\b", 'a".zip', "a\r\nb"])
def test_a_file_that_could_not_be_a_plain_name_anywhere_is_refused(client: httpx.Client, name: str) -> None:
    from urllib.parse import quote

    task_id = create(client)
    answer = client.put(f"/api/tasks/{task_id}/parties/h/outputs/{quote(name, safe='')}", content=b"x")

    assert 400 <= answer.status_code < 500
    assert client.get(f"/api/tasks/{task_id}/outputs").json() == {"outputs": []}


def test_the_log_keeps_what_parties_say(client: httpx.Client) -> None:
    task_id = create(client)
    for text in ("one", "two\x00", "three"):
        assert client.post(f"/api/tasks/{task_id}/parties/c/log", json={"text": text}).status_code == 204

    lines = client.get(f"/api/tasks/{task_id}/log", params={"limit": 2}).json()["log"]

    assert [(each["party"], each["text"]) for each in lines] == [("c", "two\N{REPLACEMENT CHARACTER}"), ("c", "three")]


WRONG = [
    ("GET", "/api/tasks/nothing", None, 404, "UnknownTask"),
    ("GET", "/api/tasks/%00", None, 404, "UnknownTask"),
    ("GET", "/api/tasks/" + "x" * 101, None, 400, "ConfigError"),
    ("GET", "/api/nothing", None, 404, "ConfigError"),
    ("PUT", "/api/tasks", None, 405, "ConfigError"),
    ("POST", "/api/tasks", {"name": "t"}, 400, "ConfigError"),
    ("POST", "/api/tasks", {"name": "t", "parties": ["h", "h"]}, 400, "ConfigError"),
    ("POST", "/api/tasks", {"name": "t", "parties": ["h", "c"], "code": "import os"}, 400, "ConfigError"),
    ("POST", "/api/tasks", {"name": "t", "parties": ["h", "c"], "rounds": 0}, 400, "ConfigError"),
    ("POST", "/api/tasks", {"name": "t", "parties": ["h", "c"], "rounds": "3"}, 400, "ConfigError"),
    ("POST", "/api/tasks", {"name": "\x00", "parties": ["h", "c"]}, 400, "ConfigError"),
    ("GET", "/api/notifications?after=99999999999999999999", None, 400, "ConfigError"),
    ("GET", "/api/notifications?after=-1", None, 400, "ConfigError"),
    ("DELETE", "/api/tokens/99999999999999999999", None, 400, "ConfigError"),
    ("POST", "/api/users/nobody/tokens", {}, 400, "ConfigError"),
    ("POST", "/api/users", {"name": "\ud800", "role": "party"}, 400, "ConfigError"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "error"), WRONG)
def test_what_is_wrong_is_named_and_never_an_accident_of_ours(
    client: httpx.Client, method: str, path: str, body: dict[str, object] | None, status: int, error: str
) -> None:
    import json

    headers = {"Content-Type": "application/json"}
    answer = client.request(method, path, content=None if body is None else json.dumps(body), headers=headers)

    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.json().keys() == {"error", "message", "advice"}
    assert answer.json()["message"].endswith(".")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"name": NaN}', b"9" * 10_000],
    ids=["nothing", "half", "a list", "null", "a text", "no text", "deep", "NaN", "a long number"],
)
def test_a_body_that_is_no_request_is_a_400(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/api/tasks", content=content, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["error"]) == (400, "ConfigError")


def test_an_error_does_not_repeat_what_was_sent(client: httpx.Client) -> None:
    answer = client.put("/api/users/me/endpoint", json={"url": "https://b.example", "secret": {"my secret": 1}})

    assert answer.status_code == 400
    assert "my secret" not in answer.text


def test_the_document_has_no_page_that_loads_scripts_from_elsewhere(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    assert client.get("/api/docs").status_code == 404
    assert client.get("/openapi.json").json()["openapi"].startswith("3.")


def test_an_invitation_names_the_hub_as_it_was_reached(hub: RunningHub, client: httpx.Client) -> None:
    from heterofed.tasks.invitation import Invitation

    answer = client.post(f"/api/tasks/{create(client)}/parties/c/invitation")

    assert Invitation.parse(answer.json()["invitation"]).hub == hub.url


def test_a_run_that_begins_again_is_listened_to_again(client: httpx.Client) -> None:
    task_id = launch(client, rounds=5, uncertainty="swag")
    party = f"/api/tasks/{task_id}/parties/h"
    row = measurement_form(Measurement("scores", 0, 1, {"auc": 0.5}))
    assert client.get(f"/api/tasks/{task_id}").json()["uncertainty"] == "swag"
    assert report(client, task_id, "h", "ROUND_FINISHED", 1).status_code == 201
    client.post(f"{party}/metrics", json={"rows": [row]}).raise_for_status()
    [old] = client.get(f"/api/tasks/{task_id}/metrics").json()["metrics"]
    assert report(client, task_id, "h", "ROUND_FINISHED", 1).status_code == 409

    assert client.post(f"{party}/beginning", json={"launch": "second"}).json() == {"anew": True}

    assert client.get(f"/api/tasks/{task_id}").json()["round"] == 0
    assert report(client, task_id, "h", "ROUND_FINISHED", 1).status_code == 201
    assert client.post(f"{party}/metrics", json={"rows": [row]}).json() == {"new": 1}
    [fresh] = client.get(f"/api/tasks/{task_id}/metrics", params={"after": old["number"]}).json()["metrics"]
    assert fresh["number"] > old["number"]
    assert client.post(f"{party}/beginning", json={"launch": "second"}).json() == {"anew": False}
    assert client.get(f"/api/tasks/{task_id}").json()["round"] == 1
    for body in ({"launch": "a b"}, {"launch": ""}, {"launch": None}, {}):
        assert client.post(f"{party}/beginning", json=body).status_code in (400, 422), body


def test_a_method_that_there_is_not_is_refused(client: httpx.Client) -> None:
    answer = client.post("/api/tasks", json={"name": "t", "parties": ["h", "c"], "uncertainty": "guess"})

    assert answer.status_code in (400, 422)

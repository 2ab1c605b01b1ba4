"""What a hub takes from whom: sizes, rates, and writes from other sites' pages."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from heterofed.hub.access import cookie_name
from heterofed.hub.limits import Guard, Rate, Streams, TooManyRequests
from heterofed.hub.settings import HubSettings
from tests.hub.running import RunningHub, running_hub

SMALL: dict[str, Any] = {"max_upload_bytes": 1000, "max_task_bytes": 1500, "max_body_bytes": 2000}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with running_hub(tmp_path, **SMALL) as running:
        yield running


def make_task(running: RunningHub) -> str:
    return running.hub.create_task(running.owner, "t", ["h", "c"]).id


def output(task_id: str, name: str = "a.bin") -> str:
    return f"/api/tasks/{task_id}/parties/h/outputs/{name}"


def test_a_file_of_the_largest_size_is_taken_and_given_back(hub: RunningHub) -> None:
    with hub.client() as client:
        path = output(make_task(hub))
        assert client.put(path, content=b"x" * 1000).status_code == 204
        answer = client.get(path)

    assert answer.content == b"x" * 1000
    assert answer.headers["content-disposition"] == 'attachment; filename="a.bin"'


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(hub: RunningHub) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    head = f"PUT {output(make_task(hub))} HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"

    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(head.encode())  # and nothing of the file
        answer = b"".join(iter(lambda: raw.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(
        b'{"error":"ConfigError","message":"a body of more than 1000 bytes is too large.","advice":null}'
    )


def test_a_file_that_does_not_say_how_large_it_is_is_refused_where_the_limit_is(hub: RunningHub) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    task_id = make_task(hub)
    with hub.client() as client:
        answer = client.put(output(task_id), content=body())

    assert answer.status_code == 413
    assert answer.json()["error"] == "ConfigError"
    assert hub.hub.outputs(hub.owner, task_id) == ()


def test_any_other_body_has_a_smaller_limit(hub: RunningHub) -> None:
    with hub.client() as client:
        fits = client.post("/api/tasks", json={"name": "n", "parties": ["h", "c"]})
        too_large = client.post("/api/tasks", json={"name": "n" * 2000, "parties": ["h", "c"]})

    assert (fits.status_code, too_large.status_code) == (201, 413)


def test_the_files_of_a_task_have_a_limit_together(hub: RunningHub) -> None:
    with hub.client() as client:
        task_id = make_task(hub)
        first = client.put(output(task_id, "a"), content=b"x" * 1000)
        replaced = client.put(output(task_id, "a"), content=b"y" * 1000)
        second = client.put(output(task_id, "b"), content=b"x" * 501)

    assert (first.status_code, replaced.status_code, second.status_code) == (204, 204, 400)
    assert "are too many; expected at most 1500 bytes together" in second.json()["message"]


def test_a_token_that_asks_too_often_has_to_wait_and_others_do_not(tmp_path: Path) -> None:
    with running_hub(tmp_path, requests_per_minute=5) as running, running.client() as client:
        statuses = [client.get("/api/users/me").status_code for _ in range(6)]
        last = client.get("/api/users/me")
        other = client.get("/api/users/me", headers={"Authorization": f"Bearer {running.user_token('vera')}"})

    assert statuses == [200] * 5 + [429]
    assert last.json()["error"] == "NotAllowed"
    assert 1 <= int(last.headers["retry-after"]) <= 12
    assert other.status_code == 200


def test_an_address_that_guesses_tokens_has_to_wait_and_a_good_token_from_there_does_not(tmp_path: Path) -> None:
    with running_hub(tmp_path, strangers_per_minute=3) as running, running.client("") as client:
        guesses = [
            client.get("/api/users/me", headers={"Authorization": f"Bearer hub_{number}"}).status_code
            for number in range(5)
        ]
        good = client.get("/api/users/me", headers={"Authorization": f"Bearer {running.token}"})

    assert guesses == [401] * 3 + [429] * 2
    assert good.status_code == 200


def test_a_rate_fills_up_again_with_time() -> None:
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    for _ in range(60):
        rate.take("a")
    with pytest.raises(TooManyRequests) as caught:
        rate.take("a")

    assert caught.value.wait_s == 1
    now[0] = 1.01
    rate.take("a")
    rate.take("b")
    with pytest.raises(TooManyRequests):
        rate.take("a")


def test_a_rate_forgets_those_who_come_no_more() -> None:
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    for key in range(25_000):
        now[0] += 0.01
        rate.take(key)

    assert len(rate._left) <= 10_000


def test_a_user_may_hold_some_streams_open_and_no_more() -> None:
    streams = Streams(2)
    first, second = streams.enter(1), streams.enter(1)
    other = streams.enter(2)
    with pytest.raises(TooManyRequests):
        streams.enter(1)

    del first
    gc.collect()

    assert streams.enter(1) is not None
    assert (second, other) != (None, None)


def session_of(running: RunningHub) -> dict[str, str]:
    made = running.hub.login(running.token)
    return {"Cookie": f"{cookie_name(running.hub.settings)}={made.token}"}


NEW = {"name": "n", "parties": ["h", "c"]}


def test_a_browsers_session_reads_from_anywhere(hub: RunningHub) -> None:
    with hub.client("") as client:
        answer = client.get("/api/tasks", headers=session_of(hub))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "said",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Referer": "https://evil.example/x"}],
    ids=["nothing", "another origin", "no origin", "another page"],
)
def test_another_sites_page_cannot_write_with_a_browsers_session(hub: RunningHub, said: dict[str, str]) -> None:
    with hub.client("") as client:
        answer = client.post("/api/tasks", json=NEW, headers=session_of(hub) | said)

    assert answer.status_code == 403
    assert "a page of another site made this request" in answer.json()["message"]
    assert hub.hub.tasks(hub.owner) == ()


@pytest.mark.parametrize("header", ["Origin", "Referer"])
def test_the_hubs_own_page_may_write_with_a_browsers_session(hub: RunningHub, header: str) -> None:
    with hub.client("") as client:
        answer = client.post("/api/tasks", json=NEW, headers=session_of(hub) | {header: hub.url})

    assert answer.status_code == 201


def test_behind_a_proxy_that_calls_the_hub_by_another_name_the_page_may_write_still(tmp_path: Path) -> None:
    with running_hub(tmp_path, public_url="https://hub.example") as hub, hub.client("") as client:
        cookie = session_of(hub)
        own = client.post("/api/tasks", json=NEW, headers=cookie | {"Origin": "https://hub.example"})
        other = client.post("/api/tasks", json=NEW, headers=cookie | {"Origin": "https://evil.example"})

    assert (own.status_code, other.status_code) == (201, 403)


@pytest.mark.parametrize("origin", ["not a url", "https://[", "//", "https://"])
def test_an_origin_that_is_none_is_not_ours(hub: RunningHub, origin: str) -> None:
    with hub.client("") as client:
        answer = client.post("/api/tasks", json=NEW, headers=session_of(hub) | {"Origin": origin})

    assert answer.status_code == 403


def test_a_session_ends_with_its_logout_and_the_token_behind_it_does_not(hub: RunningHub) -> None:
    cookie = session_of(hub)
    token = cookie["Cookie"].partition("=")[2]
    hub.hub.logout(hub.hub.authenticate(token))

    with hub.client("") as client:
        answer = client.get("/api/tasks", headers=cookie)
        hub.hub.logout(hub.owner)  # is no session
        still = client.get("/api/tasks", headers={"Authorization": f"Bearer {hub.token}"})

    assert (answer.status_code, still.status_code) == (401, 200)


def test_every_answer_tells_browsers_to_be_careful(hub: RunningHub) -> None:
    with hub.client() as client:
        for path in ("/api/tasks", "/api/nothing", "/healthz", "/openapi.json"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["x-frame-options"] == "DENY", path
            assert headers["referrer-policy"] == "no-referrer", path
        assert "default-src 'none'" in client.get("/api/tasks").headers["content-security-policy"]
        assert client.get("/api/tasks").headers["cache-control"] == "no-store"
        assert "server" not in client.get("/api/tasks").headers


@pytest.mark.parametrize(
    ("origin", "let_in"), [("http://hub.example:8080", True), ("http://evil.example", False), (None, True)]
)
def test_another_sites_page_cannot_open_a_websocket(home: Path, origin: str | None, let_in: bool) -> None:
    reached = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    async def connect() -> None:
        headers = [(b"host", b"hub.example:8080")]
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        scope = {"type": "websocket", "path": "/", "headers": headers}
        await Guard(page, HubSettings())(scope, receive_nothing, said.append_message)

    said = Said()
    asyncio.run(connect())

    assert reached == (["websocket"] if let_in else [])
    assert [each["type"] for each in said.messages] == ([] if let_in else ["websocket.close"])


class Said:
    """Keeps what a connection is told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def append_message(self, message: Message) -> None:
        self.messages.append(message)


async def receive_nothing() -> Message:
    return {"type": "websocket.connect"}

"""Who gets in to the pages, asked of the door itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from heterofed.errors import HeterofedError, NotAllowed, OutputError
from heterofed.hub.access import Actor, cookie_name
from heterofed.hub.limits import Rate
from heterofed.hub.page.mounting import Door
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings

SETTINGS = HubSettings(database="unused")
COOKIE = f"{cookie_name(SETTINGS)}=token"


class FakeHub:
    """Knows one token, or is in trouble."""

    def __init__(self, error: HeterofedError | None = None) -> None:
        self.error = error

    def authenticate(self, token: str, address: str | None = None) -> Actor:
        if self.error is not None:
            raise self.error
        return Actor(user="owner", user_id=1, role="owner", token_id=1)


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for NiceGUI."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@dataclass
class Gate:
    """A door and the limits of its application."""

    error: HeterofedError | None = None
    limits: Any = field(default_factory=lambda: SimpleNamespace(requests=Rate(3), strangers=Rate(3)))

    def ask(self, path: str = "/", kind: str = "http", **headers: str) -> list[Message]:
        """Return what the door answers."""
        door = Door(inside, cast(Hub, FakeHub(self.error)), SETTINGS)
        answers: list[Message] = []

        async def send(message: Message) -> None:
            answers.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope = {
            "type": kind,
            "path": path,
            "query_string": b"",
            "method": "GET",
            "scheme": "http",
            "server": ("hub", 8080),
            "headers": [(name.encode(), value.encode()) for name, value in {"host": "hub:8080", **headers}.items()],
            "client": ("10.0.0.1", 1),
            "app": SimpleNamespace(state=self.limits),
        }
        asyncio.run(door(scope, receive, send))
        return answers


def test_who_has_a_token_comes_in_under_the_policy() -> None:
    start, body = Gate().ask(cookie=COOKIE)

    assert body["body"] == b"inside"
    headers = dict(start["headers"])
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert b"default-src 'none'" in headers[b"content-security-policy"]


def test_who_has_none_is_sent_to_the_login_and_a_socket_is_closed() -> None:
    assert dict(Gate().ask("/tasks/abc")[0]["headers"])[b"location"] == b"/login?next=/tasks/abc"
    assert Gate().ask("/_nicegui_ws/socket.io/", "websocket")[0] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "",
    }
    assert Gate().ask("/_nicegui_ws/socket.io/")[0]["status"] == 403


def test_published_scripts_and_styles_need_no_token() -> None:
    assert Gate().ask("/_nicegui/3.0/static/nicegui.js")[0]["status"] == 200


@pytest.mark.parametrize("path", ["/_nicegui_ws/", "/_hubx", "/_nicegui", "/x/_nicegui/"])
def test_a_path_that_only_looks_like_those_does(path: str) -> None:
    assert Gate().ask(path)[0]["status"] in (303, 403)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_page_of_another_site_comes_in_with_no_cookie(kind: str) -> None:
    answer = Gate().ask("/_nicegui_ws/socket.io/", kind, cookie=COOKIE, origin="http://evil.example")[0]

    assert answer.get("status", answer.get("code")) in (403, 1008)


def test_a_database_that_fails_is_no_reason_to_log_in_again() -> None:
    start, body = Gate(OutputError("the database is locked")).ask(cookie=COOKIE)

    assert start["status"] == 503
    assert b"the database is locked" in body["body"]
    assert b'http-equiv="refresh"' in body["body"]


def test_too_many_pages_are_refused_for_a_while() -> None:
    one = Gate()

    assert [one.ask(cookie=COOKIE)[0]["status"] for _ in range(5)] == [200, 200, 200, 429, 429]


def test_who_tries_cookies_is_slowed_down() -> None:
    one = Gate(NotAllowed("the hub does not know this token"))

    assert [one.ask(cookie=COOKIE)[0]["status"] for _ in range(5)] == [303, 303, 303, 429, 429]

"""Coming in and going out: the link, the cookie, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from heterofed.errors import NotAllowed
from heterofed.hub.access import cookie_name
from heterofed.hub.app import open_hub
from heterofed.hub.limits import Rate
from heterofed.hub.page.login import Login
from heterofed.hub.serve import bind, make_server
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> HubSettings:
    return HubSettings(database=str(tmp_path_factory.mktemp("hub") / "hub.db"), port=8080)


@pytest.fixture(scope="module")
def hub(settings: HubSettings) -> Hub:
    return open_hub(settings)


@pytest.fixture(scope="module")
def token(hub: Hub) -> str:
    return hub.local_token("owner", None, None, "test").token


@contextmanager
def served(hub: Hub, settings: HubSettings) -> Iterator[httpx.Client]:
    """Serve nothing but the login."""
    app = FastAPI()
    app.state.strangers = Rate(5)
    app.state.closing = threading.Event()
    Login(hub, settings).add_to(app)
    here = HubSettings(port=0, database="unused")
    with bind(here) as taken:
        server = make_server(here, app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.005)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout=10) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def client(hub: Hub, settings: HubSettings) -> Iterator[httpx.Client]:
    with served(hub, settings) as client:
        yield client


def test_the_printed_link_logs_in_with_a_cookie_that_no_script_and_no_other_site_can_use(
    client: httpx.Client, hub: Hub, settings: HubSettings, token: str
) -> None:
    answer = client.get("/login", params={"token": token})

    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # this hub has no TLS
    session = client.cookies[cookie_name(settings)]
    assert session != token
    assert hub.authenticate(session).user == "owner"


def test_with_tls_the_cookie_is_sent_encrypted_only(hub: Hub, token: str, tmp_path: Path) -> None:
    settings = HubSettings(database=str(tmp_path / "hub.db"), public_url="https://hub.example")
    with served(hub, settings) as client:
        assert "secure" in client.get("/login", params={"token": token}).headers["set-cookie"].lower()


def test_a_link_on_another_site_logs_nobody_in(client: httpx.Client, token: str) -> None:
    """Otherwise that site could make somebody work as another user without knowing."""
    answer = client.get("/login", params={"token": token}, headers={"Sec-Fetch-Site": "cross-site"})

    assert "set-cookie" not in answer.headers
    assert 'value="' + token in answer.text  # one press of the button, by somebody who means it


def test_a_pasted_token_or_a_pasted_link_logs_in(client: httpx.Client, token: str) -> None:
    for text in (token, f"  {token}\n", f"http://hub:8080/login?token={token}"):
        assert "set-cookie" in client.post("/login", data={"token": text}).headers


@pytest.mark.parametrize("text", ["wrong", "zwei wörter", "", "x" * 1000])
def test_a_wrong_token_is_refused_with_a_word_on_what_to_do(client: httpx.Client, token: str, text: str) -> None:
    answer = client.post("/login", data={"token": text})

    assert answer.status_code in (400, 403)
    assert 'role="alert"' in answer.text
    assert "token" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_form_of_another_site_is_refused(client: httpx.Client, token: str) -> None:
    answer = client.post("/login", data={"token": token}, headers={"Origin": "http://evil.example"})

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("odd", ["http://[", "null", "\xff", "//", "http://[::1"])
def test_an_origin_that_is_none_is_refused_and_breaks_nothing(client: httpx.Client, token: str, odd: str) -> None:
    headers = {b"Origin": odd.encode("latin-1")}

    assert client.post("/login", data={"token": token}, headers=headers).status_code == 403
    assert client.post("/logout", headers=headers).status_code == 303


@pytest.mark.parametrize("odd", ["//[", "/[", "/tasks/[", "?token=x&token=//[", "http://[?token=abc"])
def test_odd_texts_in_the_form_break_nothing(client: httpx.Client, odd: str) -> None:
    for field in ("token", "next"):
        answer = client.post("/login", data={"token": "guess", field: odd})
        assert answer.status_code in (400, 403, 429)


def test_a_form_that_is_too_long_is_not_read_to_its_end(client: httpx.Client) -> None:
    assert client.post("/login", data={"token": "x" * 10_000}).status_code == 413


def test_who_guesses_tokens_has_to_wait(client: httpx.Client) -> None:
    answers = [client.post("/login", data={"token": f"guess-{number}"}).status_code for number in range(7)]

    assert answers == [403] * 5 + [429] * 2


@pytest.mark.parametrize(
    ("wish", "there"),
    [
        ("/tasks/abc", "/tasks/abc"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ('/"><script>', "/&quot;&gt;&lt;script&gt;"),
    ],
)
def test_after_the_login_one_goes_on_within_the_hub_only(
    client: httpx.Client, token: str, wish: str, there: str
) -> None:
    answer = client.post("/login", data={"token": token, "next": wish})

    assert f'content="0;url={there}"' in answer.text


def test_what_is_shown_again_is_no_html(client: httpx.Client) -> None:
    answer = client.get(
        "/login", params={"token": '"><script>', "next": '/"><script>'}, headers={"Sec-Fetch-Site": "cross-site"}
    )

    assert "<script>" not in answer.text


def test_logging_out_ends_the_session_and_not_the_token(
    client: httpx.Client, hub: Hub, settings: HubSettings, token: str
) -> None:
    client.get("/login", params={"token": token})
    session = client.cookies[cookie_name(settings)]
    answer = client.post("/logout", headers={"Origin": str(client.base_url)})

    assert answer.headers["location"] == "/login"
    with pytest.raises(NotAllowed):
        hub.authenticate(session)
    assert hub.authenticate(token).user == "owner"


def test_another_site_logs_nobody_out(client: httpx.Client, hub: Hub, settings: HubSettings, token: str) -> None:
    client.get("/login", params={"token": token})
    session = client.cookies[cookie_name(settings)]
    client.post("/logout", headers={"Origin": "http://evil.example"})

    assert hub.authenticate(session).user == "owner"


def test_the_login_page_needs_no_script_and_may_not_be_framed(client: httpx.Client) -> None:
    answer = client.get("/login")

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_the_login_page_keeps_the_chosen_theme(client: httpx.Client) -> None:
    assert 'class="plain "' in client.get("/login").text
    client.cookies.set("heterofed_theme", "dark")
    assert 'class="plain body--dark"' in client.get("/login").text
    client.cookies.set("heterofed_theme", '"><script>')
    assert "<script>" not in client.get("/login").text

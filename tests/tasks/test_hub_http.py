"""What the client of a hub does with a line that breaks, a hub that is busy, and answers that are none."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest

from heterofed.errors import ConfigError, HubUnreachable, NotAllowed, UnknownTask
from heterofed.tasks import (
    Measurement,
    Notification,
    ReportKind,
    Task,
    TaskStatus,
)
from heterofed.tasks.client import HubClient
from heterofed.tasks.forms import notification_form, task_form

TOKEN = "secret-token"  # noqa: S105 - of nobody
TASK_ID = "abcdefghjkmn"
TASK = Task(TASK_ID, "t", TaskStatus.CREATED, datetime.now(timezone.utc), None, ())


class Scripted:
    """A hub that gives one prepared answer after the other; the last one again and again."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        # As from a network: not read yet.
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


def client(hub: Scripted, token: str = TOKEN, timeout_s: float = 10.0) -> HubClient:
    return HubClient("http://hub:8080", token, transport=httpx.MockTransport(hub), timeout_s=timeout_s)


def well() -> httpx.Response:
    return httpx.Response(200, json=task_form(TASK))


def no_line() -> Exception:
    return httpx.ConnectError("[Errno 111] Connection refused")


def test_the_token_travels_in_the_header_and_is_shown_nowhere() -> None:
    hub = Scripted(well(), httpx.Response(500))
    tasks = client(hub)
    assert tasks.get(TASK_ID) == TASK
    assert hub.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    with pytest.raises(HubUnreachable) as caught:
        tasks.get(TASK_ID)
    assert TOKEN not in f"{tasks!r} {tasks.where} {caught.value!r} {hub.requests[0].url} {vars(tasks)}"
    assert repr(tasks) == "HubClient('http://hub:8080')"


@pytest.mark.parametrize("trouble", [no_line(), httpx.ReadError("reset"), httpx.Response(503), httpx.Response(502)])
def test_what_passes_is_tried_again(trouble: httpx.Response | Exception) -> None:
    hub = Scripted(trouble, trouble, well())
    assert client(hub).get(TASK_ID) == TASK
    assert len(hub.requests) == 3


def test_a_call_that_must_not_be_made_twice_is_tried_again_only_where_the_hub_cannot_have_acted() -> None:
    for trouble in (no_line(), httpx.Response(429), httpx.Response(503)):
        hub = Scripted(trouble, well())
        client(hub).start(TASK_ID)
        assert len(hub.requests) == 2
    calls: list[Callable[[HubClient], object]] = [
        lambda tasks: tasks.start(TASK_ID),
        lambda tasks: tasks.create("t", ["a", "b"]),
        lambda tasks: tasks.log(TASK_ID, "a", "text"),
    ]
    for trouble in (httpx.ReadError("reset"), httpx.ReadTimeout("x"), httpx.Response(502), httpx.Response(504)):
        for call in calls:
            hub = Scripted(trouble, well())
            with pytest.raises(HubUnreachable, match=r"cannot be reached: .* \(1 try in"):
                call(client(hub))
            assert len(hub.requests) == 1


def test_a_report_that_got_lost_on_its_way_back_is_made_again() -> None:
    hub = Scripted(httpx.ReadError("reset"), httpx.Response(409, json={}))
    assert client(hub).report(TASK_ID, "a", ReportKind.ROUND_FINISHED, 1) is False


def test_a_hub_that_stays_away_is_named_with_what_was_tried_and_what_to_do() -> None:
    hub = Scripted(no_line())
    with pytest.raises(HubUnreachable) as caught:
        client(hub).get(TASK_ID)
    assert re.fullmatch(
        r"the hub http://hub:8080 cannot be reached: \[Errno 111\] Connection refused \(4 tries in 0\.\d s\)\. "
        r"See that HETEROFED_HUB is right and that `heterofed hub` runs there; it may be tried again\.",
        str(caught.value),
    )


def test_the_example_of_the_page_on_errors_is_what_users_see() -> None:
    with pytest.raises(HubUnreachable) as caught:
        HubClient("http://127.0.0.1:9").list()
    shown = re.sub(r"in \d+\.\d s", "in 0.7 s", f"HubUnreachable: {caught.value}")
    with pytest.raises(NotAllowed) as refused:
        HubClient("http://127.0.0.1:8080", transport=httpx.MockTransport(Scripted(httpx.Response(401)))).list()
    page = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text(encoding="utf-8").splitlines()
    assert shown in page
    assert f"NotAllowed: {refused.value}" in page


def test_a_busy_hub_is_given_the_time_that_it_asks_for_within_the_deadline() -> None:
    hub = Scripted(httpx.Response(429, headers={"Retry-After": "1"}), well())
    began = time.monotonic()
    assert client(hub).get(TASK_ID) == TASK
    assert time.monotonic() - began >= 1
    hub = Scripted(httpx.Response(429, headers={"Retry-After": "3600"}), well())
    with pytest.raises(HubUnreachable, match="it answers 429"):
        client(hub).get(TASK_ID)


def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            line, _ = server.accept()
            with line:
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not ended.wait(0.05):
                    try:
                        line.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        tasks = HubClient(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.6)
        with pytest.raises(HubUnreachable, match="no answer in time"):
            tasks.get(TASK_ID)
        assert time.monotonic() - began < 20
        ended.set()
        tasks.close()
        thread.join(5)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_whether_a_token_is_missing_or_not_enough(status: int) -> None:
    told = {"error": "NotAllowed", "message": "viewer may not start task x.", "advice": "Ask its owner."}
    with pytest.raises(NotAllowed, match=r"^viewer may not start task x\. Ask its owner\.$"):
        client(Scripted(httpx.Response(status, json=told))).start(TASK_ID)
    with pytest.raises(NotAllowed, match="wants a token, and there is none"):
        client(Scripted(httpx.Response(status, json=told)), token="").start(TASK_ID)
    with pytest.raises(NotAllowed, match=r"does not take this token\. Set HETEROFED_TOKEN"):
        client(Scripted(httpx.Response(status, text="<html>"))).start(TASK_ID)


def test_an_error_of_the_hub_is_the_same_class_with_the_same_text() -> None:
    for name, kind in (("ConfigError", ConfigError), ("UnknownTask", UnknownTask)):
        told = {"error": name, "message": "it broke; expected peace.", "advice": "Rest."}
        with pytest.raises(kind, match=r"^it broke; expected peace\. Rest\.$") as caught:
            client(Scripted(httpx.Response(400, json=told))).get(TASK_ID)
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"id": 7}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(404, text="not found"),
        httpx.Response(418, json={"error": 1}),
        httpx.Response(500, json={"error": "TaskFailed", "message": "x", "advice": None}),
    ],
    ids=lambda answer: str(answer.status_code),
)
def test_what_is_no_answer_of_a_hub_is_no_crash(answer: httpx.Response) -> None:
    with pytest.raises(HubUnreachable, match=r"http://hub:8080 "):
        client(Scripted(answer)).get(TASK_ID)


def test_the_token_does_not_follow_a_redirect() -> None:
    hub = Scripted(httpx.Response(307, headers={"Location": "http://evil/api/tasks"}))
    with pytest.raises(HubUnreachable, match="sends us to http://evil/api/tasks"):
        client(hub).list()
    assert [request.url.host for request in hub.requests] == ["hub"]


@pytest.mark.parametrize(
    "url", ["", "hub:8080", "ftp://hub", "http://", "http://u:p@hub", "http://hub?x=1", "http://h:x"]
)
def test_what_is_no_url_of_a_hub_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="the hub's URL is") as caught:
        HubClient(url)
    assert "u:p" not in str(caught.value)


def test_a_ca_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    for ca in ("ca.pem", "nosuch.pem"):
        with pytest.raises(ConfigError, match="HETEROFED_HUB_CA cannot be used"):
            HubClient("https://hub", ca=str(tmp_path / ca))


@pytest.mark.parametrize(("width", "requests"), [(2, 3), (950, 5)])
def test_rows_travel_in_requests_that_a_hub_takes(width: int, requests: int) -> None:
    hub = Scripted(lambda request: httpx.Response(200, json={"new": len(json.loads(request.content)["rows"])}))
    values = {"x": "x" * width, "y": "y" * width}
    rows = [Measurement("s", number, None, values) for number in range(2500)]
    assert client(hub).put_metrics(TASK_ID, "a", rows) == 2500
    sizes = [len(request.content) for request in hub.requests]
    assert (len(sizes), max(sizes) < 1.1 * 2**20) == (requests, True)
    sent = [row["row"] for request in hub.requests for row in json.loads(request.content)["rows"]]
    assert sent == list(range(2500))


# -- the stream of notifications --------------------------------------------------------------------------------------


def told(number: int) -> Notification:
    return Notification(number, "TRAINING_START", {"n": number}, TASK_ID, "shop", datetime.now(timezone.utc))


def stream(*notifications: Notification, then: str = "") -> httpx.Response:
    text = "".join(f": beat\n\nid: {n.number}\ndata: {json.dumps(notification_form(n))}\n\n" for n in notifications)
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text + then)


def first(notifications: Iterator[Notification], count: int, stop: threading.Event) -> list[int]:
    found = []
    for each in notifications:
        found.append(each.number)
        if len(found) == count:
            stop.set()
    return found


def test_a_stream_that_breaks_is_opened_again_behind_the_last_one_and_nothing_comes_twice() -> None:
    hub = Scripted(
        stream(told(1), told(2)),
        no_line(),
        httpx.Response(502),
        stream(told(2), told(3), then="data: {}\n\n"),
        stream(told(4)),
    )
    stop = threading.Event()
    assert first(client(hub).follow(stop=stop), 4, stop) == [1, 2, 3, 4]
    assert [request.headers["last-event-id"] for request in hub.requests] == ["0", "2", "2", "2", "3"]


def test_a_token_that_was_revoked_ends_the_stream() -> None:
    hub = Scripted(stream(told(1)), httpx.Response(401))
    heard = client(hub).follow(stop=threading.Event())
    assert next(heard).number == 1
    with pytest.raises(NotAllowed):
        next(heard)

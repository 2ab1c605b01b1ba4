"""A hub as people start it: the first link, TLS, streams, ending, and being killed in the middle."""

from __future__ import annotations

import functools
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from heterofed.errors import ConfigError
from heterofed.hub import commands, serve
from heterofed.hub.app import create_app
from heterofed.hub.serve import bind
from heterofed.hub.settings import HubSettings
from tests.hub.running import RunningHub, hub_process, running_hub


def test_the_first_start_prints_a_link_with_a_token_and_no_other_start_does(tmp_path: Path) -> None:
    with hub_process(tmp_path) as hub:
        link = re.search(r"open (http://127\.0\.0\.1:\d+)/login\?token=(\S+)", hub.said.read_text())
        assert link is not None
        assert link[1] == hub.url
        with hub.client() as client:
            me = client.get("/api/users/me").json()
        hub.stop()
        hub.start()
        with hub.client() as client:
            assert client.get("/api/users/me").status_code == 200

    assert (me["name"], me["role"], me["admin"]) == ("owner", "owner", True)
    assert hub.said.read_text().count(link[2]) == 1
    assert hub.said.read_text().count("the hub is at http://127.0.0.1:") == 2


def test_there_is_no_default_password_nor_any_user_that_nobody_made(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        assert [each.name for each in hub.hub.users(hub.owner)] == ["owner"]
        for token in ("owner", "admin", "password", "hub_", "heterofed"):
            with hub.client(token) as client:
                assert client.get("/api/users/me").status_code == 401, token


def test_a_token_can_be_made_beside_a_running_hub(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        token = commands.token(hub.hub.settings, "bank", role="party", expires="12h", label="a bank")
        with hub.client(token) as client:
            me = client.get("/api/users/me").json()
        with pytest.raises(ConfigError, match="cannot have a token of role owner"):
            commands.token(hub.hub.settings, "bank", role="owner")
        with pytest.raises(ConfigError, match="is no duration"):
            commands.token(hub.hub.settings, "bank", expires="soon")

    assert (me["name"], me["role"], me["admin"]) == ("bank", "party", False)


def test_the_first_token_of_the_command_line_is_of_who_is_in_charge(tmp_path: Path) -> None:
    settings = HubSettings(database=str(tmp_path / "hub.db"))
    first, second = commands.token(settings, "ann"), commands.token(settings, "bob")

    with running_hub(tmp_path) as hub:
        actors = [hub.hub.authenticate(token) for token in (first, second)]

    assert [(each.role, each.admin) for each in actors] == [("owner", True), ("party", False)]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a hub of a test")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = folder / "cert.pem", folder / "key.pem"
    certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


def test_with_a_certificate_the_hub_speaks_tls_alone(tmp_path: Path) -> None:
    import ssl

    certfile, keyfile = make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certfile))
    with running_hub(tmp_path, certfile=certfile, keyfile=keyfile) as hub:
        url = hub.url.replace("127.0.0.1", "localhost")
        answer = httpx.get(f"{url}/healthz", verify=trusting)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/healthz")  # who does not know this certificate
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url.replace('https', 'http')}/healthz")

    assert url.startswith("https://")
    assert answer.json() == {"status": "ok"}
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"certfile": Path("/nowhere")}, "TLS needs a certificate and its key; expected both --certfile and --keyfile"),
        ({"certfile": Path("/nowhere"), "keyfile": Path("/nowhere")}, "there is no file /nowhere; expected a PEM file"),
        ({"port": 65536}, "port is 65536; expected 0 to 65535"),
        ({"workers": 0}, "workers is 0; expected 1 or more"),
        ({"max_upload_bytes": 0}, "max_upload_bytes is 0; expected 1 or more"),
        ({"session_hours": float("nan")}, "session_hours is nan; expected more than 0"),
        ({"public_url": "hub.example"}, "public_url is 'hub.example'; expected a URL that begins with http"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        HubSettings(**values)  # type: ignore[arg-type]  # the mistake under test


def test_a_password_in_a_url_is_not_shown() -> None:
    shown = repr(HubSettings(database="postgresql://u:secret@host/db", broker="redis://:secret@host"))

    assert "secret" not in shown


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"bind_host": "0.0.0.0"}, "http://127.0.0.1:8080"),  # noqa: S104 - nothing is bound
        ({"bind_host": "::1"}, "http://[::1]:8080"),
        ({"public_url": "https://hub.example/"}, "https://hub.example"),
    ],
)
def test_a_hub_knows_how_it_is_reached(values: dict[str, str], url: str) -> None:
    assert HubSettings(**values).url() == url  # type: ignore[arg-type]  # texts of any field


def test_an_address_that_is_taken_is_a_named_error() -> None:
    with bind(HubSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*another one with --port"):
            bind(HubSettings(port=port))


def test_a_hub_that_cannot_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no threads are left")

    monkeypatch.setattr("heterofed.hub.coordinator.local.InProcessDispatcher.start", fail)
    monkeypatch.setattr(serve, "create_app", functools.partial(create_app, page=False))
    said: list[str] = []

    with pytest.raises(SystemExit) as caught:
        serve.serve(HubSettings(port=0, database=str(tmp_path / "hub.db")), said.append)

    assert caught.value.code != 0
    assert "no threads are left" in capsys.readouterr().err


def test_what_reports_lead_to_is_carried_out_from_the_start(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        assert hub.hub.dispatcher is not None


def test_a_database_that_fails_is_a_503_and_the_health_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_hub(tmp_path) as hub, hub.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        with hub.hub.store.transaction(write=True) as connection:
            connection.exec_driver_sql("ALTER TABLE hub_tokens RENAME TO lost")
        with caplog.at_level(logging.CRITICAL, logger="heterofed.hub"):
            answer = client.get("/api/tasks")

    assert answer.status_code == 503
    assert answer.json()["error"] == "OutputError"
    assert str(tmp_path) not in answer.text


class Listener(threading.Thread):
    """Holds a stream of notifications open and keeps what comes."""

    def __init__(self, hub: RunningHub, token: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.client = hub.client(token)
        self.headers = headers or {}
        self.start()

    def run(self) -> None:
        with self.client, self.client.stream("GET", "/api/notifications/stream", headers=self.headers) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)

    @property
    def told(self) -> list[tuple[int, str, str | None]]:
        forms = [json.loads(line[6:]) for line in list(self.lines) if line.startswith("data: ")]
        return [(each["number"], each["notification_type"], each["party"]) for each in forms]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_stream_tells_a_party_what_it_is_told_as_it_happens_and_nobody_else(tmp_path: Path) -> None:
    """Item 51: a notification has its type, its body and the id of the training."""
    with running_hub(tmp_path) as hub:
        task = hub.hub.create_task(hub.owner, "t", ["h", "c"])
        foreign = hub.hub.create_task(hub.owner, "u", ["h", "c"])
        mine, other = (Listener(hub, hub.make_party_token(each.id, "c")) for each in (task, foreign))
        wait_until(lambda: mine.lines and other.lines)
        hub.hub.start(hub.owner, task.id)
        wait_until(lambda: len(mine.told) == 2)
        numbers = [number for number, _, _ in mine.told]
        again = Listener(hub, hub.make_party_token(task.id, "c"), {"Last-Event-ID": str(numbers[0])})
        wait_until(lambda: again.told)
        data = next(json.loads(line[6:]) for line in mine.lines if line.startswith("data: "))
        owners = {each.party for each in hub.hub.notifications(hub.owner)}

    assert owners == {"h"}  # whom the owner may speak for, since nobody else was invited as it
    assert [(kind, party) for _, kind, party in mine.told] == [("TRAINING_START", "c"), ("UPDATE_ROUND_START", "c")]
    assert [number for number, _, _ in again.told] == numbers[1:]
    assert other.told == []
    assert [line for line in mine.lines if line.startswith("id: ")] == [f"id: {number}" for number in numbers]
    assert data.keys() >= {"notification_type", "body", "training_uuid"}
    assert data["training_uuid"] == task.id


def test_a_stream_shows_that_it_is_up_and_ends_when_its_token_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heterofed.hub.api.users.HEARTBEAT_S", 0.2)
    with running_hub(tmp_path) as hub:
        made = hub.hub.make_token(hub.owner, "owner")
        listener = Listener(hub, made.token)
        wait_until(lambda: ": still here" in listener.lines)
        hub.hub.revoke_token(hub.owner, made.id)
        listener.join(10)

        assert not listener.is_alive()


def test_a_hub_that_is_told_to_end_does_not_wait_for_its_streams(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        listener = Listener(hub)
        wait_until(lambda: listener.lines)
        began = time.monotonic()
    listener.join(10)

    assert not listener.is_alive()
    assert time.monotonic() - began < 2.5


def reached(acknowledged: dict[str, set[int]], aim: int) -> bool:
    return all(len(each) >= aim for each in acknowledged.values())


def rounds_begun(client: httpx.Client) -> list[int]:
    """The rounds whose begin the host was told."""
    found: list[dict[str, Any]] = []
    while more := client.get("/api/notifications", params={"after": found[-1]["number"] if found else 0}).json()[
        "notifications"
    ]:
        found += more
    begins = [each for each in found if each["notification_type"] == "UPDATE_ROUND_START" and each["party"] == "h"]
    return [each["body"]["round"] for each in begins]


def test_a_hub_that_is_killed_again_and_again_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """What was answered with 2xx is there once, and what was not can be said again, and counts once."""
    acknowledged: dict[str, set[int]] = {"h": set(), "c": set()}
    stop = threading.Event()
    wanted = {"name": "t", "parties": ["h", "c"], "options": {"skip_model_tests": True}}

    with hub_process(tmp_path) as hub:
        with hub.client() as client:
            task_id = client.post("/api/tasks", json=wanted).json()["id"]
            for key, role in (("h", "host"), ("c", "collaborator")):
                client.patch(f"/api/tasks/{task_id}/parties/{key}", json={"role": role}).raise_for_status()
            client.post(f"/api/tasks/{task_id}/start").raise_for_status()

        def work(key: str) -> None:
            """Report rounds one after the other, each as often as it takes."""
            round = 1
            with hub.client() as client:
                while not stop.is_set():
                    base = f"/api/tasks/{task_id}/parties/{key}"
                    row = {"set": "loss", "row": round - 1, "round": round, "values": {"loss": 1 / round}}
                    try:
                        client.post(f"{base}/metrics", json={"rows": [row]}).raise_for_status()
                        report = client.post(f"{base}/reports", json={"kind": "ROUND_FINISHED", "round": round})
                    except httpx.HTTPError:
                        time.sleep(0.05)
                        continue
                    if report.status_code in (201, 409):
                        acknowledged[key].add(round)
                        round += 1

        parties = [threading.Thread(target=work, args=(key,)) for key in acknowledged]
        for each in parties:
            each.start()
        for kill in range(3):
            aim = 8 * (kill + 1)
            wait_until(functools.partial(reached, acknowledged, aim))
            hub.kill()
            hub.start()
        stop.set()
        for each in parties:
            each.join(20)
        with hub.client() as client:
            events = client.get(f"/api/tasks/{task_id}/events", params={"limit": 1000}).json()["events"]
            rows = client.get(f"/api/tasks/{task_id}/metrics").json()["metrics"]
            last = min(max(each) for each in acknowledged.values())
            wait_until(
                lambda: last + 1 in rounds_begun(client)
            )  # also what was reported just before a kill was handled
            begun = rounds_begun(client)

    reports = [(each["party"], each["round"]) for each in events if each["kind"] == "ROUND_FINISHED"]
    assert len(reports) == len(set(reports))
    assert begun == list(range(1, len(begun) + 1))
    for key, rounds in acknowledged.items():
        assert {round for party, round in reports if party == key} >= rounds
        assert sorted(each["row"] for each in rows if each["party"] == key)[: max(rounds)] == list(range(max(rounds)))

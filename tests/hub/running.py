"""A real hub for tests: in a thread of this process, or as a process of its own that can be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from heterofed.hub.access import Actor, UserRole
from heterofed.hub.app import create_app
from heterofed.hub.serve import bind, make_server
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings

STARTS_WITHIN_S = 30.0
_PLAIN = False
"""Without TLS there are no certificates to load, which takes longer than most tests."""


@dataclass
class RunningHub:
    """A hub that answers."""

    url: str
    token: str = field(repr=False)
    """Of the owner, who is in charge."""
    hub: Hub
    owner: Actor

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """A plain HTTP client, with the owner's token or another; "" is none."""
        chosen = self.token if token is None else token
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        options.setdefault("verify", self.url.startswith("https:"))  # without TLS there is no need to load certificates
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, **options)

    def user_token(self, name: str, role: UserRole = "party", lives_for: timedelta | None = None) -> str:
        """The token of a user, who is made if need be."""
        return self.hub.local_token(name, role, lives_for, "test").token

    def make_party_token(self, task_id: str, party: str) -> str:
        """A token that is good for one party of one task, as an invitation has it."""
        from heterofed.tasks.invitation import Invitation

        token = Invitation.parse(self.hub.invite(self.owner, task_id, party, url=self.url).invitation).token
        assert token is not None
        return token


@contextmanager
def running_hub(folder: Path, *, page: bool = False, **settings: Any) -> Iterator[RunningHub]:
    """Run a hub in a thread, on a free port; `settings` are those of `HubSettings`."""
    chosen = HubSettings(**{"port": 0, "database": str(folder / "hub.db"), **settings})
    with bind(chosen) as taken:
        app = create_app(chosen, page=page)
        hub: Hub = app.state.hub
        first = hub.first_token()
        token = first.token if first is not None else hub.local_token("owner", None, None, "test").token
        server = make_server(chosen, app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + STARTS_WITHIN_S
            while not server.started:
                assert thread.is_alive() and time.monotonic() < deadline, "the hub did not start"
                time.sleep(0.005)
            url = replace(chosen, public_url="").url(taken.getsockname()[1])
            yield RunningHub(url, token, hub, hub.authenticate(token))
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the hub did not end"


class HubProcess:
    """`heterofed hub` as a process; killed and started again on the same port and database.

    Args:
        folder: where its database and its output are.
        port: 0 takes a free one, and keeps it.
        options: more of the command line.
    """

    def __init__(self, folder: Path, port: int, options: tuple[str, ...]) -> None:
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = ""
        self.said = folder / "hub.log"
        self._command = [sys.executable, "-c", _PROGRAM, str(folder / "hub.db"), str(self.port), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.said.open("ab") as said:
            self._process = subprocess.Popen(self._command, stdout=said, stderr=said)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                httpx.get(f"{self.url}/healthz", timeout=5, verify=_PLAIN).raise_for_status()
                break
            except httpx.HTTPError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.said.read_text()
                time.sleep(0.05)
        found = re.search(r"login\?token=(\S+)", self.said.read_text())
        if found:
            self.token = found[1]

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Tell it to end, or kill it."""
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """End it as a power cut does."""
        self.stop(signal.SIGKILL)

    def client(self) -> httpx.Client:
        """A plain HTTP client with the owner's token."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=10, verify=_PLAIN
        )


_PROGRAM = """
import sys
from heterofed.hub import app, serve
from heterofed.hub.settings import HubSettings

database, port, *options = sys.argv[1:]
if "--page" not in options:
    make = app.create_app
    serve.create_app = lambda settings: make(settings, page=False)
values = dict(each.split("=", 1) for each in options if "=" in each)
values = {name: int(value) if value.isdigit() else value for name, value in values.items()}
serve.serve(HubSettings(**{"database": database, "port": int(port), **values}), lambda line: print(line, flush=True))
"""


@contextmanager
def hub_process(folder: Path, *options: str, port: int = 0) -> Iterator[HubProcess]:
    """Run a hub as a process; `options` are settings such as "broker=redis://…", and --page for the page too."""
    folder.mkdir(parents=True, exist_ok=True)
    process = HubProcess(folder, port, options)
    process.start()
    try:
        yield process
    finally:
        process.stop(signal.SIGTERM)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def pid_is_there(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

"""The stream of a hub's notifications (server-sent events, WHATWG HTML section 9.2), opened again when it breaks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from heterofed.errors import ConfigError, HubUnreachable
from heterofed.tasks.course import Notification
from heterofed.tasks.forms import read_notification
from heterofed.tasks.hub_http import HubHttp

PATH = "/api/notifications/stream"
SILENCE_S = 45.0
"""A hub that says nothing for so long is gone; it sends a comment each 15 s."""
_FIRST_PAUSE_S = 0.3
_LONGEST_PAUSE_S = 10.0
_LOOK_EVERY_S = 0.2


def notifications(http: HubHttp, after: int, stop: threading.Event) -> Iterator[Notification]:
    """Yield every notification beyond number `after`, each once, until `stop` is set.

    Raises:
        NotAllowed: the token is wrong or has expired.
        ConfigError: the hub refuses the call.
    """
    pause = _FIRST_PAUSE_S
    while not stop.is_set():
        with suppress(httpx.TransportError, HubUnreachable):
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            with http.stream(PATH, headers, SILENCE_S) as response, _cut_when(stop, response):
                for data in _messages(response.iter_lines()):
                    pause = _FIRST_PAUSE_S
                    notification = _read(data)
                    if notification is not None and notification.number > after:
                        after = notification.number
                        yield notification
                    if stop.is_set():
                        return
        stop.wait(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _messages(lines: Iterator[str]) -> Iterator[str]:
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line:
            yield "\n".join(data)  # also after a comment: who stops wants to know that something came
            data = []


def _read(data: str) -> Notification | None:
    if not data:
        return None
    try:
        return read_notification(json.loads(data))
    except (ValueError, RecursionError, ConfigError):
        return None  # of a later version: what we do not know is not for us


@contextmanager
def _cut_when(stop: threading.Event, response: httpx.Response) -> Iterator[None]:
    """End the reading of an answer when `stop` is set, which would otherwise wait for the next word of the hub."""
    line = response.extensions.get("network_stream")
    here: socket.socket | None = line.get_extra_info("socket") if line is not None else None
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            if stop.is_set() and here is not None:
                with suppress(OSError):
                    here.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="heterofed-hub-stream", daemon=True)
    if here is not None:
        watcher.start()
    try:
        yield
    finally:
        done.set()
        if here is not None:
            watcher.join(timeout=1)

"""A party's message endpoint: a real HTTP server that answers what a test says, and keeps what it got."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Endpoint:
    """What it got, and what it answers: the statuses one after the other, the last one for ever."""

    url: str
    answers: list[int] = field(default_factory=lambda: [204])
    got: list[Request] = field(default_factory=list)
    drips: bool = False
    """Whether an answer comes so slowly that each byte is just in time."""

    location: str = ""
    """Where a redirect points."""

    def types(self) -> list[str]:
        return [str(request.json["notification_type"]) for request in self.got]


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.got.append(Request(self.path, dict(self.headers), body))
            if there.drips:
                self._drip()
                return
            self.send_response(there.answers.pop(0) if len(there.answers) > 1 else there.answers[0])
            if there.location:
                self.send_header("Location", there.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _drip(self) -> None:
            try:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 200:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                self.close_connection = True

        def do_GET(self) -> None:
            there.got.append(Request(self.path, dict(self.headers), b""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    there = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/told")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()

"""How much is taken from whom: requests a minute, bytes of a body, and what every answer's headers say."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit
from weakref import WeakSet

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heterofed.hub.settings import HubSettings

_MOST_KEYS = 10_000
_ADDRESS_FACTOR = 10
"""How many parties may sit behind one address before they slow each other."""
_OUTPUT = re.compile(r"/api/tasks/[^/]+/parties/[^/]+/outputs/[^/]+")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TooManyRequests(Exception):
    """Somebody asks too often.

    Args:
        wait_s: when to try again, in whole seconds.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many requests; try again in {wait_s} s")
        self.wait_s = wait_s


class Rate:
    """So many a minute for each key, a minute's worth of them at once (a token bucket).

    Args:
        per_minute: how many.
        clock: seconds that only grow.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._per_s = per_minute / 60
        self._clock = clock
        self._left: dict[object, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: object) -> None:
        """Count one.

        Raises:
            TooManyRequests: it was one too many.
        """
        with self._lock:
            now = self._clock()
            left, since = self._left.get(key, (self._most, now))
            left = min(self._most, left + (now - since) * self._per_s)
            if left < 1:
                raise TooManyRequests(max(1, round((1 - left) / self._per_s)))
            if len(self._left) >= _MOST_KEYS:
                self._forget(now)
            self._left[key] = (left - 1, now)

    def _forget(self, now: float) -> None:
        """Drop those that are full again; they would be no different without an entry."""
        full = [key for key, (left, since) in self._left.items() if left + (now - since) * self._per_s >= self._most]
        for key in full or list(self._left)[: _MOST_KEYS // 2]:
            del self._left[key]


class _Ticket:
    """Held by an open stream; gone with it."""


class Streams:
    """How many streams of notifications each user holds open.

    Args:
        most: so many at once.
    """

    def __init__(self, most: int = 20) -> None:
        self._most = most
        self._open: dict[int, WeakSet[_Ticket]] = {}

    def enter(self, user_id: int) -> object:
        """Count one more, for as long as what is returned exists.

        Raises:
            TooManyRequests: it was one too many.
        """
        mine = self._open.setdefault(user_id, WeakSet())
        if len(mine) >= self._most:
            raise TooManyRequests(60)
        ticket = _Ticket()
        mine.add(ticket)
        return ticket


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"a body of more than {most} bytes is too large", {"Connection": "close"})


class Guard:
    """ASGI middleware around everything: refuses what is too much before anybody reads it, and sets the headers.

    Args:
        app: what it guards.
        settings: the limits.
    """

    def __init__(self, app: ASGIApp, settings: HubSettings) -> None:
        self._app = app
        self._settings = settings
        self._addresses = Rate(settings.requests_per_minute * _ADDRESS_FACTOR)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":  # it has no headers
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "websocket" and not same_origin(headers, self._settings, needed=False):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._protect(scope, MutableHeaders(raw=message["headers"]))
            await send(message)

        most = self._largest_body(scope)
        read = 0

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise _too_large(most)  # whoever reads the body lets it become the answer
            return message

        length = headers.get("content-length", "0")
        try:
            if scope["path"].startswith(("/api", "/login")):
                self._addresses.take((scope.get("client") or ("",))[0])
        except TooManyRequests as error:
            await too_many(error)(scope, receive, send_with_headers)
            return
        if not length.isdigit() or int(length) > most:
            refusal = _too_large(most)
            form = {"error": "ConfigError", "message": f"{refusal.detail}.", "advice": None}
            await JSONResponse(form, 413, refusal.headers)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive_limited, send_with_headers)

    def _largest_body(self, scope: Scope) -> int:
        if scope["method"] == "PUT" and _OUTPUT.fullmatch(scope["path"]):
            return self._settings.max_upload_bytes
        return self._settings.max_body_bytes

    def _protect(self, scope: Scope, headers: MutableHeaders) -> None:
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        if scope["path"].startswith("/api"):
            headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
            headers.setdefault("Cache-Control", "no-store")
        if self._settings.encrypted:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")


def too_many(error: TooManyRequests) -> JSONResponse:
    """Return the answer to somebody who asks too often."""
    form = {"error": "NotAllowed", "message": f"{error}.", "advice": "Wait, or ask less often."}
    return JSONResponse(form, 429, {"Retry-After": str(error.wait_s)})


def same_origin(headers: Headers, settings: HubSettings, *, needed: bool = True) -> bool:
    """Return whether a browser says that a page of this very server makes a request.

    Args:
        headers: the request's.
        settings: they may say how a proxy calls this server.
        needed: what is returned when the browser does not say where the page is from.
    """
    origin = headers.get("origin") or headers.get("referer")
    if origin is None:
        return not needed
    ours = {headers.get("host"), urlsplit(settings.public_url).netloc} - {None, ""}
    try:
        return urlsplit(origin).netloc in ours
    except ValueError:
        return False


def may_write_by_cookie(method: str, headers: Headers, settings: HubSettings) -> bool:
    """Return whether a request that a cookie authenticates may go on: browsers add cookies to any page's requests."""
    return method in _SAFE or same_origin(headers, settings)

"""Puts the page onto the hub's application: what the browser may load, who gets in, and NiceGUI behind that."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from heterofed.errors import HeterofedError, NotAllowed
from heterofed.hub.access import cookie_name
from heterofed.hub.limits import TooManyRequests, same_origin, too_many
from heterofed.hub.page.login import LOGIN, Login, token_of, trouble
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

STATIC = "/_hub"
_HERE = Path(__file__).parent / "static"

POLICY = "; ".join(
    (
        "default-src 'none'",
        # NiceGUI puts its start into the page and compiles templates in the browser.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy of the page: everything comes from the hub, and no other site may frame it."""

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b636b"/>'
    '<g fill="none" stroke="#fff" stroke-width="2.4"><path d="M9 9l7 7m7-7l-7 7m0 0v8"/></g><g fill="#fff">'
    '<circle cx="8.5" cy="8.5" r="3.2"/><circle cx="23.5" cy="8.5" r="3.2"/><circle cx="16" cy="24" r="3.2"/></g></svg>'
)
_PUBLISHED = "/_nicegui/"
"""Scripts and styles that are in the published packages anyway."""


def mount(app: FastAPI, hub: Hub, settings: HubSettings) -> None:
    """Put the page onto an application, behind all routes that are there already.

    NiceGUI is one for a process, so of several applications with a page only one can run at a time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NiceGUI's own imports
        from nicegui import core, ui

        import heterofed.hub.page.new_task
        import heterofed.hub.page.task
        import heterofed.hub.page.task_list
        import heterofed.hub.page.users  # noqa: F401 - they make themselves known

    app.mount(STATIC, _Fresh(directory=_HERE), name="hub-static")
    Login(hub, settings).add_to(app)
    core.app.user_middleware.clear()  # of an application before this one
    core.app.middleware_stack = None
    ui.run_with(
        app,
        title="heterofed hub",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=20.0,
        show_welcome_message=False,
    )
    mounted = app.router.routes[-1]
    if not isinstance(mounted, Mount):
        raise TypeError("NiceGUI was not mounted last")
    mounted.app = Door(core.app, hub, settings)


class _Fresh(StaticFiles):
    """Files that a browser asks for anew each time, and gets only where they have changed: no old sheet stays."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one request."""
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


class Door:
    """Lets only those in who are logged in, tells the pages which hub they show, and sets the policy.

    Args:
        inside: NiceGUI's application.
        hub: what its pages show.
        settings: of that hub.
    """

    def __init__(self, inside: ASGIApp, hub: Hub, settings: HubSettings) -> None:
        self._inside = inside
        self._hub = hub
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._inside(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        published = path.startswith(_PUBLISHED) or path == "/favicon.ico"
        if not published and (refused := await self._refused(scope, headers, path)) is not None:
            await refused(scope, receive, send)
            return
        scope["heterofed_hub"] = (self._hub, self._settings)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["Content-Security-Policy"] = POLICY
                answer["Referrer-Policy"] = "same-origin"
                answer["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._inside(scope, receive, send_with_policy)

    async def _refused(self, scope: Scope, headers: Headers, path: str) -> ASGIApp | None:
        foreign = not same_origin(headers, self._settings, needed=False)
        token = token_of(headers.get("cookie", ""), cookie_name(self._settings))
        limits = scope["app"].state
        try:
            if token and not foreign:
                try:
                    actor = await run_in_threadpool(self._hub.authenticate, token, _address(scope))
                    limits.requests.take(actor.token_id)
                    return None
                except NotAllowed:
                    limits.strangers.take(_address(scope))
        except TooManyRequests as error:
            return too_many(error) if scope["type"] == "http" else WebSocketClose(code=1013)
        except HeterofedError as error:
            return trouble(error) if scope["type"] == "http" else WebSocketClose(code=1013)
        if scope["type"] == "websocket":
            return WebSocketClose(code=1008)
        if path.startswith("/_nicegui_ws"):
            return Response(status_code=403)
        return RedirectResponse(LOGIN + ("" if path == "/" else f"?next={quote(path)}"), status_code=303)


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None

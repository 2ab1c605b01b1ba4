"""Logging in and out: two plain pages without scripts, and the cookie between them.

The link that a hub prints at its first start carries a token, as do those that people are sent. The cookie holds
another token that is good for this session alone: no script can read it, and no other site can use it.
"""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from heterofed.errors import HeterofedError, NotAllowed
from heterofed.hub.access import cookie_name
from heterofed.hub.limits import TooManyRequests, same_origin
from heterofed.hub.page.theme import Theme, theme_of
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings

LOGIN = "/login"
LOGOUT = "/logout"
_LONGEST_FORM = 4096
_TYPED = ("none", "same-origin", "same-site")
"""Sec-Fetch-Site of a link that somebody typed, or clicked in a terminal or here."""


def token_of(cookies: str, name: str) -> str | None:
    """Return the token in a Cookie header, or None."""
    jar = SimpleCookie()
    try:
        jar.load(cookies)
    except CookieError:
        return None
    return jar[name].value if name in jar else None


class Login:
    """The routes /login and /logout.

    Args:
        hub: who knows the tokens.
        settings: of that hub.
    """

    def __init__(self, hub: Hub, settings: HubSettings) -> None:
        self._hub = hub
        self._settings = settings

    def add_to(self, app: FastAPI) -> None:
        """Add the routes; they are no part of the REST interface and its document."""
        app.add_route(LOGIN, self.show, methods=["GET"], include_in_schema=False)
        app.add_route(LOGIN, self.log_in, methods=["POST"], include_in_schema=False)
        app.add_route(LOGOUT, self.log_out, methods=["POST"], include_in_schema=False)

    async def show(self, request: Request) -> Response:
        """Show the form; a link with a token logs in at once, unless another site made the browser open it."""
        token = request.query_params.get("token", "")
        where = _inside(request.query_params.get("next", ""))
        if token and request.headers.get("sec-fetch-site", "none") in _TYPED:
            return await self._try(request, token, where)
        return _form(theme_of(request.cookies), where, token=token)

    async def log_in(self, request: Request) -> Response:
        """Take the form."""
        if self._foreign(request):
            return _form(theme_of(request.cookies), "/", error="Another site sent this form; log in here.", status=403)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LONGEST_FORM:
                return _form(theme_of(request.cookies), "/", error="That is too long for a token.", status=413)
        fields = parse_qs(body.decode("utf-8", errors="replace"))
        return await self._try(request, _one(fields, "token"), _inside(_one(fields, "next")))

    async def log_out(self, request: Request) -> Response:
        """End this browser's session; the token it began with goes on working."""
        session = request.cookies.get(cookie_name(self._settings))
        if session and not self._foreign(request):
            with contextlib.suppress(HeterofedError):  # it was over already
                await run_in_threadpool(self._end, session, _address(request))
        answer = RedirectResponse(LOGIN, status_code=303)
        answer.delete_cookie(cookie_name(self._settings), path="/", httponly=True, samesite="strict")
        return answer

    def _foreign(self, request: Request) -> bool:
        """Whether another site made the browser send this."""
        return not same_origin(request.headers, self._settings, needed=False)

    def _end(self, session: str, address: str | None) -> None:
        self._hub.logout(self._hub.authenticate(session, address))

    async def _try(self, request: Request, token: str, where: str) -> Response:
        theme = theme_of(request.cookies)
        token = token.strip()
        if "token=" in token:  # the whole link was pasted
            token = _one(parse_qs(token.partition("?")[2]), "token")
        if not token.isascii() or not token.isprintable() or not token:
            return _form(theme, where, error="That is no token. Paste it whole, without spaces.", status=400)
        try:
            session = await run_in_threadpool(self._hub.login, token, _address(request))
        except NotAllowed as error:
            try:
                request.app.state.strangers.take(_address(request))
            except TooManyRequests as too_many:
                return _form(theme, where, error=f"Too many tries; wait {too_many.wait_s} s.", status=429)
            text = str(error)
            return _form(theme, where, error=text[:1].upper() + text[1:], status=403)
        except HeterofedError as error:
            return trouble(error, theme)
        answer = _onward(theme, where)
        answer.set_cookie(
            cookie_name(self._settings),
            session.token,
            max_age=int(self._settings.session_hours * 3600),
            path="/",
            secure=self._settings.encrypted,
            httponly=True,
            samesite="strict",
        )
        return answer


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _one(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[0]


def _inside(where: str) -> str:
    """Return a path of this hub to go to; never another site."""
    return urlsplit(where).path if where.startswith("/") and not where.startswith(("//", "/\\")) else "/"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>heterofed hub</title><link rel="stylesheet" href="/_hub/plain.css">{more}</head>
<body class="plain {theme}"><main class="door">
"""
_FOOT = "</main></body></html>"


def _page(theme: Theme, content: str, *, more: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        _HEAD.format(theme=f"body--{theme}" if theme != "auto" else "", more=more) + content + _FOOT,
        status_code=status,
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
            "Referrer-Policy": "same-origin",  # with none at all browsers hide where the form comes from, from us too
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _onward(theme: Theme, where: str) -> HTMLResponse:
    # A page of ours goes on to the next one: after a link in a mail, a redirect would come without the strict cookie.
    there = html.escape(where, quote=True)
    return _page(
        theme,
        f'<h1>You are logged in</h1><p><a href="{there}">Go on to the hub</a></p>',
        more=f'<meta http-equiv="refresh" content="0;url={there}">',
    )


def trouble(error: HeterofedError, theme: Theme = "auto") -> HTMLResponse:
    """A page for when the hub itself is in trouble; it tries again by itself."""
    text = html.escape(str(error))
    return _page(
        theme,
        f'<h1>The hub is in trouble</h1><p class="notice bad" role="alert"><span>{text}</span></p>'
        '<p class="hint">This page tries again every few seconds. Parties that train go on meanwhile; '
        "what they report comes later.</p>",
        more='<meta http-equiv="refresh" content="5">',
        status=503,
    )


def _form(theme: Theme, where: str, *, error: str = "", token: str = "", status: int = 200) -> HTMLResponse:
    said = f'<p id="said" class="notice bad" role="alert"><span>{html.escape(error)}</span></p>' if error else ""
    told = 'aria-describedby="said" aria-invalid="true"' if error else 'aria-describedby="how"'
    return _page(
        theme,
        f"""<h1>heterofed hub</h1>
{said}<form method="post" action="{LOGIN}">
<input type="hidden" name="next" value="{html.escape(where, quote=True)}">
<label>Token <input name="token" type="password" required autofocus autocomplete="current-password" spellcheck="false"
 value="{html.escape(token, quote=True)}" {told}></label>
<button class="btn primary">Log in</button></form>
<p id="how" class="hint">Open the link that the hub printed when it was first started, or paste its token here.
Lost it? On the hub's machine: <code>heterofed hub token owner</code>.
Everybody else gets a token from the owner.</p>""",
        status=status,
    )

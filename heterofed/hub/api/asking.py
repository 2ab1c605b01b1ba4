"""Who makes a request, and how what goes wrong is answered: always `{"error", "message", "advice"}`."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from heterofed.errors import ConfigError, HeterofedError, NotAllowed, OutputError, UnknownTask
from heterofed.hub.access import Actor, cookie_name
from heterofed.hub.api.bodies import LARGEST
from heterofed.hub.limits import TooManyRequests, may_write_by_cookie, too_many
from heterofed.hub.service import Hub
from heterofed.tasks.error_forms import error_form

Answer = dict[str, Any]
logger = logging.getLogger("heterofed.hub")

_bearer = HTTPBearer(auto_error=False, description="A token, as the hub printed it.")


class Unauthenticated(Exception):
    """Nobody whom the hub knows makes this request; the cause says why."""

    def __init__(self, error: NotAllowed) -> None:
        super().__init__(str(error))
        self.error = error


def hub_of(request: Request) -> Hub:
    """Return the hub that answers."""
    hub: Hub = request.app.state.hub
    return hub


def address_of(request: Request) -> str | None:
    """Return where a request comes from."""
    return request.client.host if request.client else None


def actor_of(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Actor:
    """Return who makes a request: by its token, or by the cookie of a browser's session.

    Raises:
        Unauthenticated: there is no token that works.
        NotAllowed: another site's page tries to write with this browser's cookie.
        TooManyRequests: they ask too often.
    """
    hub = hub_of(request)
    state = request.app.state
    address = address_of(request)
    cookie = request.cookies.get(cookie_name(hub.settings))
    token = bearer.credentials if bearer is not None else cookie
    try:
        if not token:
            raise NotAllowed("there is no token", advice="Set HETEROFED_TOKEN, or log in.")
        actor = hub.authenticate(token, address)
    except NotAllowed as error:
        state.strangers.take(address)
        raise Unauthenticated(error) from None
    if bearer is None and not may_write_by_cookie(request.method, request.headers, hub.settings):
        raise NotAllowed("a page of another site made this request", advice="Use the hub's own page.")
    state.requests.take(actor.token_id)
    return actor


Asking = Annotated[Actor, Depends(actor_of)]
TheHub = Annotated[Hub, Depends(hub_of)]
TaskId = Annotated[str, Path(max_length=100, description="The task's id.")]
PartyKey = Annotated[str, Path(max_length=100, description="The party's feature key.")]
After = Annotated[int, Query(ge=0, le=LARGEST, description="The number of the last one that is known already.")]


def add_handlers(app: FastAPI) -> None:
    """Let every error become its answer."""
    app.add_exception_handler(HeterofedError, _ours)
    app.add_exception_handler(Unauthenticated, _unauthenticated)
    app.add_exception_handler(TooManyRequests, _too_many)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _of_http)


def _ours(_: Request, error: Exception) -> JSONResponse:
    status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        logger.error("%s: %s", type(error).__name__, error)
    return JSONResponse(error_form(error) if isinstance(error, HeterofedError) else {}, status)


_STATUS: tuple[tuple[type[HeterofedError], int], ...] = (
    (UnknownTask, 404),
    (ConfigError, 400),
    (NotAllowed, 403),
    (OutputError, 503),
)


def _unauthenticated(_: Request, error: Exception) -> JSONResponse:
    form = error_form(error.error) if isinstance(error, Unauthenticated) else {}
    return JSONResponse(form, 401, {"WWW-Authenticate": "Bearer"})


def _too_many(_: Request, error: Exception) -> JSONResponse:
    return too_many(error) if isinstance(error, TooManyRequests) else JSONResponse({}, 429)


def _malformed(_: Request, error: Exception) -> JSONResponse:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    # Where and what, but not the value: it may be a secret.
    said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults[:5])
    return JSONResponse(
        {"error": "ConfigError", "message": f"the request is wrong: {said}."[:2000], "advice": None}, 400
    )


def _of_http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return JSONResponse({}, 500)
    form = {"error": "ConfigError", "message": f"{error.detail}.", "advice": "See /openapi.json."}
    return JSONResponse(form, error.status_code, error.headers)


WRONG: dict[int | str, dict[str, Any]] = {
    400: {"description": "It cannot be; the message says why."},
    401: {"description": "No token, or one that does not work."},
    403: {"description": "The token does not permit it."},
    404: {"description": "There is no such task."},
    413: {"description": "Too large."},
    429: {"description": "Too often; Retry-After says when to try again."},
    503: {"description": "The database fails."},
}
"""What every route may answer besides."""

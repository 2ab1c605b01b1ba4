"""/api/users, /api/tokens, /api/notifications, /api/audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from heterofed.errors import HeterofedError
from heterofed.hub.access import Actor
from heterofed.hub.accounts import User
from heterofed.hub.api.asking import WRONG, After, Answer, Asking, TheHub
from heterofed.hub.api.bodies import LARGEST, Endpoint, NewUser, TokenWish
from heterofed.hub.news import LOOK_EVERY_S
from heterofed.hub.service import Hub
from heterofed.tasks.forms import notification_form, time_form

router = APIRouter(prefix="/api", responses=WRONG)
HEARTBEAT_S = 15.0
_UserName = Annotated[str, Path(max_length=200, description="The user's name.")]
_Number = Annotated[int, Path(ge=0, le=LARGEST)]


def _form(user: User) -> Answer:
    return {
        "name": user.name,
        "role": user.role,
        "admin": user.admin,
        "message_endpoint": user.message_endpoint,
        "created_at": time_form(user.created_at),
    }


@router.get("/users/me", tags=["users"])
def who_am_i(hub: TheHub, actor: Asking) -> Answer:
    """Say whose token this is, and what it is good for."""
    scope = {"role": actor.role, "task_id": actor.task_id, "party": actor.party}
    return {**_form(hub.me(actor)), "token": scope}


@router.put("/users/me/endpoint", tags=["users"])
def set_endpoint(hub: TheHub, actor: Asking, body: Endpoint) -> Answer:
    """Say where you want notifications posted, and what they are signed with."""
    return _form(hub.set_endpoint(actor, body.url, body.secret))


@router.get("/users", tags=["users"])
def list_users(hub: TheHub, actor: Asking) -> Answer:
    """List the users; for owners."""
    return {"users": [_form(each) for each in hub.users(actor)]}


@router.post("/users", status_code=201, tags=["users"])
def make_user(hub: TheHub, actor: Asking, body: NewUser) -> Answer:
    """Make a user; for owners."""
    return _form(hub.make_user(actor, body.name, body.role))


@router.post("/users/{name}/tokens", status_code=201, tags=["users"])
def make_token(hub: TheHub, actor: Asking, name: _UserName, body: TokenWish) -> Answer:
    """Make a token. This answer is the only place where it can be seen."""
    lives_for = None if body.expires_in is None else timedelta(seconds=body.expires_in)
    made = hub.make_token(actor, name, role=body.role, lives_for=lives_for, label=body.label)
    return {
        "token": made.token,
        "id": made.id,
        "expires_at": None if made.expires_at is None else time_form(made.expires_at),
    }


@router.delete("/tokens/{number}", status_code=204, tags=["users"])
def revoke_token(hub: TheHub, actor: Asking, number: _Number) -> Response:
    """Let a token work no more."""
    hub.revoke_token(actor, number)
    return Response(status_code=204)


@router.get("/audit", tags=["users"])
def list_audit(hub: TheHub, actor: Asking, after: After = 0) -> Answer:
    """List who did what, oldest first; for who is in charge of the hub."""
    entries = hub.audit(actor, after)
    return {
        "audit": [
            {
                "number": each.number,
                "at": time_form(each.at),
                "user": each.user,
                "action": each.action,
                "task_id": each.task_id,
                "detail": each.detail,
                "address": each.address,
            }
            for each in entries
        ]
    }


@router.get("/notifications", tags=["notifications"])
def list_notifications(hub: TheHub, actor: Asking, after: After = 0) -> Answer:
    """List what your parties were told, oldest first, at most 200."""
    return {"notifications": [notification_form(each) for each in hub.notifications(actor, after)]}


@router.get(
    "/notifications/stream",
    tags=["notifications"],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_notifications(
    hub: TheHub,
    actor: Asking,
    request: Request,
    after: After = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Tell your parties what there is to tell, as it happens (server-sent events; the id is the number).

    It begins behind `after`, or behind the header Last-Event-ID. A comment each 15 s shows that the line is up. It
    ends when the token stops working.
    """
    if last_event_id is not None and last_event_id.isdigit():
        after = max(after, min(int(last_event_id[:12]), LARGEST))
    ticket = request.app.state.streams.enter(actor.user_id)
    return StreamingResponse(
        _stream(hub, actor, request, after, ticket),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(hub: Hub, actor: Actor, request: Request, after: int, ticket: object) -> AsyncIterator[bytes]:
    closing = request.app.state.closing
    try:
        yield b": hello\n\n"
        looked_at = -1
        said = checked = time.monotonic()
        while not closing.is_set():
            newest = await run_in_threadpool(hub.news.newest)
            if newest != looked_at:
                found = await run_in_threadpool(hub.notifications, actor, after)
                for each in found:
                    after = each.number
                    said = time.monotonic()
                    yield b"id: %d\nevent: notification\ndata: %s\n\n" % (
                        after,
                        msgspec.json.encode(notification_form(each)),
                    )
                looked_at = newest if not found else -1  # there may be more of them
            if time.monotonic() - checked > HEARTBEAT_S:
                checked = time.monotonic()
                if not await run_in_threadpool(hub.still_works, actor):
                    return
            if time.monotonic() - said > HEARTBEAT_S:
                said = time.monotonic()
                yield b": still here\n\n"
            if await request.is_disconnected():
                return
            if looked_at == newest:
                await asyncio.sleep(LOOK_EVERY_S)
    except HeterofedError:
        return  # the database fails; whoever listens comes back
    finally:
        del ticket

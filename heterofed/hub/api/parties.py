"""/api/tasks/{id}/parties/{key}: what a party says, and what others say about it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from heterofed.errors import ConfigError
from heterofed.hub.api.asking import WRONG, Answer, Asking, PartyKey, TaskId, TheHub
from heterofed.hub.api.bodies import Beginning, Key, Line, MemberName, PartyChange, Report, Rows, Verification
from heterofed.tasks.forms import read_key, read_measurement, task_form, time_form

router = APIRouter(prefix="/api/tasks/{task_id}/parties/{key}", tags=["parties"], responses=WRONG)
_Name = Annotated[str, Path(max_length=200, description="The file's name.")]
_uploads = asyncio.Semaphore(4)  # each is in memory, up to max_upload_bytes
_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.patch("")
def change_party(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: PartyChange) -> Answer:
    """Change what is given of a party, as that party; what is absent stays, null clears."""
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "public_key" in changes:
        changes["public_key"] = read_key(changes["public_key"])
    return task_form(hub.set_party(actor, task_id, key, **changes))


@router.put("/trust")
def trust_key(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Key) -> Answer:
    """Say which public key a party has: from now on no other is this party."""
    public_key = read_key(body.public_key)
    if not public_key:
        raise ConfigError("there is no public key", expected="what `heterofed keys show` prints")
    return task_form(hub.trust(actor, task_id, key, public_key))


@router.post("/verification")
def verify_party(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Verification) -> Answer:
    """Say whether a party's data can be used, as that party."""
    return task_form(hub.verify(actor, task_id, key, body.verified, body.reason))


@router.post("/invitation", status_code=201)
def invite_party(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, request: Request) -> Answer:
    """Make one line for a party to paste. It holds a token: give it to that party alone."""
    url = hub.settings.public_url or str(request.base_url)
    made = hub.invite(actor, task_id, key, url=url.rstrip("/"))
    return {
        "invitation": made.invitation,
        "expires_at": None if made.expires_at is None else time_form(made.expires_at),
    }


@router.put("/member")
def choose_member(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: MemberName) -> Answer:
    """Say which user a party is."""
    hub.set_member(actor, task_id, key, body.user)
    return task_form(hub.task(actor, task_id))


@router.delete("/member")
def remove_member(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey) -> Answer:
    """Say that no user is this party any more; its invitations work no more."""
    hub.remove_member(actor, task_id, key)
    return task_form(hub.task(actor, task_id))


@router.post("/log", status_code=204)
def add_line(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Line) -> Response:
    """Append a line to the log, as a party."""
    hub.log(actor, task_id, key, body.text)
    return Response(status_code=204)


@router.post("/reports", status_code=201, responses={409: {"description": "It was reported before."}})
def report(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Report) -> JSONResponse:
    """Say what a party did; each (kind, round) counts once."""
    if hub.report(actor, task_id, key, body.kind, body.round, body.body):
        return JSONResponse({"counted": True}, 201)
    said = f"{key} reported {body.kind.value} of round {body.round} of task {task_id} before."
    return JSONResponse({"error": "ConfigError", "message": said, "advice": None}, 409)


@router.post("/beginning")
def begin(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Beginning) -> Answer:
    """Say, as a party, that it begins with the first round: what it told of an earlier run is forgotten."""
    return {"anew": hub.begin_anew(actor, task_id, key, body.launch)}


@router.post("/metrics")
def add_metrics(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, body: Rows) -> Answer:
    """Keep rows of metric sets, as a party; a row that is there already stays as it is."""
    rows = [read_measurement(each.model_dump()) for each in body.rows]
    return {"new": hub.put_metrics(actor, task_id, key, rows)}


@router.get(
    "/metrics/{name}.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def download_table(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, name: _Name) -> Response:
    """Download a metric set as CSV, the same bytes as in the party's own file."""
    data = hub.table(actor, task_id, key, name)
    return _file(data, f"{name}.csv", "text/csv; charset=utf-8")


@router.put("/outputs/{name}", status_code=204, openapi_extra={"requestBody": {"required": True, "content": _FILE}})
async def put_output(
    hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, name: _Name, request: Request
) -> Response:
    """Leave a file here, as a party: the body as it is; one of this name is replaced."""
    await run_in_threadpool(hub.require, actor, "report for", task_id, key)  # before anything is read
    async with _uploads:
        await run_in_threadpool(hub.put_output, actor, task_id, key, name, await request.body())
    return Response(status_code=204)


@router.get("/outputs/{name}", response_class=Response, responses={200: {"content": _FILE}})
def get_output(hub: TheHub, actor: Asking, task_id: TaskId, key: PartyKey, name: _Name) -> Response:
    """Download a file that a party left here."""
    return _file(hub.output(actor, task_id, key, name), name, "application/octet-stream")


def _file(data: bytes, name: str, kind: str) -> Response:
    """Answer with a file to be saved, never shown: it is somebody else's. Its name passed the store's check."""
    return Response(data, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})

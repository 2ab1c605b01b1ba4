"""/api/tasks and what belongs to a whole task."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from heterofed.hub.api.asking import WRONG, After, Answer, Asking, TaskId, TheHub
from heterofed.hub.api.bodies import Move, NewTask, Reason
from heterofed.tasks.forms import event_form, log_form, measurement_form, output_form, read_options, task_form

router = APIRouter(prefix="/api/tasks", tags=["tasks"], responses=WRONG)
_Limit = Annotated[int, Query(ge=1, le=1000)]
_RowLimit = Annotated[int, Query(ge=1, le=5000)]


@router.post("", status_code=201)
def create_task(hub: TheHub, actor: Asking, body: NewTask) -> Answer:
    """Create a task that is yours."""
    task = hub.create_task(
        actor,
        body.name,
        body.parties,
        lives_for=None if body.lives_for_s is None else timedelta(seconds=body.lives_for_s),
        rounds=body.rounds,
        options=read_options(body.options.model_dump() if body.options is not None else None),
        uncertainty=body.uncertainty,
    )
    return task_form(task)


@router.get("")
def list_tasks(hub: TheHub, actor: Asking) -> Answer:
    """List the tasks that you have to do with, the newest first."""
    return {"tasks": [task_form(each) for each in hub.tasks(actor)]}


@router.get("/{task_id}")
def show_task(hub: TheHub, actor: Asking, task_id: TaskId) -> Answer:
    """Show a task: its status, its parties, its rounds."""
    return task_form(hub.task(actor, task_id))


@router.post("/{task_id}/start", status_code=202)
def start_task(hub: TheHub, actor: Asking, task_id: TaskId) -> Answer:
    """Launch a task: the agent of every party is told to start it."""
    return task_form(hub.start(actor, task_id))


@router.post("/{task_id}/cancel")
def cancel_task(hub: TheHub, actor: Asking, task_id: TaskId, body: Reason | None = None) -> Answer:
    """Cancel a task for good."""
    return task_form(hub.cancel(actor, task_id, body.reason if body is not None else None))


@router.put("/{task_id}/status")
def move_task(hub: TheHub, actor: Asking, task_id: TaskId, body: Move) -> Answer:
    """Move a task on, as its host."""
    return task_form(hub.move(actor, task_id, body.status, body.reason))


@router.get("/{task_id}/log")
def show_log(hub: TheHub, actor: Asking, task_id: TaskId, limit: _Limit = 50) -> Answer:
    """Show the last lines of the log, oldest first."""
    return {"log": [log_form(each) for each in hub.logs(actor, task_id, limit)]}


@router.get("/{task_id}/events")
def list_events(hub: TheHub, actor: Asking, task_id: TaskId, after: After = 0, limit: _Limit = 200) -> Answer:
    """List what happened, oldest first."""
    return {"events": [event_form(each) for each in hub.events(actor, task_id, after=after, limit=limit)]}


@router.get("/{task_id}/metrics")
def list_metrics(hub: TheHub, actor: Asking, task_id: TaskId, after: After = 0, limit: _RowLimit = 2000) -> Answer:
    """List the metric rows of all parties in order of arrival; ask again behind the last one while there are more."""
    rows = hub.metrics(actor, task_id, after=after, limit=limit + 1)
    return {"metrics": [measurement_form(each) for each in rows[:limit]], "more": len(rows) > limit}


@router.get("/{task_id}/outputs")
def list_outputs(hub: TheHub, actor: Asking, task_id: TaskId) -> Answer:
    """List the files that parties left here."""
    return {"outputs": [output_form(each) for each in hub.outputs(actor, task_id)]}


@router.get("/{task_id}/members")
def list_members(hub: TheHub, actor: Asking, task_id: TaskId) -> Answer:
    """List which users take part, and as what."""
    found = hub.members(actor, task_id)
    return {"members": [{"user": each.user, "role": each.role, "feature_key": each.feature_key} for each in found]}

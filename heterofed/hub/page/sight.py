"""What a look at a task sees: all that its page shows, read in one go and only where something is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heterofed.hub.access import Actor
from heterofed.hub.service import Hub
from heterofed.tasks.course import Event, LogEntry, Measured, Output
from heterofed.tasks.model import Task

_PER_LOOK = 200
MOST_EVENTS = 300
"""Of the newest events, so many are on the page."""


@dataclass(frozen=True)
class Rights:
    """What a visitor may do to this task; what they may not is not there to press."""

    start: bool
    cancel: bool
    invite: bool
    share: bool


@dataclass(frozen=True)
class Sight:
    """What is new of a task since the last look."""

    pulse: str
    task: Task
    events: tuple[Event, ...]
    logs: tuple[LogEntry, ...]
    rows: tuple[Measured, ...]
    outputs: tuple[Output, ...]
    rights: Rights
    users: Mapping[str, str]
    """Feature key -> the user that is this party; for who may know."""


def look(hub: Hub, actor: Actor, task_id: str, pulse: str, event: int, row: int) -> Sight | None:
    """Return what is new since this pulse and behind these numbers; None where nothing is."""
    now = hub.pulse(actor, task_id)
    if now == pulse:
        return None
    events: list[Event] = []
    while len(some := hub.events(actor, task_id, after=event, limit=_PER_LOOK)) > 0:
        events = [*events, *some][-MOST_EVENTS:]
        event = some[-1].number
        if len(some) < _PER_LOOK:
            break
    rows: list[Measured] = []
    while new := hub.metrics(actor, task_id, after=row):
        rows += new
        row = new[-1].number
    rights = Rights(
        start=hub.may(actor, "start", task_id),
        cancel=hub.may(actor, "cancel", task_id),
        invite=hub.may(actor, "invite", task_id),
        share=hub.may(actor, "choose the members of", task_id),
    )
    members = hub.members(actor, task_id) if rights.share else ()
    users = {each.feature_key: each.user for each in members if each.feature_key is not None}
    logs = hub.logs(actor, task_id, _PER_LOOK)
    outputs = hub.outputs(actor, task_id)
    return Sight(now, hub.task(actor, task_id), tuple(events), logs, tuple(rows), outputs, rights, users)

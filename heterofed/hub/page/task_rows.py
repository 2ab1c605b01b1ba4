"""A task's parties, files and events as rows of its page's tables, and what can be done with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heterofed.hub.accounts import invited_name
from heterofed.hub.page.charts import file_link
from heterofed.hub.page.course import model_files
from heterofed.hub.page.sight import MOST_EVENTS, Sight
from heterofed.hub.page.words import BEFORE, OVER, chip, iso, party_now, size
from heterofed.tasks.course import Event, LogEntry, Output
from heterofed.tasks.model import PartyStatus, Task


def is_launched(task: Task) -> bool:
    """Whether the task was launched and no host has come up yet."""
    return task.launched_at is not None and task.status in BEFORE


def why_not_launch(task: Task) -> str:
    """Return why the task cannot be launched now, or nothing."""
    if is_launched(task):
        return "it is launched already"
    refused = [each.feature_key for each in task.parties if each.status is PartyStatus.REJECTED]
    if refused:
        return f"the data check at {', '.join(refused)} said no"
    return task.why_over() or ""


def file_rows(task: Task, outputs: Sequence[Output]) -> list[dict[str, Any]]:
    """Return the files as rows; the model and the report have theirs from the start, with a reason until they come."""
    models, why = model_files(task, outputs)
    rows: list[dict[str, Any]] = []
    if not models:
        act = {"name": "model", "label": "Download", "aria": "Download the host's model", "why": why}
        rows.append({"key": "model", "file": "Host model", "party": "", "size": "", "at": None, "acts": [act]})
    for each in sorted(outputs, key=lambda one: (one not in models, one.name != "report.zip", one.party, one.name)):
        act = {
            "name": "get",
            "label": "Download",
            "href": file_link(task.id, each),
            "file": each.name,
            "aria": f"Download {each.name} of {each.party}",
        }
        note = "host model" if each in models else ""
        rows.append(
            {
                "key": f"{each.party}/{each.name}",
                "file": {"text": each.name, "sub": note},
                "party": each.party,
                "size": size(each.size),
                "at": iso(each.at),
                "acts": [act],
            }
        )
    if not any(each.name == "report.zip" for each in outputs):
        why = "comes when a party has finished" if task.status not in OVER else "no party gave it (HETEROFED_UPLOAD)"
        act = {"name": "report", "label": "Download", "aria": "Download report.zip", "why": why}
        rows.append({"key": "report", "file": "report.zip", "party": "", "size": "", "at": None, "acts": [act]})
    return rows


def log_rows(events: Sequence[Event], logs: Sequence[LogEntry]) -> list[dict[str, Any]]:
    """Return events, and what parties wrote besides, as one table; the newest first."""
    rows = []
    for event in events:
        text = event.text or event.kind.replace("_", " ").lower()
        rows.append(
            (event.at, {"key": str(event.number), "at": iso(event.at), "party": event.party or "", "text": text})
        )
    for entry in logs:
        at = iso(entry.at)
        key = f"{entry.party} {at} {entry.text}"
        rows.append((entry.at, {"key": key, "at": at, "party": entry.party, "text": f"“{entry.text}”"}))
    rows.sort(key=lambda each: each[0])
    return [row for _, row in rows[: -MOST_EVENTS - 1 : -1]]


def party_row(sight: Sight, number: int) -> dict[str, Any]:
    """Return a party as a row of the parties' table."""
    task = sight.task
    party = task.parties[number]
    user = sight.users.get(party.feature_key, "")
    who = "by invitation" if user == invited_name(task.id, party.feature_key) else user
    acts = []
    if sight.rights.invite and task.why_over() is None:
        acts.append({"name": "invite", "label": "Invite", "aria": f"Invitation of {party.feature_key}"})
        if user:
            aria = f"Withdraw the invitation of {party.feature_key}"
            acts.append({"name": "withdraw", "label": "Withdraw", "tone": "danger", "aria": aria})
    status = chip(party.status)
    return {
        "key": party.feature_key,
        "party": {"text": party.feature_key, "sub": " · ".join(filter(None, (party.role, who)))},
        "status": status,
        "now": party_now(task, party),
        "where": party.endpoint or "",
        "acts": acts,
    }

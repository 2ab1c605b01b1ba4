"""The first page: every task that somebody may see, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui
from starlette.requests import Request

from heterofed.hub.access import Actor
from heterofed.hub.page.elements import Rows, Words, column, link
from heterofed.hub.page.frame import Visit, frame
from heterofed.hub.page.words import BEFORE, OVER, RUNNING, chip, iso, listed, missing, part_done, rounds_done
from heterofed.hub.service import Hub
from heterofed.tasks.model import Task, TaskStatus

PER_PAGE = 50
LOOK_EVERY_S = 2.0

FILTERS = {
    "all": ("All", tuple(TaskStatus)),
    "open": ("Not started", BEFORE),
    "running": ("Running", RUNNING),
    "failed": ("Failed", (TaskStatus.FAILED,)),
    "over": ("Over", OVER),
}
"""Name in the address -> what it is called, and the states that it shows."""

_COLUMNS = (
    column("name", "Task", "link"),
    column("status", "State", "chip"),
    column("course", "Course", "progress"),
    column("parties", "Parties"),
    column("created", "Created", "time", tight=True),
)


def look(hub: Hub, actor: Actor) -> tuple[Actor, tuple[Task, ...]]:
    """Return who asks and what they may see, the newest first."""
    return actor, hub.tasks(actor)


def row(task: Task) -> dict[str, Any]:
    """Return a task as a row of the list."""
    waiting = missing(task)
    note = ""
    if task.status is TaskStatus.FAILED or task.status is TaskStatus.CANCELLED:
        note = task.reason or ""
    elif waiting:
        note = f"waiting for {listed(waiting)}"
    course = rounds_done(task) if task.round or task.status in RUNNING else ""
    return {
        "key": task.id,
        "name": {"text": task.name, "href": f"/tasks/{task.id}"},
        "status": chip(task.status),
        "course": {"text": course, "part": part_done(task) if task.round else None} if course else None,
        "parties": {"text": ", ".join(task.feature_keys), "sub": _short(note)},
        "created": iso(task.created_at),
    }


def _short(text: str, longest: int = 120) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


class TaskList:
    """The table, its filters and its pages of rows."""

    def __init__(self, tasks: Sequence[Task], chosen: str, page: int, actor: Actor) -> None:
        self._chosen = chosen if chosen in FILTERS else "all"
        self._page = page
        self._tabs = ui.element("nav").classes("tabs")
        self._tabs.props["aria-label"] = "Which tasks"
        if not tasks:
            empty = (
                "There are no tasks yet. Create the first one with “New task”: give it a name and its parties, then "
                "send every party its invitation."
                if actor.may_create
                else "You have no task yet. Ask the owner of a task for an invitation, or for leave to see it."
            )
        else:
            empty = "No task is in this state."
        self._rows = Rows("Tasks", _COLUMNS, empty=empty)
        self._pages = ui.element("nav").classes("pages")
        self._pages.props["aria-label"] = "Pages of tasks"
        self._drawn: object = None
        self.show(tasks)

    def show(self, tasks: Sequence[Task]) -> None:
        """Show these tasks."""
        states = FILTERS[self._chosen][1]
        chosen = [task for task in tasks if task.status in states]
        last = max(1, -(-len(chosen) // PER_PAGE))
        page = min(max(1, self._page), last)
        counts = {name: sum(task.status in states for task in tasks) for name, (_, states) in FILTERS.items()}
        self._rows.show([row(task) for task in chosen[(page - 1) * PER_PAGE : page * PER_PAGE]])
        if (counts, last) == self._drawn:
            return
        self._drawn = counts, last
        self._tabs.clear()
        with self._tabs:
            for name, (words, _) in FILTERS.items():
                tab = link(f"{words} {counts[name]}", "/" if name == "all" else f"/?show={name}")
                if name == self._chosen:
                    tab.props["aria-current"] = "true"
        self._pages.clear()
        if last > 1:
            with self._pages:
                if page > 1:
                    link("Newer", f"/?show={self._chosen}&page={page - 1}", "btn small")
                Words("span", f"Page {page} of {last}", "muted")
                if page < last:
                    link("Older", f"/?show={self._chosen}&page={page + 1}", "btn small")


@ui.page("/")
async def task_list(request: Request, show: str = "all", page: int = 1) -> None:
    """The list of tasks."""
    visit = Visit.of(request)
    actor, tasks = await visit.ask(look)
    with frame(visit, actor, "Tasks", "/") as place:
        with ui.element("div").classes("head"):
            Words("h1", "Tasks")
            if actor.may_create:
                with ui.element("div").classes("actions"):
                    link("New task", "/new", "btn primary")
        with ui.element("section").classes("panel"):
            shown = TaskList(tasks, show, page, actor)

        async def refresh() -> None:
            if (answer := await place.look(look)) is not None:
                shown.show(answer[1])

        ui.timer(LOOK_EVERY_S, refresh, immediate=False)

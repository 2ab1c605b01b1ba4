"""A task's page: where it stands, its parties, its charts, files and events, and what can be done with it."""

from __future__ import annotations

from dataclasses import replace

from nicegui import ui
from starlette.requests import Request

from heterofed.errors import HeterofedError
from heterofed.hub.page.charts import Charts, TimeBreakdown
from heterofed.hub.page.course import Course
from heterofed.hub.page.deeds import cancel_sheet, invitation_sheet, launch, viewer_sheet, withdraw_sheet
from heterofed.hub.page.elements import Button, Copy, Rows, Words, column, link, panel
from heterofed.hub.page.frame import Place, Visit, frame, me
from heterofed.hub.page.sight import MOST_EVENTS, Sight, look
from heterofed.hub.page.task_rows import file_rows, is_launched, log_rows, party_row, why_not_launch
from heterofed.hub.page.words import (
    BEFORE,
    OVER,
    RUNNING,
    chip,
    part_done,
    rounds_done,
    situation,
)
from heterofed.tasks.course import Event
from heterofed.tasks.model import Task, TaskStatus
from heterofed.tasks.options import TrainerOptions

LOOK_EVERY_S = 1.0


def options_in_words(options: TrainerOptions | None) -> str:
    """Return a task's options as people say them."""
    if options is None:
        return "as the host's code says"
    if options.skip_model_tests:
        tests = "no tests"
    else:
        tests = "tests after each round" if options.model_test_after_each_round else "a test after the last round"
    return tests + ("" if options.delete_local_models_after_aggregation else ", every checkpoint kept")


class TaskPage:
    """The page, and what keeps it up to date."""

    def __init__(self, place: Place, sight: Sight) -> None:
        self._place = place
        self._sight = sight
        self._course = Course()
        self._events: list[Event] = []
        task = sight.task
        with ui.element("div").classes("crumb"):
            link("Tasks", "/")
        with ui.element("div").classes("head"):
            Words("h1", task.name)
            self._state = Words("span", "", "chip")
            self._actions = ui.element("div").classes("actions")
        self._drawn_actions: object = None
        with ui.element("section").classes("panel") as now:
            now.props["aria-label"] = "Now"
            self._said = Words("p")
            self._said.props["aria-live"] = "polite"
            self._bar = ui.element("div").classes("bar")
            self._bar.props["role"] = "progressbar"
            self._bar.props["aria-label"] = "Finished rounds"
            with self._bar:
                self._filled = ui.element("i")
            self._facts(task)
        with panel("Parties") as right:
            if sight.rights.share:
                with right:
                    Button("Let somebody watch", self._share, "small")
            self._parties = Rows(
                "Parties",
                (
                    column("party", "Party"),
                    column("status", "State", "chip"),
                    column("now", "Now"),
                    column("where", "Where", "code"),
                    column("acts", "Invitation", "acts"),
                ),
                empty="",
                on_act=self._act,
            )
        self._charts = Charts()
        self._time = TimeBreakdown()
        with panel("Files", note="what the host and the parties gave to the hub"):
            self._files = Rows(
                "Files",
                (
                    column("file", "File"),
                    column("party", "Party"),
                    column("size", "Size", "num"),
                    column("at", "Given", "time", tight=True),
                    column("acts", "Download", "acts"),
                ),
                empty="There are no files yet.",
            )
        with panel("Events"):
            self._log = Rows(
                "Events, the newest first",
                (column("at", "Time", "clock", tight=True), column("party", "Party"), column("text", "What")),
                empty="Nothing has happened yet.",
                dense=True,
            )
        self.show(sight)

    def _facts(self, task: Task) -> None:
        with ui.element("dl").classes("facts"):
            with ui.element("div"):
                Words("dt", "Id")
                with ui.element("dd"):
                    Copy(task.id, "the task's id")
            facts = {
                "Rounds": str(task.rounds) if task.rounds is not None else "as the host's code says",
                "Tests": options_in_words(task.options),
                "Uncertainty": task.uncertainty.upper() if task.uncertainty else "as the parties' code says",
                "Created": f"{task.created_at:%Y-%m-%d %H:%M} UTC",
                "Expires": f"{task.expires_at:%Y-%m-%d %H:%M} UTC" if task.expires_at else "never",
            }
            for name, value in facts.items():
                with ui.element("div"):
                    Words("dt", name)
                    Words("dd", value)

    async def look_anew(self) -> None:
        """Show what is there, also where nothing of the task itself has changed."""
        self._sight = replace(self._sight, pulse="")
        await self.refresh()

    async def refresh(self) -> None:
        """Show what is new."""
        event = self._events[-1].number if self._events else 0
        sight = await self._place.look(look, self._sight.task.id, self._sight.pulse, event, self._course.newest)
        if sight is not None:
            self.show(sight)

    def show(self, sight: Sight) -> None:
        """Show a sight of the task."""
        self._sight = sight
        task = sight.task
        if self._course.forget(sight.events):
            self._charts.clear()
            self._time.clear()
        self._course.add(sight.rows)
        self._events = [*self._events, *sight.events][-MOST_EVENTS:]
        state = chip(task.status)
        self._state.set_text(state["text"])
        self._state.classes(replace=f"chip {state['tone']}")
        self._state.props["title"] = task.status.value
        self._said.set_text(situation(task, time_left_s=self._course.time_left_s(task), launched=is_launched(task)))
        part = part_done(task)
        self._bar.set_visibility(part is not None and task.status not in BEFORE)
        if part is not None:
            self._bar.props["aria-valuenow"] = round(part * 100)
            self._bar.props["aria-valuetext"] = rounds_done(task)
            self._filled.style(f"width: {part:.1%}")
        self._show_actions(sight)
        self._parties.show([party_row(sight, each) for each in range(len(task.parties))])
        self._charts.show(task, self._course)
        self._time.show(task, self._course)
        self._files.show(file_rows(task, sight.outputs))
        self._log.show(log_rows(self._events, sight.logs))

    def _show_actions(self, sight: Sight) -> None:
        task, rights = sight.task, sight.rights
        launchable = rights.start and task.status not in (*OVER, *RUNNING)
        cancellable = rights.cancel and task.status not in OVER
        again = task.status is TaskStatus.FAILED
        why = why_not_launch(task)
        if (launchable, cancellable, again, why) == self._drawn_actions:
            return
        self._drawn_actions = launchable, cancellable, again, why
        self._actions.clear()
        with self._actions:
            if launchable:
                button = Button("Launch again" if again else "Launch", self._launch, "primary")
                if why:
                    button.never(why)
            if cancellable:
                Button("Cancel task", self._cancel, "danger")

    async def _launch(self) -> None:
        await launch(self._place, self._sight.task.id)
        await self.refresh()

    async def _cancel(self) -> None:
        await cancel_sheet(self._place, self._sight.task, self.refresh)

    async def _share(self) -> None:
        await viewer_sheet(self._place, self._sight.task)

    async def _act(self, key: str, name: str) -> None:
        if name == "invite":
            await invitation_sheet(self._place, self._sight.task, key, self.look_anew)
        elif name == "withdraw":
            await withdraw_sheet(self._place, self._sight.task, key, self.look_anew)


@ui.page("/tasks/{task_id}")
async def task_page(request: Request, task_id: str) -> None:
    """One task."""
    visit = Visit.of(request)
    actor = await visit.ask(me)
    try:
        sight = await visit.ask(look, task_id, "", 0, 0)
    except HeterofedError as error:
        ui.context.client.status_code = 404
        with frame(visit, actor, "No such task", "/") as place:
            Words("h1", "This task cannot be shown")
            place.notices.error(error)
            with ui.element("div"):
                link("All tasks that you may see", "/", "btn")
        return
    if sight is None:
        raise RuntimeError("a first look always shows something")
    with frame(visit, actor, sight.task.name, "/") as place:
        page = TaskPage(place, sight)
        ui.timer(LOOK_EVERY_S, page.refresh, immediate=False)

"""The form of a new task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse

from heterofed.errors import ConfigError
from heterofed.hub.access import Actor
from heterofed.hub.page.elements import Button, Words, link
from heterofed.hub.page.frame import Place, Visit, frame
from heterofed.hub.service import Hub
from heterofed.tasks.model import MAX_PARTIES, MIN_PARTIES, Task, check_feature_key, check_feature_keys, parse_duration
from heterofed.tasks.options import TrainerOptions, UncertaintyName

INVITED = ""
"""Instead of a user: the party is invited by a line to paste."""

TESTS = {
    "host": "As the host's own code says",
    "each": "After each round",
    "last": "After the last round only",
    "never": "Never",
}
MOST_ROUNDS = 1_000_000


@dataclass(frozen=True)
class Wish:
    """What somebody typed, checked."""

    name: str
    parties: tuple[str, ...]
    users: tuple[str, ...]
    """For each party, who it is; `INVITED`: nobody yet."""
    lives_for: timedelta | None
    rounds: int | None
    options: TrainerOptions | None
    uncertainty: UncertaintyName | None = None


def who_is_there(hub: Hub, actor: Actor) -> tuple[Actor, tuple[str, ...]]:
    """Return who asks, and the users that can be parties of their tasks."""
    return actor, tuple(user.name for user in hub.users(actor)) if actor.may_create else ()


def create(hub: Hub, actor: Actor, wish: Wish) -> Task:
    """Create the task, and say which users its parties are."""
    task = hub.create_task(
        actor,
        wish.name,
        wish.parties,
        lives_for=wish.lives_for,
        rounds=wish.rounds,
        options=wish.options,
        uncertainty=wish.uncertainty,
    )
    for key, user in zip(wish.parties, wish.users, strict=True):
        if user != INVITED:
            hub.set_member(actor, task.id, key, user)
    return task


def options_of(tests: str, keep_all: bool) -> TrainerOptions | None:
    """Return the options that the form's choices mean; None: the host's own."""
    if tests == "host" and not keep_all:
        return None
    return TrainerOptions(
        skip_model_tests=tests == "never",
        model_test_after_each_round=tests in ("each", "host"),
        delete_local_models_after_aggregation=not keep_all,
    )


class PartyRow:
    """One party in the form."""

    def __init__(self, number: int, users: tuple[str, ...]) -> None:
        self.remove: Button | None = None
        self.box = ui.element("div").classes("party-row")
        with self.box:
            self.key = ui.input(f"Party {number}: feature key").props("outlined dense autocomplete=off maxlength=64")
            choices = {INVITED: "Invitation (a line to paste)"} | {name: name for name in users}
            self.user = ui.select(choices, value=INVITED, label=f"Party {number}: who").props("outlined dense")

    def number(self, number: int, *, removable: bool) -> None:
        """Say the row's number in its labels."""
        self.key.props(f'label="Party {number}: feature key"')
        self.user.props(f'label="Party {number}: who"')
        if self.remove is not None:
            self.remove.props["aria-label"] = f"Remove party {number}"
            self.remove.set_visibility(removable)


class NewTask:
    """The form: fields, their errors, and what happens when it is sent."""

    def __init__(self, place: Place, users: tuple[str, ...]) -> None:
        self._place = place
        self._users = users
        self._rows: list[PartyRow] = []
        with ui.element("form").classes("panel form") as form:
            form.props["novalidate"] = True
            form.props["aria-label"] = "New task"
            self._name = ui.input("Name").props("outlined dense autofocus autocomplete=off maxlength=200")
            with ui.element("fieldset"):
                Words("legend", "Parties")
                Words("p", "One holds the labels and is the host; which one, the code at the parties says.", "hint")
                self._list = ui.element("div").classes("form")
                self._list.style("gap: 10px")
                with ui.element("div"):
                    self._more = Button("Add a party", self._add_party, "small")
            with ui.element("div").classes("pair"):
                self._rounds = ui.input("Rounds").props(
                    'outlined dense inputmode=numeric autocomplete=off hint="Empty: as many as the host\'s code says"'
                )
                self._expiry = ui.input("Expires after").props(
                    'outlined dense autocomplete=off hint="90m, 12h or 7d; empty: never"'
                )
            with ui.element("fieldset"):
                Words("legend", "Test the model")
                self._tests = ui.radio(TESTS, value="host").props("dense")
                self._keep = ui.checkbox("Keep every round's checkpoint at every party, not only the newest").props(
                    "dense"
                )
                self._swag = ui.checkbox("Collect the moments of the weights after each round (SWAG)").props("dense")
                Words(
                    "p",
                    "With them the parties can say later how sure the network is. They stay at the parties.",
                    "hint",
                )
            with ui.element("div").classes("head"):
                send = Words("button", "Create task", "btn primary")
                send.props["type"] = "submit"
                link("Back to the tasks", "/", "btn quiet")
            form.on("submit.prevent", self._send)
        self._sending = False
        for _ in range(MIN_PARTIES):
            self._draw_party()

    def _draw_party(self) -> None:
        with self._list:
            row = PartyRow(len(self._rows) + 1, self._users)
            with row.box:

                async def remove() -> None:
                    await self._remove_party(row)

                row.remove = Button("Remove", remove, "quiet")
                row.key.on("keydown.enter.prevent", self._send)
        self._rows.append(row)
        self._count()

    async def _add_party(self) -> None:
        self._draw_party()
        self._rows[-1].key.run_method("focus")

    async def _remove_party(self, row: PartyRow) -> None:
        index = self._rows.index(row)
        self._rows.remove(row)
        row.box.delete()
        self._count()
        self._rows[min(index, len(self._rows) - 1)].key.run_method("focus")

    def _count(self) -> None:
        for number, each in enumerate(self._rows, 1):
            each.number(number, removable=len(self._rows) > MIN_PARTIES)
        self._more.set_visibility(len(self._rows) < MAX_PARTIES)

    def _read(self) -> Wish | None:
        """Return what was typed, or None and say at each field what is wrong; the first of them has the focus."""
        wrong: list[ui.input] = []

        def complain(field: ui.input, text: str | None) -> None:
            field.error = text
            if text:
                wrong.append(field)

        name = (self._name.value or "").strip()
        complain(self._name, None if name else "Give the task a name that its people will know it by.")
        keys = [(each.key.value or "").strip() for each in self._rows]
        for row, key in zip(self._rows, keys, strict=True):
            complain(row.key, _problem_of_key(key, keys))
        rounds, text = None, (self._rounds.value or "").strip()
        if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_ROUNDS:
            rounds = int(text)
        complain(self._rounds, None if rounds or not text else "A whole number from 1, or nothing.")
        lives_for, text = None, (self._expiry.value or "").strip()
        try:
            lives_for = parse_duration(text) if text else None
            complain(self._expiry, None)
        except ConfigError:
            complain(self._expiry, "Minutes, hours or days, for example 90m, 12h or 7d.")
        if wrong:
            wrong[0].run_method("focus")
            return None
        options = options_of(self._tests.value, self._keep.value)
        users = tuple(each.user.value for each in self._rows)
        uncertainty: UncertaintyName | None = "swag" if self._swag.value else None
        return Wish(name, check_feature_keys(keys), users, lives_for, rounds, options, uncertainty)

    async def _send(self) -> None:
        if self._sending:
            return
        self._sending = True
        try:
            wish = self._read()
            if wish is not None and (task := await self._place.attempt(create, wish)) is not None:
                ui.navigate.to(f"/tasks/{task.id}")
        finally:
            self._sending = False


def _problem_of_key(key: str, keys: list[str]) -> str | None:
    """Return what is wrong with a feature key, or None."""
    if not key:
        return "Every party has a feature key, for example bank or shop."
    try:
        check_feature_key(key)
    except ConfigError:
        return "1 to 64 letters, digits, _, - or .; the first one a letter or digit."
    return "Two parties have this key." if keys.count(key) > 1 else None


@ui.page("/new")
async def new_task(request: Request) -> RedirectResponse | None:
    """The form."""
    visit = Visit.of(request)
    actor, users = await visit.ask(who_is_there)
    if not actor.may_create:
        return RedirectResponse("/", status_code=303)
    with frame(visit, actor, "New task", "/") as place:
        with ui.element("div").classes("crumb"):
            link("Tasks", "/")
        Words("h1", "New task")
        NewTask(place, users)
    return None

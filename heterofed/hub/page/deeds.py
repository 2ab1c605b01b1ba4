"""What can be done on a task's page: launch, cancel, invite. Each asks where it cannot be undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from heterofed.hub.access import Actor
from heterofed.hub.accounts import Member
from heterofed.hub.page.elements import Button, Copy, Words, sheet
from heterofed.hub.page.frame import Place
from heterofed.hub.people import NewInvitation
from heterofed.hub.service import Hub
from heterofed.tasks.model import Task

Done = Callable[[], Awaitable[None]]
"""Called when something was done, so that the page shows it."""

JOIN = "heterofed task join "
"""What stands before an invitation, so that the line can be run as it is."""


def _start(hub: Hub, actor: Actor, task_id: str) -> Task:
    return hub.start(actor, task_id)


def _cancel(hub: Hub, actor: Actor, task_id: str, reason: str | None) -> Task:
    return hub.cancel(actor, task_id, reason)


def _invite(hub: Hub, actor: Actor, task_id: str, party: str, url: str | None) -> NewInvitation:
    return hub.invite(actor, task_id, party, url=url)


def _users(hub: Hub, actor: Actor, task_id: str) -> tuple[str, ...]:
    there = {each.user for each in hub.members(actor, task_id)}
    return tuple(each.name for each in hub.users(actor) if each.name not in there and each.name != actor.user)


def _add_viewer(hub: Hub, actor: Actor, task_id: str, user: str) -> tuple[Member, ...]:
    return hub.add_viewer(actor, task_id, user)


def _withdraw(hub: Hub, actor: Actor, task_id: str, party: str) -> tuple[Member, ...]:
    return hub.remove_member(actor, task_id, party)


async def launch(place: Place, task_id: str) -> None:
    """Tell everybody who listens to start, and say what happens next."""
    if await place.attempt(_start, task_id) is not None:
        place.notices.say(
            "Launched. Every agent that listens starts its party; a party without an agent is started by hand.", "good"
        )


async def cancel_sheet(place: Place, task: Task, done: Done) -> None:
    """Ask whether the task shall really be cancelled, and why."""
    with sheet(f"Cancel “{task.name}”?") as dialog:
        Words("p", "Every party stops. This is for good: a cancelled task cannot be launched again.")
        reason = ui.input("Why (for the other parties)").props("outlined dense autofocus")
        reason.props("maxlength=200 autocomplete=off")

        async def cancel() -> None:
            dialog.close()
            await place.attempt(_cancel, task.id, (reason.value or "").strip() or None)
            await done()

        _ends(dialog, "Keep it", "Cancel task", cancel, "danger")


async def withdraw_sheet(place: Place, task: Task, party: str, done: Done) -> None:
    """Ask whether a party's invitations, and the user that it is, shall really be withdrawn."""
    with sheet(f"Withdraw the invitation of {party}?") as dialog:
        Words(
            "p", f"Whoever was {party} can do nothing in this task any more. Another invitation can be made after it."
        )

        async def withdraw() -> None:
            dialog.close()
            if await place.attempt(_withdraw, task.id, party) is not None:
                place.notices.say(f"The invitations of {party} work no more.", "good")
            await done()

        _ends(dialog, "Keep it", "Withdraw", withdraw, "danger")


def _ends(dialog: ui.dialog, stay: str, go: str, deed: Done, look: str) -> None:
    async def close() -> None:
        dialog.close()

    with ui.element("div").classes("ends"):
        Button(stay, close)
        Button(go, deed, look)


async def invitation_sheet(place: Place, task: Task, party: str, done: Done) -> None:
    """Make a party's invitation and show it, to be sent to its people."""
    made = await place.attempt(_invite, task.id, party, place.visit.url)
    if made is None:
        return
    await done()
    with sheet(f"Invitation of {party}") as dialog:
        Words("p", f"Send this line to the people of {party}; they run it once, where their data are.")
        Copy(JOIN + made.invitation, f"the invitation of {party}", boxed=True)
        until = f" It works until {made.expires_at:%Y-%m-%d %H:%M} UTC." if made.expires_at else ""
        Words(
            "p",
            f"It holds a token: whoever has the line is {party} in this task, so send it as you would a password."
            f"{until} It is not shown again; another one can be made at any time.",
            "hint",
        )
        if task.host is None or not task.host.endpoint:
            Words("p", "The host is not up yet; where it listens, the hub tells the party then.", "hint")

        async def close() -> None:
            dialog.close()

        with ui.element("div").classes("ends"):
            Button("Done", close, "primary")


async def viewer_sheet(place: Place, task: Task) -> None:
    """Choose a user who may see the task and do nothing to it."""
    users = await place.attempt(_users, task.id)
    if users is None:
        return
    with sheet(f"Let somebody watch “{task.name}”") as dialog:

        async def close() -> None:
            dialog.close()

        if not users:
            Words("p", "Every user sees this task already. Make another one on the page “Users”.")
            with ui.element("div").classes("ends"):
                Button("Done", close, "primary")
            return
        Words("p", "They see all of the page, and can change nothing.")
        user = ui.select(list(users), value=users[0], label="User").props("outlined dense")

        async def add() -> None:
            dialog.close()
            if await place.attempt(_add_viewer, task.id, str(user.value)) is not None:
                place.notices.say(f"{user.value} sees this task now.", "good")

        _ends(dialog, "Back", "Let them watch", add, "primary")

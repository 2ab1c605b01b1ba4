"""The page of users and their tokens, for owners."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse

from heterofed.errors import ConfigError, NotAllowed
from heterofed.hub.access import Actor
from heterofed.hub.accounts import NewToken, Token, User
from heterofed.hub.page.elements import Button, Copy, Rows, Words, column, panel, sheet
from heterofed.hub.page.frame import Place, Visit, frame, me
from heterofed.hub.page.words import iso
from heterofed.hub.service import Hub
from heterofed.tasks.model import parse_duration

ROLES = {
    "party": "party – takes part in tasks",
    "viewer": "viewer – only reads",
    "owner": "owner – makes tasks and users",
}
_LIFE = "90d"


def everybody(hub: Hub, actor: Actor) -> list[tuple[User, tuple[Token, ...]]]:
    """Return every user, with the tokens that the asker may know of."""
    found = []
    for user in hub.users(actor):
        try:
            tokens = hub.tokens(actor, user.name)
        except NotAllowed:
            tokens = ()
        found.append((user, tokens))
    return found


def _make_user(hub: Hub, actor: Actor, name: str, role: str) -> User:
    return hub.make_user(actor, name, role)


def _make_token(hub: Hub, actor: Actor, name: str, label: str, life: str) -> NewToken:
    return hub.make_token(actor, name, lives_for=parse_duration(life) if life else None, label=label)


def _revoke(hub: Hub, actor: Actor, token_id: int) -> bool:
    hub.revoke_token(actor, token_id)
    return True


def is_live(token: Token) -> bool:
    """Whether a token works."""
    expired = token.expires_at is not None and token.expires_at <= datetime.now(timezone.utc)
    return token.revoked_at is None and not expired


class Users:
    """The page's two tables and the form of a new user."""

    def __init__(self, place: Place) -> None:
        self._place = place
        with panel("Users") as right:
            with right:
                Button("New user", self._new_user, "small primary")
            self._users = Rows(
                "Users",
                (
                    column("name", "Name"),
                    column("role", "Role"),
                    column("tokens", "Live tokens", "num"),
                    column("made", "Made", "time", tight=True),
                    column("acts", "Tokens", "acts"),
                ),
                empty="There is nobody.",
                on_act=self._act,
            )
        with panel("Tokens", note="that work now; a token itself is shown once, when it is made"):
            self._tokens = Rows(
                "Tokens",
                (
                    column("user", "User"),
                    column("label", "For"),
                    column("used", "Last used", "time", tight=True),
                    column("until", "Works until", "time", tight=True),
                    column("acts", "Revoke", "acts"),
                ),
                empty="There are none.",
                on_act=self._act,
            )

    async def refresh(self) -> None:
        """Show who is there."""
        found = await self._place.visit.ask(everybody)
        self.show(found, (await self._place.visit.ask(me)).token_id)

    def show(self, found: Sequence[tuple[User, tuple[Token, ...]]], own: int | None) -> None:
        """Show these."""
        self._users.show([_user_row(user, tokens) for user, tokens in found])
        live = [token for _, tokens in found for token in tokens if is_live(token)]
        self._tokens.show([_token_row(token, own) for token in live])

    async def _act(self, key: str, name: str) -> None:
        if name == "token":
            await self._new_token(key)
        elif name == "revoke":
            await self._revoke(int(key))

    async def _revoke(self, token_id: int) -> None:
        if await self._place.attempt(_revoke, token_id) is not None:
            self._place.notices.say("The token works no more.", "good")
            await self.refresh()

    async def _new_user(self) -> None:
        with sheet("New user") as dialog:
            name = ui.input("Name").props("outlined dense autofocus autocomplete=off maxlength=100")
            roles = ROLES if self._place.actor.admin else {key: ROLES[key] for key in ROLES if key != "owner"}
            role = ui.select(roles, value="party", label="Role").props("outlined dense")

            async def make() -> None:
                try:
                    user = await self._place.visit.ask(_make_user, (name.value or "").strip(), role.value)
                except (ConfigError, NotAllowed) as error:
                    name.error = str(error)
                    name.run_method("focus")
                    return
                dialog.close()
                await self.refresh()
                await self._new_token(user.name)

            _ends(dialog, "Make user", make)
            name.on("keydown.enter", make)

    async def _new_token(self, user: str) -> None:
        with sheet(f"New token for {user}") as dialog:
            label = ui.input("What it is for").props("outlined dense autofocus autocomplete=off maxlength=100")
            life = ui.input("Works for", value=_LIFE).props('outlined dense autocomplete=off hint="90m, 12h or 7d"')

            async def make() -> None:
                try:
                    made = await self._place.visit.ask(
                        _make_token, user, (label.value or "").strip(), (life.value or "").strip()
                    )
                except (ConfigError, NotAllowed) as error:
                    life.error = str(error)
                    life.run_method("focus")
                    return
                dialog.close()
                self._show_token(user, made)
                await self.refresh()

            _ends(dialog, "Make token", make)
            life.on("keydown.enter", make)
            label.on("keydown.enter", make)

    def _show_token(self, user: str, made: NewToken) -> None:
        with sheet(f"Token of {user}") as dialog:
            Words("p", "Copy it now: it is shown this once. Only its hash is kept.")
            Copy(made.token, f"the token of {user}", boxed=True)
            Words("p", "To log in on this page it is pasted there, or opened as a link:", "hint")
            Copy(f"{self._place.visit.url or ''}/login?token={made.token}", "the link", boxed=True)
            Words("p", "On the command line: HETEROFED_HUB and HETEROFED_TOKEN.", "hint")

            async def close() -> None:
                dialog.close()

            with ui.element("div").classes("ends"):
                Button("Done", close, "primary")


def _ends(dialog: ui.dialog, label: str, make: Any) -> None:
    async def leave() -> None:
        dialog.close()

    with ui.element("div").classes("ends"):
        Button("Back", leave)
        Button(label, make, "primary")


def _user_row(user: User, tokens: Sequence[Token]) -> dict[str, Any]:
    return {
        "key": user.name,
        "name": {"text": user.name, "sub": "in charge of the hub" if user.admin else ""},
        "role": user.role,
        "tokens": str(sum(map(is_live, tokens))),
        "made": iso(user.created_at),
        "acts": [{"name": "token", "label": "New token", "aria": f"New token for {user.name}"}],
    }


def _token_row(token: Token, own: int | None) -> dict[str, Any]:
    this = token.id == own
    act = {
        "name": "revoke",
        "label": "Revoke",
        "tone": "danger",
        "aria": f"Revoke the token {token.label} of {token.user}",
    }
    task = f"party {token.party} of one task" if token.task_id else ""
    return {
        "key": str(token.id),
        "user": token.user,
        "label": {"text": token.label or "–", "sub": "this browser" if this else task},
        "used": iso(token.last_used_at),
        "until": iso(token.expires_at),
        "acts": [] if this else [act],
    }


@ui.page("/users")
async def users(request: Request) -> RedirectResponse | None:
    """Who may come in."""
    visit = Visit.of(request)
    actor = await visit.ask(me)
    if not actor.may_create:
        return RedirectResponse("/", status_code=303)
    found = await visit.ask(everybody)
    with frame(visit, actor, "Users", "/users") as place:
        Words("h1", "Users and tokens")
        Users(place).show(found, actor.token_id)
    return None

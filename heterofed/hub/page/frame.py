"""What every page has around its own: who is logged in, where one can go, and where errors are shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from nicegui import ui
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from heterofed.errors import HeterofedError
from heterofed.hub.access import Actor, cookie_name
from heterofed.hub.page.elements import Button, Notices, Words, link
from heterofed.hub.page.login import LOGOUT
from heterofed.hub.page.theme import COOKIE, NEXT, Theme, dark_of, theme_of
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger("heterofed.hub")

_THEME_WORDS: dict[Theme, str] = {"auto": "Theme: system", "light": "Theme: light", "dark": "Theme: dark"}


@dataclass(frozen=True)
class Visit:
    """One opened page: the hub, and who looks at it.

    Every question is asked anew with the token, so that one that is revoked ends at once.
    """

    hub: Hub
    settings: HubSettings
    token: str
    address: str | None
    theme: Theme
    url: str | None
    """How this browser reaches the hub; None where the hub's settings know better."""

    @classmethod
    def of(cls, request: Request) -> Visit:
        """Return the visit that a page was opened by; the door has seen that the token is good."""
        hub, settings = request.scope["heterofed_hub"]
        return cls(
            hub,
            settings,
            request.cookies.get(cookie_name(settings), ""),
            request.client.host if request.client else None,
            theme_of(request.cookies),
            None if settings.public_url else f"{request.url.scheme}://{request.url.netloc}",
        )

    async def ask(self, question: Callable[Concatenate[Hub, Actor, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask the hub something as this visitor, beside the event loop.

        Args:
            question: a function of the hub and the actor.
            args: what else it takes.
            kwargs: the same.

        Raises:
            HeterofedError: what the hub says against it.
        """

        def asked() -> R:
            return question(self.hub, self.hub.authenticate(self.token, self.address), *args, **kwargs)

        return await run_in_threadpool(asked)


def me(hub: Hub, actor: Actor) -> Actor:
    """Return who asks."""
    return actor


class Place:
    """The inside of a page: its notices, and how what goes wrong gets there."""

    def __init__(self, visit: Visit, actor: Actor) -> None:
        self.visit = visit
        self.actor = actor
        self.notices = Notices()
        self._in_trouble = False

    async def look(
        self, question: Callable[Concatenate[Hub, Actor, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R | None:
        """Ask the hub again for what the page shows; say so while that does not work, and return None."""
        try:
            answer = await self.visit.ask(question, *args, **kwargs)
        except HeterofedError as error:
            self._in_trouble = True
            self.notices.error(error)
            return None
        if self._in_trouble:
            self._in_trouble = False
            self.notices.clear()
        return answer

    async def attempt(
        self, question: Callable[Concatenate[Hub, Actor, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R | None:
        """Ask the hub to do something; on a refusal say so on the page and return None."""
        try:
            answer = await self.visit.ask(question, *args, **kwargs)
        except HeterofedError as error:
            self.notices.error(error)
            return None
        self.notices.clear()
        return answer


@contextmanager
def frame(visit: Visit, actor: Actor, title: str, here: str) -> Iterator[Place]:
    """Draw a page's frame and give the place for its own content.

    Args:
        visit: who opened the page.
        actor: the same, as the hub knows them.
        title: of the browser's tab.
        here: the path of the navigation's entry that is current.
    """
    ui.page_title(f"{title} – heterofed hub")
    ui.add_head_html('<link rel="stylesheet" href="/_hub/hub.css">')
    dark = ui.dark_mode(dark_of(visit.theme))
    with ui.header(wrap=True, elevated=False).classes(replace="top"):
        link("Skip to content", "#content", "skip")
        link("heterofed hub", "/", "brand")
        with ui.element("nav") as nav:
            nav.props["aria-label"] = "Pages"
            for name, path in (("Tasks", "/"), ("Users", "/users")):
                if path == "/users" and not actor.may_create:
                    continue
                entry = link(name, path)
                if path == here:
                    entry.props["aria-current"] = "page"
        with ui.element("div").classes("me"):
            _theme_button(visit.theme, dark)
            Words("span", f"{actor.user} ({actor.role})")
            with ui.element("form") as leave:
                leave.props["method"] = "post"
                leave.props["action"] = LOGOUT
                out = Words("button", "Log out", "btn small quiet")
                out.props["type"] = "submit"
    with ui.element("div").classes("content") as content:  # Quasar's page around it is the <main>
        content.props["id"] = "content"
        content.props["tabindex"] = "-1"
        yield Place(visit, actor)


def _theme_button(theme: Theme, dark: ui.dark_mode) -> None:
    now: dict[str, Any] = {"theme": theme}

    async def turn() -> None:
        now["theme"] = NEXT[now["theme"]]
        dark.value = dark_of(now["theme"])
        button.set_text(_THEME_WORDS[now["theme"]])
        ui.run_javascript(f'document.cookie = "{COOKIE}={now["theme"]}; path=/; max-age=31536000; samesite=strict"')

    button = Button(_THEME_WORDS[theme], turn, "small quiet")

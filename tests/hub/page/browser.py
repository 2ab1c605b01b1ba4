"""A real browser at a real hub, for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from heterofed.hub.access import Actor, cookie_name
from heterofed.hub.app import open_hub
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings
from tests.hub.running import HubProcess

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = (390, 844)
DESK = (1280, 900)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run one headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class SeenHub:
    """A hub process with its page, and a second way into its database for what tests prepare."""

    process: HubProcess
    hub: Hub
    owner: Actor

    @property
    def url(self) -> str:
        return self.process.url

    def token(self, name: str, role: str) -> str:
        """The token of a user, who is made if need be."""
        return self.hub.local_token(name, role, None, "test").token  # type: ignore[arg-type]  # a role


def second_way(process: HubProcess, folder: Path) -> SeenHub:
    """Open the database of a hub process beside it."""
    hub = open_hub(HubSettings(database=str(folder / "hub.db"), port=process.port))
    return SeenHub(process, hub, hub.authenticate(process.token))


@dataclass
class Visitor:
    """Somebody at a browser of their own."""

    page: Page
    url: str
    hosts: set[str] = field(default_factory=set)
    """Every host that the browser asked, with its port."""
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the browser's console, and uncaught exceptions."""

    def log_in(self, token: str) -> None:
        """Open the link that the hub prints."""
        self.page.goto(f"{self.url}/login?token={token}")
        self.page.wait_for_url(f"{self.url}/")
        self.page.wait_for_selector(".content h1")

    def come_in(self, token: str, hub: Hub) -> None:
        """Be logged in, without having opened any page."""
        session = hub.login(token).token
        cookie = {"name": cookie_name(hub.settings), "value": session, "url": self.url, "httpOnly": True}
        self.page.context.add_cookies([{**cookie, "sameSite": "Strict"}])  # type: ignore[typeddict-item]  # its dict is none

    def go(self, path: str) -> Page:
        """Open a page of the hub and wait until it is alive."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector(".content h1")
        return self.page


@contextmanager
def visitor(browser: Browser, url: str, size: tuple[int, int] = DESK, dark: bool = False) -> Iterator[Visitor]:
    """Open a browser window of nobody yet; all that it asks and says is noted."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    who = Visitor(page, url)

    def asked(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            who.hosts.add(urlsplit(request.url).netloc)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            who.complaints.append(message.text)

    context.on("request", asked)
    page.on("websocket", lambda socket: who.hosts.add(urlsplit(socket.url).netloc))
    page.on("console", said)
    page.on("pageerror", lambda error: who.complaints.append(str(error)))
    try:
        yield who
    finally:
        context.close()

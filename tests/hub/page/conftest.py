"""A browser, and a hub with its page, for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.hub.page.browser import CHROMIUM, SeenHub, Visitor, chromium, second_way, visitor
from tests.hub.running import hub_process

expect.set_options(timeout=15_000)  # on a machine that has other things to do


@pytest.fixture(scope="module")  # its event loop must not outlive these tests: others want one of their own
def browser() -> Iterator[Browser]:
    """One headless Chromium."""
    if not CHROMIUM.is_file():
        pytest.skip("not run: there is no /usr/bin/chromium; install Debian's package chromium")
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeenHub]:
    """A hub process that serves the page."""
    folder = tmp_path_factory.mktemp("hub")
    with hub_process(folder, "--page") as process:
        there = second_way(process, folder)
        yield there
        there.hub.close()


@pytest.fixture
def owner(browser: Browser, seen: SeenHub) -> Iterator[Visitor]:
    """The hub's owner, logged in."""
    with visitor(browser, seen.url) as who:
        who.come_in(seen.process.token, seen.hub)
        yield who

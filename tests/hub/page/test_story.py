"""The whole story of a task, on the page, with two real agents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.hub.page.browser import visitor
from tests.hub.running import HubProcess, hub_process

ROOT = Path(__file__).parents[3]
ROUNDS = 6
LONG_MS = 90_000
PARTIES = {"host": "Bank", "c1": "Shop"}


class Site:
    """One party's machine: a home of its own, and an agent.

    Args:
        folder: where all of it is.
        key: the party.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.out = folder / "out"
        self.said = folder / "agent.log"
        folder.mkdir()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HETEROFED_")},
            "HETEROFED_HOME": str(folder / "home"),
            "HETEROFED_PROGRESS": "plain",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TEST_BATCH_S": "0.25",
            "TEST_FOLDER": str(folder),
        }

    def command(self, line: str) -> str:
        """Run a line that was pasted into a terminal there."""
        assert line.startswith("heterofed ")
        done = subprocess.run(
            [sys.executable, "-m", *line.split()],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def wait_for(self, text: str) -> None:
        """Wait until the agent has said something."""
        deadline = time.monotonic() + LONG_MS / 1000
        while text not in (said := self.said.read_text()):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    @contextmanager
    def agent(self) -> Iterator[None]:
        """Run `heterofed agent` there."""
        things = ["--serve", f"tests.agent.parties:{PARTIES[self.key]}", "--check", "tests.agent.parties:Good"]
        with self.said.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "heterofed", "agent", *things, "--out", str(self.out)],
                env=self._environment,
                stdout=said,
                stderr=said,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, Site]:
    return {key: Site(tmp_path / key, key) for key in PARTIES}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path / "hub", "--page") as process:
        yield process


def create(page: Page) -> None:
    """Fill in the form of a new task."""
    page.get_by_role("link", name="New task").click()
    page.get_by_label("Name").fill("Purchase intent")
    for number, key in enumerate(PARTIES, 1):
        page.get_by_label(f"Party {number}: feature key").fill(key)
    page.get_by_label("Rounds").fill(str(ROUNDS))
    page.get_by_label("After each round").click()
    page.get_by_role("button", name="Create task").click()
    expect(page.get_by_role("heading", name="Purchase intent")).to_be_visible()


def invitation(page: Page, key: str) -> str:
    """Return the line that the page gives for a party."""
    page.get_by_role("button", name=f"Invitation of {key}").click()
    page.get_by_role("button", name=f"Copy the invitation of {key}").click()
    expect(page.get_by_role("dialog").get_by_text("Copied").first).to_be_attached()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    return str(page.evaluate("navigator.clipboard.readText()"))


def rounds_drawn(page: Page) -> int:
    """Return how many rounds the chart of the host's loss shows."""
    charts = page.get_by_role("img", name=re.compile("^loss of scores over"))
    if not charts.count():
        return 0
    found = re.search(r"over (\d+) rounds", charts.first.get_attribute("aria-label") or "")
    return int(found[1]) if found else 0


def watch(page: Page, done: Callable[[int], bool]) -> list[int]:
    """Look at the chart until something holds; return the different lengths that were seen."""
    seen: list[int] = []
    deadline = time.monotonic() + LONG_MS / 1000
    while not done(rounds := rounds_drawn(page)):
        if rounds and rounds not in seen:
            seen.append(rounds)
        assert time.monotonic() < deadline, (seen, page.locator("main").inner_text())
        page.wait_for_timeout(50)
    return [*seen, rounds]


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_task_is_created_verified_launched_watched_and_collected_on_the_page(
    browser: Browser, hub: HubProcess, sites: dict[str, Site]
) -> None:
    with visitor(browser, hub.url) as who:
        who.log_in(hub.token)
        page = who.page
        create(page)
        for key, site in sites.items():
            assert f"you are {key}" in site.command(invitation(page, key))
        with sites["host"].agent(), sites["c1"].agent():
            for key in PARTIES:
                row = page.get_by_role("table", name="Parties").get_by_role("row", name=re.compile(f"^{key}"))
                expect(row).to_contain_text("Verified", timeout=LONG_MS)
            expect(page.get_by_text("Every party's data is checked.")).to_be_visible()
            page.get_by_role("button", name="Launch").click()
            expect(page.get_by_text("Launched. Every agent that listens")).to_be_visible()

            expect(page.get_by_role("button", name="Launch")).to_have_count(0)
            seen = watch(page, lambda rounds: rounds == ROUNDS)
            assert len(seen) >= 3, f"the chart did not grow: {seen}"
            assert seen == sorted(seen)
            expect(page.locator(".head .chip")).to_have_text("Completed", timeout=LONG_MS)

            task_id = page.url.rsplit("/", 1)[1]
            with page.expect_download() as download:
                page.get_by_role("link", name="Download scores of host as CSV").click()
            own = (sites["host"].out / task_id / "host" / "scores.csv").read_bytes()
            assert download.value.path().read_bytes() == own
            assert own.count(b"\n") == ROUNDS + 1

            report = page.get_by_role("link", name="Download report.zip of host")
            expect(report).to_be_visible(timeout=LONG_MS)
            with page.expect_download() as download:
                report.click()
            own = (sites["host"].out / task_id / "host" / "report.zip").read_bytes()
            assert download.value.path().read_bytes() == own

            model = page.get_by_role("row", name=re.compile("^Host model"))
            expect(model).to_contain_text("HETEROFED_UPLOAD=all")  # a host's model stays at the host unless it says so
            expect(page.get_by_role("table", name="Time of each party").get_by_role("row")).to_have_count(3)
            for site in sites.values():
                site.wait_for("is done")
        assert who.complaints == []

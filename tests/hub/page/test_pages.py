"""The pages in a real browser: what they show, how they are used, and what they never do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from heterofed.errors import NotAllowed
from heterofed.tasks import PartyStatus, TaskStatus
from heterofed.tasks.course import Measurement, ReportKind
from heterofed.tasks.invitation import Invitation
from heterofed.tasks.model import Task
from tests.hub.page.browser import DESK, PHONE, SeenHub, Visitor, second_way, visitor
from tests.hub.running import hub_process

SETS = ("progress", "scores")


def a_round(seen: SeenHub, task: Task, number: int, parties: tuple[str, ...] = ("bank", "shop")) -> None:
    """Let every party finish one round."""
    for party in parties:
        times = {"round": number, "seconds": 2.0, "own_s": 1.0, "wire_s": 0.25, "bytes_sent": 10, "bytes_received": 20}
        others = {f"waiting_s/{other}": 0.5 for other in parties if other != party}
        rows = [
            Measurement("progress", number - 1, number, {"round": number, "loss": 1 / number, "samples": 50 * number}),
            Measurement("time", number - 1, number, {**times, **others}),
        ]
        seen.hub.store.put_metrics(task.id, party, rows)
        seen.hub.store.report(task.id, party, ReportKind.ROUND_FINISHED, number, {"loss": 1 / number})


def running(seen: SeenHub, name: str = "Purchase intent", rounds: int = 5) -> Task:
    """A task that trains, without its parties."""
    task = seen.hub.create_task(seen.owner, name, ["bank", "shop"], rounds=rounds)
    seen.hub.start(seen.owner, task.id)
    store = seen.hub.store
    store.set_party(task.id, "bank", role="host", status=PartyStatus.ONLINE, endpoint="tcp://10.0.0.1:4000")
    store.set_party(task.id, "shop", role="collaborator", status=PartyStatus.ONLINE)
    for status in (TaskStatus.ALIGNING, TaskStatus.ONGOING):
        store.move(task.id, status)
    return task


@pytest.fixture(scope="module")
def task(seen: SeenHub) -> Task:
    """A task in its third round."""
    made = running(seen)
    a_round(seen, made, 1)
    a_round(seen, made, 2)
    return made


@pytest.fixture
def viewer(browser: Browser, seen: SeenHub, task: Task) -> Iterator[Visitor]:
    """Somebody who may see that one task."""
    token = seen.token("reader", "viewer")
    seen.hub.add_viewer(seen.owner, task.id, "reader")
    with visitor(browser, seen.url) as who:
        who.come_in(token, seen.hub)
        yield who


def focused(page: Page) -> str:
    """What the focus is on, as a screen reader would say it: its label, or its text."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement, l = e.labels && e.labels[0]; if (e === document.body) return '';"
            " return e.getAttribute('aria-label') || (l && l.innerText) || e.innerText || e.id; }"
        )
    ).strip()


def tab_to(page: Page, wanted: str, most: int = 40) -> None:
    """Press Tab until the focus is on something."""
    for _ in range(most):
        if wanted in focused(page):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {wanted!r}")


# --- what the browser loads ---------------------------------------------------------------------------------------


def test_the_pages_ask_no_other_host_and_make_no_browser_complain(owner: Visitor, task: Task) -> None:
    for path in ("/", "/new", f"/tasks/{task.id}", "/users"):
        owner.go(path)
        owner.page.wait_for_timeout(300)  # for what a page loads late

    assert owner.hosts == {urlsplit(owner.url).netloc}
    assert owner.complaints == []


def test_nobody_opens_a_page_without_a_login_and_after_it_one_is_where_one_wanted_to_be(
    browser: Browser, seen: SeenHub, task: Task
) -> None:
    with visitor(browser, seen.url) as who:
        for path in ("/", "/new", "/users", f"/tasks/{task.id}"):
            who.page.goto(seen.url + path)
            assert urlsplit(who.page.url).path == "/login"
        who.page.get_by_label("Token").fill(seen.process.token)
        who.page.keyboard.press("Enter")
        expect(who.page.get_by_role("heading", name=task.name)).to_be_visible()


def test_a_socket_without_a_login_is_refused(browser: Browser, seen: SeenHub) -> None:
    with visitor(browser, seen.url) as who:
        who.page.goto(f"{seen.url}/login")
        answer = who.page.request.get(f"{seen.url}/_nicegui_ws/socket.io/?EIO=4&transport=polling")

    assert answer.status == 403


def test_another_site_may_not_open_a_socket_with_this_browser_s_cookie(owner: Visitor) -> None:
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"

    assert owner.page.request.get(owner.url + path, headers={"Origin": "http://evil.example"}).status == 403
    assert owner.page.request.get(owner.url + path, headers={"Origin": owner.url}).status == 200


# --- the list -----------------------------------------------------------------------------------------------------


def test_the_list_shows_every_task_with_its_state_and_can_be_narrowed(
    owner: Visitor, seen: SeenHub, task: Task
) -> None:
    waiting = seen.hub.create_task(seen.owner, "Not begun", ["bank", "shop"])
    page = owner.go("/")
    row = page.get_by_role("row", name=re.compile("Not begun"))

    expect(row).to_contain_text("Created")
    expect(row).to_contain_text("waiting for bank and shop")
    expect(page.get_by_role("row", name=re.compile(task.name)).first).to_contain_text("Round 2 of 5")

    page.get_by_role("link", name=re.compile("^Running")).click()
    expect(page.get_by_role("link", name=task.name).first).to_be_visible()
    expect(page.get_by_role("link", name="Not begun")).to_have_count(0)
    seen.hub.cancel(seen.owner, waiting.id, "only for this test")


def test_a_new_task_appears_without_a_reload(owner: Visitor, seen: SeenHub) -> None:
    page = owner.go("/")
    made = seen.hub.create_task(seen.owner, "Made elsewhere", ["a", "b"])

    expect(page.get_by_role("link", name="Made elsewhere")).to_be_visible()
    seen.hub.cancel(seen.owner, made.id, "only for this test")


def test_who_has_no_task_is_told_what_to_do(browser: Browser, seen: SeenHub) -> None:
    with visitor(browser, seen.url) as who:
        who.come_in(seen.token("newcomer", "viewer"), seen.hub)
        who.go("/")
        expect(who.page.locator(".empty").first).to_contain_text("Ask the owner of a task")


def test_two_hundred_tasks_come_fifty_at_a_time(browser: Browser, tmp_path: Path) -> None:
    with hub_process(tmp_path, "--page") as process, visitor(browser, process.url) as who:
        there = second_way(process, tmp_path)
        for number in range(200):
            there.hub.create_task(there.owner, f"Task {number:03d}", ["a", "b"])
        who.come_in(process.token, there.hub)
        page = who.go("/")
        names = page.locator("table.rows a.main")
        expect(names).to_have_count(50)
        expect(page.get_by_text("Page 1 of 4")).to_be_visible()
        found = set(names.all_inner_texts())
        for number in (2, 3, 4):
            page.get_by_role("link", name="Older").click()
            expect(page.get_by_text(f"Page {number} of 4")).to_be_visible()
            found |= set(names.all_inner_texts())
        expect(page.get_by_role("link", name="Older")).to_have_count(0)
        there.hub.close()

    assert len(found) == 200


def test_a_page_comes_back_by_itself_when_the_hub_was_killed_and_started_again(
    browser: Browser, tmp_path: Path
) -> None:
    with hub_process(tmp_path, "--page") as process, visitor(browser, process.url) as who:
        there = second_way(process, tmp_path)
        task = running(there, "Outlives its hub")
        who.come_in(process.token, there.hub)
        page = who.go(f"/tasks/{task.id}")
        process.kill()
        a_round(there, task, 1)
        process.start()
        expect(page.get_by_text("Training round 2 of 5.")).to_be_visible(timeout=30_000)
        there.hub.close()


# --- the form -----------------------------------------------------------------------------------------------------


def test_a_task_is_created_with_the_keyboard_alone(owner: Visitor, seen: SeenHub) -> None:
    page = owner.go("/")
    tab_to(page, "New task")
    page.keyboard.press("Enter")
    page.wait_for_url("**/new")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("By keyboard")
    tab_to(page, "Party 1: feature key")
    page.keyboard.type("bank")
    tab_to(page, "Party 2: feature key")
    page.keyboard.type("shop")
    tab_to(page, "Add a party")
    page.keyboard.press("Space")
    expect(page.get_by_label("Party 3: feature key")).to_be_focused()
    page.keyboard.type("insurer")
    tab_to(page, "Rounds")
    page.keyboard.type("7")
    tab_to(page, "Expires after")
    page.keyboard.type("12h")
    tab_to(page, "After each round")
    page.keyboard.press("Space")
    tab_to(page, "Create task")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="By keyboard")).to_be_visible()

    made = next(each for each in seen.hub.tasks(seen.owner) if each.name == "By keyboard")
    assert made.feature_keys == ("bank", "shop", "insurer")
    assert made.rounds == 7
    assert made.expires_at is not None
    assert made.options is not None
    assert made.options.model_test_after_each_round


def test_the_focus_can_be_seen_on_everything_that_takes_it(owner: Visitor, task: Task) -> None:
    for path in ("/", "/new", f"/tasks/{task.id}", "/users"):
        page = owner.go(path)
        for _ in range(12):
            page.keyboard.press("Tab")
            seen = page.evaluate(
                "() => { let e = document.activeElement; if (e === document.body) return true;"
                " for (let i = 0; e && i < 6; i++, e = e.parentElement) {"
                "  const s = getComputedStyle(e);"
                "  if (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2"
                "    && s.outlineColor !== 'rgba(0, 0, 0, 0)') return true; }"
                " return document.activeElement.outerHTML.slice(0, 200); }"
            )
            assert seen is True, (path, seen)


def test_what_is_wrong_in_the_form_stands_at_its_field_and_the_first_has_the_focus(owner: Visitor) -> None:
    page = owner.go("/new")
    page.get_by_label("Party 1: feature key").fill("same")
    page.get_by_label("Party 2: feature key").fill("same")
    page.get_by_label("Rounds").fill("none")
    page.get_by_label("Expires after").fill("soon")
    page.get_by_role("button", name="Create task").click()

    expect(page.get_by_text("Give the task a name")).to_be_visible()
    expect(page.get_by_text("Two parties have this key.")).to_have_count(2)
    expect(page.get_by_text("A whole number from 1")).to_be_visible()
    expect(page.get_by_text("for example 90m, 12h or 7d.")).to_be_visible()
    expect(page.get_by_label("Name")).to_be_focused()
    assert page.url.endswith("/new")


def test_a_party_can_be_removed_down_to_two(owner: Visitor) -> None:
    page = owner.go("/new")
    expect(page.get_by_role("button", name="Remove party 1")).to_be_hidden()
    page.get_by_role("button", name="Add a party").click()
    page.get_by_label("Party 1: feature key").fill("first")
    page.get_by_label("Party 3: feature key").fill("third")
    page.get_by_role("button", name="Remove party 1").click()

    expect(page.get_by_label("Party 2: feature key")).to_have_value("third")
    expect(page.get_by_label("Party 3: feature key")).to_have_count(0)
    expect(page.get_by_role("button", name="Remove party 1")).to_be_hidden()


def test_a_party_can_be_a_user_from_the_start(owner: Visitor, seen: SeenHub) -> None:
    seen.token("anna", "party")
    page = owner.go("/new")
    page.get_by_label("Name").fill("With Anna")
    page.get_by_label("Party 1: feature key").fill("bank")
    page.get_by_label("Party 2: feature key").fill("shop")
    page.get_by_label("Party 2: who").click()
    page.get_by_role("option", name="anna").click()
    page.get_by_role("button", name="Create task").click()
    expect(page.get_by_role("heading", name="With Anna")).to_be_visible()

    made = next(each for each in seen.hub.tasks(seen.owner) if each.name == "With Anna")
    assert [
        (each.user, each.feature_key) for each in seen.hub.members(seen.owner, made.id) if each.role == "party"
    ] == [("anna", "shop")]


# --- a task -------------------------------------------------------------------------------------------------------


def test_the_id_and_the_invitation_are_copied(owner: Visitor, seen: SeenHub) -> None:
    task = seen.hub.create_task(seen.owner, "To copy", ["bank", "shop"])
    page = owner.go(f"/tasks/{task.id}")
    page.get_by_role("button", name="Copy the task's id").click()
    expect(page.get_by_text("Copied").first).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == task.id

    page.get_by_role("button", name="Invitation of shop").click()
    page.get_by_role("button", name="Copy the invitation of shop").click()
    expect(page.get_by_role("dialog").get_by_text("Copied").first).to_be_attached()
    line = page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    command, text = line.rsplit(" ", 1)
    invitation = Invitation.parse(text)
    assert command == "heterofed task join"
    assert (invitation.task, invitation.party, invitation.hub) == (task.id, "shop", seen.url)
    assert invitation.token is not None
    assert seen.hub.authenticate(invitation.token).party == "shop"


def test_an_invitation_is_withdrawn_and_works_no_more(owner: Visitor, seen: SeenHub) -> None:
    task = seen.hub.create_task(seen.owner, "To withdraw", ["bank", "shop"])
    text = seen.hub.invite(seen.owner, task.id, "shop").invitation
    token = Invitation.parse(text).token
    assert token is not None
    page = owner.go(f"/tasks/{task.id}")
    expect(page.get_by_role("row", name=re.compile("^shop"))).to_contain_text("by invitation")
    expect(page.get_by_role("button", name="Withdraw the invitation of bank")).to_have_count(0)
    page.get_by_role("button", name="Withdraw the invitation of shop").click()
    page.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
    expect(page.get_by_text("The invitations of shop work no more.")).to_be_visible()

    expect(page.get_by_role("button", name="Withdraw the invitation of shop")).to_have_count(0)
    with pytest.raises(NotAllowed):
        seen.hub.authenticate(token)


def test_an_id_is_copied_where_the_browser_keeps_its_clipboard_from_pages_without_tls(
    owner: Visitor, task: Task
) -> None:
    owner.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page = owner.go(f"/tasks/{task.id}")
    page.get_by_role("button", name="Copy the task's id").click()

    expect(page.get_by_text("Copied").first).to_be_attached()


def test_the_page_follows_the_task_without_a_reload(owner: Visitor, seen: SeenHub) -> None:
    task = running(seen, "Followed", rounds=3)
    page = owner.go(f"/tasks/{task.id}")
    expect(page.get_by_text("Nothing is measured yet.")).to_be_visible()
    expect(page.get_by_text("Training round 1 of 3.")).to_be_visible()
    expect(page.get_by_role("button", name="Launch")).to_have_count(0)

    a_round(seen, task, 1)
    expect(page.get_by_role("img", name=re.compile("^loss of progress over 1 rounds"))).to_be_visible()
    a_round(seen, task, 2)
    expect(page.get_by_role("img", name=re.compile("^loss of progress over 2 rounds.*bank 0.5 at 2"))).to_be_visible()
    expect(page.get_by_text(re.compile("Training round 3 of 3, about .* left."))).to_be_visible()
    times = page.get_by_role("table", name="Time of each party").get_by_role("row", name=re.compile("^bank"))
    expect(times).to_contain_text(re.compile(r"2\.0 s\s*1\.0 s\s*shop 1\.0 s\s*0\.5 s\s*20 B / 40 B"))
    expect(page.get_by_text("shop finished round 2")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('.chart canvas').length") == 3  # loss, samples, time
    assert owner.complaints == []


def test_the_charts_drop_the_points_of_a_run_that_begins_again(owner: Visitor, seen: SeenHub) -> None:
    task = running(seen, "Begun again", rounds=3)
    for number in (1, 2):
        a_round(seen, task, number)
    seen.hub.store.put_metrics(task.id, "bank", [Measurement("gone", 0, 1, {"x": 1.0})])
    page = owner.go(f"/tasks/{task.id}")
    expect(page.get_by_role("img", name=re.compile("^loss of progress over 2 rounds"))).to_be_visible()
    expect(page.get_by_role("heading", name="gone")).to_be_visible()

    for party in ("bank", "shop"):
        seen.hub.store.begin_anew(task.id, party, "again")
    expect(page.get_by_text("Nothing is measured yet.")).to_be_visible()
    expect(page.get_by_text("Training round 1 of 3.")).to_be_visible()
    assert page.locator(".chart").count() == 0

    a_round(seen, task, 1)
    expect(page.get_by_role("img", name=re.compile("^loss of progress over 1 rounds.*bank 1 at 1"))).to_be_visible()
    expect(page.get_by_role("heading", name="gone")).to_have_count(0)
    times = page.get_by_role("table", name="Time of each party").get_by_role("row", name=re.compile("^bank"))
    expect(times).to_contain_text("10 B / 20 B")
    expect(page.get_by_text("shop begins with the first round again")).to_be_visible()
    assert owner.complaints == []


def test_a_task_of_moments_is_created_and_shown_as_one(owner: Visitor, seen: SeenHub) -> None:
    page = owner.go("/new")
    page.get_by_label("Name").fill("With moments")
    page.get_by_label("Party 1: feature key").fill("bank")
    page.get_by_label("Party 2: feature key").fill("shop")
    page.get_by_role("checkbox", name=re.compile("moments of the weights")).click()
    page.get_by_role("button", name="Create task").click()
    expect(page.get_by_role("heading", name="With moments")).to_be_visible()

    expect(page.get_by_text("SWAG", exact=True)).to_be_visible()
    [made] = [each for each in seen.hub.tasks(seen.owner) if each.name == "With moments"]
    assert made.uncertainty == "swag"


def test_a_refused_data_check_is_shown_with_its_reason_and_bars_the_launch(owner: Visitor, seen: SeenHub) -> None:
    task = seen.hub.create_task(seen.owner, "Refused", ["bank", "shop"])
    seen.hub.verify(seen.owner, task.id, "shop", False, "the column age is missing")
    page = owner.go(f"/tasks/{task.id}")

    row = page.get_by_role("row", name=re.compile("^shop"))
    expect(row).to_contain_text("Rejected")
    expect(row).to_contain_text("the column age is missing")
    expect(page.get_by_text("Mend the data there and run the check again.")).to_be_visible()
    launch = page.get_by_role("button", name="Launch")
    expect(launch).to_have_attribute("aria-disabled", "true")
    launch.click(force=True)
    page.wait_for_timeout(500)
    assert seen.hub.task(seen.owner, task.id).launched_at is None


def test_cancelling_asks_first_and_says_why_to_everybody(owner: Visitor, seen: SeenHub) -> None:
    task = running(seen, "To be cancelled")
    page = owner.go(f"/tasks/{task.id}")
    page.get_by_role("button", name="Cancel task").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert seen.hub.task(seen.owner, task.id).status is TaskStatus.ONGOING

    page.get_by_role("button", name="Cancel task").click()
    page.get_by_label("Why (for the other parties)").fill("wrong cohort")
    page.get_by_role("dialog").get_by_role("button", name="Cancel task").click()
    expect(page.get_by_text("wrong cohort. A cancelled task stays so")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel task")).to_have_count(0)
    assert seen.hub.task(seen.owner, task.id).reason == "wrong cohort"


def test_files_are_downloaded_and_what_is_not_there_says_why(owner: Visitor, seen: SeenHub) -> None:
    task = running(seen, "With files", rounds=1)
    a_round(seen, task, 1)
    page = owner.go(f"/tasks/{task.id}")
    model = page.get_by_role("row", name=re.compile("^Host model"))
    expect(model.get_by_role("button")).to_have_attribute("aria-disabled", "true")
    expect(model).to_contain_text("comes when the task is completed")

    seen.hub.store.put_output(task.id, "bank", "model.zip", b"weights")
    seen.hub.store.put_output(task.id, "bank", "report.zip", b"report")
    for name, content in (("model.zip", b"weights"), ("report.zip", b"report")):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Download {name} of bank").click()
        assert download.value.suggested_filename == name
        assert download.value.path().read_bytes() == content
    with page.expect_download() as download:
        page.get_by_role("link", name="Download progress of bank as CSV").click()
    assert download.value.suggested_filename == "progress.csv"
    assert download.value.path().read_bytes() == b"round,loss,samples\n1,1.0,50\n"


def test_a_task_that_is_not_there_is_said_so(owner: Visitor) -> None:
    answer = owner.page.goto(f"{owner.url}/tasks/abcdefghijkl")

    assert answer is not None
    assert answer.status == 404
    expect(owner.page.get_by_role("alert")).to_contain_text("There is no task 'abcdefghijkl'")


# --- who may what -------------------------------------------------------------------------------------------------


def test_a_viewer_sees_everything_of_the_task_and_has_nothing_to_press(
    viewer: Visitor, seen: SeenHub, task: Task
) -> None:
    page = viewer.go("/")
    expect(page.get_by_role("link", name=task.name)).to_be_visible()
    expect(page.get_by_role("link", name="New task")).to_have_count(0)
    expect(page.get_by_role("link", name="Users")).to_have_count(0)
    viewer.go(f"/tasks/{task.id}")
    expect(page.get_by_role("img", name=re.compile("^loss of progress"))).to_be_visible()
    waiting = seen.hub.create_task(seen.owner, "Seen before its start", ["bank", "shop"])
    seen.hub.add_viewer(seen.owner, waiting.id, "reader")
    for each in (task, waiting):
        viewer.go(f"/tasks/{each.id}")
        expect(page.get_by_role("heading", name=each.name)).to_be_visible()
        buttons = [one for one in page.get_by_role("button").all() if one.is_enabled()]
        names = {one.get_attribute("aria-label") or one.inner_text() for one in buttons}
        assert {name for name in names if not name.startswith(("Download", "Copy"))} == {"Theme: system", "Log out"}


@pytest.mark.parametrize("path", ["/new", "/users"])
def test_a_viewer_who_types_an_owner_s_address_comes_back_to_the_list(viewer: Visitor, path: str) -> None:
    viewer.page.goto(viewer.url + path)
    viewer.page.wait_for_selector(".content h1")

    assert urlsplit(viewer.page.url).path == "/"


def test_another_task_is_not_shown_to_a_viewer(viewer: Visitor, seen: SeenHub) -> None:
    other = seen.hub.create_task(seen.owner, "Secret plan", ["a", "b"])
    page = viewer.go(f"/tasks/{other.id}")

    expect(page.get_by_role("alert")).to_contain_text("may not see")
    expect(page.get_by_text("Secret plan")).to_have_count(0)
    expect(viewer.go("/").get_by_text("Secret plan")).to_have_count(0)


def test_a_session_that_ends_while_a_page_is_open_is_said_so(browser: Browser, seen: SeenHub, task: Task) -> None:
    token = seen.token("leaving", "viewer")
    seen.hub.add_viewer(seen.owner, task.id, "leaving")
    with visitor(browser, seen.url) as who:
        who.come_in(token, seen.hub)
        who.go(f"/tasks/{task.id}")
        for each in seen.hub.tokens(seen.owner, "leaving"):
            seen.hub.revoke_token(seen.owner, each.id)
        expect(who.page.get_by_role("alert")).to_contain_text("revoked")
        who.page.reload()
        assert urlsplit(who.page.url).path == "/login"


def test_the_owner_lets_somebody_watch(owner: Visitor, seen: SeenHub) -> None:
    task = seen.hub.create_task(seen.owner, "To watch", ["a", "b"])
    token = seen.token("watcher", "viewer")
    page = owner.go(f"/tasks/{task.id}")
    page.get_by_role("button", name="Let somebody watch").click()
    page.get_by_label("User", exact=True).click()
    page.get_by_role("option", name="watcher").click()
    page.get_by_role("button", name="Let them watch").click()
    expect(page.get_by_text("watcher sees this task now.")).to_be_visible()

    assert [each.id for each in seen.hub.tasks(seen.hub.authenticate(token))] == [task.id]


# --- users --------------------------------------------------------------------------------------------------------


def test_a_token_is_made_shown_once_and_revoked(owner: Visitor, seen: SeenHub) -> None:
    page = owner.go("/users")
    page.get_by_role("button", name="New user").click()
    page.get_by_label("Name").fill("berta")
    page.get_by_role("button", name="Make user").click()
    expect(page.get_by_text("New token for berta")).to_be_visible()
    page.get_by_label("What it is for").fill("agent at the shop")
    page.get_by_role("button", name="Make token").click()
    page.get_by_role("button", name="Copy the token of berta").click()
    token = page.evaluate("navigator.clipboard.readText()")
    assert seen.hub.authenticate(token).user == "berta"
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert token not in page.content()

    page.get_by_role("button", name="Revoke the token agent at the shop of berta").click()
    expect(page.get_by_text("The token works no more.")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke the token agent at the shop of berta")).to_have_count(0)
    with pytest.raises(NotAllowed):
        seen.hub.authenticate(token)


def test_a_user_s_name_that_is_taken_is_said_at_its_field(owner: Visitor) -> None:
    page = owner.go("/users")
    page.get_by_role("button", name="New user").click()
    page.get_by_label("Name").fill("owner")
    page.get_by_role("button", name="Make user").click()

    expect(page.get_by_text("there is a user 'owner' already")).to_be_visible()
    expect(page.get_by_label("Name")).to_be_focused()


# --- looks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_no_page_is_wider_than_its_window(browser: Browser, seen: SeenHub, task: Task, size: tuple[int, int]) -> None:
    seen.hub.create_task(seen.owner, "A" * 200, ["a" * 64, "b" * 64])
    with visitor(browser, seen.url, size) as who:
        who.come_in(seen.process.token, seen.hub)
        for path in ("/", "/new", f"/tasks/{task.id}", "/users", "/login"):
            who.page.goto(seen.url + path)
            who.page.wait_for_selector("h1")
            who.page.wait_for_timeout(200)
            assert who.page.evaluate("document.documentElement.scrollWidth") <= size[0], path
            wider = "[...document.querySelectorAll('.wrap')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
            assert size != PHONE or who.page.evaluate(wider) == 0, path


def test_light_and_dark_are_the_system_s_until_somebody_chooses(browser: Browser, seen: SeenHub) -> None:
    with visitor(browser, seen.url, dark=True) as who:
        who.log_in(seen.process.token)
        body = who.page.locator("body")
        expect(body).to_have_class(re.compile("body--dark"))
        who.page.get_by_role("button", name="Theme: system").click()
        expect(body).to_have_class(re.compile("body--light"))
        who.page.wait_for_function("() => document.cookie.includes('light')")
        who.page.reload()
        expect(body).to_have_class(re.compile("body--light"))
        expect(who.page.get_by_role("button", name="Theme: light")).to_be_visible()


def test_every_page_has_one_first_heading_a_main_part_and_a_way_to_skip_to_it(owner: Visitor, task: Task) -> None:
    for path in ("/", "/new", f"/tasks/{task.id}", "/users"):
        page = owner.go(path)
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1
        assert page.evaluate("document.documentElement.lang").startswith("en")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        if path != "/new":  # there the first field has the focus
            assert focused(page) == "Skip to content"
        unnamed = page.evaluate(
            "() => [...document.querySelectorAll('button, a[href], input:not([type=hidden])')]"
            ".filter(e => e.offsetParent)"
            ".filter(e => !(e.innerText || e.getAttribute('aria-label') || (e.labels && e.labels.length)))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []

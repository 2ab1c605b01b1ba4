"""The charts of a task's page: one small chart for each column of each metric set, and where the time went."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from heterofed.hub.page.course import PROGRESS, Course, Line, Share, colour_of, series, shown
from heterofed.hub.page.elements import Chart, Rows, Words, column, link, panel
from heterofed.hub.page.words import size
from heterofed.tasks.course import Output
from heterofed.tasks.model import Task

MOST_COLUMNS = 12
"""Charts of one set; a wider set is read from its table."""

_SHARES = (("own work", "own"), ("waiting", "wait"), ("wire", "wire"))


def table_link(task_id: str, party: str, name: str) -> str:
    """Return where a party's metric set can be downloaded."""
    return f"/api/tasks/{task_id}/parties/{quote(party)}/metrics/{quote(name)}.csv"


def file_link(task_id: str, output: Output) -> str:
    """Return where a party's file can be downloaded."""
    return f"/api/tasks/{task_id}/parties/{quote(output.party)}/outputs/{quote(output.name)}"


class Charts:
    """The panel of the metric sets; charts come as their columns do."""

    def __init__(self) -> None:
        with panel("Metrics", note="by finished round, as the parties report them") as right:
            self._legend = ui.element("div").classes("legend")
            self._empty = Words(
                "p",
                "Nothing is measured yet. The charts begin with the first finished round, and grow from there.",
                "empty",
            )
            self._place = ui.element("div").classes("form").style("max-width: none")
        right.delete()
        self._known: list[str] = []
        self._linked: dict[str, list[str]] = {}
        self._sets: dict[str, ui.element] = {}
        self._links: dict[str, ui.element] = {}
        self._charts: dict[tuple[str, str], Chart] = {}

    def clear(self) -> None:
        """Draw everything anew: some of it is not there any more."""
        self._place.clear()
        self._sets.clear()
        self._links.clear()
        self._linked.clear()
        self._charts.clear()

    def show(self, task: Task, course: Course) -> None:
        """Draw what is there by now."""
        for name in course.names():
            if name not in self._sets:
                self._add_set(name)
            self._show_links(task, name, [each for each in task.feature_keys if each in course.sets[name]])
            for key in course.columns(name)[:MOST_COLUMNS]:
                lines = course.lines(name, key, task.feature_keys)
                if (name, key) not in self._charts:
                    with self._sets[name]:
                        self._charts[name, key] = Chart(key, "lines")
                chart = self._charts[name, key]
                chart.show(series(task, lines), latest=_latest(lines), spoken=_spoken(name, key, lines))
        self._empty.set_visibility(not self._sets)
        self._show_legend(
            task, [each for each in task.feature_keys if any(each in one for one in self._linked.values())]
        )

    def _add_set(self, name: str) -> None:
        with self._place, ui.element("div") as box:
            with ui.element("div").classes("head").style("margin-bottom: 8px"):
                Words("h3", "Progress" if name == PROGRESS else name)
                self._links[name] = ui.element("div").classes("actions")
            self._sets[name] = ui.element("div").classes("charts")
        if name == PROGRESS:
            box.move(target_index=0)

    def _show_legend(self, task: Task, parties: list[str]) -> None:
        if parties == self._known:
            return
        self._known = parties
        self._legend.clear()
        with self._legend:
            for party in parties:
                with ui.element("span"):
                    ui.element("i").style(f"background: var(--{colour_of(task, party)})")
                    Words("span", party)

    def _show_links(self, task: Task, name: str, parties: list[str]) -> None:
        if parties == self._linked.get(name):
            return
        self._linked[name] = parties
        self._links[name].clear()
        with self._links[name]:
            for party in parties:
                made = link(f"CSV of {party}", table_link(task.id, party, name), "btn small")
                made.props["download"] = f"{name}.csv"
                made.props["aria-label"] = f"Download {name} of {party} as CSV"


def _latest(lines: list[Line]) -> str:
    newest = list(dict.fromkeys(shown(line.points[-1][1]) for line in lines))
    return " / ".join(newest) if newest else "no number"


def _spoken(name: str, key: str, lines: list[Line]) -> str:
    if not lines:
        return f"{key} of {name}: no number yet"
    said = [f"{line.party} {shown(line.points[-1][1])} at {line.points[-1][0]:.0f}" for line in lines]
    return f"{key} of {name} over {len(lines[0].points)} rounds; newest: {', '.join(said)}"


class TimeBreakdown:
    """The panel that says where each party's time goes."""

    def __init__(self) -> None:
        with panel("Where the time goes", note="seconds of all rounds so far") as right:
            with right, ui.element("div").classes("legend"):
                for words, colour in _SHARES:
                    with ui.element("span"):
                        ui.element("i").style(f"background: var(--{colour})")
                        Words("span", words)
            self._empty = Words("p", "Said after each round, by the parties that take part.", "empty")
            self._place = ui.element("div")
            self._numbers = Rows(
                "Time of each party",
                (
                    column("party", "Party"),
                    column("own", "Own work", "num"),
                    column("waiting", "Waiting", "num"),
                    column("peers", "Waiting for"),
                    column("wire", "Wire", "num"),
                    column("bytes", "Sent / received", "num"),
                ),
                empty="",
            )
        self._chart: Chart | None = None
        self._numbers.set_visibility(False)

    def clear(self) -> None:
        """Draw everything anew: some of it is not there any more."""
        self._chart = None
        self._place.clear()
        self._numbers.set_visibility(False)
        self._empty.set_visibility(True)

    def show(self, task: Task, course: Course) -> None:
        """Draw what is there by now."""
        shares = course.shares(task.feature_keys)
        if not shares:
            return
        if self._chart is None:
            self._empty.set_visibility(False)
            self._numbers.set_visibility(True)
            with self._place:
                self._chart = Chart("", "bars", unit=" s", height=44 + 34 * len(task.parties))
        values = {
            "own work": [round(each.own_s, 3) for each in shares],
            "waiting": [round(sum(each.waiting_s.values()), 3) for each in shares],
            "wire": [round(each.wire_s, 3) for each in shares],
        }
        self._chart.show(
            [{"name": words, "colour": colour, "values": values[words]} for words, colour in _SHARES],
            latest="",
            spoken="Time of each party; the table below has the numbers",
            categories=[each.party for each in shares],
        )
        self._numbers.show([_numbers(each) for each in shares])


def _numbers(share: Share) -> dict[str, str]:
    peers = sorted(share.waiting_s.items(), key=lambda each: -each[1])
    return {
        "key": share.party,
        "party": share.party,
        "own": f"{share.own_s:.1f} s",
        "waiting": f"{sum(share.waiting_s.values()):.1f} s",
        "peers": ", ".join(f"{peer} {seconds:.1f} s" for peer, seconds in peers),
        "wire": f"{share.wire_s:.1f} s",
        "bytes": f"{size(share.bytes_sent)} / {size(share.bytes_received)}",
    }

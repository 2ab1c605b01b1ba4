"""The few elements that the pages are made of, where NiceGUI's own are not what a reader or a keyboard needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from nicegui import ui
from nicegui.elements.echart.echart import EChart
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from heterofed.errors import HeterofedError

Cell = Any
"""What a cell of `Rows` shows; its form is that of the column's kind in `static/rows.js`."""

Kind = Literal["text", "link", "chip", "time", "clock", "code", "progress", "acts", "num"]


def column(key: str, label: str, kind: Kind = "text", *, tight: bool = False) -> dict[str, Any]:
    """Return a column of `Rows`: the key of its cells, its heading, and how a cell is shown."""
    return {"key": key, "label": label, "kind": kind, "tight": tight}


class Rows(ui.element, component="static/rows.js"):
    """A table whose rows keep their identity when they change; on a phone every row is a card.

    Args:
        caption: what the table is of, for screen readers.
        columns: as `column` makes them.
        empty: what to say, and to do next, where there are no rows.
        on_act: called with the key of the row and the name of the button.
        dense: whether there are many short rows, which scroll within the page.
    """

    def __init__(
        self,
        caption: str,
        columns: Sequence[dict[str, Any]],
        *,
        empty: str,
        on_act: Callable[[str, str], Awaitable[None]] | None = None,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.props["caption"] = caption
        self.props["columns"] = list(columns)
        self.props["rows"] = []
        self.props["empty"] = empty
        self.props["dense"] = dense
        if on_act is not None:

            async def act(event: GenericEventArguments) -> None:
                await on_act(str(event.args["key"]), str(event.args["name"]))

            self.on("act", act)

    def show(self, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Show these rows; nothing is sent where they are what is shown already."""
        new = [dict(row) for row in rows]
        if new != self.props["rows"]:
            self.props["rows"] = new
            self.update()


class Copy(ui.element, component="static/copy.js"):
    """A text with a button that copies it.

    Args:
        text: what is copied.
        what: what it is, for screen readers: "the task's id".
        boxed: whether it is long and has a box of its own.
    """

    def __init__(self, text: str, what: str, *, boxed: bool = False) -> None:
        super().__init__()
        self.props["text"] = text
        self.props["what"] = what
        self.props["boxed"] = boxed


class Chart(EChart, component="static/chart.js"):
    """A small chart of numbers; its colours follow light and dark by themselves.

    Args:
        title: what is measured.
        kind: lines over rounds, or bars of one row for each category.
        unit: after a value, for example " s".
    """

    def __init__(self, title: str, kind: Literal["lines", "bars"], *, unit: str = "", height: int = 168) -> None:
        ui.element.__init__(self)
        self.props["title"] = title
        self.props["kind"] = kind
        self.props["unit"] = unit
        self.props["height"] = height
        self.props["series"] = []
        self.props["categories"] = []

    def show(self, series: list[dict[str, Any]], *, latest: str, spoken: str, categories: Sequence[str] = ()) -> None:
        """Draw these series.

        Args:
            series: of lines {name, colour, points}, of bars {name, colour, values}; the colour is a variable's name.
            latest: the newest value, beside the title.
            spoken: what the chart shows, for screen readers.
            categories: one for each bar.
        """
        new = {"series": series, "latest": latest, "spoken": spoken, "categories": list(categories)}
        if any(self.props.get(name) != value for name, value in new.items()):
            self.props.update(new)
            self.update()


class Words(TextElement):
    """An HTML element that holds a text, for example a heading."""

    def __init__(self, tag: str, text: str = "", classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)


class Button(Words):
    """A real button, so that the keyboard and screen readers know it; asleep while what it started runs.

    Args:
        label: what it does.
        on_click: is awaited when it is pressed.
        look: "", "primary", "danger", "small" or "quiet".
    """

    def __init__(self, label: str, on_click: Callable[[], Awaitable[None]], look: str = "") -> None:
        super().__init__("button", label, f"btn {look}")
        self.props["type"] = "button"
        self._on_click = on_click
        self._asleep = False
        self.on("click", self._pressed)

    def never(self, why: str) -> None:
        """Grey it out: it cannot be pressed, stays reachable by keyboard, and says why."""
        self._asleep = True
        self.props["aria-disabled"] = "true"
        self.props["title"] = why

    async def _pressed(self) -> None:
        if self._asleep:
            return  # pressed twice
        self._asleep = True
        self.props["aria-busy"] = "true"
        try:
            await self._on_click()
        finally:
            self._asleep = False
            if not self.is_deleted:
                self.props.pop("aria-busy", None)


def link(text: str, href: str, classes: str = "") -> Words:
    """A link within the hub."""
    made = Words("a", text, classes)
    made.props["href"] = href
    return made


@contextmanager
def panel(title: str, *, note: str = "") -> Iterator[ui.element]:
    """A part of a page, with its heading; gives the place right of the heading."""
    box = ui.element("section").classes("panel")
    with box:
        with ui.element("div").classes("title"):
            heading = Words("h2", title)
            if note:
                Words("span", note, "hint")
            right = ui.element("div").classes("right")
        box.props["aria-labelledby"] = heading.html_id
        heading.props["id"] = heading.html_id
        yield right


GOOD_NEWS_S = 10.0
"""How long a page says that something worked; what went wrong stays."""


class Notices:
    """Where a page says what went wrong; it stays until it is put away or the next thing works."""

    def __init__(self) -> None:
        self._place = ui.element("div")
        self._place.props["role"] = "alert"
        self._shown = ""

    def say(self, text: str, tone: Literal["bad", "info", "good", "warn"] = "bad") -> None:
        """Show one text in place of what stood there."""
        if text == self._shown:
            return
        self.clear()
        self._shown = text
        with self._place, ui.element("div").classes(f"notice {tone}"):
            Words("div", text)
            if tone == "good":
                ui.timer(GOOD_NEWS_S, self.clear, once=True)

            async def put_away() -> None:
                self.clear()

            Button("Dismiss", put_away, "small quiet")

    def clear(self) -> None:
        """Show nothing."""
        if self._shown:
            self._shown = ""
            self._place.clear()

    def error(self, error: HeterofedError) -> None:
        """Show an error: who, what and what to do are in its text."""
        text = str(error)
        self.say(text[:1].upper() + text[1:])


@contextmanager
def sheet(title: str) -> Iterator[ui.dialog]:
    """A dialog with a heading. Escape closes it; the focus stays inside and returns to where it was."""
    # In the page itself: inside the dialog whose button opened it, it would go with that one.
    with ui.context.client, ui.dialog() as dialog, ui.card().classes("sheet").tight() as card:
        heading = Words("h2", title)
        heading.props["id"] = heading.html_id
        dialog.props["aria-labelledby"] = heading.html_id
        card.classes(remove="nicegui-card-tight")
        yield dialog
    dialog.on("hide", dialog.delete)
    dialog.open()

"""The phases of a session as a picture (SVG) and as a table, from the table that both ends run by.

A picture that a script draws in the browser would have to be loaded from elsewhere, or carried along; this one is text
in the page. Phases stand one below the other in their order. What leads further down runs on the right, what leads back
up on the left; each line begins beside the phase in which the message is said, under the message's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from heterofed.protocol.phases import FINAL, TRANSITIONS, Phase, Role, allowed

_WIDTH, _BOX, _LINE, _GAP, _LANE, _TEXT = 1000, 180, 17, 20, 13, 235
_LEFT = (_WIDTH - _BOX) // 2
_RIGHT = _LEFT + _BOX
_COLOUR = {Role.HOST: "#3b82d6", Role.COLLABORATOR: "#c8741a"}  # both can be read on white and on black


@dataclass
class _Arrow:
    """What one role may say in one phase to come to one other."""

    role: Role
    says: list[str]
    source: Phase
    target: Phase
    lane: int = 0

    def length(self, row: dict[Phase, int]) -> int:
        return abs(row[self.target] - row[self.source])

    @property
    def label(self) -> str:
        return f"{self.role.value}: {', '.join(self.says)}"


def phases_as_svg() -> str:
    """Return the picture as one element without an empty line, to stand in a page as it is."""
    row = {phase: place for place, phase in enumerate(_shown())}
    arrows = _arrows()
    down = [each for each in arrows if row[each.target] > row[each.source] + 1]
    up = [each for each in arrows if row[each.target] < row[each.source]]
    for side in (down, up):
        _take_lanes(side, row)
    top, height, y = {}, {}, 30
    for phase in row:
        lines = max(_count(side, phase) for side in (down + [a for a in arrows if a.target is a.source], up))
        top[phase], height[phase] = y, 22 + _LINE * lines
        below = _next(arrows, phase, row)
        y += height[phase] + _GAP + (10 if below else 0)
    most_left = _LEFT - _TEXT - _LANE * max(each.lane for each in up)
    most_right = _RIGHT + _TEXT + _LANE * max(each.lane for each in down)
    parts = [_opened(most_left - 6, most_right - most_left + 12, y)]
    for phase in row:
        parts += _box(phase, top[phase], height[phase])
        at = top[phase] + 22
        for each in (a for a in arrows if a.source is phase and a.target is phase):
            parts.append(_text(_RIGHT + 8, at + 2, f"↻ {each.label}", each.role))
            at += _LINE
        for each in (a for a in down if a.source is phase):
            parts += _bent(each, at + 5, top[each.target] + 11, _RIGHT, +1)
            at += _LINE
        at = top[phase] + 22
        for each in (a for a in up if a.source is phase):
            parts += _bent(each, at + 5, top[each.target] + 11, _LEFT, -1)
            at += _LINE
        if below := _next(arrows, phase, row):
            parts += _straight(below, top[phase] + height[phase], top[below[0].target])
    return "\n".join([*parts, "</svg>", "</div>"])


def phases_as_table() -> str:
    """Return, for every phase, who may say what in it, as a Markdown table."""
    lines = ["| phase | while | the host may say | a collaborator may say |", "|---|---|---|---|"]
    for phase in _shown():
        cells = [", ".join(f"`{name}`" for name in allowed(phase, role)) for role in (Role.HOST, Role.COLLABORATOR)]
        lines.append(f"| `{phase.name}` | {phase.value} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _shown() -> list[Phase]:
    return [phase for phase in Phase if phase not in FINAL or phase is Phase.COMPLETED]


def _arrows() -> list[_Arrow]:
    found: dict[tuple[Phase, Phase, Role], _Arrow] = {}
    for source, moves in TRANSITIONS.items():
        for (role, message), target in moves.items():
            each = found.setdefault((source, target, role), _Arrow(role, [], source, target))
            each.says.append(message.__name__)
    return list(found.values())


def _take_lanes(side: list[_Arrow], row: dict[Phase, int]) -> None:
    """Give each arrow a lane of its own beside all that it passes; short ones stay near the boxes."""
    taken: list[tuple[int, int, int]] = []
    for each in sorted(side, key=lambda arrow: arrow.length(row)):
        first, last = sorted((row[each.source], row[each.target]))
        while any(lane == each.lane and first <= end and begin <= last for lane, begin, end in taken):
            each.lane += 1
        taken.append((each.lane, first, last))


def _count(side: list[_Arrow], phase: Phase) -> int:
    return sum(each.source is phase for each in side)


def _next(arrows: list[_Arrow], phase: Phase, row: dict[Phase, int]) -> list[_Arrow]:
    return [each for each in arrows if each.source is phase and row[each.target] == row[phase] + 1]


def _opened(left: int, width: int, height: int) -> str:
    heads = "".join(
        f'<marker id="to-{role.value}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
        for role, colour in _COLOUR.items()
    )
    return (
        '<div style="overflow-x: auto">\n'
        f'<svg class="phases" role="img" viewBox="{left} 0 {width} {height}" width="{width}" '
        'xmlns="http://www.w3.org/2000/svg" font-size="13" font-family="sans-serif" '
        'aria-label="The phases of a session, and the messages that lead from one to the next; the table below says it '
        'in words">'
        f"<defs>{heads}</defs>"
    )


def _box(phase: Phase, top: int, height: int) -> list[str]:
    middle = _LEFT + _BOX // 2
    return [
        f'<rect x="{_LEFT}" y="{top}" width="{_BOX}" height="{height}" rx="5" fill="none" stroke="currentColor"/>',
        f'<text x="{middle}" y="{top + 16}" text-anchor="middle" font-weight="bold" fill="currentColor">'
        f"{phase.name}</text>",
    ]


def _bent(each: _Arrow, y: int, end: int, edge: int, way: int) -> list[str]:
    lane = edge + way * (_TEXT + _LANE * each.lane)
    line = f"M{edge} {y} H{lane} V{end} H{edge}"
    return [_path(line, each.role), _text(edge + way * 8, y - 3, each.label, each.role, "start" if way > 0 else "end")]


def _straight(arrows: list[_Arrow], y: int, end: int) -> list[str]:
    middle = _LEFT + _BOX // 2
    parts = []
    for number, each in enumerate(arrows):
        x = middle + 12 * number
        parts += [_path(f"M{x} {y} V{end}", each.role), _text(x + 8, (y + end) // 2 + 4, each.label, each.role)]
    return parts


def _path(line: str, role: Role) -> str:
    return f'<path d="{line}" fill="none" stroke="{_COLOUR[role]}" marker-end="url(#to-{role.value})"/>'


def _text(x: int, y: int, text: str, role: Role, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{_COLOUR[role]}">{escape(text)}</text>'

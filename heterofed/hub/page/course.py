"""The metric rows of a task as what its charts draw: lines over rounds, and where each party's time went."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from heterofed.tasks.course import RUN_BEGAN, Event, Measured, Output, Value
from heterofed.tasks.model import Task

PROGRESS, TIME = "progress", "time"
"""Metric sets that every party gives by itself."""

WAITING = "waiting_s/"
"""A column of the set `time` begins like this and goes on with the peer that was waited for."""

MOST_POINTS = 400
"""Of a line; of more, evenly chosen ones are drawn."""

_LAST_ROUNDS = 8
"""How many rounds tell how long the next ones take."""

COLOURS = 9


def colour_of(task: Task, party: str) -> str:
    """Return the name of a party's colour; the same in every chart of its task."""
    keys = task.feature_keys
    return f"c{(keys.index(party) if party in keys else len(keys)) % COLOURS + 1}"


@dataclass(frozen=True)
class Point:
    """One row of a set, as a chart sees it."""

    number: int
    row: int
    round: int | None
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Line:
    """One column of one party, over rounds or rows."""

    party: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Share:
    """Where one party's time went, in seconds, and how much it sent and received."""

    party: str
    own_s: float
    wire_s: float
    waiting_s: Mapping[str, float]
    """By the peer that was waited for."""
    bytes_sent: int
    bytes_received: int


@dataclass
class Course:
    """All metric rows that have come so far."""

    newest: int = 0
    """Number of the last row."""

    sets: dict[str, dict[str, list[Point]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """Set -> party -> its rows."""

    _closed: dict[str, list[tuple[int, datetime, int]]] = field(default_factory=lambda: defaultdict(list))
    """Party -> each round, when its row came in, and the row's number."""

    def forget(self, events: Iterable[Event]) -> bool:
        """Drop the rows of parties that have begun with the first round again; return whether there were any."""
        dropped = False
        for event in events:
            up_to = event.body.get("up_to") if event.kind == RUN_BEGAN else None
            party = event.party
            if party is None or not isinstance(up_to, int):
                continue
            for name, parties in list(self.sets.items()):
                if party not in parties:
                    continue
                kept = [each for each in parties[party] if each.number > up_to]
                dropped |= len(kept) < len(parties[party])
                if kept:
                    parties[party] = kept
                    continue
                del parties[party]
                if not parties:
                    del self.sets[name]
            self._closed[party] = [each for each in self._closed[party] if each[2] > up_to]
        return dropped

    def add(self, rows: Iterable[Measured]) -> bool:
        """Take rows in; return whether there were any."""
        before = self.newest
        for each in rows:
            self.sets[each.set][each.party].append(Point(each.number, each.row, each.round, each.values))
            if each.set == PROGRESS and each.round is not None:
                self._closed[each.party].append((each.round, each.at, each.number))
            self.newest = max(self.newest, each.number)
        return self.newest != before

    def names(self) -> list[str]:
        """Return the sets that have charts: progress first, then by name."""
        return sorted((name for name in self.sets if name != TIME), key=lambda name: (name != PROGRESS, name))

    def columns(self, name: str) -> list[str]:
        """Return the columns of a set that hold numbers, in their order."""
        found: dict[str, None] = {}
        for points in self.sets[name].values():
            for each in points[-1:] + points[:1]:
                found |= {key: None for key, value in each.values.items() if _number(value) is not None or _lost(value)}
        return [each for each in found if each not in ("round", "epoch")] or list(found)

    def lines(self, name: str, column: str, parties: Sequence[str]) -> list[Line]:
        """Return a column of a set as lines, one for each of these parties that has it."""
        lines = []
        for party in parties:
            points = self.sets[name].get(party, [])
            rounds = [each.round for each in points]
            by_round = None not in rounds and len(set(rounds)) == len(rounds)
            line = []
            for each in points:
                value = _number(each.values.get(column))
                if value is not None:
                    place = each.round if by_round and each.round is not None else each.row
                    line.append((float(place), value))
            if line:
                lines.append(Line(party, _thinned(sorted(line))))
        return lines

    def shares(self, parties: Sequence[str]) -> list[Share]:
        """Return where the time of each party went so far; of those that say so."""
        shares = []
        for party in parties:
            points = self.sets[TIME].get(party, []) if TIME in self.sets else []
            if not points:
                continue
            sums: dict[str, float] = defaultdict(float)
            for each in points:
                for key, value in each.values.items():
                    sums[key] += _number(value) or 0.0
            waiting = {key.removeprefix(WAITING): sums[key] for key in sums if key.startswith(WAITING)}
            sent, received = int(sums["bytes_sent"]), int(sums["bytes_received"])
            shares.append(Share(party, sums["own_s"], sums["wire_s"], waiting, sent, received))
        return shares

    def time_left_s(self, task: Task) -> float | None:
        """Return how long the rounds to come take if they go on like the last ones; None where nobody can say."""
        if task.rounds is None or not self._closed:
            return None
        closed = max(self._closed.values(), key=len)[-_LAST_ROUNDS:]
        if not closed:
            return None
        (first, began, _), (last, ended, _) = closed[0], closed[-1]
        if last <= first:
            return None
        return (ended - began).total_seconds() / (last - first) * max(0, task.rounds - task.round)


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _lost(value: Value) -> bool:
    """Whether a value is a number that no chart can draw."""
    return isinstance(value, float)


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(line) <= MOST_POINTS:
        return line
    step = (len(line) - 1) / (MOST_POINTS - 1)
    return [line[round(number * step)] for number in range(MOST_POINTS)]


def shown(value: float) -> str:
    """Return a number as a chart's label has it."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.4g}"


def model_files(task: Task, outputs: Sequence[Output]) -> tuple[list[Output], str]:
    """Return the host's model files, the one that holds all of them first; or none, and why."""
    host = task.host.feature_key if task.host else None
    mine = [each for each in outputs if each.party == host]
    files = [each for each in mine if each.name == "model.zip"] or [each for each in mine if each.name.endswith(".pt")]
    if files:
        return files, ""
    if host is None:
        return [], "there is no host yet"
    if task.status.value != "COMPLETED":
        return [], "comes when the task is completed, if the host gives it"
    return [], f"{host} keeps it to itself (HETEROFED_UPLOAD=all at the host gives it)"


def series(task: Task, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return lines as `Chart.show` takes them."""
    return [{"name": each.party, "colour": colour_of(task, each.party), "points": each.points} for each in lines]

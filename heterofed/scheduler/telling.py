"""What a party tells its task's record of each round: metric rows, figures, tests; the same again where it goes on."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any

from heterofed.metrics.storage import EventStorage
from heterofed.metrics.tables import Cell, MetricsTable
from heterofed.scheduler.seat import TaskRecord

PROGRESS, TIME = "progress", "time"
"""Metric sets of each party, one row a round: how training goes, and where its time went."""

_PLACE = {"round/seconds": "seconds", "round/compute_s": "own_s", "round/wire_s": "wire_s"}
_BYTES = {"round/bytes_sent": "bytes_sent", "round/bytes_received": "bytes_received"}
_WAITED = "round/wait_s/"


class Telling:
    """Remembers what a party has told, so that a run that goes on from a checkpoint tells what may not have arrived.

    The record counts each row and each report once, however often it is told.

    Args:
        record: gives the record of the task that the party is in; None while it is in none.
        round_: gives the number of the round in progress.
    """

    def __init__(self, record: Callable[[], TaskRecord | None], round_: Callable[[], int]) -> None:
        self._record = record
        self._round = round_
        self._starts: dict[str, list[tuple[int, int]]] = {}
        """Name of a metric set -> (its first row of a round, that round), ascending."""
        self._tests: list[tuple[int, dict[str, Cell]]] = []
        self._figures: list[tuple[int, dict[str, Cell], dict[str, Cell]]] = []
        self._swag: list[int] = []
        self._sets: set[str] = set()

    def listen_to(self, name: str, table: MetricsTable) -> None:
        """Tell every row that is appended to a metric table from now on."""
        self._sets.add(name)

        def told(row: int, values: dict[str, Cell]) -> None:
            starts, now = self._starts.setdefault(name, []), self._round()
            while starts and starts[-1][0] >= row:  # a run that went back
                starts.pop()
            if not starts or starts[-1][1] != now:
                starts.append((row, now))
            record = self._record()
            if record is not None:
                record.measured(name, row, now, values)

        table.tell(told)

    def tested(self, round_: int, tables: Mapping[str, MetricsTable]) -> None:
        """Tell that a round was tested, with the last row of every table that has one of this round."""
        scores: dict[str, Cell] = {}
        for name, table in tables.items():
            if len(table) and self._round_of(name, len(table) - 1) == round_:
                row = dict(zip(table.headers, table.rows()[-1], strict=True))
                scores.update({f"{name}/{key}": value for key, value in row.items()})
        self._tests.append((round_, scores))
        record = self._record()
        if record is not None:
            record.test_finished(round_, scores)

    def done(self, round_: int, storage: EventStorage, *, swag: bool) -> None:
        """Keep what a round cost, before its checkpoint is written: the figures of `RoundFigures`, if they are there.

        Args:
            round_: its number.
            storage: what was measured.
            swag: whether the moments of its weights were collected.
        """
        values = {name: value for name, (value, _) in storage.latest().items() if name.startswith("round/")}
        progress: dict[str, Cell] = {"round": round_, "loss": values.get("round/loss"), "samples": storage.samples}
        progress["rows_per_s"] = values.get("round/rows_per_s")
        spent: dict[str, Cell] = {"round": round_}
        spent.update({ours: values[name] for name, ours in _PLACE.items() if name in values})
        waits = {name.removeprefix(_WAITED): value for name, value in values.items() if name.startswith(_WAITED)}
        spent.update({f"waiting_s/{peer}": value for peer, value in waits.items()})
        spent.update({ours: int(values[name]) for name, ours in _BYTES.items() if name in values})
        self._figures.append((round_, progress, spent))
        if swag:
            self._swag.append(round_)

    def closed(self) -> None:
        """Tell that the last round is closed."""
        record = self._record()
        if record is not None:
            self._tell_round(record, len(self._figures) - 1)

    def _tell_round(self, record: TaskRecord, row: int) -> None:
        round_, progress, spent = self._figures[row]
        for name, values in ((PROGRESS, progress), (TIME, spent)):
            if name not in self._sets:  # the user's own set of this name goes first
                record.measured(name, row, round_, values)
        shown = {"loss": progress["loss"], "seconds": spent.get("seconds")}
        record.round_finished(round_, {name: value for name, value in shown.items() if value is not None})
        if round_ in self._swag:
            record.swag_finished(round_)

    def _round_of(self, name: str, row: int) -> int | None:
        """Return the round in which a row was appended, where that is known."""
        starts = self._starts.get(name, [])
        place = bisect.bisect_right(starts, row, key=lambda each: each[0])
        return starts[place - 1][1] if place else None

    def tell_again(self, tables: Mapping[str, MetricsTable]) -> None:
        """Tell everything of the rounds that are done: a process that was killed may have kept it to itself."""
        record = self._record()
        if record is None:
            return
        for name, table in tables.items():
            for row, values in enumerate(table.trace()):
                record.measured(name, row, self._round_of(name, row), values)
        tests = dict(self._tests)
        for row, (round_, *_) in enumerate(self._figures):
            if round_ in tests:
                record.test_finished(round_, tests[round_])
            self._tell_round(record, row)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "starts": {name: [list(each) for each in starts] for name, starts in self._starts.items()},
            "tests": [[round_, scores] for round_, scores in self._tests],
            "figures": [list(each) for each in self._figures],
            "swag": list(self._swag),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; nothing of it is told by that."""
        self._starts = {name: [(row, round_) for row, round_ in starts] for name, starts in state["starts"].items()}
        self._tests = [(round_, dict(scores)) for round_, scores in state["tests"]]
        self._figures = [(round_, dict(progress), dict(spent)) for round_, progress, spent in state["figures"]]
        self._swag = list(state["swag"])

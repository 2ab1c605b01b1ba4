"""The metrics.json of every party of a run: read, and told as a table.

A line of metrics.json is one JSON object: "iteration", "round", and the scalars that are new since the line before.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from heterofed.errors import DataError

METRICS_FILE = "metrics.json"
WAIT = "round/wait_s/"
"""What comes after it in the name of a scalar is the party that was waited for."""

MOST_ROUNDS_AS_BARS = 30
"""A run of more rounds is drawn as areas, and the table leaves out those in its middle."""

_SCORE = re.compile(
    r"(^|[^a-z])(acc|accuracy|ap|map|mrr|iou|dice)([^a-z]|$)|auc|auroc|f1|precision|recall|hits@", re.IGNORECASE
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Column:
    """One scalar of a party, in the order of the iterations; the three arrays have one length."""

    iterations: Ints
    rounds: Ints
    values: Floats
    """NaN where the file says null."""

    def by_round(self) -> dict[int, float]:
        """Return round -> the last value in it."""
        return dict(zip(self.rounds.tolist(), self.values.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Party:
    """What one party wrote.

    Args:
        name: its feature key: the name of its folder.
        columns: name of a scalar -> its values.
        spans: round -> (first iteration, iterations in the whole round as far as that is known).
    """

    name: str
    columns: Mapping[str, Column]
    spans: Mapping[int, tuple[int, int]]

    @property
    def rounds(self) -> list[int]:
        """The rounds that have a line, ascending; 0, what comes before the first, only where there is no other."""
        return [number for number in self.spans if number > 0] or list(self.spans)

    @property
    def peers(self) -> list[str]:
        """Whom it waited for."""
        return sorted(name.removeprefix(WAIT) for name in self.columns if name.startswith(WAIT))

    @property
    def scores(self) -> list[str]:
        """Names of its metrics that look like an accuracy or another score from 0 to 1, accuracies first."""
        found = [name for name in self.columns if _SCORE.search(name) and not name.startswith("round/")]
        inside = [name for name in found if _within(self.columns[name].values, 0.0, 1.0)]
        return sorted(inside, key=lambda name: ("acc" not in name.lower(), name))

    @property
    def rates(self) -> list[str]:
        """Names of its learning rates: "lr", or one of several, like "infer/lr"."""
        found = [name for name in self.columns if "lr" in name.split("/") and np.isfinite(self.values(name)).any()]
        several = any(name.startswith("lr/") for name in found)  # then "lr" is one of them again
        return [name for name in found if name != "lr" or not several]

    def by_round(self, name: str) -> dict[int, float]:
        """Return round -> the last value of a scalar in it; empty if there is no such scalar."""
        return self.columns[name].by_round() if name in self.columns else {}

    def values(self, name: str) -> Floats:
        """Return all values of a scalar; empty if there is no such scalar."""
        return self.columns[name].values if name in self.columns else np.empty(0)

    def positions(self, column: Column) -> Floats:
        """Return where each value is, in rounds: 1.5 is halfway through round 2; in iterations without rounds."""
        if not any(self.spans):
            return column.iterations.astype(np.float64)
        known = np.array(list(self.spans))
        starts, lengths = np.array(list(self.spans.values())).T
        at = np.searchsorted(known, column.rounds)
        done = np.clip((column.iterations - starts[at] + 1) / lengths[at], 0.0, 1.0)
        return np.where(column.rounds > 0, column.rounds - 1 + done, 0.0)


@dataclass(frozen=True, eq=False)
class Run:
    """The parties of a run, those with scores (the host) first."""

    folder: Path
    parties: tuple[Party, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def last_iteration(self) -> int:
        """The newest iteration of all lines."""
        return max(begin + length - 1 for party in self.parties for begin, length in party.spans.values())


def read_run(folder: Path) -> Run:
    """Read the metrics of a run.

    Args:
        folder: that of one party, or one that holds the folders of several.

    Raises:
        DataError: there are no metrics, a file cannot be read, or a line of it is none of metrics.json. A last line
            that is cut off, as of a run in progress or killed, is left out.
    """
    try:
        inside = [folder] if (folder / METRICS_FILE).is_file() else sorted(folder.iterdir())
        files = [each / METRICS_FILE for each in inside if (each / METRICS_FILE).is_file()]
        parties = [_read_party(path) for path in files]
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or folder}: {error.strerror or error}",
            expected=f"the folder of a run, with the {METRICS_FILE} of its parties",
        ) from error
    if not any(party.spans for party in parties):
        raise DataError(
            f"{', '.join(map(str, files))}: no line yet" if files else f"no {METRICS_FILE} in {folder} or its folders",
            expected="the output folder of a party, or the folder that holds those of all parties",
            advice="Parties write theirs as they train: look at the path, or wait for the first batches.",
        )
    return Run(folder, tuple(sorted(parties, key=lambda party: (not party.scores, party.name))))


def _read_party(path: Path) -> Party:
    *whole, cut_off = path.read_bytes().split(b"\n")
    lines: list[tuple[int, int, dict[str, float]]] = []
    for number, text in enumerate([*whole, cut_off] if cut_off else whole, 1):
        try:
            iteration, round_number, values = _parse(text)
        except ValueError as error:
            if number > len(whole):
                break
            raise DataError(
                f"{path}, line {number}: {error}",
                expected='a line like {"iteration": 19, "round": 1, "loss": 0.31}',
                advice="If something else wrote to this file, remove that line.",
            ) from None
        while lines and lines[-1][0] > iteration:  # a run that went on from an earlier checkpoint
            lines.pop()
        lines.append((iteration, round_number, values))
    gathered: dict[str, list[tuple[int, int, float]]] = {}
    for iteration, round_number, values in lines:
        for name, value in values.items():
            gathered.setdefault(name, []).append((iteration, round_number, value))
    columns = {}
    for name, rows in gathered.items():
        at, rounds, found = zip(*rows, strict=True)
        columns[name] = Column(np.array(at, np.int64), np.array(rounds, np.int64), np.array(found, np.float64))
    return Party(path.parent.resolve().name, columns, _spans(lines))


def _parse(text: bytes) -> tuple[int, int, dict[str, float]]:
    """Return iteration, round and scalars of a line; a ValueError says what is wrong with it."""
    try:
        line = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise ValueError("this is no JSON") from None
    if not isinstance(line, dict):
        raise ValueError("this is no JSON object")
    counts = [line.pop("iteration", None), line.pop("round", 0)]
    for name, count in zip(("iteration", "round"), counts, strict=True):
        if type(count) is not int or not 0 <= count < 2**53:
            raise ValueError(f"{name!r} is missing or no number from 0 on")
    values = {}
    for name, value in line.items():
        if not (value is None or isinstance(value, int | float)) or not name.isprintable():
            raise ValueError(f"{name!r} is no number")
        # an integer can be too large for float(), and sums and axes need room beyond the largest number
        values[name] = float(value) if value is not None and abs(value) < 1e100 else math.nan
    return *counts, values


def _spans(lines: Sequence[tuple[int, int, dict[str, float]]]) -> dict[int, tuple[int, int]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    ended = set()
    for iteration, number, values in lines:
        first.setdefault(number, iteration)
        last[number] = iteration
        if any(name.startswith("round/") for name in values):
            ended.add(number)
    spans: dict[int, tuple[int, int]] = {}
    before = -1
    for number in sorted(last):
        # lines are written every few iterations, so a round begins where the one before ended
        begin = before + 1 if number == 1 or number - 1 in last else first[number]
        length = max(1, last[number] - begin + 1)
        if number == max(last) and number not in ended and number - 1 in spans and number > 1:
            length = max(length, spans[number - 1][1])  # still running: as long as the last one, one must suppose
        spans[number] = (begin, length)
        before = max(before, last[number])
    return spans


def _within(values: Floats, low: float, high: float) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size) and low <= float(known.min()) and float(known.max()) <= high


# -- the table -------------------------------------------------------------------------------------------------


def human_bytes(count: float) -> str:
    """Return a number of bytes for people: 512 B, 5.12 MB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while abs(count) >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.4g} {units[0]}" if abs(count) >= 999.5 else f"{count:.3g} {units[0]}"


def summary(run: Run) -> str:
    """Return a table for the terminal: for each party and round what `plot_run` draws, but at most two of the scores.

    Waiting names the party that was waited for the longest. The last row of a party has the sums.
    """
    scores = list(dict.fromkeys(name for party in run.parties for name in party.scores))[:2]
    header = ["round", "loss", *map(short, scores), "seconds", "compute", "wire", "sent", "received", "waiting"]
    blocks = {party.name: _rows(party, scores) for party in run.parties}
    every_row = [header, *(row for rows in blocks.values() for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*every_row, strict=True)]
    lines = []
    for name, rows in [("", [header]), *blocks.items()]:
        lines += [name if rows else f"{name}: no line yet"] if name else []
        for *cells, last in rows:
            padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=False)]
            lines.append("  ".join(["", *padded, last]).rstrip())
    return "\n".join(lines)


def _rows(party: Party, scores: Sequence[str]) -> list[list[str]]:
    losses = party.by_round("loss") | {
        n: loss for n, loss in party.by_round("round/loss").items() if math.isfinite(loss)
    }
    plain = [losses, *map(party.by_round, scores)]
    times = [party.by_round(f"round/{name}") for name in ("seconds", "compute_s", "wire_s")]
    traffic = [party.by_round(f"round/bytes_{way}") for way in ("sent", "received")]

    def row(title: str, rounds: Sequence[int], measured: Sequence[str]) -> list[str]:
        taken = [_sum(values, rounds, "{:.2f} s".format) for values in times]
        moved = [_sum(values, rounds, human_bytes) for values in traffic]
        return [title, *measured, *taken, *moved, _waiting(party, rounds)]

    rows = [
        row(str(number), [number], [_sum(values, [number], _number) for values in plain]) for number in party.rounds
    ]
    if len(rows) > MOST_ROUNDS_AS_BARS:
        rows[5:-10] = [["...", *[""] * (len(rows[0]) - 1)]]
    return rows + ([row("all", party.rounds, [""] * len(plain))] if len(rows) > 1 else [])


def _sum(values: Mapping[int, float], rounds: Sequence[int], form: Callable[[float], str]) -> str:
    known = [values[number] for number in rounds if math.isfinite(values.get(number, math.nan))]
    return form(sum(known)) if known else "-"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.3e}"


def _waiting(party: Party, rounds: Sequence[int]) -> str:
    waits = {peer: party.by_round(WAIT + peer) for peer in party.peers}
    sums = {
        peer: sum(known_in(each, number) for number in rounds) for peer, each in waits.items() if {*each} & {*rounds}
    }
    if not sums:
        return "-"
    longest = max(sums, key=lambda peer: sums[peer])
    total = f"{sum(sums.values()):.2f} s"
    return f"{total} for {longest}" if len(sums) == 1 else f"{total}, of it {sums[longest]:.2f} s for {longest}"


def known_in(values: Mapping[int, float], number: int) -> float:
    """Return the value of a round, 0 where there is none."""
    value = values.get(number, 0.0)
    return value if math.isfinite(value) else 0.0


def short(name: str, most: int = 30) -> str:
    """Return a name without its middle if it is longer than `most` characters."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"

"""Mishaps: what goes wrong more than once, or is done wrong by people, and what has to come of it.

Green: what the mishap itself demands (an error that names the right party, within its time), and in the end, when all
parties that must be there are, the bits and tables of an undisturbed run.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.chaos import bad_lines, deeds
from tests.chaos.deeds import PATIENCE_S, Deed
from tests.chaos.kill_matrix import differences, undisturbed
from tests.chaos.report import Cell, Plan
from tests.chaos.stage import Stage, Trouble
from tests.chaos.task import PARTIES

DEADLINE_S = 120.0
BY_CHANCE = 40
"""How many runs with kills by chance."""


@dataclass(frozen=True)
class Mishap:
    """Something that goes wrong."""

    kind: str
    name: str
    play: Deed
    impatient: bool = False
    """Whether the parties wait for `PATIENCE_S` only."""


def mishaps() -> list[Mishap]:
    """Return all of them."""
    found = [
        Mishap(
            "killed while gathering",
            f"{second} killed while all gather again because {first} was killed in {point}",
            deeds.killed_while_gathering(first, second, point),
        )
        for first, second, point in (
            ("c1", "c2", "batch"),
            ("c1", "host", "batch"),
            ("host", "c1", "batch"),
            ("c1", "c2", "psi"),
            ("c1", "host", "closing"),
        )
    ]
    found += [
        Mishap(
            "one after the other",
            f"{first} killed in {point}, then {then} in {later}",
            deeds.killed_twice_over(first, then, point, later),
        )
        for first, point, then, later in (
            ("host", "batch", "c1", "test"),
            ("host", "psi", "c1", "checkpoint"),
            ("c1", "batch", "host", "test"),
            ("c1", "checkpoint", "host", "closing"),
            ("c1", "batch", "c2", "closing"),
            ("host", "check-in", "c1", "batch"),
            ("c1", "test", "host", "dismissal"),
        )
    ]
    subsets = [those for count in range(4) for those in combinations(PARTIES, count)]
    found += [
        Mishap(
            "checkpoints ahead",
            f"{' and '.join(those) or 'nobody'} ahead by a checkpoint, {'all' if killed == PARTIES else killed[0]} "
            f"killed",
            deeds.ahead(those, killed),
        )
        for those in subsets
        for killed in (PARTIES, ("host",), ("c1",))
    ]
    found += [
        Mishap("first checkpoint", f"{party} killed twice before its first checkpoint", deeds.never_the_first(party))
        for party in ("host", "c1")
    ]
    found += [
        Mishap("damage", f"newest checkpoint of {party} {how}, {killed} killed", deeds.damaged(party, how, killed))
        for party, killed in (("host", "host"), ("c1", "c1"), ("c2", "c1"), ("host", "c1"))
        for how in ("torn", "flipped", "empty", "without a file", "gone")
    ]
    found += [
        Mishap("people", "c1 started again without recover", deeds.without_recover("c1")),
        Mishap("people", "c1 started again with its folder wiped", deeds.folder_wiped("c1")),
        Mishap("people", "host started again without recover", deeds.host_without("recover")),
        Mishap("people", "host started again with its folder wiped", deeds.host_without("its folder")),
        Mishap("people", "SIGTERM of c2 while all wait for c1", deeds.told_to_end_while_waiting("c2", "c1")),
        Mishap("people", "SIGTERM of host while all wait for c1", deeds.told_to_end_while_waiting("host", "c1")),
    ]
    found += [
        Mishap("signals", f"{how.name} of {party} in {point}", deeds.told_to_end(party, how, point))
        for how in (signal.SIGTERM, signal.SIGINT)
        for party, point in (
            ("host", "batch"),
            ("c1", "batch"),
            ("c2", "batch"),
            ("host", "psi"),
            ("c1", "psi"),
            ("host", "test"),
            ("c1", "checkpoint"),
            ("host", "check-in"),
            ("c1", "closing"),
        )
    ]
    found += [
        Mishap(
            "absence",
            f"{party} killed in {point} and not started again",
            deeds.stays_away(party, point),
            impatient=True,
        )
        for party, point in (("host", "batch"), ("c1", "batch"), ("c1", "psi"))
    ]
    found += [
        Mishap(
            "absence",
            f"all killed in {point} and {party} not started again",
            deeds.not_all_come_back(party, point),
            impatient=True,
        )
        for party, point in (("c2", "batch"), ("host", "batch"))
    ]
    found += [
        Mishap(
            "cut",
            f"{party} killed while {other} is cut off",
            bad_lines.killed_behind_a_cut(party, other),
        )
        for party, other in (("c1", "c2"), ("host", "c1"), ("c1", "host"))
    ]
    found += [
        Mishap("line", "links reset every 0.3 s", bad_lines.bad_line(reset_every_s=0.3)),
        Mishap("line", "every byte 0.1 s late", bad_lines.bad_line(delay_s=0.1)),
        Mishap("line", "20 kB/s", bad_lines.bad_line(bytes_per_s=20_000)),
        Mishap("line", "one piece in 20 damaged", bad_lines.damaged_line(0.05, 5.0)),
    ]
    found += [Mishap("chance", f"kills by chance, {number}", deeds.by_chance(number)) for number in range(BY_CHANCE)]
    return found


def run_mishap(mishap: Mishap, folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Let it happen, and compare how it ends with how an undisturbed run does."""
    began = time.monotonic()
    more = ("--rejoin-timeout", str(PATIENCE_S)) if mishap.impatient else ()
    try:
        with Stage(
            folder, deadline_s=DEADLINE_S, more=more, gather_timeout_s=PATIENCE_S if mishap.impatient else 120.0
        ) as stage:
            mishap.play(stage)
            found = stage.finish()
        trouble = "\n".join(
            f"{party} {each}" for party in PARTIES for each in differences(found[party], expected[party])
        )
    except Trouble as error:
        trouble = str(error)
    if trouble:
        trouble += f"\nwhat is left: {folder}"
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Cell("mishaps", mishap.name, not trouble, time.monotonic() - began, trouble)


def cells(plan: Plan) -> Iterator[Cell]:
    """Yield a cell for each mishap."""
    folder = plan.folder / "mishaps"
    chosen = [each for each in mishaps() if each.name == plan.cell] if plan.cell else _share_of(plan)
    if not chosen:
        return
    began = time.monotonic()
    try:
        expected = undisturbed(folder / "undisturbed", "plan")
    except Trouble as error:
        yield Cell("mishaps", "undisturbed", False, time.monotonic() - began, f"{error}\nwhat is left: {folder}")
        return
    with ThreadPoolExecutor(plan.jobs) as pool:
        running = [
            pool.submit(run_mishap, each, folder / f"{number:03d}", expected) for number, each in enumerate(chosen)
        ]
        for each in as_completed(running):
            yield each.result()


def _share_of(plan: Plan) -> list[Mishap]:
    return plan.spread(mishaps(), lambda each: each.kind)

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

from tests.chaos import bad_lines, deeds, silence
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
    """Whether the parties wait for `PATIENCE_S` only for each other to be there."""

    more: tuple[str, ...] = ()
    """Arguments of every party besides."""


def mishaps() -> list[Mishap]:
    """Return all of them."""
    chance = [Mishap("chance", f"kills by chance, {number}", deeds.by_chance(number)) for number in range(BY_CHANCE)]
    return [*_of_two(), *_of_checkpoints(), *_of_people(), *_of_lines(), *_of_silence(), *chance]


def _of_two() -> Iterator[Mishap]:
    """Two parties are killed."""
    yield from (
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
    )
    yield from (
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
    )


def _of_checkpoints() -> Iterator[Mishap]:
    """The parties do not have the same checkpoints, or not all of them whole."""
    subsets = [those for count in range(4) for those in combinations(PARTIES, count)]
    yield from (
        Mishap(
            "checkpoints ahead",
            f"{' and '.join(those) or 'nobody'} ahead by a checkpoint, {'all' if killed == PARTIES else killed[0]} "
            f"killed",
            deeds.ahead(those, killed),
        )
        for those in subsets
        for killed in (PARTIES, ("host",), ("c1",))
    )
    yield from (
        Mishap("first checkpoint", f"{party} killed twice before its first checkpoint", deeds.never_the_first(party))
        for party in ("host", "c1")
    )
    yield from (
        Mishap("damage", f"newest checkpoint of {party} {how}, {killed} killed", deeds.damaged(party, how, killed))
        for party, killed in (("host", "host"), ("c1", "c1"), ("c2", "c1"), ("host", "c1"))
        for how in ("torn", "flipped", "empty", "without a file", "gone")
    )


def _of_people() -> Iterator[Mishap]:
    """People start a party wrongly, end it, or do not start it."""
    yield from (
        Mishap("people", "c1 started again without recover", deeds.without_recover("c1")),
        Mishap("people", "c1 started again with its folder wiped", deeds.folder_wiped("c1")),
        Mishap("people", "host started again without recover", deeds.host_without("recover")),
        Mishap("people", "host started again with its folder wiped", deeds.host_without("its folder")),
        Mishap("people", "SIGTERM of c2 while all wait for c1", deeds.told_to_end_while_waiting("c2", "c1")),
        Mishap("people", "SIGTERM of host while all wait for c1", deeds.told_to_end_while_waiting("host", "c1")),
    )
    yield from (
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
    )
    yield from (
        Mishap(
            "absence",
            f"{party} killed in {point} and not started again",
            deeds.stays_away(party, point),
            impatient=True,
        )
        for party, point in (("host", "batch"), ("c1", "batch"), ("c1", "psi"))
    )
    yield from (
        Mishap(
            "absence",
            f"all killed in {point} and {party} not started again",
            deeds.not_all_come_back(party, point),
            impatient=True,
        )
        for party, point in (("c2", "batch"), ("host", "batch"))
    )


def _of_lines() -> Iterator[Mishap]:
    """Lines break, are slow, damage what passes; or just then something else happens."""
    yield from (
        Mishap(
            "cut",
            f"{party} killed while {other} is cut off",
            bad_lines.killed_behind_a_cut(party, other),
        )
        for party, other in (("c1", "c2"), ("host", "c1"), ("c1", "host"))
    )
    yield from (
        Mishap("line", "links reset every 0.3 s", bad_lines.bad_line(reset_every_s=0.3)),
        Mishap("line", "every byte 0.1 s late", bad_lines.bad_line(delay_s=0.1)),
        Mishap("line", "20 kB/s", bad_lines.bad_line(bytes_per_s=20_000)),
        Mishap("line", "one piece in 20 damaged", bad_lines.damaged_line(0.05, 5.0)),
    )
    yield from (
        Mishap(
            "failure",
            f"{party} fails in its own code as its links are reset{', again and again' * bool(last_s)}",
            bad_lines.fails_as_links_are_reset(party, last_s=last_s),
            more=("--links-only",),
        )
        for party in ("host", "c1")
        for last_s in (0.0, 1.0)
    )


def _of_silence() -> Iterator[Mishap]:
    """Nothing comes from a party for a while."""
    yield from (
        Mishap(
            "silence",
            f"{party} stopped for {silence.STOPPED_S:g} s in {point}, while the others wait for {silence.WAITS_S:g} s",
            silence.stopped(party, point),
            more=silence.IMPATIENT,
        )
        for party, point in (("c1", "round start"), ("c2", "batch"), ("host", "batch"))
    )
    yield from (
        Mishap(
            "noticed", f"{party} killed in {point}, and how soon that is said", silence.killed_and_noticed(party, point)
        )
        for party, point in (("c1", "batch"), ("host", "batch"), ("c2", "test"))
    )
    yield from (
        Mishap(
            "unplugged",
            f"{party} {'killed and ' * dead}unplugged in {point}, and how soon that is said",
            silence.unplugged_and_noticed(party, point, dead=dead),
        )
        for party, point, dead in (
            ("c1", "batch", False),
            ("host", "batch", False),
            ("c2", "test", False),
            ("c1", "batch", True),
            ("host", "batch", True),
        )
    )


def run_mishap(mishap: Mishap, folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Let it happen, and compare how it ends with how an undisturbed run does."""
    began = time.monotonic()
    more = ("--rejoin-timeout", str(PATIENCE_S)) if mishap.impatient else ()
    note = ""
    try:
        with Stage(
            folder,
            deadline_s=DEADLINE_S,
            more=(*more, *mishap.more),
            gather_timeout_s=PATIENCE_S if mishap.impatient else 120.0,
        ) as stage:
            note = mishap.play(stage) or ""
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
    return Cell("mishaps", mishap.name, not trouble, time.monotonic() - began, trouble or note)


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

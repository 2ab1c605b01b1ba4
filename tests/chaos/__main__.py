"""The chaos run: everything that a network, a machine or a stranger can do to a task. `make chaos` runs it.

python -m tests.chaos [--short] [--share X] [--seed N] [--only kill,soup] [--cell NAME] [--jobs 2] [--folder F]
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from tests.chaos.report import Cell, Plan, Section, summary, table_of, tell
from tests.chaos.stage import end_all

Track = tuple[str, ...]

STAGES: tuple[tuple[Track, ...], ...] = (
    (("kill", "mishaps", "soup", "disk", "fuzz"), ("soak",)),
    (("intruders",),),
)
"""Stages follow each other; so do the sections of a track, while the tracks of a stage go side by side.

The soak takes an hour in which it measures memory only, so the rest need not wait for it, but for what measures speed.
"""

MODULES = {"kill": "kill_matrix"}
SECTIONS = tuple(name for stage in STAGES for track in stage for name in track)
SHORT = 0.25


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Everything that can go wrong, tried.")
    parser.add_argument("--share", type=float, default=1.0, help="of the whole, above 0 and up to 1 (default 1)")
    parser.add_argument("--short", action="store_const", dest="share", const=SHORT, help=f"the same as --share {SHORT}")
    parser.add_argument("--seed", type=int, default=7, help="of all that is left to chance (default 7)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by default " + ",".join(SECTIONS))
    parser.add_argument("--cell", default="", help="only the cell of this name")
    parser.add_argument("--jobs", type=int, default=2, help="how many things at a time (default 2)")
    parser.add_argument("--folder", type=Path, help="a new one for what is written; by default a temporary one")
    given = parser.parse_args(arguments)
    if not 0 < given.share <= 1:
        parser.error(f"--share is {given.share}; expected above 0 and up to 1")
    if given.jobs < 1:
        parser.error(f"--jobs is {given.jobs}; expected 1 or more")
    given.only = [each.strip() for each in given.only.split(",") if each.strip()]
    if unknown := sorted(set(given.only) - set(SECTIONS)):
        parser.error(f"there is no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return given


def section_of(name: str) -> Section:
    """Return the section of this name; a missing module is an error."""
    module = importlib.import_module(f"tests.chaos.{MODULES.get(name, name)}")
    cells: Section = module.cells
    return cells


def run(tracks: Sequence[Sequence[str]], sections: Mapping[str, Section], plan: Plan, console: Console) -> list[Cell]:
    """Go along several tracks side by side; tell of each cell as it is done, and return them all."""
    done: queue.Queue[Cell | None] = queue.Queue()

    def go(track: Sequence[str]) -> None:
        for name in track:
            began = time.monotonic()
            try:
                for cell in sections[name](plan):
                    done.put(cell)
            except Exception:
                done.put(Cell(name, "the section itself", False, time.monotonic() - began, traceback.format_exc()))
        done.put(None)

    for track in tracks:
        threading.Thread(target=go, args=(track,), name=",".join(track), daemon=True).start()
    cells: list[Cell] = []
    open_tracks = len(tracks)
    while open_tracks:
        cell = done.get()
        if cell is None:
            open_tracks -= 1
        elif plan.cell in ("", cell.name) or not cell.ok:
            tell(cell, plan, console)
            cells.append(cell)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1: something was red, or nothing was tried."""
    given = parse(arguments)
    console = Console(highlight=False, soft_wrap=True)
    # What parties in this very process have to say is not for the table.
    logging.getLogger("heterofed").addHandler(logging.NullHandler())
    folder = given.folder or Path(tempfile.mkdtemp(prefix="heterofed-chaos-"))
    plan = Plan(given.share, given.seed, folder, jobs=given.jobs, cell=given.cell)
    sections = {name: section_of(name) for name in SECTIONS if name in given.only}
    began = time.monotonic()
    cells: list[Cell] = []
    for stage in STAGES:
        tracks = [[name for name in track if name in sections] for track in stage]
        cells += run([track for track in tracks if track], sections, plan, console)
    cells.sort(key=lambda cell: SECTIONS.index(cell.section))
    console.print(table_of(cells), soft_wrap=False)
    green = any(each.ok for each in cells) and not any(each.red for each in cells)
    if green and given.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"what was written is in {folder}")
    console.print(summary(cells, time.monotonic() - began, plan.seed))
    return 0 if green else 1


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        end_all()
        os._exit(130)  # threads that wait for parties would keep us
    sys.exit(code)

"""What a section of the chaos run says of each thing it tried, and the table of all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One thing that was tried."""

    section: str
    """For example "kill"."""

    name: str
    """What was done to whom, and when: "training batch 5, host, SIGKILL"."""

    ok: bool
    """Whether it ended as it must."""

    seconds: float

    note: str = ""
    """Why it is red, or was not run; or a figure worth reading."""

    run: bool = True
    """False: it could not be tried here, the note says why. Such a cell is neither green nor red; `ok` is False."""

    @classmethod
    def not_run(cls, section: str, name: str, why: str) -> Cell:
        """Return a cell that could not be tried here."""
        return cls(section, name, False, 0.0, why, run=False)

    @property
    def red(self) -> bool:
        """Whether it was tried, and did not end as it must."""
        return self.run and not self.ok

    @property
    def colour(self) -> tuple[str, str]:
        """How it is shown: (a colour, a word)."""
        if not self.run:
            return "yellow", "not run"
        return ("green", "green") if self.ok else ("bold red", "RED")


@dataclass(frozen=True)
class Plan:
    """How much to try, and where."""

    share: float
    """Of the whole: 1.0 for `make chaos`, 0.25 for CHAOS=short, less in `make test`."""

    seed: int
    folder: Path
    """For whatever is written; each section takes a subfolder of its own."""

    jobs: int = 2
    """How many things to try at a time, where they wait more than they compute."""

    cell: str = ""
    """Try only what has this name; a section that cannot tell before it tries may leave it to who asked."""

    def some(self, what: Sequence[T], at_least: int = 1) -> list[T]:
        """Return a seeded share of these, in their order."""
        count = min(len(what), max(at_least, round(self.share * len(what))))
        chosen = set(random.Random(self.seed).sample(range(len(what)), count))
        return [each for index, each in enumerate(what) if index in chosen]

    def spread(self, what: Sequence[T], kind: Callable[[T], object]) -> list[T]:
        """Return a seeded share of these, in their order: the same share of every kind, and one of each at least."""
        dice = random.Random(self.seed)
        kinds: dict[object, list[int]] = {}
        for index, each in enumerate(what):
            kinds.setdefault(kind(each), []).append(index)
        chosen: set[int] = set()
        for indices in kinds.values():
            chosen |= set(dice.sample(indices, min(len(indices), max(1, round(self.share * len(indices))))))
        return [each for index, each in enumerate(what) if index in chosen]


Section = Callable[[Plan], Iterator[Cell]]
"""A section yields its cells as they are done. It lives in a module of its own, as `cells`."""


def again(cell: Cell, plan: Plan) -> str:
    """Return the command that tries one cell alone, as this plan did."""
    share = "" if plan.share == 1 else f" --share {plan.share:g}"
    return f'python -m tests.chaos --only {cell.section} --cell "{cell.name}" --seed {plan.seed}{share}'


def tell(cell: Cell, plan: Plan, console: Console) -> None:
    """Show a cell as it is done."""
    colour, word = cell.colour
    note = "" if not cell.note or "\n" in cell.note else f"  {escape(cell.note)}"
    console.print(f"[{colour}]{word:7}[/]  {cell.section:9} {escape(cell.name)}  {cell.seconds:.1f} s{note}")
    if cell.red:
        for line in cell.note.splitlines() if "\n" in cell.note else ():
            console.print(f"       {escape(line)}", style="dim")
        console.print(f"       again: {escape(again(cell, plan))}")


def table_of(cells: Sequence[Cell]) -> Table:
    """Return the table of all cells."""
    table = Table("section", "cell", "", "seconds", "note", box=box.SIMPLE_HEAD)
    table.columns[3].justify = "right"
    for each in cells:
        colour, word = each.colour
        note = each.note if each.ok else each.note.partition("\n")[0]
        table.add_row(
            each.section,
            escape(each.name),
            f"[{colour}]{word}[/]",
            f"{each.seconds:.1f}",
            escape(note),
        )
    return table


def summary(cells: Sequence[Cell], seconds: float, seed: int) -> str:
    """Return the last line: how many of the cells that were tried are green, and how many could not be tried."""
    green, tried = sum(each.ok for each in cells), sum(each.run for each in cells)
    left = "" if tried == len(cells) else f", {len(cells) - tried} not run,"
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    return f"chaos: {green} of {tried} green{left} in {took} (seed {seed})"

"""Fault soup: whole runs of a small task over links that lose, delay, double, swap, damage and break.

Every run must end with the bits of an undisturbed one or with a named error at every party. Each is cooked in a process
that can be ended: one that hangs says where its threads are, and is red.
"""

from __future__ import annotations

import queue
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.chaos.kill_matrix import differences
from tests.chaos.report import Cell, Plan, again
from tests.chaos.soup_cook import Cook, Ended, Recipe

SECTION = "soup"
RUNS, LEAST_RUNS = 1000, 4
RUNS_OF_A_CELL = 50
SEEDS_OF_A_PLAN = 10_000
COOKS_TO_A_JOB = 2
"""A run waits more than it computes."""

MOST_OF_A_LINE = 200

ALL = "all runs"
NAMED_AT_MOST = 0.01
"""No more of the runs may end with an error, even a named one: what is lost is repeated."""


@dataclass(frozen=True)
class Tried:
    """What a run has shown."""

    seed: int
    ended: Ended
    wrong: str = ""
    """Why it is red; nothing if it is not."""

    @property
    def named(self) -> str:
        """The errors that it ended with, as it may now and then; nothing for the same bits."""
        return "" if self.wrong else "; ".join(f"{party}: {said}" for party, said in self.ended.errors.items())


class Kitchen:
    """The cooks, and what undisturbed runs give.

    Args:
        folder: for what runs write; a run that is not red leaves nothing.
        cooks: how many processes.
    """

    def __init__(self, folder: Path, cooks: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._cooks = [Cook(folder / f"cook-{number}.log") for number in range(cooks)]
        self._idle: queue.SimpleQueue[Cook] = queue.SimpleQueue()
        for each in self._cooks:
            self._idle.put(each)
        self._undisturbed: dict[int, Ended] = {}

    def prepare(self, seeds: Sequence[int]) -> str:
        """Do the undisturbed runs that those of these seeds are compared with; return what is wrong with them."""
        counts = sorted({Recipe.of(seed).parties for seed in seeds})
        with ThreadPoolExecutor(len(self._cooks)) as pool:
            for count, ended in zip(counts, pool.map(lambda count: self._cook(Recipe(0, count)), counts), strict=True):
                self._undisturbed[count] = ended
        wrong = [each.trouble or "; ".join(each.errors.values()) for each in self._undisturbed.values()]
        return "\n".join(filter(None, wrong))

    def try_all(self, seeds: Sequence[int]) -> Iterator[Tried]:
        """Yield what the runs of these seeds show, in their order, as they end."""
        pool = ThreadPoolExecutor(len(self._cooks))
        try:
            yield from pool.map(self._try, seeds)
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End all processes."""
        for each in self._cooks:
            each.end()

    def _try(self, seed: int) -> Tried:
        recipe = Recipe.of(seed)
        ended = self._cook(recipe)
        wrong = ended.trouble or compare(ended, self._undisturbed[recipe.parties])
        if not wrong:
            shutil.rmtree(self._folder_of(recipe), ignore_errors=True)
        return Tried(seed, ended, wrong)

    def _cook(self, recipe: Recipe) -> Ended:
        cook = self._idle.get()
        try:
            return cook.cook(recipe, self._folder_of(recipe))
        finally:
            self._idle.put(cook)

    def _folder_of(self, recipe: Recipe) -> Path:
        return self._folder / (f"seed-{recipe.seed}" if recipe.faults else f"undisturbed-{recipe.parties}")


def compare(ended: Ended, undisturbed: Ended) -> str:
    """Return why a run is neither like an undisturbed one nor ended by a named error at every party."""
    if ended.errors:
        silent = sorted(undisturbed.outcomes.keys() - ended.errors.keys())
        said = "; ".join(f"{party}: {said}" for party, said in ended.errors.items())
        return f"{', '.join(silent)} ended as if nothing were wrong, but {said}" if silent else ""
    found = [
        f"{party} {each}"
        for party, wanted in undisturbed.outcomes.items()
        for each in differences(ended.outcomes[party], wanted)
    ]
    for party, wanted in undisturbed.outcomes.items():
        if ended.outcomes[party]["trained"] != wanted["trained"]:
            found.append(f"{party} trained {ended.outcomes[party]['trained']} batches, not {wanted['trained']}")
    return "; ".join(each[:MOST_OF_A_LINE] for each in found)


def cells(plan: Plan) -> Iterator[Cell]:
    """Yield a cell for every 50 runs, and one for all; for `seed N` and `seeds N to M`, that alone."""
    alone = re.fullmatch(r"seeds? (\d+)(?: to (\d+))?", plan.cell)
    first = int(alone[1]) if alone else plan.seed * SEEDS_OF_A_PLAN
    count = int(alone[2] or first) - first + 1 if alone else max(LEAST_RUNS, round(RUNS * plan.share))
    if plan.cell and not alone and plan.cell != ALL:
        return
    kitchen = Kitchen(plan.folder / SECTION, min(count, COOKS_TO_A_JOB * plan.jobs))
    try:
        yield from _served(plan, kitchen, range(first, first + count), sum_up=not alone)
    finally:
        kitchen.close()


def _served(plan: Plan, kitchen: Kitchen, seeds: Sequence[int], *, sum_up: bool) -> Iterator[Cell]:
    whole = began = time.monotonic()
    if wrong := kitchen.prepare(seeds):
        yield Cell(SECTION, "undisturbed", False, time.monotonic() - began, wrong)
        return
    tried: list[Tried] = []
    done: list[Tried] = []
    for each in kitchen.try_all(seeds):
        done.append(each)
        if len(done) == RUNS_OF_A_CELL or each.seed == seeds[-1]:
            name = f"seeds {done[0].seed} to {done[-1].seed}" if len(done) > 1 else f"seed {each.seed}"
            yield judged(name, done, time.monotonic() - began, plan)
            tried, done, began = tried + done, [], time.monotonic()
    if sum_up:
        yield summed_up(tried, time.monotonic() - whole)


def judged(name: str, tried: Sequence[Tried], seconds: float, plan: Plan) -> Cell:
    """Tell of some runs: red if one is, or if one that was asked for alone ends with an error."""
    lines = [counted(tried)]
    for each in tried:
        if each.wrong or each.named:
            alone = again(Cell(SECTION, f"seed {each.seed}", False, 0.0), plan)
            lines += [f"seed {each.seed}: {each.wrong or each.named}", f"alone: {alone}"]
    ok = not any(each.wrong for each in tried) and not (len(tried) == 1 and tried[0].named)
    return Cell(SECTION, name, ok, seconds, "\n".join(lines))


def summed_up(tried: Sequence[Tried], seconds: float) -> Cell:
    named = [each for each in tried if each.named]
    ok = len(named) <= NAMED_AT_MOST * len(tried) and not any(each.wrong for each in tried)
    faults: Counter[str] = sum((Counter(each.ended.faults) for each in tried), Counter())
    slowest = max(tried, key=lambda each: each.ended.seconds)
    note = f"{counted(tried)}; faults: {', '.join(f'{count:,} {name}' for name, count in sorted(faults.items()))}"
    note += f"; {median(each.ended.seconds for each in tried):.1f} s a run"
    note += f", {slowest.ended.seconds:.1f} s at most (seed {slowest.seed})"
    if not ok:
        note += f"\nseeds {', '.join(str(each.seed) for each in tried if each.wrong or each.named)}"
    return Cell(SECTION, ALL, ok, seconds, note)


def counted(tried: Sequence[Tried]) -> str:
    """Return how many runs ended how."""
    wrong, named = sum(bool(each.wrong) for each in tried), sum(bool(each.named) for each in tried)
    same = len(tried) - wrong - named
    return f"{len(tried):,} runs: {same:,} with the same bits, {named} with a named error" + (
        f", {wrong} RED" if wrong else ""
    )

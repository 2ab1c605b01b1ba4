"""A disk that fails at each change that a run makes to it: nothing is lost, and the run goes on once it is mended."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from heterofed import Settings, run_locally
from heterofed.errors import HeterofedError, OutputError, TaskAborted
from heterofed.training.stateful import read_state
from tests.chaos.disk_outcome import PARTIES, Outcome, Red, check_checkpoints
from tests.chaos.disk_processes import PROCESSES, ROUNDS, Attempt
from tests.chaos.noting import note_errors
from tests.chaos.report import Cell, Plan
from tests.chaos.smalldisk import FILLED, KINDS, CannotMount, Disk, Kind, listening, small_disk
from tests.tiny import Collaborator, Host

SECTION = "disk"
SEED = 11
IN_LAST_ROUND = "rename checkpoints/model_0000005"
"""The change that gives the last round's checkpoint its name: the newest one then is that of the round before."""
PROCESSES_FROM = 0.2
"""Parties in processes of their own take seconds: only where that much of the plan is wanted."""


@dataclass(frozen=True)
class Point:
    """When which disk fails how."""

    party: str
    kind: Kind
    change: int
    what: str

    def __str__(self) -> str:
        return f"{self.party}'s disk {self.kind} at its change {self.change}, {self.what}"


def cells(plan: Plan) -> Iterator[Cell]:
    """Break the disk of one party just before its n-th change, for all n, mend it, and go on with recover=True.

    Where no small disk can be had, what needs one is not run.
    """
    folder = plan.folder / SECTION
    shutil.rmtree(folder, ignore_errors=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        why_none = _why_no_small_disk(folder / "mount")
        undisturbed = _outcome_of(_run(folder / "undisturbed", recover=False), folder / "undisturbed")
        for name, attempt, kind in _attempts(plan, list(_points(folder)), small=not why_none):
            if plan.cell not in ("", name):
                continue
            if why_none and kind in FILLED:
                yield Cell.not_run(SECTION, name, why_none)
            else:
                yield _cell(name, folder / "run", undisturbed, attempt)
                shutil.rmtree(folder / "run", ignore_errors=True)
    finally:
        torch.set_num_threads(threads)


def _attempts(plan: Plan, points: Sequence[Point], *, small: bool) -> Iterator[tuple[str, Attempt, Kind]]:
    """Yield (a cell's name, what it tries, how its disk fails)."""
    for point in plan.some(points):
        yield str(point), partial(_tried, point, small), point.kind
    for party, damage, part in plan.some(list(product(PARTIES, DAMAGES, DAMAGED))):
        name = f"{party}'s disk full in round {ROUNDS}, and {part}.pt of its newest checkpoint {damage}"
        when = next(each for each in points if each.party == party and each.what.endswith(IN_LAST_ROUND))
        yield name, partial(_damaged, when, part, damage), when.kind
    if plan.share >= PROCESSES_FROM:
        for name, attempt in PROCESSES.items():
            yield name, attempt, "full"


def _why_no_small_disk(folder: Path) -> str:
    """Return why none can be had here; nothing if one can."""
    try:
        with small_disk(folder):
            return ""
    except CannotMount as error:
        return str(error)


def _points(folder: Path) -> Iterator[Point]:
    """Yield each change that an undisturbed run makes to a party's disk, with each way to fail there."""
    for party in PARTIES:
        out = folder / f"counted-{party}"
        with listening(out / party) as disk:
            disk.watch()
            _run(out, recover=False)
        for kind in KINDS:
            for number, what in enumerate(disk.changes):
                yield Point(party, kind, number, re.sub(r"\.[0-9a-f]{8}\.", ".*.", what))


# --- one cell ---------------------------------------------------------------------------------------------------------


def _cell(name: str, folder: Path, undisturbed: Outcome, attempt: Attempt) -> Cell:
    began = time.monotonic()
    ok, note = True, ""
    try:
        note = attempt(folder, undisturbed)
    except Red as error:
        ok, note = False, str(error)
    except Exception as error:
        ok, note = False, f"{type(error).__name__}: {error}"
    return Cell(SECTION, name, ok, time.monotonic() - began, note)


def _tried(point: Point, small: bool, folder: Path, undisturbed: Outcome) -> str:
    with (small_disk if small else listening)(folder / point.party) as disk:
        return _tried_on(disk, point, folder, undisturbed)


def _tried_on(disk: Disk, point: Point, folder: Path, undisturbed: Outcome) -> str:
    disk.watch(point.change, point.kind)
    ended = _run(folder, recover=False)
    broke = disk.broke
    disk.mend()
    check_checkpoints(folder)
    if ended.errors:
        if not broke:
            raise Red(f"it failed although the disk did not: {ended}")
        _check_errors(point, ended, folder)
        disk.watch()
        again = _run(folder, recover=True)
        if again.errors:
            raise Red(f"it does not go on: {again}; after {ended}")
        _outcome_of(again, folder).check(undisturbed)
        return ""
    _outcome_of(ended, folder).check(undisturbed)
    return "nothing of the run was lost by it"


def _damaged(point: Point, part: str, damage: str, folder: Path, undisturbed: Outcome) -> str:
    """The newest checkpoint is torn besides: the parties go on from one before it."""
    with small_disk(folder / point.party) as disk:
        disk.watch(point.change, point.kind)
        _check_errors(point, _run(folder, recover=False), folder)
        disk.mend()
        disk.watch()
        checkpoints = folder / point.party / "checkpoints"
        newest = checkpoints / (checkpoints / "last_checkpoint").read_text() / f"{part}.pt"
        newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
        _outcome_of(_run(folder, recover=True), folder).check(undisturbed)
    return ""


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGED = ("model", "trainer")
DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "with a bit flipped": _flipped,
}


def _check_errors(point: Point, ended: Ended, folder: Path) -> None:
    mine = ended.errors.get(point.party)
    if type(mine) is not OutputError or str(folder / point.party) not in str(mine):
        raise Red(f"{point.party} ended with {type(mine).__name__}: {mine}")
    for party in PARTIES:
        if party != point.party:
            error = ended.errors.get(party)
            if not isinstance(error, TaskAborted) or error.party != point.party or str(folder) in str(error):
                raise Red(f"{party} ended with {type(error).__name__}: {error}")


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a run ended for each party."""

    parties: dict[str, Any]
    errors: dict[str, BaseException]

    def __str__(self) -> str:
        return "; ".join(f"{party}: {type(error).__name__}: {error}" for party, error in self.errors.items())


def _run(folder: Path, *, recover: bool) -> Ended:
    """Run the tiny task with every party's results in folder/<feature key>."""
    settings = Settings(
        home=folder / "home", progress="off", psi_protocol="ecdh", gather_timeout_s=10, notice_every_s=10
    )
    host = Host(out_dir=folder / "host", max_rounds=ROUNDS, schedule_timeout=5, settings=settings)
    c1 = Collaborator("c1", out_dir=folder / "c1", schedule_timeout=5, settings=settings)
    ended = Ended({each.feature_key: each for each in (host, c1)}, {})
    for party in (host, c1):
        note_errors(party, ended.errors)
    try:
        run_locally(host, c1, seed=SEED, recover=recover)
    except HeterofedError as error:
        if not ended.errors:
            raise Red(f"the run failed, but no party: {error}") from error
    return ended


def _outcome_of(ended: Ended, folder: Path) -> Outcome:
    """Return what a completed run has left, which is what its parties hold."""
    if ended.errors:
        raise Red(str(ended))
    for key, party in ended.parties.items():
        for name, model in party.trainer.models.items():
            file = {"feature": f"feature_model_{key}", "infer": "infer_model"}[name]
            written = read_state(folder / key / f"{file}.pt")
            if any(not torch.equal(value, written[each]) for each, value in model.state_dict().items()):
                raise Red(f"{file}.pt of {key} is not what it was trained to")
    return Outcome.left_in(folder)

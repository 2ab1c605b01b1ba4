"""A party of the chaos task as a process of its own.

    python -m tests.chaos.parties host|c1|c2 TASK_ID FOLDER [--recover] [--variant plan] [--stop POINT --flag FILE]

The task is that of tests/chaos/task.py. At a *stop point* (tests/chaos/stops.py) the party writes FILE.here and waits
until FILE.go is there: the controller does its deed meanwhile.

Whatever it did is in FOLDER/<party>.json when the party has ended well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import psi
from heterofed.scheduler.record import StoreRecord
from heterofed.tasks.directory import Directory
from heterofed.tasks.model import Party, Task
from heterofed.training.stateful import read_state
from tests.chaos.stops import NAMES, Flag, stop_at
from tests.chaos.task import PARTIES, VARIANTS, make_endless_party, make_party

GIVES_UP_S = 400
"""A party that nobody looks after any more ends itself after so long."""

ENDLESS = "endless"

PLACE = ("iteration", "round")
EXACT = ("loss", "mean_loss", "round/loss")
EXACT_GROUPS = ("scores/", "batches/", "seen/", "lr")
"""What in metrics.json does not depend on how long things take."""


def go_through(ports: dict[int, int]) -> None:
    """Make this process connect to other ports than the announced ones.

    `Stage.finish` sees it if that has no effect, because the product has come to find its host in another way.
    """
    find = Directory.find

    def goes(party: Party) -> Party:
        if party.endpoint is None:
            return party
        where, port = party.endpoint.rsplit(":", 1)
        return replace(party, endpoint=f"{where}:{ports.get(int(port), int(port))}")

    def finds(self: Directory, task_id: str) -> Task:
        task = find(self, task_id)
        return replace(task, parties=tuple(goes(each) for each in task.parties))

    Directory.find = finds  # type: ignore[method-assign]  # in this process only


class PsiCount:
    """Counts the parts of the intersection that this process has worked on."""

    def __init__(self) -> None:
        self.parts = 0
        for kind in (psi.Initiator, psi.Responder):
            self._watch(kind)

    def _watch(self, kind: Any) -> None:
        receive = kind.receive

        def receives(run: Any, part: bytes) -> Any:
            self.parts += 1
            return receive(run, part)

        kind.receive = receives


def digest_of(state: Any) -> str:
    """Return a SHA-256 of all that a state holds: tensors bit by bit, everything else as it is written."""
    sha = hashlib.sha256()
    for line in _lines_of(state):
        sha.update(line)
    return sha.hexdigest()


def _lines_of(state: Any) -> Iterator[bytes]:
    if isinstance(state, Tensor):
        yield f"{state.dtype} {tuple(state.shape)}".encode()
        yield state.detach().contiguous().numpy().tobytes()
    elif isinstance(state, Mapping):
        for name in sorted(state, key=str):
            yield str(name).encode()
            yield from _lines_of(state[name])
    elif isinstance(state, list | tuple):
        for each in state:
            yield from _lines_of(each)
    else:
        yield repr(state).encode()


def digests_of_best(folder: Path) -> dict[str, str]:
    """Return the digest of each part of the best round's checkpoint, but for what tells of times; empty without one."""
    parts = sorted((folder / "checkpoints" / "model_best").glob("*.pt"))
    return {each.stem: digest_of(read_state(each)) for each in parts if each.stem != "trainer"}


def outcome_of(scheduler: Any) -> dict[str, Any]:
    """Return what a party has in the end, as far as it must be the same in every run, and what it did for it."""
    folder: Path = scheduler.out_dir
    models = {"feature": scheduler.feature_model}
    files = {"feature": folder / f"feature_model_{scheduler.feature_key}.pt"}
    if scheduler.feature_key == "host":
        models["infer"], files["infer"] = scheduler.infer_model, folder / "infer_model.pt"
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    exact = [{key: line[key] for key in line if key in EXACT or key.startswith(EXACT_GROUPS)} for line in lines]
    placed = [{key: line[key] for key in PLACE} | each for line, each in zip(lines, exact, strict=True) if each]
    return {
        "parameters": digest_of({name: each.state_dict() for name, each in models.items()}),
        "written": digest_of({name: torch.load(each, weights_only=True) for name, each in files.items()}),
        "best": digests_of_best(folder),
        "tables": {path.name: path.read_text() for path in sorted(folder.glob("*.csv"))},
        "metrics.json": placed,
        "trained": scheduler.counting.done,
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what a command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.parties")
    parser.add_argument("role", choices=PARTIES)
    parser.add_argument("task")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--variant", choices=(*VARIANTS, ENDLESS), default="plan")
    parser.add_argument("--stop", choices=NAMES)
    parser.add_argument("--flag", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0, help="of an endless task")
    parser.add_argument("--rejoin-timeout", type=float, default=120.0, help="in seconds")
    parser.add_argument("--schedule-timeout", type=float, default=30.0, help="in seconds")
    parser.add_argument("--calculation-timeout", type=float, default=300.0, help="in seconds; a host's")
    parser.add_argument("--links-only", action="store_true", help="do not hear of failures by the task's record")
    parser.add_argument("--through", default="{}", help="JSON: announced port -> port to connect to")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Take part in a task, and write down how it ended."""
    given = parse(arguments)
    signal.alarm(GIVES_UP_S + int(given.seconds))
    torch.set_num_threads(1)
    torch.manual_seed(PARTIES.index(given.role))
    np.random.seed(PARTIES.index(given.role))
    random.seed(PARTIES.index(given.role))
    counted = PsiCount()
    scheduler = _make(given)
    go_through({int(announced): port for announced, port in json.loads(given.through).items()})
    if given.links_only:
        StoreRecord.look = lambda self: None  # type: ignore[method-assign]  # in this process only
    if given.stop:
        stop_at(given.stop, Flag(given.flag), scheduler)
    scheduler.launch_task(given.task, recover=given.recover)
    outcome = {**outcome_of(scheduler), "psi_parts": counted.parts}
    part = given.folder / f".{given.role}.json"
    part.write_text(json.dumps(outcome))
    part.replace(given.folder / f"{given.role}.json")


def _make(given: argparse.Namespace) -> Any:
    if given.variant == ENDLESS:
        return make_endless_party(given.role, given.folder, given.seconds)
    arguments = {"rejoin_timeout": given.rejoin_timeout, "schedule_timeout": given.schedule_timeout}
    if given.role == "host":
        arguments["calculation_timeout"] = given.calculation_timeout
    return make_party(given.role, given.folder, given.variant, **arguments)


if __name__ == "__main__":
    main(sys.argv[1:])

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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import psi
from heterofed.tasks.directory import Directory, HostAddress
from tests.chaos.stops import NAMES, Flag, stop_at
from tests.chaos.task import PARTIES, VARIANTS, make_party

GIVES_UP_S = 400
"""A party that nobody looks after any more ends itself after so long."""

PLACE = ("iteration", "round")
EXACT = ("loss", "mean_loss", "round/loss")
EXACT_GROUPS = ("scores/", "batches/", "seen/", "lr")
"""What in metrics.json does not depend on how long things take."""


def go_through(ports: dict[int, int]) -> None:
    """Make this process connect to other ports than the announced ones."""
    host_of = Directory.host_of

    def finds(self: Directory, task_id: str) -> HostAddress | None:
        address = host_of(self, task_id)
        if address is None:
            return None
        where, port = address.endpoint.rsplit(":", 1)
        return replace(address, endpoint=f"{where}:{ports.get(int(port), int(port))}")

    Directory.host_of = finds  # type: ignore[method-assign]  # in this process only


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


def digest_of(states: dict[str, dict[str, Tensor]]) -> str:
    """Return a SHA-256 of all parameters and buffers."""
    sha = hashlib.sha256()
    for model, state in sorted(states.items()):
        for name, each in sorted(state.items()):
            sha.update(f"{model} {name} {each.dtype} {tuple(each.shape)}".encode())
            sha.update(each.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


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
    parser.add_argument("--variant", choices=VARIANTS, default="plan")
    parser.add_argument("--stop", choices=NAMES)
    parser.add_argument("--flag", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0, help="of an endless task")
    parser.add_argument("--rejoin-timeout", type=float, default=120.0, help="in seconds")
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
    scheduler = make_party(given.role, given.folder, given.variant, given.seconds, given.rejoin_timeout)
    go_through({int(announced): port for announced, port in json.loads(given.through).items()})
    if given.stop:
        stop_at(given.stop, Flag(given.flag), scheduler)
    scheduler.launch_task(given.task, recover=given.recover)
    outcome = {**outcome_of(scheduler), "psi_parts": counted.parts}
    part = given.folder / f".{given.role}.json"
    part.write_text(json.dumps(outcome))
    part.replace(given.folder / f"{given.role}.json")


if __name__ == "__main__":
    main(sys.argv[1:])

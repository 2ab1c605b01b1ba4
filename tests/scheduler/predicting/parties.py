"""Completed runs of the tiny task, and sessions for predictions with them; as a process of its own: a collaborator.

`python tests/scheduler/predicting/parties.py FOLDER [KEY]` answers predictions with the run in FOLDER until it is
ended.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
from torch import Tensor

from heterofed import HeterofedError, Settings
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.simulate import run_locally
from heterofed.tasks.directory import open_local
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.tasks.store import TaskStore
from tests.tiny import PEOPLE, Collaborator, Host, person

TASK = "tryagaqn2345"
EVERYBODY = [person(row) for row in range(PEOPLE)]


class Predicting(Host):
    """Keeps what its network predicts when training ends, and the means."""

    mean_rows = 20

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.concluded: dict[str, Tensor] = {}
        self.ids = EVERYBODY

    def load_local_ids(self) -> list[str]:
        return self.ids

    def conclude(self, predictions: Predictions) -> None:
        self.concluded = values_of(predictions, list(predictions.asked))


class Knowing(Collaborator):
    """Holds some of the people."""

    def __init__(self, feature_key: str = "c1", *, ids: Sequence[str] = EVERYBODY, **kwargs: Any) -> None:
        super().__init__(feature_key, **kwargs)
        self.ids = list(ids)

    def load_local_ids(self) -> list[str]:
        return self.ids


def values_of(predictions: Predictions, ids: Sequence[str] | None = None, **how: Any) -> dict[str, Tensor]:
    """Return id -> what was predicted of it."""
    found: dict[str, Tensor] = {}
    for batch in predictions.predict(ids, **how):
        known = [each for each, status in zip(batch.ids, batch.status, strict=True) if status.value != "unknown"]
        found.update(zip(known, batch.values if batch.values is not None else (), strict=True))
    return found


def quick(**values: Any) -> Settings:
    """Return settings with which ids are matched the faster way."""
    given = {"psi_protocol": "ecdh", "psi_workers": "1", **values}
    return Settings.from_env({**os.environ, **{f"HETEROFED_{name.upper()}": str(each) for name, each in given.items()}})


def keys_of(parties: int) -> list[str]:
    return [f"c{number}" for number in range(1, parties)]


def train(folder: Path, parties: int = 2, *, seed: int = 1) -> Predicting:
    """Complete a run in a folder; return its host."""
    host = Predicting(out_dir=folder / "host", parties=parties, settings=quick())
    run_locally(host, *collaborators(folder, parties), seed=seed, task_id=TASK)
    return host


_KEPT = TemporaryDirectory(prefix="heterofed-runs-")


@cache
def trained_run(parties: int = 2) -> tuple[Path, Predicting]:
    """Return the folder of a completed run and its host; trained once, not to be changed."""
    folder = Path(_KEPT.name) / str(parties)
    return folder, train(folder, parties)


def completed_task(parties: int = 2) -> tuple[Path, Predicting]:
    """Return the same, of a task that this machine's store has as completed."""
    made = trained_run(parties)
    store = open_local(quick()).store
    assert isinstance(store, TaskStore)
    store.create("tiny", ["host", *keys_of(parties)], task_id=TASK)
    for status in (TaskStatus.GATHERING, TaskStatus.ALIGNING, TaskStatus.ONGOING, TaskStatus.COMPLETED):
        store.move(TASK, status)
    for key in ("host", *keys_of(parties)):
        role: Any = "host" if key == "host" else "collaborator"
        store.set_party(TASK, key, status=PartyStatus.FINISHED, role=role)
    return made


def collaborators(folder: Path, parties: int = 2) -> list[Knowing]:
    """Return fresh collaborators of a run."""
    return [
        Knowing(key, party=number, out_dir=folder / key, settings=quick())
        for number, key in enumerate(keys_of(parties), start=1)
    ]


def host_of(folder: Path, parties: int = 2, **more: Any) -> Predicting:
    """Return a fresh host of a run."""
    return Predicting(out_dir=folder / "host", parties=parties, settings=quick(), **more)


@contextmanager
def in_a_thread(call: Callable[[], object], within_s: float = 20.0) -> Iterator[list[Any]]:
    """Run something beside the body; yield where its result, or what it raised, will be once the body has ended."""
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(call())
        except HeterofedError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ends
    finally:
        thread.join(within_s)
        assert not thread.is_alive()


def main() -> None:
    """Answer, as the command line says."""
    torch.set_num_threads(1)
    folder, key = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "c1"
    print(Knowing(key, out_dir=folder, settings=quick()).answer_predictions())


if __name__ == "__main__":
    main()

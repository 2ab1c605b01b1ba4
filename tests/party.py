"""A party of the tiny task as a process of its own: `python tests/party.py host|collaborator TASK_ID [KEY=VALUE …]`.

Values are Python literals for the scheduler's constructor, but for `recover`, which launches it with recover=True.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor

from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host


class SlowHost(Host):
    """Takes its time for every batch, so that a test can interfere."""

    def train_a_batch(self, feature_projection: dict[str, Tensor], labels: Any) -> Any:
        time.sleep(0.05)
        return super().train_a_batch(feature_projection, labels)


class Dying(Collaborator):
    """Is killed in the middle of the second round."""

    def load_batch(self, ids: list[str]) -> Any:
        if self.current_round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load_batch(ids)


class Raising(Collaborator):
    """Its own code raises."""

    def load_batch(self, ids: list[str]) -> Any:
        raise KeyError("secret-person")


class Repeating(Collaborator):
    """Its ids repeat."""

    def load_local_ids(self) -> list[str]:
        return ["twice", "twice"]


class Stuck(Collaborator):
    """Never finishes its second batch."""

    def load_batch(self, ids: list[str]) -> Any:
        if ids[0] != self.train_ids[0]:
            time.sleep(60)
        return super().load_batch(ids)


CLASSES: dict[str, type[Any]] = {
    "host": Host,
    "host/slow": SlowHost,
    "host/own": OwnHost,
    "collaborator": Collaborator,
    "collaborator/own": OwnCollaborator,
    "collaborator/dying": Dying,
    "collaborator/raising": Raising,
    "collaborator/repeating": Repeating,
    "collaborator/stuck": Stuck,
}


def main() -> None:
    """Take part in the task that the command line names."""
    what, task_id, *rest = sys.argv[1:]
    recover = "recover" in rest
    given = (each.split("=", 1) for each in rest if each != "recover")
    arguments = {name: ast.literal_eval(value) for name, value in given}
    CLASSES[what](**arguments).launch_task(task_id, recover=recover)


if __name__ == "__main__":
    main()

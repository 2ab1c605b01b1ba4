"""A party with several processes: `torchrun … replica_party.py WHAT TASK_ID [KEY=VALUE …] [recover]`.

As `tests/party.py` for a single one. Each process writes what `launch_task` returned to `result_RANK.json` in the
party's folder.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch

from tests.tiny import Collaborator, row_of

RANK = int(os.environ.get("RANK", "0"))


class Dying(Collaborator):
    """Its second process is killed in the second round."""

    def load_batch(self, ids: list[str]) -> Any:
        if RANK and self.current_round == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load_batch(ids)


class Slow(Collaborator):
    """Takes its time."""

    def load_batch(self, ids: list[str]) -> Any:
        time.sleep(0.05)
        return super().load_batch(ids)


CLASSES: dict[str, type[Any]] = {"plain": Collaborator, "dying": Dying, "slow": Slow}


def main() -> None:
    """Take part in the task that the command line names."""
    what, task_id, *rest = sys.argv[1:]
    given = (each.split("=", 1) for each in rest if each != "recover")
    party = CLASSES[what](**{name: ast.literal_eval(value) for name, value in given})
    result = party.launch_task(task_id, recover="recover" in rest)
    with torch.no_grad():
        rows = party.rows(party.test_ids[:2])
        told = {
            "rounds": result.rounds,
            "files": [each.name for each in result.files],
            "metrics": {name: table.rows() for name, table in result.metrics.items()},
            "split": [sum(map(row_of, ids)) for ids in (party.train_ids, party.test_ids)],
            "embedding": party.feature_model(rows).tolist(),
        }
    (result.out_dir / f"result_{RANK}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()

"""A party of the tiny task in a process of its own, which may fill a disk when the second round begins.

`FILL_DISK=FOLDER python -m tests.chaos.disk_party host|c1 TASK_ID OUT_DIR ROUNDS [recover]`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.chaos.smalldisk import Disk
from tests.tiny import Collaborator, Host


def main() -> None:
    """Take part in the task that the command line names."""
    key, task, out, rounds, *recover = sys.argv[1:]
    party: Any = Host(out_dir=out, max_rounds=int(rounds)) if key == "host" else Collaborator(key, out_dir=out)
    folder = os.environ.get("FILL_DISK")

    def fill(ctx: Any) -> None:
        if folder and ctx.trainer.current_round == 2:
            Disk(Path(folder)).fill()

    party.trainer.register_hook_in_train(fill, "on_round_start")
    party.launch_task(task, recover=bool(recover))


if __name__ == "__main__":
    main()

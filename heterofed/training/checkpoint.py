"""A party's state after each round, in a folder that is written whole or not at all.

checkpoints/
    model_0000003/          after round 3
        model.pt            state dicts of this party's models
        optimizer.pt        state dicts of its optimizers
        rng.pt              states of torch's, numpy's and Python's random generators
    last_checkpoint         "model_0000003"
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from heterofed.files import folder_whole, make_folder, refused, write_whole


class Checkpointer:
    """Keeps a party's newest checkpoints.

    Args:
        folder: where they lie; made when the first one is written.
        models: name -> model, for example {"feature": …, "infer": …}.
        optimizers: name -> optimizer.
        max_to_keep: how many to keep; older ones are removed after a newer one is complete.
    """

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        max_to_keep: int = 2,
    ) -> None:
        self.folder = folder
        self._models = dict(models)
        self._optimizers = dict(optimizers)
        self._max_to_keep = max_to_keep

    def save(self, round_: int) -> Path:
        """Write the checkpoint of a round and return its folder.

        Raises:
            OutputError: it cannot be written; earlier checkpoints are untouched.
        """
        make_folder(self.folder)
        target = self.folder / f"model_{round_:07d}"
        with folder_whole(target) as part:
            _save({name: model.state_dict() for name, model in self._models.items()}, part / "model.pt")
            _save({name: each.state_dict() for name, each in self._optimizers.items()}, part / "optimizer.pt")
            _save(_generators(), part / "rng.pt")
        write_whole(self.folder / "last_checkpoint", lambda file: file.write(target.name.encode()))
        self._prune(target.name)
        return target

    def _prune(self, newest: str) -> None:
        # Rounds after the newest are left from an earlier run in this folder: they are the oldest, not the newest.
        kept = sorted(self.folder.glob("model_[0-9]*"), key=lambda each: (each.name <= newest, each.name))
        with refused(self.folder):
            for old in kept[: -self._max_to_keep]:
                shutil.rmtree(old)


def _save(state: Mapping[str, Any], path: Path) -> None:
    write_whole(path, lambda file: torch.save(state, file))  # on the disk before the folder takes its name


def _generators() -> dict[str, Any]:
    """Return the states of the global random generators, in types that `torch.load(weights_only=True)` reads."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy": [name, [int(each) for each in keys], position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state

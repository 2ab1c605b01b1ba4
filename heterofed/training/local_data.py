"""The passes of a local trainer over its rows, in an order that a resumed run repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from heterofed.training.context import Context
from heterofed.training.data import ReIterator, loader_of
from heterofed.training.triggers import MODE


class Pass(ReIterator[Any]):
    """Passes over one split within one routine.

    Args:
        loader: gives the batches.
        own: draws the order of the rows; None where the loader is the user's, whose order is its own affair.
    """

    def __init__(self, loader: Any, own: torch.Generator | None) -> None:
        super().__init__(loader)
        self.own = own


class Passes:
    """Begins passes over the splits, and keeps what a resumed run needs to see the same rows in the same order.

    The order of a pass over a Dataset or a dict of arrays depends on (seed, number of the routine of learning, number
    of the pass). A user's DataLoader draws from torch's generator or one of its own, whose state is kept instead.

    Args:
        seed: None: drawn from torch's generator.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = int(torch.randint(2**62, ()).item()) if seed is None else seed
        self._routine = self._nested = 0
        self._began: dict[int, dict[str, Any]] = {}  # by model: the generators where its pass began
        self._resumed: dict[int, dict[str, Any]] = {}

    def begin_routine(self, *, nested: bool, resumed: bool) -> tuple[int, int]:
        """Return the number of a routine of learning, (number, number within it); a resumed one keeps its own."""
        if nested:
            self._nested += 1
        elif not resumed:
            self._routine, self._nested = self._routine + 1, 0
        return self._routine, self._nested if nested else 0

    def open(self, ctx: Context, *, batch_size: int, shuffle: bool, drop_last: bool) -> Pass:
        """Return passes over the current split: its loader's, or those of a loader that is made of its data."""
        loader = ctx.get(f"{ctx.cur_split}_loader")
        if loader is not None:
            return Pass(loader, None)
        own = torch.Generator()  # without one, even a loader that does not shuffle draws from torch's
        data = ctx[f"{ctx.cur_split}_data"]
        return Pass(loader_of(data, batch_size, shuffle, drop_last, own), own)

    def begin(self, ctx: Context, rows: Pass) -> None:
        """Begin a pass."""
        rows.reset()
        if ctx.cur_mode not in MODE.LEARNING:
            return
        if rows.own is not None:
            seeds = np.random.SeedSequence([self.seed, *ctx.routine_number, ctx.cur_epoch_i])
            rows.own.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        elif not ctx.nested:
            self._began[ctx.get("cur_model_idx", 0)] = _states(rows.loader)

    def skip(self, ctx: Context, rows: Pass, batches: int) -> None:
        """Pass over batches that a resumed run has done, without a trace in torch's generator."""
        with torch.random.fork_rng(devices=[]):
            index = ctx.get("cur_model_idx", 0)
            if rows.own is None and index in self._resumed:
                self._began[index] = self._resumed[index]
                _restore(rows.loader, self._began[index])
            for _ in range(batches):
                next(rows)

    def state_dict(self, loaders: Mapping[str, Any]) -> dict[str, Any]:
        """Return it in plain types; `loaders` are the user's, by split."""
        return {
            "seed": self.seed,
            "routine": [self._routine, self._nested],
            "began": dict(self._began),
            "loaders": {split: _states(loader)["loader"] for split, loader in loaders.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], loaders: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.seed = state["seed"]
        self._routine, self._nested = state["routine"]
        self._began, self._resumed = dict(state["began"]), dict(state["began"])
        for split, loader in loaders.items():
            _restore(loader, {"loader": state["loaders"].get(split)})


def _states(loader: Any) -> dict[str, Any]:
    own = loader.generator if isinstance(loader, DataLoader) else None
    return {"torch": torch.get_rng_state(), "loader": None if own is None else own.get_state()}


def _restore(loader: Any, states: Mapping[str, Any]) -> None:
    if states.get("torch") is not None:
        torch.set_rng_state(states["torch"])
    if states.get("loader") is not None and isinstance(loader, DataLoader) and loader.generator is not None:
        loader.generator.set_state(states["loader"])

"""The global random generators, as one part of a checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RandomGenerators:
    """The states of the global generators of torch, numpy, Python and, where it is in use, CUDA.

    Generators that a user's code made for itself (`torch.Generator`, `numpy.random.default_rng`) are not among them.
    The states are tensors, numbers and lists, which `torch.load(weights_only=True)` reads. Neither method draws a
    number.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return where each generator stands now."""
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        state: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": [version, list(internal), gauss],
            "numpy": [name, [int(each) for each in keys], position, has_gauss, cached],
        }
        if (
            torch.cuda.is_initialized()
        ):  # asking would start CUDA, and take memory there, in a party that has no use for it
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every generator back to where it stood; devices that this machine does not have are passed over.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: this is no such state. Some generators may be back already;
                `Checkpointer.load` undoes that.
        """
        version, internal, gauss = state["python"]
        name, keys, position, has_gauss, cached = state["numpy"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for device, each in enumerate(state.get("cuda", [])[:here]):
            torch.cuda.set_rng_state(each, device)

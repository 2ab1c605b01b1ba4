"""What was left out of a sample when it was sent, kept until that sample is sent again.

Where only the largest numbers of a row cross, the others are not lost: they are added to the same sample's row the next
time, and cross when they have grown large enough. That is error feedback (Seide et al., 1-bit stochastic gradient
descent, Interspeech 2014; with top-k: Stich et al., Sparsified SGD with memory, NeurIPS 2018), kept for each sample as
in AQ-SGD (Wang et al., Fine-tuning language models over slow networks, NeurIPS 2022), since here a row is not a
gradient of parameters but of one sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heterofed.errors import ConfigError


class ErrorFeedback:
    """The rows that are left of every sample, (samples, width) float32 on the CPU, made when the first comes.

        corrected = feedback.add(values, positions)
        … send `corrected`, as far as it goes …
        feedback.keep(what did not go, positions)

    Args:
        samples: how many samples there are.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._left: Tensor | None = None

    def add(self, values: Tensor, positions: Tensor) -> Tensor:
        """Return these rows and what is left of their samples: float32, on the CPU, without a graph.

        Args:
            values: (rows, width, …), floating point; of every batch the same width.
            positions: (rows,) int64: which samples these are, from 0, each at most once.
        """
        rows = values.detach().to("cpu", torch.float32)
        if self._left is None:
            return rows
        return (self._left.index_select(0, positions) + rows.reshape(len(rows), -1)).view(rows.shape)

    def keep(self, left: Tensor, positions: Tensor) -> None:
        """Keep what is left of these samples in the place of what was.

        Args:
            left: (rows, width, …), what did not go of that which `add` gave.
            positions: as for `add`.
        """
        rows = left.detach().to("cpu", torch.float32).reshape(len(left), -1)
        if self._left is None:
            self._left = torch.zeros(self._samples, rows.shape[1])
        self._left.index_copy_(0, positions, rows)

    def state_dict(self) -> dict[str, Any]:
        """Return what is left of all samples, for a checkpoint; not a copy."""
        return {"left": self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what was left then.

        Raises:
            ConfigError: the state is of another number of samples.
        """
        left = state["left"]
        if left is not None and len(left) != self._samples:
            raise ConfigError(
                f"the checkpoint holds what was left of {len(left)} samples", expected=f"{self._samples}, as there are"
            )
        self._left = None if left is None else left.clone()

"""A stream of tensors to one peer: how exactly they cross, what was left out of each sample, and what it saved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from heterofed.features.batches import RoundOrder
from heterofed.features.feedback import ErrorFeedback
from heterofed.frames.forms import WireTensor, nbytes_of
from heterofed.frames.precision import Precision, left_out, pack_as
from heterofed.metrics.meter import Meter


@lru_cache(maxsize=8)  # not all: the text comes from a peer
def precision_of(text: str) -> Precision | None:
    """Return what the terms of a session say of embeddings or gradients; None: as they are."""
    return Precision.parse(text) if text else None


class Packer:
    """Packs the embeddings, or the gradients, that go to one peer.

    Args:
        precision: how they cross; empty: as they are.
        samples: how many train ids there are, for what is left out of each; 0: it is forgotten.
    """

    def __init__(self, precision: str, samples: int) -> None:
        self.precision = precision_of(precision)
        keeps = samples and self.precision is not None and self.precision.leaves_out
        self._feedback = ErrorFeedback(samples) if keeps else None

    def pack(self, tensor: Tensor, meter: Meter, order: RoundOrder | None = None, batch: int = 0) -> WireTensor:
        """Describe a tensor (rows, width, …) for the wire.

        Args:
            tensor: one row for each id of the batch.
            meter: told what crosses, and what would.
            order: of the train ids in this round; None in a test, of which nothing is remembered.
            batch: its number in that order.

        Raises:
            EmbeddingError, TrainingDiverged: as `pack_as`.
        """
        if self._feedback is None or order is None:
            wire = pack_as(tensor, self.precision)
        else:
            places = torch.from_numpy(order.places_of(batch))
            corrected = self._feedback.add(tensor, places)
            wire = pack_as(corrected, self.precision)
            self._feedback.keep(left_out(corrected, wire), places)
        meter.tensors_sent += nbytes_of(wire)
        meter.tensors_whole += tensor.numel() * tensor.element_size()
        return wire

    def state_dict(self) -> dict[str, Any]:
        """Return what is left of every sample, for a checkpoint."""
        return self._feedback.state_dict() if self._feedback is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what was left then."""
        if self._feedback is not None and state:
            self._feedback.load_state_dict(state)

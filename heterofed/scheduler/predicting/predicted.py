"""What comes of the ids that a host predicts: a few at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from torch import Tensor

from heterofed.uncertainty import Spread

Absent: TypeAlias = Literal["fail", "mean", "zeros"]
"""What is done where an embedding is not there: nothing, or what stands in for it."""


class RowStatus(Enum):
    """Whether there is a prediction of an id, and of what it is made; the values are what people see."""

    PREDICTED = "predicted"
    """Every party's embedding is that of this id."""
    PARTIAL = "partial"
    """Some parties' embeddings are stand-ins, because these parties are absent or do not have this id."""
    UNKNOWN = "unknown"
    """There is none: the host does not have this id, or other parties do not and stand-ins are not wanted."""


@dataclass(frozen=True)
class PredictedBatch:
    """A few of the ids that were asked for, in the order in which they were."""

    ids: list[str]
    status: list[RowStatus]
    """One for each id."""
    stand_ins: list[tuple[str, ...]]
    """For each id the parties whose embedding was a stand-in; () where it was PREDICTED or is UNKNOWN."""
    values: Any
    """What `predict_a_batch` gave for the ids that are not UNKNOWN, in their order; None where all are."""


@dataclass(frozen=True)
class SpreadBatch(PredictedBatch):
    """The same with several predictions of each id; `values` are their means."""

    spread: Spread | None
    """How far the predictions of the ids that are not UNKNOWN are apart; None where all are."""

    @classmethod
    def of(
        cls,
        ids: list[str],
        status: list[RowStatus],
        stand_ins: list[tuple[str, ...]],
        found: tuple[Tensor, Spread] | None,
    ) -> SpreadBatch:
        """Return a batch of ids with what their predictions say together."""
        return cls(ids, status, stand_ins, *(found or (None, None)))

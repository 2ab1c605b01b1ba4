"""A party's own embeddings of rows that were named, as its feature model is now."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import PlannedBatches
from heterofed.features.form import EmbeddingForm

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler


def batches_of(
    party: Scheduler, order: RoundOrder, load: Callable[[list[str]], Any], method: str, *, may_be_hollow: bool = False
) -> PlannedBatches:
    """Return a party's own embeddings of some rows, batch by batch, as its feature model is now.

    Args:
        party: whose.
        order: the rows.
        load: gives the inputs of some ids.
        method: what errors call that.
        may_be_hollow: whether (rows, 0) will do.
    """
    computing = party._computing
    model: Callable[[Any], Any] = party.feature_model
    return PlannedBatches(
        order,
        load=load,
        model=partial(party._in_mixed_precision, model) if computing.mixed else model,
        with_labels=False,
        form=EmbeddingForm(
            party.feature_key,
            "the feature model",
            finite=party.settings.check_finite,
            widen=computing.mixed,
            may_be_hollow=may_be_hollow,
        ),
        guard=party._calling,
        place=computing.place,
        in_use=0,
        method=method,
    )

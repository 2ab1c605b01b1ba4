"""How the batches of one pass follow each other: how far embeddings run ahead, and which of them travel together."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from heterofed.frames.messages import Terms


class Pace:
    """Counted alike at both ends of a link.

    Batches that travel together follow each other without a stop for a checkpoint. That needs no more than the terms,
    the first batch and the stops, so a pass that goes on after a checkpoint has the same groups as one that came there
    undisturbed.

    Args:
        terms: as the host has declared them.
        stops: the batches after which all parties keep a checkpoint; it grows while the pass goes on.
        batches: how many the pass has; None: not known, and then every message has one batch.
    """

    def __init__(self, terms: Terms, stops: AbstractSet[int], batches: int | None) -> None:
        self._terms = terms
        self._stops = stops
        self._last = None if batches is None else batches - 1
        self._together = 0

    def ends_message(self, batch: int) -> bool:
        """Whether a message ends with this batch; asked once for each batch, in order."""
        self._together += 1
        full = self._together >= self._terms.batches_per_message or self._last is None
        if full or batch == self._last or batch in self._stops:
            self._together = 0
            return True
        return False

    def lets_on(self, in_flight: int) -> bool:
        """Whether another message may leave while so many batches are not finished."""
        return in_flight + self._terms.batches_per_message <= self._terms.max_staleness + 1

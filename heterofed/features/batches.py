"""Which rows make which batch, where the framework owns the batching: the same at every party, proved by digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heterofed.errors import AlignmentError, ConfigError
from heterofed.features.alignment import digest_of, digest_of_places, same


@dataclass(frozen=True)
class RoundOrder:
    """The train or test ids in the order of one pass, cut into batches.

    Attributes:
        ids: all ids in order.
        batch_size: rows of every batch but the last.
        key: the session's key for digests.
        places: of each of these ids the place among all train ids in their own order; None: that is their order.
    """

    ids: Sequence[str]
    batch_size: int
    key: bytes
    places: np.ndarray[Any, np.dtype[np.int64]] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}", expected="1 or more")

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-len(self.ids) // self.batch_size)

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, len(self.ids), self.batch_size):
            yield list(self.ids[start : start + self.batch_size])

    def places_of(self, batch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the places of a batch's ids among all train ids, (rows,) int64."""
        start = batch * self.batch_size
        stop = min(start + self.batch_size, len(self.ids))
        return np.arange(start, stop) if self.places is None else self.places[start:stop]

    def digest_of(self, batch: int) -> bytes:
        """Keyed digest of which rows make a batch."""
        return digest_of_places(self.places_of(batch), self.key)

    def digest(self) -> bytes:
        """Keyed digest of the whole order."""
        return digest_of(self.ids, self.key)

    def check(self, digest: bytes, party: str, round_: int) -> None:
        """Compare this order with the one that a peer's digest stands for.

        Raises:
            AlignmentError: they differ.
        """
        if not same(self.digest(), digest):
            raise AlignmentError(
                f"orders the {len(self.ids)} train ids of round {round_} in another way",
                party=party,
                expected="one order from one seed at every party",
                advice="Check that all parties run the same version of heterofed and of their split_dataset.",
            )


def shuffled(ids: Sequence[str], seed: int) -> list[str]:
    """Return the ids in the permutation that every party derives from this seed; arguments as `shuffled_order`."""
    return [ids[index] for index in _permutation(len(ids), seed).tolist()]


def shuffled_order(ids: Sequence[str], seed: int, batch_size: int, key: bytes) -> RoundOrder:
    """Return the batches of a round in the permutation that every party derives from this seed.

    Args:
        ids: the ordered ids.
        seed: 0 <= seed < 2**32.
        batch_size: rows of every batch but the last.
        key: the session's key for digests.
    """
    places = _permutation(len(ids), seed)
    return RoundOrder([ids[index] for index in places.tolist()], batch_size, key, places)


def _permutation(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    # RandomState's stream is frozen for ever (NEP 19), unlike that of newer generators.
    return np.random.RandomState(seed).permutation(count).astype(np.int64, copy=False)


def round_seed(base: int, round_: int) -> int:
    """Return the seed of a round's permutation, 0 <= seed < 2**32, from the task's own seed."""
    return int(np.random.SeedSequence([base, round_]).generate_state(1, np.uint32)[0])

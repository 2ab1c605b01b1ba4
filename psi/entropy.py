"""Uniform numbers and orders out of random bytes.

Everything secret or order-hiding draws from one `Source`; outside known-answer tests that is `secrets.token_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

Source = Callable[[int], bytes]
"""Takes a number of bytes, gives that many random ones."""

T = TypeVar("T")


def below(limit: int, source: Source) -> mpz:
    """A uniform integer of 0..limit-1, by rejection: no value is likelier than another.

    Args:
        limit: 1 or more (int or mpz).
        source: where the random bytes come from.
    """
    bits = (limit - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        value = mpz.from_bytes(source(size), "big") >> (8 * size - bits)
        if value < limit:
            return value


def shuffled(items: Iterable[T], source: Source) -> list[T]:
    """The items in a uniformly random order (Fisher and Yates); the argument is left as it is."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(below(last + 1, source))
        order[last], order[other] = order[other], order[last]
    return order


def order(count: int, source: Source) -> NDArray[np.int64]:
    """A uniformly random order of 0..count-1: the places of independent random 64-bit keys when they are sorted.

    Swapping two positions changes nothing in how likely the keys are, so every order is equally likely as long as no
    two keys are equal. Then (for 10^7 keys once in 370,000 calls) all keys are drawn again.

    Args:
        count: how many; 0 gives an empty order.
        source: where the random bytes come from, 8 for each.
    """
    while True:
        keys = np.frombuffer(source(8 * count), np.uint64)
        places = np.argsort(keys).astype(np.int64, copy=False)
        ranked = keys[places]
        if not np.any(ranked[1:] == ranked[:-1]):
            return places

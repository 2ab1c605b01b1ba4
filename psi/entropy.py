"""Uniform numbers and orders out of random bytes.

Everything secret or order-hiding draws from one `Source`; outside known-answer tests that is `secrets.token_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gmpy2 import mpz

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

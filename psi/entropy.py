"""Random bytes, and uniform orders out of them.

Everything secret or order-hiding draws from one `Source`; outside known-answer tests that is `secrets.token_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Source = Callable[[int], bytes]
"""Takes a number of bytes, gives that many random ones."""


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

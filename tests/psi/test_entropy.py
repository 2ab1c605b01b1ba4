"""Random orders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from psi.entropy import order
from tests.psi.helpers import Seeded


def test_every_order_comes_equally_often() -> None:
    source = Seeded(b"orders")
    counts = Counter(tuple(order(3, source)) for _ in range(3000))

    assert len(counts) == 6
    assert all(420 < count < 580 for count in counts.values())


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_order_holds_every_place_once(count: int) -> None:
    places = order(count, Seeded(b"places"))

    assert places.dtype == np.int64
    assert sorted(places) == list(range(count))


def test_the_same_bytes_give_the_same_order_and_others_another() -> None:
    first, again, other = (order(50, Seeded(seed)).tolist() for seed in (b"1", b"1", b"2"))

    assert first == again != other


def test_keys_that_tie_are_drawn_again() -> None:
    """Whatever a sort does with ties would make some orders likelier."""
    drawn = iter([bytes(24), b"\1" + bytes(15) + b"\1" + bytes(7), np.array([9, 3, 5], np.uint64).tobytes()])

    assert order(3, lambda size: next(drawn)).tolist() == [1, 2, 0]
    assert list(drawn) == []

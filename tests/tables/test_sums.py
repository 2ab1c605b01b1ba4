"""Sums do not depend on the order or the parts in which numbers come, to the last bit."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.tables.sums import ExactSum, Moments

NUMBERS = st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_a_sum_is_exact(values: list[float]) -> None:
    total = ExactSum()
    total.add(np.array(values, dtype=np.float64))

    try:
        expected = math.fsum(values)
    except OverflowError:
        return
    assert float(total.exact) == expected


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(values=NUMBERS, data=st.data())
def test_parts_and_order_change_no_bit_of_mean_and_deviation(values: list[float], data: st.DataObject) -> None:
    whole, parts = Moments(), Moments()
    whole.add(np.array(values))
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    parts.add(np.array(shuffled[:cut]))
    parts.add(np.array(shuffled[cut:]))

    assert (parts.count, parts.mean, parts.deviation) == (whole.count, whole.mean, whole.deviation)


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(values=st.lists(st.floats(-1e6, 1e6).filter(lambda each: each == 0 or abs(each) > 1e-100), min_size=1))
def test_mean_and_deviation_are_the_exact_ones_rounded(values: list[float]) -> None:
    moments = Moments()
    moments.add(np.array(values))

    assert moments.mean == pytest.approx(statistics.fmean(values), rel=1e-15, abs=1e-300)
    assert moments.deviation == pytest.approx(statistics.pstdev(values), rel=1e-14, abs=1e-300)


def test_numbers_that_are_all_the_same_deviate_by_nothing() -> None:
    moments = Moments()
    for _ in range(7):
        moments.add(np.full(1000, 0.1))

    assert (moments.mean, moments.deviation) == (0.1, 0.0)


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    moments = Moments()
    moments.add(1e12 + np.array([0.0, 1.0, 2.0]))

    assert moments.deviation == pytest.approx(math.sqrt(2 / 3), rel=1e-15)


def test_nothing_has_no_mean_and_infinity_is_refused() -> None:
    assert (Moments().mean, Moments().deviation) == (0.0, 0.0)
    for wrong in (math.inf, math.nan):
        with pytest.raises(ValueError, match="finite"):
            ExactSum().add(np.array([1.0, wrong]))

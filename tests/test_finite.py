"""NaN and infinity are found wherever they are, and large sums are not taken for them."""

from __future__ import annotations

import math

import pytest
import torch

from heterofed.finite import all_finite, is_finite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bad_number_among_many_is_found(bad: float, dtype: torch.dtype) -> None:
    numbers = torch.zeros(300, 7, dtype=dtype)
    assert is_finite(numbers)
    numbers[217, 3] = bad

    assert not is_finite(numbers)
    assert not all_finite([torch.ones(2), numbers])


def test_infinities_that_cancel_are_found() -> None:
    assert not is_finite(torch.tensor([math.inf, -math.inf, 1.0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_that_overflows_is_no_infinity(dtype: torch.dtype) -> None:
    numbers = torch.full((9,), torch.finfo(dtype).max, dtype=dtype)

    assert is_finite(numbers)
    assert all_finite([numbers, numbers])


def test_a_graph_and_a_sparse_tensor_may_be_looked_at() -> None:
    assert is_finite(torch.ones(2, requires_grad=True) * 2)
    assert not is_finite(torch.tensor([[0.0, math.nan]]).to_sparse())
    assert all_finite([torch.tensor([[0.0, 1.0]]).to_sparse()])


def test_nothing_is_finite() -> None:
    assert is_finite(torch.ones(0, 3))
    assert all_finite([])

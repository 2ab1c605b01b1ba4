"""Whole numbers that users give: what is taken, and what is said of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heterofed.checks import as_count, check_count, is_whole
from heterofed.errors import ConfigError

NONE_AT_ALL = [True, 1.0, "1", None, [1], np.float64(1.0)]


@pytest.mark.parametrize("value", NONE_AT_ALL, ids=repr)
def test_what_is_no_whole_number_is_refused_by_all_checks(value: object) -> None:
    assert not is_whole(value, 0)
    for check in (check_count, as_count):
        with pytest.raises(ConfigError, match=r"^rounds is .*; expected a whole number, 0 or more\.?$"):
            check("rounds", value, 0)


def test_bounds_belong_to_what_is_allowed() -> None:
    assert [each for each in range(6) if is_whole(each, 2, 4)] == [2, 3, 4]
    for value in (2, 4):
        check_count("n", value, 2, 4)
    for value in (1, 5):
        with pytest.raises(ConfigError, match=f"^n is {value}; expected a whole number from 2 to 4"):
            check_count("n", value, 2, 4)


def test_none_is_allowed_where_it_means_something() -> None:
    check_count("n", None, 1, or_none="all of them")
    with pytest.raises(ConfigError, match=r"^n is 0; expected a whole number, 1 or more, or None: all of them"):
        check_count("n", 0, 1, or_none="all of them")


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), torch.tensor(7)], ids=repr)
def test_whatever_python_takes_for_a_whole_number_becomes_an_int(value: object) -> None:
    found = as_count("n", value, 7)

    assert type(found) is int and found == 7
    with pytest.raises(ConfigError, match=r"^n is 7; expected a whole number, 8 or more"):
        as_count("n", value, 8)


@pytest.mark.parametrize("value", [np.array([3, 4]), torch.tensor([3, 4]), torch.tensor(0.5), [3, 4]], ids=repr)
def test_rows_in_the_place_of_a_number_are_not_shown(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        as_count("num_data", value, 0)

    assert str(caught.value).startswith(f"num_data is {type(value).__name__}; expected")

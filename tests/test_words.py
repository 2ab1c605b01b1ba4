"""Counts and lists in words."""

from __future__ import annotations

import pytest

from heterofed.words import MOST_NAMES, MOST_SAID, counted, in_brief, some_of


@pytest.mark.parametrize(
    ("count", "one", "said"),
    [
        (1, "row", "1 row"),
        (0, "row", "0 rows"),
        (2, "row", "2 rows"),
        (1, "batch", "1 batch"),
        (3, "batch", "3 batches"),
        (2, "party", "2 parties"),
        (2, "key", "2 keys"),
        (1, "more column", "1 more column"),
        (5, "more column", "5 more columns"),
    ],
)
def test_a_count_agrees_with_its_noun(count: int, one: str, said: str) -> None:
    assert counted(count, one) == said


def test_of_a_long_list_the_first_names_are_said_and_that_there_are_more() -> None:
    names = [f"column_{number}" for number in range(MOST_NAMES + 1)]

    assert some_of(names[:2]) == "column_0, column_1"
    assert some_of(names[:-1]) == ", ".join(names[:-1])
    assert some_of(names) == ", ".join(names[:-1]) + ", …"
    assert some_of([]) == ""


def test_what_an_error_says_is_one_line_that_is_not_long() -> None:
    assert in_brief(ValueError("a\n\tb  c")) == "a b c"
    assert in_brief(ValueError("x" * 1000)) == "x" * MOST_SAID

"""Counts and lists in words for people: "1 row", "2 rows"; "a, b, c, …"."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMES = 8
"""Of a list in an error's text."""

MOST_SAID = 300
"""Characters of another error in an error's text."""


def counted(count: int, one: str) -> str:
    """Return a count with its noun: `counted(1, "row")` is "1 row", `counted(2, "batch")` is "2 batches".

    Args:
        count: how many.
        one: the noun as it stands for one; words may come before it ("more row"). Its plural is a regular one.
    """
    return f"{count} {one if count == 1 else _plural(one)}"


def some_of(names: Sequence[str]) -> str:
    """Return the first names of a list, and a sign that there are more."""
    return ", ".join([*names[:MOST_NAMES], *(["…"] if len(names) > MOST_NAMES else [])])


def in_brief(error: BaseException) -> str:
    """Return what an error of somebody else's code says as one line that is not long."""
    return " ".join(str(error).split())[:MOST_SAID]


def _plural(one: str) -> str:
    if one.endswith("y") and one[-2:-1] not in "aeiou":
        return f"{one[:-1]}ies"
    return f"{one}es" if one.endswith(("s", "x", "ch", "sh")) else f"{one}s"

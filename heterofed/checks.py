"""Checks of whole numbers that users give: one text for all that is refused."""

from __future__ import annotations

import operator
from typing import SupportsIndex, TypeGuard

from heterofed.errors import ConfigError


def is_whole(value: object, least: int, most: int | None = None) -> TypeGuard[int]:
    """Whether a value is an int, and no bool, from `least` to `most`; None: without an upper bound."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most)


def check_count(name: str, value: object, least: int, most: int | None = None, or_none: str = "") -> None:
    """Refuse what is no whole number within bounds.

    Args:
        name: of the argument.
        value: of the argument.
        least: smallest one allowed.
        most: largest one allowed; None: any.
        or_none: what None means; empty: None is refused.

    Raises:
        ConfigError: `value` is something else.
    """
    if not (is_whole(value, least, most) or (value is None and or_none)):
        raise _refused(name, value, least, most, or_none)


def as_count(name: str, value: object, least: int) -> int:
    """Return as an int whatever Python takes for a whole number, NumPy's own for example.

    Raises:
        ConfigError: `value` is none, a bool, or below `least`.
    """
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise _refused(name, value, least)
    try:
        number = operator.index(value)
    except TypeError:  # an array or a tensor of several
        raise _refused(name, value, least) from None
    if number < least:
        raise _refused(name, number, least)
    return number


def _refused(name: str, value: object, least: int, most: int | None = None, or_none: str = "") -> ConfigError:
    given = repr(value) if value is None or isinstance(value, int | float | str) else type(value).__name__
    bounds = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    return ConfigError(f"{name} is {given}", expected=bounds + (f", or None: {or_none}" if or_none else ""))

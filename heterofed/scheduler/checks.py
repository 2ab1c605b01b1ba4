"""Checks of what users construct schedulers with, and of what peers may ask for again and again."""

from __future__ import annotations

import math

from heterofed.errors import ConfigError, TaskFailed

MOST_MATCHINGS = 8
"""How often a party matches its ids in one launch."""


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no number of seconds.

    Raises:
        ConfigError: `value` is not a finite number >= 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} is {value!r}", expected="seconds, 0 or more (0: no limit)")


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
    if value is None and or_none:
        return
    if isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most):
        return
    bounds = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    raise ConfigError(f"{name} is {value!r}", expected=bounds + (f", or None: {or_none}" if or_none else ""))


def check_constructed(scheduler: object) -> None:
    """Refuse a scheduler whose constructor did not run.

    Raises:
        ConfigError: it did not.
    """
    if "_seat" not in vars(scheduler):
        raise ConfigError(
            f"{type(scheduler).__name__}.__init__ does not call super().__init__(feature_key=…)",
            expected="the framework's constructor to run first",
        )


def check_matchings(number: int) -> None:
    """Refuse to match ids again and again in one launch: each time tells the peers more, if they ask about others.

    Args:
        number: of the matching that is to begin, from 1.

    Raises:
        TaskFailed: there were too many.
    """
    if number > MOST_MATCHINGS:
        raise TaskFailed(
            f"the ids were to be matched a {number}th time",
            expected=f"at most {MOST_MATCHINGS} times in one launch: once, and again where a party is killed meanwhile",
            advice="If parties really are killed so often, start all of them again.",
        )

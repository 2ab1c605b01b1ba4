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

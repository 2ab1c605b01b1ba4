"""What an agent's owner registered: which class stands for which party."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heterofed.errors import ConfigError
from heterofed.tasks.model import check_feature_key

_SPEC = re.compile(r"(?:(?P<key>[^=:]+)=)?(?P<thing>[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)", re.ASCII)


@dataclass(frozen=True)
class Named:
    """A class or function as the command line names it."""

    thing: str
    """For example mypkg.parties:Bank."""

    key: str | None
    """The party that it is for; None: the one that it says itself."""


@dataclass(frozen=True)
class Served:
    """One party that an agent runs."""

    feature_key: str
    thing: str
    """Makes its scheduler."""

    host: bool
    """Whether that is a host."""

    checker: str | None = None
    """Makes its data checker; None: its data are not checked here."""


def parse(text: str) -> Named:
    """Return what `[KEY=]package.module:Name` says.

    Raises:
        ConfigError: it is not of that form, or the key cannot name a party.
    """
    found = _SPEC.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text[:80]!r} names no class",
            expected="[KEY=]package.module:Name, for example bank=mypkg.parties:Bank",
        )
    key = found["key"]
    return Named(found["thing"], check_feature_key(key) if key is not None else None)


def with_checkers(served: Sequence[Served], checkers: Sequence[Named]) -> tuple[Served, ...]:
    """Return the parties with their checkers; a checker without a key is for every party that has none of its own.

    Raises:
        ConfigError: two parties or two checkers have one key, or a checker's key is no party's.
    """
    keys = [each.feature_key for each in served]
    _check_once(keys, "--serve")
    _check_once([each.key for each in checkers], "--check")
    for each in checkers:
        if each.key is not None and each.key not in keys:
            raise ConfigError(f"--check {each.key}={each.thing} is for no party of --serve", expected=", ".join(keys))
    own = {each.key: each.thing for each in checkers}
    return tuple(
        Served(each.feature_key, each.thing, each.host, own.get(each.feature_key, own.get(None))) for each in served
    )


def _check_once(keys: Sequence[str | None], option: str) -> None:
    twice = sorted({str(key) for key in keys if keys.count(key) > 1 and key is not None})
    if twice or keys.count(None) > 1:
        raise ConfigError(
            f"{option} is given twice for {', '.join(twice) or 'every party'}", expected="one class for each party"
        )

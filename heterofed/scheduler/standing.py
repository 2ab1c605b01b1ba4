"""From where each party can go on, and the newest point that all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heterofed.errors import ConfigError

START = 0
"""The point before the first batch."""


@dataclass(frozen=True)
class Standing:
    """From where one party can go on."""

    recover: bool = False
    """Whether it would go on from a checkpoint, if it has one; False: it begins anew."""

    run: bytes = b""
    """The run whose shared ids it knows, named by the session in which they were matched; empty: it knows none."""

    points: tuple[int, ...] = (START,)
    """After how many batches of that run it can go on."""


FRESH = Standing()
"""Where a party stands that begins anew."""


@dataclass(frozen=True)
class Agreement:
    """Where all parties go on."""

    point: int
    """After so many batches; `START` is before the first."""

    matched: bool
    """Whether all know the shared ids of one run, so that they need not be matched again."""


def agree(standings: Mapping[str, Standing]) -> Agreement:
    """Return the newest point from which all parties can go on.

    Args:
        standings: feature key -> where that party stands.

    Raises:
        ConfigError: there is no such point; the text names each party and what it has.
    """
    matched = _matched(standings.values())
    common = set.intersection(*(set(each.points) for each in standings.values()))
    if not matched:
        common &= {START}  # batches of different runs have nothing to do with each other
    if common:
        return Agreement(max(common), matched)
    raise ConfigError(
        "the parties hold no checkpoint in common: "
        + "; ".join(f"{party} can go on {_in_words(each)}" for party, each in standings.items()),
        expected="one point of one run that every party can go on from",
        advice="Restore the results folder of the party that lacks it, or begin anew: launch every party without "
        "recover=True.",
    )


def unfit(ours: Standing, theirs: Standing) -> str | None:
    """Return why a party cannot join a host that goes on from a checkpoint, or None where it can.

    To begin anew would cost the others what they have, so a party that has nothing is turned away instead.
    """
    if START in ours.points and START in theirs.points:
        return None
    if not theirs.recover and theirs.points == (START,):
        return (
            f"it begins anew where the task goes on {_in_words(ours)}. Start it again with recover=True, or stop all "
            f"parties to begin anew"
        )
    if not ours.recover or ours.points in ((), (START,)):
        return None  # the host is the one that has nothing: an error for all
    try:
        agree({"host": ours, "this party": theirs})
    except ConfigError:
        return (
            f"the task goes on {_in_words(ours)}, and it can go on {_in_words(theirs)}. Restore its results folder "
            f"(out_dir), or stop all parties to begin anew"
        )
    return None


def _matched(standings: Iterable[Standing]) -> bool:
    runs = {each.run for each in standings}
    return len(runs) == 1 and b"" not in runs


def _in_words(standing: Standing) -> str:
    if standing.points == (START,):
        return "from the start"
    if not standing.points:
        return "from nowhere"
    places = ["the start" if each == START else f"batch {each}" for each in sorted(standing.points)]
    of_run = f" of run {standing.run.hex()[:6]}" if standing.run else ""
    return f"after {' or '.join(places)}{of_run}"

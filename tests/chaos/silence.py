"""Parties from which nothing comes: how soon that is noticed and said, and that a long silence ends no task."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.chaos.deeds import Deed, start_all
from tests.chaos.stage import Stage, Trouble
from tests.chaos.task import COLLABORATORS

NOTICED_WITHIN_S = 10.0
"""How soon a party that is gone has to be missed, and that said, with the settings as they are by default."""

CUT_S = 16.0
STOPPED_S, WAITS_S = 30.0, 15.0
"""A minute where the others wait for 30 s, at half the times."""

IMPATIENT = ("--schedule-timeout", f"{WAITS_S:g}", "--calculation-timeout", f"{WAITS_S:g}")


def stopped(party: str, point: str) -> Deed:
    """A process is stopped for twice as long as the others wait for an answer; played with `IMPATIENT`."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {party: point})
        stage.wait_for(flags[party], party)
        flags[party].go()
        stage.freeze(party, STOPPED_S)

    return play


def killed_and_noticed(party: str, point: str) -> Deed:
    """A process is killed; the note says after how many seconds the others have said so."""

    def play(stage: Stage) -> str:
        flags = start_all(stage, {party: point})
        stage.wait_for(flags[party], party)
        began = time.monotonic()
        stage.kill(party)
        note = noticed(stage, _lines_of_others(party), began)
        stage.start(party, recover=True)
        return note

    return play


def unplugged_and_noticed(party: str, point: str, *, dead: bool = False) -> Deed:
    """A party's line swallows every byte; the note says after how many seconds both its ends have said so.

    Args:
        party: whose line.
        point: where.
        dead: its machine is gone too: it says nothing, and is back when its line is.
    """

    def play(stage: Stage) -> str:
        flags = start_all(stage, {party: point})
        stage.wait_for(flags[party], party)
        began = time.monotonic()
        for each in stage.proxies(party):
            each.cut(CUT_S)
        if dead:
            stage.kill(party)
        flags[party].go()
        note = noticed(stage, [*_lines_of_others(party), *([] if dead else _lines_of(party))], began)
        if dead:
            time.sleep(max(0.0, began + CUT_S - time.monotonic()))
            stage.start(party, recover=True)
        return note

    return play


def _lines_of_others(gone: str) -> list[tuple[str, str]]:
    """Return (party, what it has to say) where one is gone."""
    if gone == "host":
        return [(each, "the link of host is down") for each in COLLABORATORS]
    away = [(each, f"{gone} is away; host waits for it") for each in COLLABORATORS if each != gone]
    return [("host", f"the link of {gone} is down"), *away]


def _lines_of(gone: str) -> list[tuple[str, str]]:
    """Return what the one has to say that is gone for the others."""
    others = COLLABORATORS if gone == "host" else ("host",)
    return [(gone, f"the link of {each} is down") for each in others]


def noticed(stage: Stage, lines: Sequence[tuple[str, str]], began: float) -> str:
    """Wait until parties have said what they have to, and return after how many seconds each has.

    Args:
        stage: where.
        lines: (party, what it has to say).
        began: when it happened.

    Raises:
        Trouble: that took longer than `NOTICED_WITHIN_S`.
    """
    missing, after = dict.fromkeys(lines), dict[str, float]()
    while missing:
        for party, text in list(missing):
            if text in stage.words(party):
                del missing[party, text]
                after[party] = time.monotonic() - began
        if time.monotonic() - began > 2 * NOTICED_WITHIN_S:
            raise Trouble("; ".join(f"{party} does not say {text!r}" for party, text in missing))
        time.sleep(0.02)
    note = ", ".join(f"{party} after {seconds:.1f} s" for party, seconds in after.items())
    if max(after.values()) > NOTICED_WITHIN_S:
        raise Trouble(f"noticed too late: {note}; wanted within {NOTICED_WITHIN_S:g} s")
    return note

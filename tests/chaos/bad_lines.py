"""What bad lines between the parties do to a task; like the deeds, each leaves all parties running, to the end."""

from __future__ import annotations

import time

from tests.chaos.deeds import Deed, all_end, start_all
from tests.chaos.stage import Stage
from tests.chaos.task import PARTIES

CUT_S = 8.0


def killed_behind_a_cut(party: str, other: str) -> Deed:
    """A party is killed while another one is cut off; it is back before that one is."""

    def play(stage: Stage) -> None:
        flags = start_all(stage, {party: "batch"})
        stage.wait_for(flags[party], party)
        for each in stage.proxies(other):
            each.cut(CUT_S)
        stage.kill(party)
        stage.start(party, recover=True)

    return play


def bad_line(*, reset_every_s: float = 0.0, delay_s: float = 0.0, bytes_per_s: float | None = None) -> Deed:
    """The lines of all parties are bad all the time."""

    def play(stage: Stage) -> None:
        proxies = stage.proxies("host")
        for each in proxies:
            each.delay(delay_s)
            each.throttle(bytes_per_s)
        start_all(stage)
        number = 0
        while reset_every_s and any(stage.runs(each) for each in PARTIES):
            time.sleep(reset_every_s)
            proxies[number % len(proxies)].reset()
            number += 1

    return play


def damaged_line(rate: float, seconds: float) -> Deed:
    """A share of the pieces that pass has a bit flipped, for a while."""

    def play(stage: Stage) -> None:
        start_all(stage)
        stage.hear("host", "host: training")
        for each in stage.proxies("host"):
            each.corrupt(rate)
        time.sleep(seconds)
        for each in stage.proxies("host"):
            each.corrupt(0.0)

    return play


def fails_as_links_are_reset(party: str, *, last_s: float = 0.0) -> Deed:
    """The user's code raises at a party at the moment its links are reset; all end and know why, and lose nothing.

    Args:
        party: where it raises.
        last_s: for how long the links are reset again and again.
    """

    def play(stage: Stage) -> None:
        flags = start_all(stage, {party: "trouble"})
        stage.wait_for(flags[party], party)
        proxies = stage.proxies(party)
        for each in proxies:
            each.reset()
        flags[party].go()
        until = time.monotonic() + last_s
        while time.monotonic() < until:
            for each in proxies:
                each.reset()
            time.sleep(0.02)
        all_end(stage, party, PARTIES, why="OurTrouble", began=until - last_s)
        start_all(stage, recover=True)

    return play

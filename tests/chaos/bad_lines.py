"""What bad lines between the parties do to a task; like the deeds, each leaves all parties running, to the end."""

from __future__ import annotations

import time

from tests.chaos.deeds import Deed, start_all
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

"""Parties that are away are named to the user once, waited for up to a limit, and never quietly forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from heterofed import PeerGone
from heterofed.scheduler import absence
from heterofed.scheduler.absence import AWAY_AFTER_S, PAUSE_EVERY_S, PAUSE_HOLDS_S, Absences


class Links:
    """A transport of which only this is looked at."""

    party = "host"

    def __init__(self) -> None:
        self.down = {"c1": 0.0, "c2": 0.0}

    def down_for(self, party: str) -> float:
        return self.down[party]


class Watched:
    """Absences whose links and clock a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit_s: float = 60.0) -> None:
        self.links = Links()
        self.said: list[str] = []
        self.now = 1000.0
        monkeypatch.setattr(absence, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.absences = Absences(cast(Any, self.links), limit_s, self.said.append)

    def look(self, awaited: tuple[str, ...] = ("c1",)) -> None:
        self.absences.look(["c1", "c2"], awaited, "embedding")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_link_that_blinks_is_not_worth_a_word(watched: Watched) -> None:
    watched.links.down["c1"] = AWAY_AFTER_S / 2
    watched.look()
    watched.links.down["c1"] = 0.0
    watched.look()

    assert watched.said == []
    assert watched.absences.away == set()


def test_who_goes_away_and_who_is_back_is_said_once_each(watched: Watched) -> None:
    for down_s in (AWAY_AFTER_S + 1, AWAY_AFTER_S + 2, AWAY_AFTER_S + 3):
        watched.links.down["c2"] = down_s
        watched.look()
    assert watched.absences.away == {"c2"}
    watched.links.down["c2"] = 0.0
    watched.look()
    watched.look()

    assert watched.said == [
        "the link of c2 is down; waiting up to 60 s for it (if its process has ended, start it again with "
        "recover=True)",
        "c2 is back",
    ]
    assert watched.absences.away == set()


def test_without_a_limit_a_party_is_waited_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, limit_s=0)
    watched.links.down["c1"] = 1e6
    watched.look()

    assert "waiting as long as it takes for it" in watched.said[0]


def test_who_is_away_for_too_long_is_given_up_on_by_name(watched: Watched) -> None:
    watched.links.down["c1"] = 60.5

    with pytest.raises(PeerGone) as caught:
        watched.look()

    assert str(caught.value) == (
        "c1: its link is down for 60 s while host waits for its embedding; expected a link, or one that is back within "
        "60 s. Its process ended or its network is cut: look at its output, then start all parties again with "
        "recover=True."
    )


def test_a_party_that_is_not_awaited_is_given_up_on_too(watched: Watched) -> None:
    watched.links.down["c2"] = 61

    with pytest.raises(PeerGone, match=r"^c2: its link is down for 61 s; expected a link"):
        watched.look(("c1",))


def test_a_wait_is_excused_while_the_link_of_one_who_is_awaited_is_down(watched: Watched) -> None:
    watched.links.down["c2"] = 0.1

    assert watched.absences.excuse(["c1", "c2"])
    assert not watched.absences.excuse(["c1"])
    assert not watched.absences.excuse([])


def test_the_others_are_told_now_and_then_while_somebody_is_away(watched: Watched) -> None:
    assert not watched.absences.pause_is_due()
    watched.links.down["c1"] = AWAY_AFTER_S + 1
    watched.look()

    told = []
    for _ in range(20):
        told.append(watched.absences.pause_is_due())
        watched.now += PAUSE_EVERY_S / 4
    assert told == [True, False, False, False] * 5


# --- the host's word at a collaborator --------------------------------------------------------------------------------


def test_the_hosts_word_excuses_every_wait_for_a_while_and_is_shown_once(watched: Watched) -> None:
    for _ in range(3):
        watched.absences.hear_pause("c2", "host")
        assert watched.absences.excuse(["c1"])
        watched.now += PAUSE_HOLDS_S - 1
    assert watched.absences.paused
    watched.now += 2

    assert not watched.absences.excuse(["c1"])
    assert watched.said == ["c2 is away; host waits for it"]


def test_a_host_that_waits_for_another_party_for_ever_is_not_waited_for(watched: Watched) -> None:
    began = watched.now
    with pytest.raises(PeerGone) as caught:
        for _ in range(100):
            watched.absences.hear_pause("c2", "host")
            watched.now += PAUSE_EVERY_S

    assert 60 + PAUSE_HOLDS_S < watched.now - began < 60 + PAUSE_HOLDS_S + 2 * PAUSE_EVERY_S
    assert str(caught.value).startswith("c2: host waits for it for 78 s; expected it to be back within 60 s. Start all")


def test_without_a_limit_the_host_may_wait_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, limit_s=0)
    for _ in range(1000):
        watched.absences.hear_pause("c2", "host")
        watched.now += PAUSE_EVERY_S

    assert watched.absences.paused


def test_a_second_absence_has_a_limit_of_its_own(watched: Watched) -> None:
    for _ in range(3):
        for _ in range(18):
            watched.absences.hear_pause("c2", "host")
            watched.now += PAUSE_EVERY_S
        watched.absences.hear()  # it is back

    assert watched.said == ["c2 is away; host waits for it"] * 3


def test_a_host_that_lets_its_word_lapse_and_gives_it_anew_is_not_waited_for_longer(watched: Watched) -> None:
    began = watched.now
    with pytest.raises(PeerGone, match=r"^c2: host waits for it for .* expected it to be back within 60 s"):
        for _ in range(100):
            watched.absences.hear_pause("c2", "host")
            watched.now += PAUSE_HOLDS_S + 1

    assert watched.now - began < 60 + 3 * PAUSE_HOLDS_S


def test_in_a_new_session_nobody_is_away_yet(watched: Watched) -> None:
    watched.links.down["c1"] = AWAY_AFTER_S + 1
    watched.look()
    watched.absences.hear_pause("c2", "host")
    watched.absences.forget()

    assert watched.absences.away == set()
    assert not watched.absences.paused

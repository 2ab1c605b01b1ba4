"""The first words: all are waited for, one that cannot take part is turned away alone, no welcome is just believed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from heterofed import (
    ConfigError,
    HeterofedError,
    PeerRefused,
    PeerRestarted,
    PeerTimeout,
    RemoteProtocolError,
    Settings,
)
from heterofed.frames.messages import PROTOCOL_VERSION, CheckIn, Matching, Welcome
from heterofed.protocol.phases import Phase, Role
from heterofed.scheduler import gathering
from heterofed.scheduler.gathering import Gathered, check_in, gather
from heterofed.scheduler.link import Link
from heterofed.scheduler.seat import AlreadyCompleted, HostMoved, Seat
from heterofed.scheduler.standing import FRESH, Agreement, Standing
from heterofed.tasks.model import TaskStatus
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Delivery, Transport
from tests.scheduler.rejoining import PartyRecord, Record, Told

RUN = b"\xab" * 16
KEYS = ("host", "c1", "c2")
ENDS_WITHIN_S = 15.0


class Hall:
    """A host that gathers in a thread, and ends of collaborators for a test to speak with.

    Args:
        keys: feature keys, host first.
        timeout_s: how long the host gathers.
        again: whether the parties have met before.
        notice_every_s: how often the host says whom it waits for.
        how: other arguments of its `gather`.
    """

    def __init__(
        self, *keys: str, timeout_s: float = 5.0, again: bool = False, notice_every_s: float = 60.0, **how: Any
    ) -> None:
        self.keys = keys or KEYS
        self.hub = MemoryHub(host="host")
        self.record = Record()
        self.said: dict[str, list[str]] = {key: [] for key in self.keys}
        self.settings = Settings(
            gather_timeout_s=timeout_s, rejoin_timeout_s=5.0, notice_every_s=notice_every_s, psi_protocol="ecdh"
        )
        self.notices: list[str] = []
        self.ended: Gathered | HeterofedError | None = None
        self._how = {"max_rounds": 3, "calculation_timeout_s": 60.0, **how}
        if again:
            self._how |= {"timeout_s": timeout_s, "again": True}
        self._link = Link(self.hub.transport("host"), Role.HOST, self.keys[1:], self.settings, say=self.notices.append)
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    def _gather(self) -> None:
        try:
            self.ended = gather(self._link, self.seat("host"), **self._how)
        except HeterofedError as error:
            self.ended = error
            self._link.abort(error)

    def seat(self, key: str, **more: Any) -> Seat:
        values: dict[str, Any] = {"connect": lambda: ("host", self.hub.transport(key)), "settings": self.settings}
        return Seat(
            task_id="task",
            task_name="task",
            feature_key=key,
            parties=self.keys,
            progress=Told(key, self.said[key]),
            record=PartyRecord(self.record, key),
            **{**values, **more},
        )

    def link(self, key: str) -> Link:
        """Return a new end of a collaborator."""
        return Link(self.hub.transport(key), Role.COLLABORATOR, ["host"], self.settings, say=lambda text: None)

    def end(self) -> Gathered:
        """Return what the host knows when it has gathered all, or raise what ended it."""
        self._thread.join(ENDS_WITHIN_S)
        assert self.ended is not None, "it gathers still"
        if isinstance(self.ended, HeterofedError):
            raise self.ended
        return self.ended


def hello(key: str, **other: Any) -> CheckIn:
    """Return a check-in as it should be, but for what is given."""
    given = CheckIn(
        protocol=PROTOCOL_VERSION,
        task_id="task",
        feature_key=key,
        nonce=key.encode().ljust(16, b"."),
        trainable=True,
        own_batches=False,
        matching=Matching("ecdh", "both", True),
        recover=False,
        run=b"",
        points=(0,),
    )
    return msgspec.structs.replace(given, **other)


def welcomed(link: Link) -> Welcome:
    return link.expect(Welcome, from_=["host"], waiting_for="welcome", timeout_s=5)[1]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


# --- the host ---------------------------------------------------------------------------------------------------------


def test_all_are_welcomed_into_one_session_when_the_last_one_is_here() -> None:
    hall = Hall()
    c2 = hall.link("c2")
    c2.send("host", hello("c2"))
    until(lambda: "c2 is here (1 of 2)" in hall.said["host"])
    c1 = hall.link("c1")
    c1.send("host", hello("c1", trainable=False))

    gathered = hall.end()

    assert {key: each.trainable for key, each in gathered.check_ins.items()} == {"c1": False, "c2": True}
    assert gathered.agreement == Agreement(0, matched=False)
    for key, link in (("c1", c1), ("c2", c2)):
        assert welcomed(link) == Welcome(
            nonce=hello(key).nonce,
            session=gathered.session,
            parties=KEYS,
            max_rounds=3,
            calculation_timeout_s=60.0,
            matched=False,
            resume=0,
        )


def test_each_session_has_another_token() -> None:
    tokens = set()
    for _ in range(3):
        hall = Hall("host", "c1")
        hall.link("c1").send("host", hello("c1", matching=Matching("ecdh", "both", False)))
        tokens.add(hall.end().session)

    assert len(tokens) == 3
    assert all(len(each) == 16 for each in tokens)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"protocol": 3}, f"it checked in with protocol version 3; expected {PROTOCOL_VERSION}. Run the same version"),
        ({"task_id": "other"}, "it checked in with task id other; expected task"),
        ({"feature_key": "c2"}, "it checked in with feature key c2; expected c1"),
    ],
    ids=["version", "task", "key"],
)
def test_one_that_does_not_fit_is_turned_away_and_the_others_are_not_concerned(
    wrong: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    hall = Hall()
    c1, c2 = hall.link("c1"), hall.link("c2")
    c1.send("host", hello("c1", **wrong))

    with pytest.raises(PeerRefused) as caught:
        welcomed(c1)
    assert str(caught.value).startswith(f"host, while waiting for all parties: turned this party away: {text}")
    assert any(each.startswith("c1 was turned away: it checked in with") for each in caplog.messages)
    c1.close()

    c2.send("host", hello("c2"))
    until(lambda: "c2 is here (1 of 2)" in hall.said["host"])
    again = hall.link("c1")
    again.send("host", hello("c1"))
    assert welcomed(again).session == welcomed(c2).session == hall.end().session


def test_one_that_was_turned_away_may_ask_again_on_the_same_line() -> None:
    hall = Hall()
    c1, c2 = hall.link("c1"), hall.link("c2")
    c2.send("host", hello("c2"))
    c1.send("host", hello("c1", protocol=1))
    with pytest.raises(PeerRefused):
        welcomed(c1)
    c1.begin_anew()
    c1.send("host", hello("c1"))

    assert set(hall.end().check_ins) == {"c1", "c2"}


def test_what_a_party_says_of_itself_does_not_paint_on_the_hosts_terminal(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall(timeout_s=0.6)
    hall.link("c1").send("host", hello("c1", task_id="\x1b[31mred"))

    with pytest.raises(PeerTimeout):
        hall.end()
    assert "task id ?[31mred" in caplog.text
    assert "\x1b" not in caplog.text


def test_notices_name_those_who_are_not_there_yet_and_nobody_else() -> None:
    hall = Hall(timeout_s=1.5, notice_every_s=0.2)
    hall.link("c2").send("host", hello("c2"))

    with pytest.raises(PeerTimeout, match=r"^c1, while gathering"):
        hall.end()
    assert hall.notices[-1].startswith("waiting for c1: check-in (")


def test_one_that_begins_anew_is_turned_away_by_a_task_that_goes_on() -> None:
    hall = Hall(standing=Standing(True, RUN, (6, 9)), timeout_s=1.0)
    c1 = hall.link("c1")
    c1.send("host", hello("c1"))

    with pytest.raises(PeerRefused, match="it begins anew where the task goes on after batch 6 or batch 9 of run abab"):
        welcomed(c1)
    with pytest.raises(PeerTimeout, match=r"^c1, c2, while gathering the parties: no check-in within 1 s; expected"):
        hall.end()


def test_the_newest_common_point_is_where_all_go_on() -> None:
    hall = Hall(standing=Standing(True, RUN, (3, 6, 9)))
    links = [hall.link(key) for key in ("c1", "c2")]
    for key, points, link in zip(("c1", "c2"), ((6, 9), (3, 6)), links, strict=True):
        link.send("host", hello(key, recover=True, run=RUN, points=points))

    assert hall.end().agreement == Agreement(6, matched=True)
    for link in links:
        told = welcomed(link)
        assert (told.matched, told.resume) == (True, 6)


def test_parties_of_different_runs_begin_anew_and_match_their_ids() -> None:
    hall = Hall("host", "c1", standing=Standing(True, RUN, (0, 3)))
    c1 = hall.link("c1")
    c1.send("host", hello("c1", recover=True, run=bytes(16), matching=Matching("ecdh", "both", False)))

    assert hall.end().agreement == Agreement(0, matched=False)
    assert not welcomed(c1).matched


def test_a_host_that_has_nothing_where_the_others_go_on_is_told_so_and_so_are_they() -> None:
    hall = Hall("host", "c1", standing=FRESH)
    c1 = hall.link("c1")
    c1.send("host", hello("c1", recover=True, run=RUN, points=(6, 9), matching=Matching("ecdh", "both", False)))

    with pytest.raises(ConfigError, match="host can go on from the start; c1 can go on after batch 6 or batch 9 of"):
        hall.end()
    with pytest.raises(HeterofedError, match="the parties hold no checkpoint in common"):
        welcomed(c1)


def test_one_that_is_started_again_before_all_are_there_is_welcomed_as_it_is_now() -> None:
    hall = Hall()
    hall.link("c1").send("host", hello("c1"))
    until(lambda: "c1 is here (1 of 2)" in hall.said["host"])
    hall.hub._inboxes["c1"].owner.close()  # type: ignore[union-attr]  # without a word
    second, c2 = hall.link("c1"), hall.link("c2")
    new = hello("c1", nonce=b"n" * 16)
    second.send("host", new)
    assert second._receive(0.5) is None  # it shows that it is another process
    until(lambda: "c1 was started again before all parties were there" in hall.said["host"])
    c2.send("host", hello("c2"))

    assert welcomed(second).nonce == new.nonce == hall.end().check_ins["c1"].nonce
    assert welcomed(c2)


class Scripted:
    """A host's link on which a test says what comes when, and which party was started again just before."""

    def __init__(self, *script: tuple[str, CheckIn, set[str]]) -> None:
        self.peers = ["c1", "c2"]
        self.script = list(script)
        self.sent: list[tuple[str, Any]] = []
        self.refused: list[str] = []
        self._restarted: set[str] = set()

    def expect(self, *_: Any, **__: Any) -> tuple[str, CheckIn]:
        peer, message, self._restarted = self.script.pop(0)
        return peer, message

    def restarted(self) -> set[str]:
        return self._restarted

    def refuse(self, peer: str, why: str) -> None:
        self.refused.append(peer)

    def send(self, peer: str, message: Any) -> None:
        self.sent.append((peer, message))


def gather_from(link: Scripted) -> Gathered:
    return gather(cast(Any, link), Hall().seat("host"), max_rounds=1, calculation_timeout_s=0)


def test_one_that_was_started_again_is_not_counted_before_it_has_checked_in_again() -> None:
    new = hello("c1", nonce=b"n" * 16)
    link = Scripted(("c1", hello("c1"), set()), ("c2", hello("c2"), {"c1"}), ("c1", new, set()))

    assert gather_from(link).check_ins["c1"] == new
    assert {peer: each.nonce for peer, each in link.sent} == {"c1": new.nonce, "c2": hello("c2").nonce}


def test_one_that_was_here_and_comes_again_as_it_cannot_take_part_is_not_counted() -> None:
    link = Scripted(
        ("c1", hello("c1"), set()),
        ("c1", hello("c1", protocol=1), set()),
        ("c2", hello("c2"), set()),
        ("c1", hello("c1", trainable=False), set()),
    )

    assert not gather_from(link).check_ins["c1"].trainable
    assert link.refused == ["c1"]


def test_one_that_came_and_left_is_not_waited_for_longer_than_one_that_never_came() -> None:
    hall = Hall(timeout_s=1.0)
    c1 = hall.link("c1")
    c1.send("host", hello("c1", protocol=1))
    with pytest.raises(PeerRefused):
        welcomed(c1)
    c1.close()
    began = time.monotonic()

    with pytest.raises(PeerTimeout, match=r"^c1, c2, while gathering the parties: no check-in within 1 s"):
        hall.end()
    assert time.monotonic() - began < 4


def test_terms_of_the_matching_that_differ_end_the_task() -> None:
    hall = Hall()
    hall.link("c1").send("host", hello("c1", matching=Matching("rsa", "both", True)))

    with pytest.raises(ConfigError, match=r"c1 would match ids by rsa: .*; expected what the host would do \(ecdh"):
        hall.end()


def test_one_that_is_started_again_with_another_way_of_matching_is_turned_away_alone() -> None:
    hall = Hall(timeout_s=10.0, again=True)
    wrong, other = hall.link("c1"), hall.link("c2")
    other.send("host", hello("c2"))
    wrong.send("host", hello("c1", recover=True, matching=Matching("rsa", "both", True)))
    with pytest.raises(
        PeerRefused, match=r"turned this party away: c1 would match ids by rsa: .*; expected what the h"
    ):
        welcomed(wrong)
    wrong.begin_anew()
    wrong.send("host", hello("c1", recover=True))

    assert set(hall.end().check_ins) == {"c1", "c2"}
    assert welcomed(wrong).session == welcomed(other).session


# --- a collaborator ---------------------------------------------------------------------------------------------------


class Answering:
    """A host's end that answers a check-in as a test wants it to."""

    def __init__(self) -> None:
        self.hub = MemoryHub(host="host")
        self.record = Record()
        self.said: list[str] = []
        self.opened: list[Link] = []
        self.settings = Settings(gather_timeout_s=3.0, rejoin_timeout_s=3.0, notice_every_s=60.0, psi_protocol="ecdh")
        self.host = self._end()

    def _end(self) -> Link:
        return Link(self.hub.transport("host"), Role.HOST, ["c1"], self.settings, say=lambda text: None)

    def seat(self, **more: Any) -> Seat:
        values: dict[str, Any] = {"connect": lambda: ("host", self.hub.transport("c1"))}
        return Seat(
            task_id="task",
            task_name="task",
            feature_key="c1",
            parties=("host", "c1"),
            settings=self.settings,
            progress=Told("c1", self.said),
            record=PartyRecord(self.record, "c1"),
            **{**values, **more},
        )

    def check_in(self, standing: Standing = FRESH, **seat: Any) -> tuple[Link, Welcome]:
        return check_in(
            self.seat(**seat), trainable=True, own_batches=False, opened=self.opened.append, standing=standing
        )

    def answer(self, *changes: dict[str, Any], start_again_after: int | None = None) -> threading.Thread:
        """Welcome the check-ins that come, each with its own changes."""

        def answering() -> None:
            for number, change in enumerate(changes):
                _, said = self.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=5)
                if number == start_again_after:
                    self.hub._inboxes["host"].owner.close()  # type: ignore[union-attr]  # without a word
                    time.sleep(0.25)
                    self.host = self._end()
                    continue
                answer = Welcome(said.nonce, bytes(16), ("host", "c1"), 0, 0.0, False, 0)
                self.host.send("c1", msgspec.structs.replace(answer, **change))

        thread = threading.Thread(target=answering, daemon=True)
        thread.start()
        return thread


@pytest.mark.parametrize(
    ("standing", "change"),
    [
        (FRESH, {"resume": 3}),
        (FRESH, {"matched": True}),
        (Standing(True), {"matched": True}),
        (Standing(True, RUN, (3, 6)), {"matched": True, "resume": 0}),
        (Standing(True, RUN, (3, 6)), {"matched": True, "resume": 9}),
    ],
    ids=["a point of none", "ids of none", "ids that are not known", "the start", "another point"],
)
def test_a_welcome_to_where_this_party_cannot_go_on_is_refused(standing: Standing, change: dict[str, Any]) -> None:
    there = Answering()
    there.answer(change)

    with pytest.raises(
        RemoteProtocolError, match=r"^host, while gathering the parties: would go on from where this party cannot"
    ):
        there.check_in(standing)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"nonce": b"x" * 16}, "welcomed another check-in than ours"),
        ({"parties": ("c1", "host")}, "opened a session of other parties than the task's"),
        ({"parties": ("host", "c1", "c2")}, "opened a session of other parties than the task's"),
    ],
)
def test_a_welcome_that_is_not_for_us_is_refused(change: dict[str, Any], text: str) -> None:
    there = Answering()
    there.answer(change)

    with pytest.raises(RemoteProtocolError, match=text):
        there.check_in()


def test_a_welcome_to_one_of_our_points_is_taken() -> None:
    there = Answering()
    there.answer({"matched": True, "resume": 6})

    link, welcome = there.check_in(Standing(True, RUN, (3, 6)))

    assert (welcome.matched, welcome.resume) == (True, 6)
    assert link.phase() is Phase.MATCHING
    assert there.opened == [link]


def test_a_host_that_is_started_again_meanwhile_is_checked_in_with_again() -> None:
    there = Answering()
    there.answer({}, {}, start_again_after=0)

    _, welcome = there.check_in()

    assert welcome.parties == ("host", "c1")


def test_a_host_that_moved_is_followed_on_a_new_line_with_the_same_meter() -> None:
    there = Answering()
    hubs = [MemoryHub(host="host"), there.hub]
    at: list[MemoryHub] = []

    def connect() -> tuple[str, Transport]:
        at.append(hubs[len(at)])
        return "host", at[-1].transport("c1")

    there.answer({})
    link, _ = there.check_in(connect=connect, host_moved=lambda: len(at) == 1)

    assert at == hubs
    assert there.said == ["host was started again; checking in there"]
    assert there.opened[-1] is link
    assert there.opened[0].meter is link.meter
    assert issubclass(HostMoved, PeerRestarted)


class Knocked(Transport):
    """An end that a host's gate has closed: another process is still taken to be there."""

    party = "c1"

    def send(self, to: str, frames: Any, timeout_s: float = 0.0) -> None:
        raise PeerRefused("another end is already open as c1", party="c1")

    def receive(self, timeout_s: float) -> Delivery | None:
        raise PeerRefused("another end is already open as c1", party="c1")

    def down_for(self, party: str) -> float:
        return 0.0

    def close(self, linger_s: float = 2.0) -> None:
        """Nothing."""


def test_one_that_was_killed_knocks_again_while_the_host_takes_the_dead_process_for_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "KNOCK_PAUSE_S", 0.01)
    there = Answering()
    there.answer({"matched": True, "resume": 3})
    knocks: list[int] = []

    def connect() -> tuple[str, Transport]:
        knocks.append(1)
        return "host", Knocked() if len(knocks) < 4 else there.hub.transport("c1")

    _, welcome = there.check_in(Standing(True, RUN, (3,)), connect=connect)

    assert welcome.resume == 3
    assert len(knocks) == 4


def test_one_that_was_not_killed_does_not_knock_twice() -> None:
    there = Answering()
    knocks: list[int] = []

    def connect() -> tuple[str, Transport]:
        knocks.append(1)
        return "host", Knocked()

    with pytest.raises(PeerRefused, match="another end is already open as c1"):
        there.check_in(connect=connect)
    assert len(knocks) == 1


def test_one_that_was_turned_away_with_a_reason_does_not_knock_again() -> None:
    there = Answering()

    def refusing() -> None:
        there.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=5)
        there.host.refuse("c1", "it begins anew")

    threading.Thread(target=refusing, daemon=True).start()

    with pytest.raises(PeerRefused, match="turned this party away: it begins anew"):
        there.check_in(Standing(True, RUN, (3,)))
    assert len(there.opened) == 1


def test_one_that_recovers_a_task_that_was_completed_meanwhile_is_done() -> None:
    there = Answering()
    there.record.statuses.append(TaskStatus.COMPLETED)

    with pytest.raises(AlreadyCompleted):
        there.check_in(Standing(True, RUN, (3,)))


def test_one_that_recovers_a_task_whose_host_moved_and_completed_it_does_not_look_for_the_host() -> None:
    """It was killed after its last word; the host heard that, or another life of it did, and left."""
    there = Answering()
    there.answer({"matched": True, "resume": 3})
    link, _ = there.check_in(Standing(True, RUN, (3,)))
    there.record.statuses.append(TaskStatus.COMPLETED)

    def connect() -> tuple[str, Transport]:
        raise AssertionError("there is no host any more")

    with pytest.raises(AlreadyCompleted):
        check_in(
            there.seat(connect=connect, host_moved=lambda: True),
            trainable=True,
            own_batches=False,
            opened=there.opened.append,
            link=link,
            standing=Standing(True, RUN, (3,)),
        )


def test_one_that_waits_for_its_welcome_when_the_task_is_completed_is_done() -> None:
    there = Answering()
    threading.Timer(0.7, lambda: there.record.statuses.append(TaskStatus.COMPLETED)).start()

    with pytest.raises(AlreadyCompleted):
        there.check_in(Standing(True, RUN, (3,)))


def test_a_host_that_does_not_welcome_in_time_is_named() -> None:
    there = Answering()

    with pytest.raises(PeerTimeout, match=r"^host, while waiting for all parties: no welcome, when all parties are"):
        check_in(there.seat(), trainable=True, own_batches=False, opened=there.opened.append, timeout_s=0.6)

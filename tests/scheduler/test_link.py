"""The mailbox: what is awaited comes first, the rest stays, and no wait is without an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from heterofed import (
    HeterofedError,
    LocalProtocolError,
    PeerGone,
    PeerRefused,
    PeerRestarted,
    PeerTimeout,
    RemoteProtocolError,
    Settings,
    TaskAborted,
    TrainingDiverged,
)
from heterofed.frames.forms import Blob
from heterofed.frames.messages import (
    Abort,
    BatchesEnd,
    BatchPlan,
    CheckIn,
    Dismissed,
    Matching,
    PairingKey,
    Paused,
    PsiPart,
    RoundReady,
    Split,
    StillMatching,
    Welcome,
)
from heterofed.protocol.phases import Phase, Role
from heterofed.scheduler import absence
from heterofed.scheduler.leaving import dismiss
from heterofed.scheduler.link import MAILBOX_MESSAGES, Link
from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.memory import MemoryHub

NONCE = bytes(16)
HELLO = CheckIn(
    protocol=1,
    task_id="t",
    feature_key="c1",
    nonce=NONCE,
    trainable=True,
    own_batches=False,
    matching=Matching("rsa", "both", False),
    recover=False,
    run=b"",
    points=(0,),
)
WELCOME = Welcome(
    nonce=NONCE,
    session=NONCE,
    parties=("host", "c1", "c2"),
    max_rounds=1,
    calculation_timeout_s=0,
    matched=False,
    resume=0,
)
SPLIT = Split(train=1, test=1, train_digest=b"", test_digest=b"")
PLAN = BatchPlan(1, True, 0, 0, False, 0, b"", False, True, 0, None)


class Ends:
    """A host and two collaborators over memory; their connections can be cut where that is wanted."""

    def __init__(self, *, can_be_cut: bool = False, **settings: Any) -> None:
        self.hub = MemoryHub(host="host")
        self.said: list[str] = []
        self.transports: dict[str, Any] = {key: self.hub.transport(key) for key in ("host", "c1", "c2")}
        if can_be_cut:
            self.transports = {key: FaultyTransport(end, seed=0) for key, end in self.transports.items()}
        self.settings = Settings(**{"notice_every_s": 0.2, "rejoin_timeout_s": 0.3, **settings})
        self.host = self._link("host", Role.HOST, ["c1", "c2"])
        self.c1 = self._link("c1", Role.COLLABORATOR, ["host"])
        self.c2 = self._link("c2", Role.COLLABORATOR, ["host"])

    def _link(self, key: str, role: Role, peers: list[str]) -> Link:
        return Link(self.transports[key], role, peers, self.settings, say=self.said.append)

    def start_again(self, key: str) -> Link:
        """Let another process take a collaborator's place, without a word of the one before."""
        self.transports[key].close()
        self.transports[key] = self.hub.transport(key)
        link = self._link(key, Role.COLLABORATOR, ["host"])
        link.send("host", HELLO)
        return link

    def welcome_all(self) -> None:
        for link in (self.c1, self.c2):
            link.send("host", HELLO)
        for _ in range(2):
            peer, _ = self.host.expect(CheckIn, from_=["c1", "c2"], waiting_for="check-in", timeout_s=1)
            self.host.send(peer, WELCOME)
        for link in (self.c1, self.c2):
            link.expect(Welcome, from_=["host"], waiting_for="welcome", timeout_s=1)

    def start_round(self) -> None:
        self.welcome_all()
        for link in (self.c1, self.c2):
            link.send("host", SPLIT)
            self.host.expect(Split, from_=[link.party], waiting_for="split", timeout_s=1)
            self.host.send(link.party, SPLIT)
            self.host.send(link.party, PLAN)
            link.expect(BatchPlan, from_=["host"], waiting_for="plan", timeout_s=1)
            link.send("host", RoundReady(1))


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_a_message_that_is_not_awaited_waits_until_it_is(ends: Ends) -> None:
    ends.start_round()
    ends.c1.send("host", BatchesEnd(1, 0))

    for peer in ("c2", "c1"):
        assert ends.host.expect(RoundReady, from_=[peer], waiting_for="ready", timeout_s=1)[0] == peer
    assert ends.host.expect(BatchesEnd, from_=["c1"], waiting_for="end", timeout_s=1)[1] == BatchesEnd(1, 0)


def test_one_message_of_each_peer_is_collected_in_the_order_of_the_peers_whoever_comes_first(ends: Ends) -> None:
    for link in (ends.c2, ends.c1):
        link.send("host", HELLO)

    found = ends.host.collect(CheckIn, "check-in", 1)

    assert list(found.items()) == [("c1", HELLO), ("c2", HELLO)]


def test_what_a_peer_says_besides_is_left_where_it_is_while_others_are_collected(ends: Ends) -> None:
    ends.start_round()
    ends.c1.send("host", BatchesEnd(1, 0))

    assert ends.host.collect(RoundReady, "agreement", 1) == {"c1": RoundReady(1), "c2": RoundReady(1)}
    assert ends.host.expect(BatchesEnd, from_=["c1"], waiting_for="end", timeout_s=1)[1] == BatchesEnd(1, 0)


def test_who_is_missing_from_a_collection_is_named_alone(ends: Ends) -> None:
    ends.c2.send("host", HELLO)

    with pytest.raises(PeerTimeout) as caught:
        ends.host.collect(CheckIn, "check-in", 0.3)

    assert caught.value.party == "c1"
    assert "c2" not in str(caught.value)


def test_all_peers_of_a_collection_have_one_deadline(ends: Ends) -> None:
    began = time.monotonic()
    late = threading.Timer(0.3, ends.c2.send, ("host", HELLO))
    late.start()

    with pytest.raises(PeerTimeout, match="c1"):
        ends.host.collect(CheckIn, "check-in", 0.5)

    assert 0.45 < time.monotonic() - began < 0.75, "the wait for c1 began anew when c2 had come"
    late.join()


def test_a_deadline_names_who_was_awaited_for_what_and_in_which_phase(ends: Ends) -> None:
    began = time.monotonic()

    with pytest.raises(PeerTimeout) as caught:
        ends.host.expect(CheckIn, from_=["c1", "c2"], waiting_for="check-in", timeout_s=0.3)

    assert 0.25 < time.monotonic() - began < 3
    assert str(caught.value).startswith(
        "c1, c2, while gathering the parties: no check-in within 0 s; expected it from c1, c2. Is it running"
    )


def test_a_long_wait_says_for_whom(ends: Ends) -> None:
    with pytest.raises(PeerTimeout):
        ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1.2)

    assert (
        ends.said[0] == "waiting for c1: check-in (1 of 1 s)" or ends.said[0] == "waiting for c1: check-in (0 of 1 s)"
    )


def test_an_abort_ends_any_wait_and_names_its_party(ends: Ends) -> None:
    ends.welcome_all()
    ends.c2.abort(TrainingDiverged("the loss is nan", party="c2", phase="training", expected="a number"))

    with pytest.raises(TaskAborted) as caught:
        ends.host.expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=5)

    assert str(caught.value) == (
        "c2, while matching ids: ended the task (TrainingDiverged): "
        "c2, while training: the loss is nan; expected a number."
    )


def test_the_host_passes_an_abort_on_under_the_name_it_came_with(ends: Ends) -> None:
    ends.welcome_all()
    ends.c2.abort(TrainingDiverged("the loss is nan"))
    with pytest.raises(TaskAborted) as caught:
        ends.host.expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=5)
    ends.host.abort(caught.value)

    with pytest.raises(TaskAborted, match=r"^c2, while matching ids: ended the task \(TrainingDiverged\): the loss"):
        ends.c1.expect(PsiPart, from_=["host"], waiting_for="part", timeout_s=5)


def test_nobody_gives_up_in_anothers_name_or_paints_on_our_terminal(ends: Ends) -> None:
    ends.welcome_all()
    ends.c1._abort = Abort(party="c2", error="TaskFailed", reason="\x1b[31mc2 is to blame")
    ends.c1.abort(TrainingDiverged("ignored"))

    with pytest.raises(TaskAborted) as caught:
        ends.host.expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=5)

    assert str(caught.value) == "c1, while matching ids: ended the task (TaskFailed): ?[31mc2 is to blame."


def test_a_peer_that_stays_away_for_too_long_ends_the_wait_though_another_is_awaited(ends: Ends) -> None:
    ends.welcome_all()
    ends.transports["c2"].close()

    with pytest.raises(PeerGone) as caught:
        ends.host.expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=10)

    assert str(caught.value).startswith("c2, while matching ids: its link is down for ")
    assert "expected a link, or one that is back within 0.3 s" in str(caught.value)


def test_what_is_sent_to_a_peer_that_gave_up_and_left_is_kept_and_the_next_wait_ends_with_its_reason(
    ends: Ends,
) -> None:
    ends.welcome_all()
    ends.host.abort(TrainingDiverged("the loss is nan"))
    ends.transports["host"].close()

    ends.c1.send("host", PsiPart(Blob(b"part")))  # its link is down: no error here

    with pytest.raises(TaskAborted, match="the loss is nan"):
        ends.c1.expect(PsiPart, from_=["host"], waiting_for="part", timeout_s=1)


def test_what_the_phase_does_not_allow_is_refused_and_its_sender_named(ends: Ends) -> None:
    ends.c1.sessions["host"].phase = Phase.MATCHING
    ends.c1.send("host", PsiPart(Blob(b"part")))

    with pytest.raises(RemoteProtocolError, match="c1, while gathering the parties: sent PsiPart; expected CheckIn"):
        ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1)


def test_a_protocol_error_tells_the_story_that_led_there(ends: Ends) -> None:
    ends.welcome_all()

    with pytest.raises(LocalProtocolError) as caught:
        ends.host.send("c1", BatchesEnd(1, 0))

    assert caught.value.story == (
        "GATHERING --collaborator CheckIn--> CHECKED_IN",
        "CHECKED_IN --host Welcome--> MATCHING",
    )


def test_bytes_that_are_no_message_are_refused_and_their_sender_named(ends: Ends) -> None:
    ends.c1._transport.send("host", [b"garbage"])

    with pytest.raises(RemoteProtocolError, match="c1, while gathering the parties: sent bytes that are no message"):
        ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1)


def test_zero_waits_until_it_comes(ends: Ends) -> None:
    threading.Timer(0.6, lambda: ends.c1.send("host", HELLO)).start()

    assert ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=0) == ("c1", HELLO)


def test_looking_around_may_end_a_wait() -> None:
    ends = Ends()

    def cancelled() -> None:
        raise TaskAborted("task t was cancelled")

    ends.host.look = cancelled

    with pytest.raises(TaskAborted, match="task t was cancelled"):
        ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=5)


# --- polling, for a party that has work of its own --------------------------------------------------------------------

PART = PsiPart(Blob(b"part"))
WANTED = (PsiPart, StillMatching)


def poll(link: Link, from_: str = "host") -> Any:
    return link.poll(WANTED, from_=from_, waiting_for="part")


def test_a_poll_gives_what_is_there_in_its_order_and_does_not_wait_for_more(ends: Ends) -> None:
    ends.welcome_all()
    began = time.monotonic()
    assert poll(ends.c1) is None
    assert time.monotonic() - began < 0.25

    for message in (PART, StillMatching(), PsiPart(Blob(b"second"))):
        ends.host.send("c1", message)

    assert [poll(ends.c1) for _ in range(4)] == [PART, StillMatching(), PsiPart(Blob(b"second")), None]


def test_a_poll_leaves_what_it_does_not_ask_for_to_who_does(ends: Ends) -> None:
    ends.welcome_all()
    for link in (ends.c2, ends.c1):
        link.send("host", PART)
    ends.c1.send("host", PairingKey(bytes(32)))

    assert poll(ends.host, "c1") == PART
    assert poll(ends.host, "c1") is None
    assert ends.host.expect(PairingKey, from_=["c1"], waiting_for="key", timeout_s=1)[1] == PairingKey(bytes(32))
    assert ends.host.expect(PsiPart, from_=["c1", "c2"], waiting_for="part", timeout_s=1) == ("c2", PART)


def test_a_poll_gives_first_what_an_earlier_wait_left(ends: Ends) -> None:
    ends.welcome_all()
    ends.c1.send("host", PART)
    ends.c2.send("host", PART)
    ends.host.expect(PsiPart, from_=["c2"], waiting_for="part", timeout_s=1)
    ends.c1.send("host", PsiPart(Blob(b"second")))

    assert [poll(ends.host, "c1") for _ in range(3)] == [PART, PsiPart(Blob(b"second")), None]


def test_an_abort_ends_the_work_of_who_polls(ends: Ends) -> None:
    ends.welcome_all()
    ends.host.send("c1", PART)
    ends.host.abort(TrainingDiverged("the loss is nan"))

    with pytest.raises(TaskAborted, match=r"^host, while matching ids: ended the task \(TrainingDiverged\): the loss"):
        poll(ends.c1)


def test_who_polls_looks_around_twice_a_second_though_messages_keep_coming(ends: Ends) -> None:
    ends.welcome_all()
    looks: list[float] = []
    ends.c1.look = lambda: looks.append(time.monotonic())

    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        ends.host.send("c1", PART)
        assert poll(ends.c1) == PART

    assert 2 <= len(looks) <= 3


def test_a_peer_that_stays_away_for_too_long_ends_the_work_of_who_polls(ends: Ends) -> None:
    ends.welcome_all()
    ends.transports["host"].close()

    with pytest.raises(
        PeerGone, match=r"^host, while matching ids: its link is down for .* s while c1 waits for its p"
    ):
        for _ in range(300):
            assert poll(ends.c1) is None
            time.sleep(0.01)


def test_a_poll_refuses_what_the_phase_does_not_allow_and_names_its_sender(ends: Ends) -> None:
    ends.welcome_all()
    ends.c1.sessions["host"].phase = Phase.GATHERING
    ends.c1.send("host", HELLO)

    with pytest.raises(RemoteProtocolError, match=r"^c1, while matching ids: sent CheckIn; expected "):
        poll(ends.host, "c2")


def test_a_peer_that_keeps_talking_does_not_keep_a_wait_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    looked: list[float] = []
    monkeypatch.setattr(ends.host, "look", lambda: looked.append(time.monotonic()))

    def talk(timeout_s: float) -> tuple[str, StillMatching]:
        time.sleep(0.005)
        return "c2", StillMatching()

    monkeypatch.setattr(ends.host, "_receive", talk)
    began = time.monotonic()

    with pytest.raises(PeerTimeout, match="c1"):
        ends.host.expect(RoundReady, from_=["c1"], waiting_for="readiness", timeout_s=1.2)

    assert 1.0 < time.monotonic() - began < 6.0
    assert len(looked) >= 2


# --- links that break -------------------------------------------------------------------------------------------------


def test_what_is_said_while_the_link_is_down_arrives_when_it_is_up_again() -> None:
    ends = Ends(can_be_cut=True, rejoin_timeout_s=5.0)
    ends.welcome_all()
    ends.transports["c1"].cut()
    ends.c1.send("host", PART)
    ends.c1.send("host", PairingKey(bytes(32)))
    assert poll(ends.host, "c1") is None
    ends.transports["c1"].mend()

    deadline = time.monotonic() + 3
    while (part := poll(ends.host, "c1")) is None and time.monotonic() < deadline:
        assert poll(ends.c1) is None  # it asks what has come, and says again what has not
    assert part == PART
    assert ends.host.expect(PairingKey, from_=["c1"], waiting_for="key", timeout_s=1)[1] == PairingKey(bytes(32))


def test_the_time_in_which_a_link_is_down_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "AWAY_AFTER_S", 0.2)
    ends = Ends(can_be_cut=True, rejoin_timeout_s=8.0)
    ends.welcome_all()
    ends.host.send("c1", PART)
    ends.transports["c1"].cut()
    threading.Timer(2.0, ends.transports["c1"].mend).start()
    began = time.monotonic()

    with pytest.raises(PeerTimeout, match="no second part within 1 s"):
        ends.c1.expect((StillMatching, PairingKey), from_=["host"], waiting_for="second part", timeout_s=1.0)

    assert 2.4 < time.monotonic() - began < 7.5
    assert ends.said[0].startswith("the link of host is down; waiting up to 8 s for it (if its process has ended,")
    assert "host is back" in ends.said


def test_a_send_that_waits_for_room_at_a_peer_that_is_away_is_excused_until_it_is_given_up_on() -> None:
    ends = Ends(rejoin_timeout_s=1.2)
    ends.welcome_all()
    ends.transports["c1"].close()
    began = time.monotonic()

    with pytest.raises(PeerGone, match=r"^c1, while matching ids: its link is down for .* waits for its room in its q"):
        for _ in range(100):
            ends.host.send("c1", PART, timeout_s=0.3)

    assert 1.0 < time.monotonic() - began < 4


def test_the_hosts_word_that_it_waits_for_another_excuses_a_collaborator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "PAUSE_HOLDS_S", 1.0)
    ends = Ends(rejoin_timeout_s=5.0)
    ends.welcome_all()
    ends.host.sessions["c1"].sending(Paused("c2"))
    ends.host._transport.send("c1", ends.host._codec.encode(Paused("c2")))
    began = time.monotonic()

    with pytest.raises(PeerTimeout):
        ends.c1.expect(PsiPart, from_=["host"], waiting_for="part", timeout_s=0.5)

    assert 0.9 < time.monotonic() - began < 3.5
    assert ends.said[0] == "c2 is away; host waits for it"


def test_a_host_that_waits_for_one_that_is_away_tells_the_others_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(absence, "AWAY_AFTER_S", 0.1)
    monkeypatch.setattr(absence, "PAUSE_EVERY_S", 0.4)
    ends = Ends(rejoin_timeout_s=2.0)
    ends.welcome_all()
    heard: list[str] = []
    monkeypatch.setattr(ends.c2._absences, "hear_pause", lambda party, host: heard.append(f"{party} {host}"))
    ends.transports["c1"].close()

    with pytest.raises(PeerGone, match=r"^c1, "):
        ends.host.expect(PsiPart, from_=["c1", "c2"], waiting_for="part", timeout_s=0.5)
    for _ in range(10):
        assert poll(ends.c2) is None

    assert 2 <= len(heard) <= 4
    assert set(heard) == {"c1 host"}
    assert ends.c2.phase() is Phase.MATCHING


# --- peers that are turned away or started again ----------------------------------------------------------------------


def test_a_peer_that_is_refused_hears_why_and_may_come_again_while_the_other_goes_on(ends: Ends) -> None:
    for link in (ends.c1, ends.c2):
        link.send("host", HELLO)
        ends.host.expect(CheckIn, from_=[link.party], waiting_for="check-in", timeout_s=1)
    ends.host.refuse("c1", "it begins \x1b[31manew")

    with pytest.raises(PeerRefused) as caught:
        ends.c1.expect(Welcome, from_=["host"], waiting_for="welcome", timeout_s=1)
    assert str(caught.value) == "host, while waiting for all parties: turned this party away: it begins ?[31manew."
    assert (ends.host.phase("c1"), ends.host.phase("c2")) == (Phase.GATHERING, Phase.CHECKED_IN)
    ends.host.send("c2", WELCOME)
    assert ends.c2.expect(Welcome, from_=["host"], waiting_for="welcome", timeout_s=1)[1] == WELCOME
    ends.c1.begin_anew()
    ends.c1.send("host", HELLO)
    assert ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1)[1] == HELLO


def test_a_collaborator_cannot_turn_its_host_away(ends: Ends) -> None:
    ends.welcome_all()
    ends.c1.abort(PeerRefused("go"))

    with pytest.raises(TaskAborted, match=r"^c1, while matching ids: ended the task \(PeerRefused\): go"):
        poll(ends.host, "c1")


def test_what_a_peer_has_from_the_tasks_record_is_passed_on_in_the_records_words(ends: Ends) -> None:
    ends.welcome_all()
    ends.host.abort(TaskAborted("task t was cancelled"))

    with pytest.raises(TaskAborted) as caught:
        poll(ends.c1)
    assert str(caught.value) == "task t was cancelled."


def test_a_host_that_opens_a_new_session_voids_what_was_said_in_the_one_before(ends: Ends) -> None:
    ends.start_round()
    ends.c1.send("host", BatchesEnd(1, 0))
    assert ends.host.poll((StillMatching,), from_="c1", waiting_for="part") is None  # all is in the mailbox
    ends.host.reopen()

    def come_again(link: Link) -> None:
        with pytest.raises(PeerRestarted, match=r"^host: was started anew"):
            link.expect(StillMatching, from_=["host"], waiting_for="part", timeout_s=3)
        link.begin_anew()
        link.send("host", HELLO)

    threads = [threading.Thread(target=come_again, args=(link,)) for link in (ends.c1, ends.c2)]
    for thread in threads:
        thread.start()
    for peer in ("c1", "c2"):
        ends.host.expect(CheckIn, from_=[peer], waiting_for="check-in", timeout_s=3)
    for thread in threads:
        thread.join(5)

    assert {ends.host.phase(peer) for peer in ("c1", "c2")} == {Phase.CHECKED_IN}
    assert {link.phase() for link in (ends.c1, ends.c2)} == {Phase.CHECKED_IN}
    with pytest.raises(PeerTimeout):  # what was said before
        ends.host.expect((RoundReady, BatchesEnd), from_=["c1", "c2"], waiting_for="ready", timeout_s=0.3)


def test_a_peer_that_is_started_again_ends_the_session_of_all(ends: Ends) -> None:
    ends.welcome_all()
    again = ends.start_again("c1")
    threading.Timer(0.1, lambda: again._receive(0.5)).start()  # it has to show that it is there

    with pytest.raises(PeerRestarted, match=r"^c1: was started anew"):
        ends.host.expect(PsiPart, from_=["c2"], waiting_for="part", timeout_s=3)


def test_before_its_welcome_a_peer_may_be_started_again_and_only_its_own_session_begins_anew(ends: Ends) -> None:
    for link in (ends.c1, ends.c2):
        link.send("host", HELLO)
        ends.host.expect(CheckIn, from_=[link.party], waiting_for="check-in", timeout_s=1)
    again = ends.start_again("c1")
    threading.Timer(0.1, lambda: again._receive(0.5)).start()

    assert ends.host.expect(CheckIn, from_=["c1", "c2"], waiting_for="check-in", timeout_s=3) == ("c1", HELLO)
    assert ends.host.restarted() == {"c1"}
    assert ends.host.restarted() == set()
    assert ends.host.phase("c2") is Phase.CHECKED_IN


# --- the mailbox ------------------------------------------------------------------------------------------------------


def test_a_peer_that_says_more_than_anybody_asked_for_is_refused(ends: Ends) -> None:
    ends.welcome_all()
    for _ in range(MAILBOX_MESSAGES):
        ends.c1.send("host", PART)
    assert ends.host.poll((StillMatching,), from_="c2", waiting_for="part") is None  # so many are kept
    ends.c1.send("host", PART)

    with pytest.raises(RemoteProtocolError, match=r"^c1, while matching ids: sent 64 messages that nobody asked for"):
        ends.host.expect(PsiPart, from_=["c2"], waiting_for="part", timeout_s=2)


def test_a_peer_that_says_it_still_works_takes_one_place_however_often_it_does(ends: Ends) -> None:
    ends.welcome_all()
    for _ in range(4):
        for _ in range(MAILBOX_MESSAGES // 2):
            ends.c1.send("host", StillMatching())
        with pytest.raises(PeerTimeout):
            ends.host.expect(PsiPart, from_=["c2"], waiting_for="part", timeout_s=0.05)

    assert [type(poll(ends.host, "c1")) for _ in range(2)] == [StillMatching, type(None)]


# --- last words to one who was started again --------------------------------------------------------------------------


@pytest.fixture
def one_is_started_again(ends: Ends) -> Iterator[Ends]:
    """c2 was started again; the host has seen it, but nobody has told it so."""
    ends.welcome_all()
    again = ends.start_again("c2")
    done = threading.Event()

    def be_there() -> None:
        while not done.is_set():
            with suppress(HeterofedError):
                again._receive(0.02)

    thread = threading.Thread(target=be_there)
    thread.start()
    transport = ends.host._transport
    deadline = time.monotonic() + 3
    while not transport._restarted and time.monotonic() < deadline:
        transport._take_next(time.monotonic() + 0.02, time.monotonic())
    assert transport._restarted
    yield ends
    done.set()
    thread.join(5)


def test_an_abort_reaches_the_others_though_a_party_has_just_been_started_again(one_is_started_again: Ends) -> None:
    ends = one_is_started_again
    ends.host.abort(TrainingDiverged("the loss is nan"))

    with pytest.raises(TaskAborted, match=r"^host, while matching ids: ended the task \(TrainingDiverged\): the loss"):
        ends.c1.expect(PsiPart, from_=["host"], waiting_for="part", timeout_s=3)


def test_a_refusal_reaches_its_party_though_another_has_just_been_started_again(one_is_started_again: Ends) -> None:
    ends = one_is_started_again
    ends.host.refuse("c1", "it begins anew")

    with pytest.raises(PeerRefused, match="turned this party away: it begins anew"):
        ends.c1.expect(PsiPart, from_=["host"], waiting_for="part", timeout_s=3)


def test_a_dismissal_reaches_the_others_though_a_party_has_just_been_started_again(one_is_started_again: Ends) -> None:
    ends = one_is_started_again
    for link in (ends.host, ends.c1):
        link.sessions["c1" if link is ends.host else "host"].phase = Phase.LEAVING
    dismiss(ends.host)

    assert ends.c1.expect(Dismissed, from_=["host"], waiting_for="word", timeout_s=3)[1] == Dismissed()


def test_a_party_that_was_left_out_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    ends.c1.send("host", HELLO)
    ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1)
    ends.host.leave_out(["c2"], "the session has begun without it")

    def deaf(to: str, frames: Any, timeout_s: float = 0.0) -> None:
        assert to == "c2"
        time.sleep(min(timeout_s, 1.0))
        raise PeerTimeout("its queue is full")

    monkeypatch.setattr(ends.host._transport, "send", deaf)
    for _ in range(5):
        ends.c2._transport.send("host", [b"anything"], 1.0)
    began = time.monotonic()
    with pytest.raises(PeerTimeout):
        ends.host.expect(Split, from_=["c1"], waiting_for="split", timeout_s=0.2)
    assert time.monotonic() - began < 1.0


def test_a_restart_that_shows_while_a_party_is_turned_away_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    ends.c1.send("host", HELLO)
    ends.host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=1)
    ends.host.send("c1", WELCOME)
    ends.host.leave_out(["c2"], "the session has begun without it")

    def restarted(to: str, frames: Any, timeout_s: float = 0.0) -> None:
        raise PeerRestarted("was started anew", party="c1")

    monkeypatch.setattr(ends.host._transport, "send", restarted)
    ends.c2._transport.send("host", [b"anything"], 1.0)
    with pytest.raises(PeerRestarted):
        ends.host.expect(Split, from_=["c1"], waiting_for="split", timeout_s=1)

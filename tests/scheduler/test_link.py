"""The mailbox: what is awaited comes first, the rest stays, and no wait is without an end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from heterofed import (
    LocalProtocolError,
    PeerGone,
    PeerTimeout,
    RemoteProtocolError,
    Settings,
    TaskAborted,
    TrainingDiverged,
)
from heterofed.frames.messages import (
    Abort,
    BatchesEnd,
    BatchPlan,
    Blob,
    CheckIn,
    Matching,
    PairingKey,
    PsiPart,
    RoundReady,
    Split,
    StillMatching,
    Welcome,
)
from heterofed.protocol.phases import Phase, Role
from heterofed.scheduler.link import Link
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
)
WELCOME = Welcome(nonce=NONCE, session=NONCE, parties=("host", "c1", "c2"), max_rounds=1, calculation_timeout_s=0)
SPLIT = Split(train=1, test=1, train_digest=b"", test_digest=b"")
PLAN = BatchPlan(1, True, 0, 0, False, 0, b"", False, True)


class Ends:
    """A host and two collaborators over memory."""

    def __init__(self, **settings: Any) -> None:
        self.hub = MemoryHub(host="host")
        self.said: list[str] = []
        self.transports = {key: self.hub.transport(key) for key in ("host", "c1", "c2")}
        self.settings = Settings(**{"notice_every_s": 0.2, "link_grace_s": 0.3, **settings})
        self.host = self._link("host", Role.HOST, ["c1", "c2"])
        self.c1 = self._link("c1", Role.COLLABORATOR, ["host"])
        self.c2 = self._link("c2", Role.COLLABORATOR, ["host"])

    def _link(self, key: str, role: Role, peers: list[str]) -> Link:
        return Link(self.transports[key], role, peers, self.settings, say=self.said.append)

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


def test_a_peer_that_is_gone_for_longer_than_the_grace_ends_the_wait_though_another_is_awaited(ends: Ends) -> None:
    ends.welcome_all()
    ends.transports["c2"].close()

    with pytest.raises(PeerGone) as caught:
        ends.host.expect(PsiPart, from_=["c1"], waiting_for="part", timeout_s=10)

    assert str(caught.value).startswith("c2, while matching ids: its link is down for ")
    assert "expected a link, or one that is back within 0.3 s" in str(caught.value)


def test_a_send_to_a_peer_that_gave_up_raises_its_reason_and_not_the_broken_link(ends: Ends) -> None:
    ends.welcome_all()
    ends.host.abort(TrainingDiverged("the loss is nan"))
    ends.transports["host"].close()

    with pytest.raises(TaskAborted, match="the loss is nan"):
        ends.c1.send("host", PsiPart(Blob(b"part")))


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
    ends.transports["c1"].send("host", [b"garbage"])

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


def test_a_peer_that_is_gone_for_longer_than_the_grace_ends_the_work_of_who_polls(ends: Ends) -> None:
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

    def talk(timeout_s: float) -> tuple[str, Split]:
        time.sleep(0.005)
        return "c2", SPLIT

    monkeypatch.setattr(ends.host, "_receive", talk)
    began = time.monotonic()

    with pytest.raises(PeerTimeout, match="c1"):
        ends.host.expect(RoundReady, from_=["c1"], waiting_for="readiness", timeout_s=1.2)

    assert 1.0 < time.monotonic() - began < 2.0
    assert len(looked) >= 2

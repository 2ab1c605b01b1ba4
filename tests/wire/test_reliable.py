"""The contract over three transports, and what only a reliable one does: nothing is lost, nobody is mistaken."""

from __future__ import annotations

import logging
import threading
import time
import zlib

import pytest

from heterofed.errors import ConfigError, PeerGone, PeerRefused, PeerRestarted, PeerTimeout, WireError
from heterofed.wire import reliable
from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.headers import HEADER_BYTES, UNKNOWN, Header, Kind, pack
from heterofed.wire.memory import MemoryHub
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import collaborator, host
from tests.wire.contract import (
    HOST,
    PATIENCE_S,
    Contract,
    Star,
    arrival,
    content,
    meet,
    wait_until_down,
)
from tests.wire.pairs import Pair, Tap, hear, numbers, read, say
from tests.wire.relay import Relay
from tests.wire.test_zeromq import PROBE_PAUSE_S, TcpStar


class Brisk(ReliableTransport):
    """One that lingers no longer than a test needs."""

    def close(self, linger_s: float = 0.2) -> None:
        super().close(linger_s)


class MemoryStar:
    def __init__(self, queue_messages: int, max_message_bytes: int) -> None:
        self.limit = max_message_bytes
        self.queue_messages = queue_messages
        self.hub = MemoryHub(HOST, queue_messages=queue_messages, max_message_bytes=max_message_bytes + HEADER_BYTES)
        self.host = self.open(HOST)
        self.ends = [self.host]

    def inner(self, party: str) -> Transport:
        return self.hub.transport(party)

    def open(self, party: str) -> ReliableTransport:
        return Brisk(self.inner(party), window_messages=self.queue_messages, max_message_bytes=self.limit)

    def join(self, party: str) -> Transport:
        self.ends.append(self.open(party))
        return self.ends[-1]

    def close(self) -> None:
        for end in self.ends:
            end.close(linger_s=0)


class FaultyStar(MemoryStar):
    def inner(self, party: str) -> Transport:
        return FaultyTransport(super().inner(party), seed=1)


class ReliableTcpStar:
    """The stars of the tests of ZeroMQ, every end wrapped."""

    def __init__(self, queue_messages: int, max_message_bytes: int) -> None:
        self.limit = max_message_bytes
        self.tcp = TcpStar(queue_messages, max_message_bytes + HEADER_BYTES)
        self.host = self.wrap(self.tcp.host)
        self.ends = [self.host]

    def wrap(self, inner: Transport) -> ReliableTransport:
        return Brisk(inner, window_messages=self.tcp.queue_messages, max_message_bytes=self.limit)

    def join(self, party: str) -> Transport:
        self.ends.append(self.wrap(self.tcp.join(party)))
        return self.ends[-1]

    def close(self) -> None:
        for end in self.ends:
            end.close(linger_s=0)
        self.tcp.close()


class ReliableContract(Contract):
    """The contract, but that a link which is down is no error, and a party that comes back is another one."""

    def test_a_link_is_down_for_longer_and_longer_after_the_other_end_closed(self, star: Star) -> None:
        end = meet(star, "bank")
        assert star.host.down_for("bank") == 0.0
        end.close()
        wait_until_down(star.host, "bank")
        first = star.host.down_for("bank")
        star.host.send("bank", [b"kept"], timeout_s=1.0)
        assert star.host.receive(0.05) is None
        assert star.host.down_for("bank") >= first + 0.04

    def test_a_collaborator_notices_that_the_host_closed(self, star: Star) -> None:
        end = meet(star, "bank")
        assert end.down_for(HOST) == 0.0
        star.host.close()
        wait_until_down(end, HOST)
        first = end.down_for(HOST)
        end.send(HOST, [b"kept"], timeout_s=1.0)
        assert end.receive(0.05) is None
        assert end.down_for(HOST) >= first + 0.04

    def test_a_party_that_comes_back_is_up_again(self, star: Star) -> None:
        meet(star, "bank").close()
        wait_until_down(star.host, "bank")
        end = star.join("bank")
        end.send(HOST, [b"here I am again"])
        heard: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(heard) < 2 and time.monotonic() < deadline:
            assert hear(end) == []
            heard += hear(star.host)
        assert heard == ["bank restarted", "here I am again"]
        assert star.host.down_for("bank") == 0.0
        star.host.send("bank", [b"welcome back"])
        assert content(arrival(end)) == [b"welcome back"]


class TestOverMemory(ReliableContract):
    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        return MemoryStar(queue_messages, max_message_bytes)


class TestOverFaultyWithoutFaults(ReliableContract):
    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        return FaultyStar(queue_messages, max_message_bytes)


class TestOverZeroMQ(ReliableContract):
    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        return ReliableTcpStar(queue_messages, max_message_bytes)

    @pytest.fixture(autouse=True)
    def short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collaborator, "FIRST_CONNECTION_S", 0.2)
        monkeypatch.setattr(host, "PROBE_PAUSE_S", PROBE_PAUSE_S)


@pytest.fixture
def pair() -> Pair:
    return Pair()


# What it costs


IDLE_WORDS = 22
"""In 100 s in which nobody has anything to say, each end asks every 10 s whether the other is there, and answers."""


def test_in_lock_step_every_message_is_one_message_below(pair: Pair) -> None:
    for n in range(200):
        say(pair.bank, HOST, f"embedding {n}")
        pair.clock.now += 0.2
        assert hear(pair.host) == [f"embedding {n}"]
        say(pair.host, "bank", f"gradient {n}")
        pair.clock.now += 0.2
        assert hear(pair.bank) == [f"gradient {n}"]
    assert len(pair.bank_tap.sent) == len(pair.host_tap.sent) == 200


def test_a_reader_that_never_answers_acknowledges_every_sixteenth_message(pair: Pair) -> None:
    for n in range(160):
        say(pair.bank, HOST, str(n))
        assert hear(pair.host) == [str(n)]
    assert len(pair.host_tap.headers(Kind.ACK)) == len(pair.host_tap.sent) == 10
    assert len(pair.bank_tap.sent) == 160


def test_a_reader_of_large_messages_acknowledges_every_eight_mebibytes(pair: Pair) -> None:
    for n in range(1, 10):
        pair.bank.send(HOST, [b"head", bytes(3 << 20)])
        arrival(pair.host)
        assert len(pair.host_tap.headers(Kind.ACK)) == n // 3


def test_where_messages_carry_a_checksum_one_without_is_not_heard() -> None:
    hub = MemoryHub(HOST)
    host = ReliableTransport(FaultyTransport(hub.transport(HOST), seed=1))
    bank, name = hub.transport("bank"), b"bank...."
    bank.send(HOST, [pack((Kind.DATA, name, UNKNOWN, 0, 0, 0), [b"first"]), b"first"])
    assert hear(host) == ["first"]
    for frames in ([b"second"], [b"second", b"tensor"]):
        bank.send(HOST, [pack((Kind.DATA, name, host._ours, 1, 0, 0)), *frames])
        assert hear(host) == []
    assert host.damaged["bank"] == 2
    bank.send(HOST, [pack((Kind.DATA, name, host._ours, 1, 0, 0), [b"second"]), b"second"])
    assert hear(host) == ["second"]


def test_an_intact_transport_carries_no_checksum_and_any_other_does() -> None:
    hub = MemoryHub(HOST)
    plain = Tap(hub.transport("bank"))
    say(ReliableTransport(plain), HOST, "x")
    sealed = Tap(MemoryHub(HOST).transport("bank"))
    say(ReliableTransport(FaultyTransport(sealed, seed=1)), HOST, "x")
    assert plain.sent[0][0][4:8] == bytes(4)
    header, *frames = sealed.sent[0]
    assert int.from_bytes(header[4:8], "big") == zlib.crc32(b"".join([header[:4], bytes(4), header[8:], *frames]))


# What is lost is repeated


def test_only_what_was_lost_is_repeated(pair: Pair) -> None:
    lost = iter([2, 5, 6])
    doomed = [next(lost)]

    def loses(header: Header) -> bool:
        if header.kind == Kind.DATA and header.number == doomed[0]:
            doomed[0] = next(lost, -1)
            return True
        return False

    pair.bank_tap.loses = loses
    say(pair.bank, HOST, *numbers(10))
    assert hear(pair.host) == ["0", "1"]
    assert hear(pair.bank) == []
    assert hear(pair.host) == ["2", "3", "4"]
    assert hear(pair.bank) == []
    assert hear(pair.host) == ["5", "6", "7", "8", "9"]
    assert [header.number for header in pair.bank_tap.headers(Kind.DATA)] == [*range(10), 2, 5, 6]
    assert pair.bank_tap.headers(Kind.PROBE) == []


def test_a_gap_is_asked_for_at_once_and_then_less_and_less_often(pair: Pair) -> None:
    pair.bank_tap.loses = lambda header: header.number == 0
    asked = []
    for n in range(60):
        say(pair.bank, HOST, str(n))
        hear(pair.host)
        asked.append(len(pair.host_tap.sent))
        pair.clock.now += 0.004
    assert asked[:5] == [0, 1, 1, 2, 2]
    assert asked[-1] == 6
    assert {(header.received, header.number) for header in pair.host_tap.headers()} == {(0, 1)}


def test_a_lost_last_message_is_found_out_by_a_probe(pair: Pair) -> None:
    say(pair.bank, HOST, "0")
    hear(pair.host)
    say(pair.host, "bank", "answer")
    hear(pair.bank)
    pair.bank_tap.loses = lambda header: len(pair.bank_tap.sent) == 2
    say(pair.bank, HOST, "1")
    assert pair.settle(0.4) == ([], [])
    assert pair.settle(0.4) == (["1"], [])
    kinds = [header.kind for header in pair.bank_tap.headers(Kind.DATA, Kind.PROBE)]
    assert kinds == [Kind.DATA, Kind.DATA, Kind.PROBE, Kind.DATA]


def test_probes_to_a_silent_peer_become_rare(pair: Pair) -> None:
    say(pair.bank, HOST, "are you there?")
    at = []
    for _ in range(4000):
        pair.clock.now += 0.1
        before = len(pair.bank_tap.sent)
        assert hear(pair.bank) == []
        if len(pair.bank_tap.sent) > before:
            at.append(pair.clock.now - 1000)
    assert at == pytest.approx([0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, *range(124, 400, 60)], abs=1.5)


def test_a_peer_that_is_heard_is_asked_soon_again(pair: Pair) -> None:
    say(pair.bank, HOST, "are you there?")
    for _ in range(600):
        pair.clock.now += 0.1
        hear(pair.bank)
    say(pair.host, "bank", "something else")
    assert hear(pair.bank) == ["something else"]
    before = len(pair.bank_tap.headers(Kind.PROBE))
    for _ in range(20):
        pair.clock.now += 0.1
        hear(pair.bank)
    assert len(pair.bank_tap.headers(Kind.PROBE)) == before + 2


def test_a_peer_that_never_stops_talking_does_not_keep_us_from_asking(pair: Pair) -> None:
    pair.bank_tap.loses = lambda header: len(pair.bank_tap.sent) == 1
    say(pair.bank, HOST, "lost")
    heard = []
    for n in range(60):
        say(pair.host, "bank", str(n))
        hear(pair.bank)
        heard += hear(pair.host)
        pair.clock.now += 0.02
    assert heard == ["lost"]


def test_who_asked_hears_when_everything_is_handed_out(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "unread")
    say(pair.bank, HOST, "0", "1", "2")
    assert not pair.bank.flush(0.001)
    assert not pair.host.flush(0.001)
    assert [(header.handed, header.received) for header in pair.host_tap.headers(Kind.ACK)] == [(1, 4)]
    assert hear(pair.host) == ["0", "1", "2"]
    assert [header.handed for header in pair.host_tap.headers(Kind.ACK)] == [1, 4]
    assert pair.bank.flush(0.001)


def test_a_probe_does_not_bring_back_what_came_too_early(pair: Pair) -> None:
    pair.bank_tap.loses = lambda header: header.number == 1 and len(pair.bank_tap.sent) < 4
    pair.host_tap.loses = lambda header: len(pair.host_tap.sent) == 1
    say(pair.bank, HOST, *numbers(5))
    assert hear(pair.host) == ["0"]
    assert pair.settle() == (["1", "2", "3", "4"], [])
    assert [header.number for header in pair.bank_tap.headers(Kind.DATA)] == [0, 1, 2, 3, 4, 1]


def test_a_link_that_is_up_again_is_asked_at_once(pair: Pair) -> None:
    say(pair.bank, HOST, "0")
    assert pair.settle() == (["0"], [])
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "1", "2")
    say(pair.host, "bank", "lost on the way")
    assert pair.settle(0.2) == ([], [])
    assert pair.bank.down_for(HOST) > 0
    pair.bank_tap.is_down = False
    assert pair.bank.down_for(HOST) == 0.0
    assert pair.bank_tap.headers()[-1].kind == Kind.PROBE
    assert pair.settle(0.1) == (["1", "2"], [])
    assert pair.settle(2.0) == ([], ["lost on the way"])


def test_a_link_that_was_down_for_a_moment_only_is_asked_too(pair: Pair) -> None:
    meet_pair(pair)
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "1")
    pair.bank_tap.is_down = False
    assert pair.settle(0.4) == (["1"], [])


def test_a_link_that_nobody_saw_down_is_asked_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    meet_pair(pair)
    monkeypatch.setattr(pair.bank_tap, "down_for", lambda party: 0.0)
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "1")
    pair.bank_tap.is_down = False
    assert pair.settle(0.4) == (["1"], [])


def test_a_probe_that_meets_a_link_that_nobody_saw_down_is_said_again_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet_pair(pair)
    monkeypatch.setattr(pair.bank_tap, "down_for", lambda party: 0.0)
    pair.bank_tap.loses = lambda header: header.kind == Kind.DATA
    say(pair.bank, HOST, "1")
    pair.bank_tap.loses = None
    pair.bank_tap.is_down = True
    assert pair.settle(0.8) == ([], [])
    pair.bank_tap.is_down = False
    assert pair.settle(0.4) == (["1"], [])


def test_a_link_that_was_down_for_long_is_asked_often_again(pair: Pair) -> None:
    meet_pair(pair)
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "1")
    assert pair.settle(200.0, step_s=0.5) == ([], [])
    pair.bank_tap.is_down = False
    sent = len(pair.bank_tap.sent)
    pair.bank_tap.loses = lambda header: len(pair.bank_tap.sent) == sent + 1
    assert pair.settle(2.0) == (["1"], [])


def test_what_is_repeated_is_what_was_sent_not_what_its_memory_holds_now(pair: Pair) -> None:
    pair.bank_tap.loses = lambda header: len(pair.bank_tap.sent) == 1
    memory = bytearray(b"before")
    pair.bank.send(HOST, [memory])
    memory[:] = b"after!"
    assert pair.settle() == (["before"], [])


def test_the_first_message_may_meet_a_link_that_is_down(pair: Pair) -> None:
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "0")
    pair.bank_tap.is_down = False
    assert pair.settle() == (["0"], [])


def test_damaged_messages_are_repeated(caplog: pytest.LogCaptureFixture) -> None:
    hub = MemoryHub(HOST)
    ends = {
        party: ReliableTransport(
            FaultyTransport(hub.transport(party), seed=1, corrupt=0.5), first_probe_s=0.01, most_probe_s=0.02
        )
        for party in (HOST, "bank")
    }
    say(ends["bank"], HOST, *numbers(30))
    heard: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(heard) < 30 and time.monotonic() < deadline:
        heard += hear(ends[HOST])
        assert hear(ends["bank"]) == []
        time.sleep(0.001)
    assert heard == numbers(30)
    assert ends[HOST].damaged["bank"] > 5
    assert ends[HOST].malformed == {}
    assert caplog.text.count("something from bank was not what was sent") == 1


# Windows


def test_a_reader_that_stops_bounds_what_its_sender_keeps(pair: Pair) -> None:
    bank, sent = pair.bank, 0
    with pytest.raises(PeerTimeout, match=r"queue to hospital was full for 0.05 s \(64 messages not yet taken\)"):
        for sent in range(100):
            bank.send(HOST, [str(sent).encode()], timeout_s=0.05)
    assert sent == 64
    for n in range(20):
        assert content(arrival(pair.host)) == [b"%d" % n]
    for _ in range(16):
        bank.send(HOST, [b"%d" % sent], timeout_s=0.05)
        sent += 1
    with pytest.raises(PeerTimeout):
        bank.send(HOST, [b"not sent"], timeout_s=0.05)
    assert hear(pair.host) == [str(n) for n in range(20, sent)]


def test_what_timed_out_was_never_sent() -> None:
    pair = Pair(limits={"window_messages": 2})
    say(pair.bank, HOST, "0", "1")
    with pytest.raises(PeerTimeout):
        say(pair.bank, HOST, "never")
    assert hear(pair.host) == ["0", "1"]
    say(pair.bank, HOST, "2")
    assert pair.settle() == (["2"], [])


def test_bytes_are_bounded_too_and_one_message_of_any_size_passes() -> None:
    pair = Pair(limits={"window_bytes": 1000})
    bank = pair.bank
    bank.send(HOST, [bytes(b"x" * 5000)], timeout_s=0.05)
    with pytest.raises(PeerTimeout):
        bank.send(HOST, [b"x"], timeout_s=0.05)
    arrival(pair.host)
    say(pair.host, "bank", "answer")
    bank.send(HOST, [b"x" * 600], timeout_s=0.05)
    with pytest.raises(PeerTimeout):
        bank.send(HOST, [b"x" * 401], timeout_s=0.05)
    bank.send(HOST, [b"x" * 400], timeout_s=0.05)


def test_a_sender_with_the_wider_window_repeats_no_more_than_fits_the_readers(pair: Pair) -> None:
    pair.host_tap.inner.close()
    pair.limits = {"window_messages": 4}
    pair.host_tap, pair.host = pair.open(HOST)
    meet_pair(pair)
    say(pair.host, "bank", "unread")
    say(pair.bank, HOST, *numbers(20))
    for _ in range(5):
        assert not pair.bank.flush(0.01)
        assert not pair.host.flush(0.01)
    assert len(pair.bank_tap.headers(Kind.PROBE)) >= 1
    assert len(pair.bank_tap.headers(Kind.DATA)) == 1 + 20
    assert pair.settle(20.0) == (numbers(20), ["unread"])


def test_two_ends_that_send_before_they_read_do_not_wait_for_each_other() -> None:
    hub = MemoryHub(HOST, queue_messages=4)
    ends = [ReliableTransport(hub.transport(party)) for party in (HOST, "bank")]
    say(ends[1], HOST, "first")
    hear(ends[0])
    last: list[bytes] = []

    def talk(end: Transport, to: str) -> None:
        for n in range(60):
            end.send(to, [b"%d" % n], timeout_s=PATIENCE_S)
        last.append([content(arrival(end))[0] for _ in range(60)][-1])

    threads = [threading.Thread(target=talk, args=args) for args in ((ends[0], "bank"), (ends[1], HOST))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert last == [b"59", b"59"]


# Who is another one, and who only says so


def meet_pair(pair: Pair) -> None:
    """A message each way, so that both know each other."""
    say(pair.bank, HOST, "check in")
    assert hear(pair.host) == ["check in"]
    say(pair.host, "bank", "welcome")
    assert hear(pair.bank) == ["welcome"]


def test_a_party_that_was_started_anew_is_told_of_once(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "for the old one")
    say(pair.bank, HOST, "from the old one")
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again", "and more")
    assert pair.settle(0.3) == (["from the old one", "bank restarted", "check in again", "and more"], [])
    say(pair.host, "bank", "welcome back")
    assert pair.settle() == ([], ["welcome back"])


def test_a_restart_is_an_error_of_its_own_that_names_the_party(pair: Pair) -> None:
    meet_pair(pair)
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    with pytest.raises(PeerRestarted, match=r"bank: was started anew.*open another session") as caught:
        for _ in range(9):
            assert pair.host.receive(0.0) is None
            assert pair.bank.receive(0.0) is None
    assert caught.value.party == "bank"


def test_what_of_the_old_one_was_not_handed_out_is_dropped(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.bank, HOST, "unread")
    say(pair.host, "bank", "unread too")
    assert not pair.host.flush(0.01)
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    for _ in range(3):
        assert not pair.host.flush(0.01)
        assert hear(pair.bank) == []
    assert pair.settle() == (["bank restarted", "check in again"], [])


def test_a_restart_that_no_look_at_the_link_saw_is_found_out_by_an_idle_end_within_seconds(pair: Pair) -> None:
    say(pair.bank, HOST, "1")
    pair.settle()
    say(pair.host, "bank", "2")
    assert pair.settle()[1] == ["2"]  # the bank has nothing under way now, and waits

    pair.start_anew(HOST)  # at once: the link is never seen down

    assert pair.settle(9.0) == ([], [])
    assert pair.settle(4.0) == ([], [f"{HOST} restarted"])


def test_a_silent_party_is_asked_ever_more_rarely_whether_it_is_still_there(pair: Pair) -> None:
    say(pair.bank, HOST, "1")
    pair.settle()
    say(pair.host, "bank", "2")
    pair.settle()
    pair.bank_tap.sent.clear()

    for _ in range(3600):  # the host computes for an hour, and reads nothing
        hear(pair.bank)
        pair.clock.now += 1.0

    assert len(pair.bank_tap.sent) == 26


def test_a_host_that_was_started_anew_is_told_of_at_every_party() -> None:
    hub = MemoryHub(HOST)
    first = ReliableTransport(hub.transport(HOST))
    ends = {party: ReliableTransport(hub.transport(party), first_probe_s=0.02) for party in ("bank", "shop")}
    for party, end in ends.items():
        say(end, HOST, "hi")
        assert hear(first) == ["hi"]
        say(first, party, "hi")
        assert hear(end) == ["hi"]
    first.close(0)
    second = ReliableTransport(hub.transport(HOST))
    heard: dict[str, list[str]] = {"bank": [], "shop": []}
    deadline = time.monotonic() + PATIENCE_S
    while not all(heard.values()) and time.monotonic() < deadline:
        assert hear(second) == []
        for party, end in ends.items():
            say(end, HOST, "go on?") if not heard[party] else None
            heard[party] += hear(end)
    assert heard == {"bank": [f"{HOST} restarted"], "shop": [f"{HOST} restarted"]}
    for party, end in ends.items():
        say(end, HOST, f"check in, {party}")
    assert sorted(hear(second)) == ["check in, bank", "check in, shop"]


def test_an_end_that_begins_again_tells_a_party_that_says_nothing(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "forgotten")
    say(pair.bank, HOST, "forgotten too")
    pair.bank_tap.loses = pair.host_tap.loses = lambda header: header.kind == Kind.DATA
    pair.host.restart()
    assert pair.settle(0.3) == ([], ["forgotten", f"{HOST} restarted"])
    sent = len(pair.host_tap.sent)
    assert pair.settle(100.0) == ([], [])
    assert len(pair.host_tap.sent) - sent <= IDLE_WORDS
    pair.bank_tap.loses = pair.host_tap.loses = None
    say(pair.bank, HOST, "check in again")
    say(pair.host, "bank", "welcome again")
    assert pair.settle() == (["check in again"], ["welcome again"])


def test_an_end_that_begins_again_says_so_until_it_is_understood(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "unread")
    for _ in range(1000):  # until it is asked once a minute only
        pair.clock.now += 0.5
        hear(pair.host)
    pair.bank.receive(0.0)
    lost = [0]

    def loses(header: Header) -> bool:
        lost[0] += 1
        return lost[0] <= 4

    pair.host_tap.loses = loses
    pair.host.restart()
    assert lost == [1]
    assert pair.settle(7.0) == ([], [])
    assert pair.settle(10.0) == ([], [f"{HOST} restarted"])
    sent = len(pair.host_tap.sent)
    assert sent < 30
    assert pair.settle(100.0) == ([], [])
    assert len(pair.host_tap.sent) - sent <= IDLE_WORDS


def test_who_begins_again_has_nothing_left_of_before(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "unread")
    say(pair.bank, HOST, "unread")
    assert not pair.host.flush(0.001)
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    for _ in range(3):
        assert not pair.host.flush(0.001)
        hear(pair.bank)
    pair.host.restart()  # while it has not yet been told of the other's restart
    assert pair.settle(2.0) == ([], [f"{HOST} restarted"])
    say(pair.bank, HOST, "check in once more")
    assert pair.settle() == (["check in once more"], [])


def test_an_end_that_begins_again_while_a_link_is_down_says_so_when_it_is_up(pair: Pair) -> None:
    meet_pair(pair)
    pair.host_tap.is_down = True
    pair.host.restart()
    assert pair.settle(50.0) == ([], [])
    pair.host_tap.is_down = False
    assert pair.settle(0.2) == ([], [f"{HOST} restarted"])


def test_both_ends_may_begin_again_at_once(pair: Pair) -> None:
    meet_pair(pair)
    pair.host.restart()
    pair.bank.restart()
    assert pair.settle() == (["bank restarted"], [f"{HOST} restarted"])
    say(pair.bank, HOST, "check in again")
    say(pair.host, "bank", "welcome again")
    assert pair.settle() == (["check in again"], ["welcome again"])


def test_a_restart_is_found_out_while_sending_and_then_nothing_is_sent() -> None:
    pair = Pair(limits={"window_messages": 2})
    say(pair.bank, HOST, "check in")
    hear(pair.host)
    say(pair.host, "bank", "0", "1")
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    heard: list[str] = []

    def live(header: Header) -> bool:
        heard.extend(hear(pair.bank))
        return False

    pair.host_tap.loses = live  # the bank reads while the host waits
    with pytest.raises(PeerRestarted, match="bank"):
        pair.host.send("bank", [b"not sent"], timeout_s=10.0)
    pair.host.send("bank", [b"sent"], timeout_s=10.0)
    heard_by_host, heard_by_bank = pair.settle()
    assert (heard_by_host, heard + heard_by_bank) == (["check in again"], ["sent"])


def test_flush_says_no_when_a_party_was_started_anew_and_the_next_call_says_why(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "for the old one")
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    for _ in range(5):
        assert not pair.host.flush(0.001)
        pair.bank.receive(0.0)
    with pytest.raises(PeerRestarted, match="bank"):
        pair.host.send("bank", [b"not sent"])
    say(pair.host, "bank", "welcome back")
    assert pair.settle() == (["check in again"], ["welcome back"])


def replay(pair: Pair, frames: list[list[bytes]], sender: str, to: Tap) -> None:
    """Send captured frames once more, under the sender's name."""
    tap = pair.bank_tap if sender == "bank" else pair.host_tap
    for each in frames:
        tap.inner.send(to.party, each)


def test_a_replay_of_everything_that_was_said_changes_nothing(pair: Pair) -> None:
    meet_pair(pair)
    for n in range(20):
        say(pair.bank, HOST, f"embedding {n}")
        hear(pair.host)
        say(pair.host, "bank", f"gradient {n}")
        hear(pair.bank)
    said_by_bank, said_by_host = list(pair.bank_tap.sent), list(pair.host_tap.sent)
    replay(pair, said_by_bank, "bank", pair.host_tap)
    replay(pair, said_by_host, HOST, pair.bank_tap)
    assert pair.settle() == ([], [])
    pair.host.restart()
    assert pair.settle() == ([], [f"{HOST} restarted"])
    replay(pair, said_by_bank, "bank", pair.host_tap)
    replay(pair, said_by_host, HOST, pair.bank_tap)
    say(pair.bank, HOST, "check in again")
    say(pair.host, "bank", "welcome again")
    assert pair.settle() == (["check in again"], ["welcome again"])


def test_late_messages_of_an_old_process_change_nothing(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.bank, HOST, "batch 0", "batch 1")
    assert hear(pair.host) == ["batch 0", "batch 1"]
    old = list(pair.bank_tap.sent)
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    assert pair.settle() == (["bank restarted", "check in again"], [])
    sent = len(pair.host_tap.sent)
    replay(pair, old, "bank", pair.host_tap)
    assert pair.settle(5.0) == ([], [])
    assert len(pair.host_tap.sent) == sent
    say(pair.bank, HOST, "batch 0 again")
    assert pair.settle() == (["batch 0 again"], [])


def test_late_messages_of_a_process_that_was_never_met_change_nothing(pair: Pair) -> None:
    say(pair.bank, HOST, "check in")
    left_over = list(pair.bank_tap.sent)
    pair.host_tap.inner.receive(0.0)
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in again")
    assert hear(pair.host) == ["check in again"]
    say(pair.host, "bank", "welcome")
    replay(pair, left_over, "bank", pair.host_tap)
    assert pair.settle(5.0) == ([], ["welcome"])
    say(pair.bank, HOST, "batch 0")
    say(pair.host, "bank", "gradient 0")
    assert pair.settle() == (["batch 0"], ["gradient 0"])


def test_a_late_answer_of_a_process_between_two_others_changes_nothing(pair: Pair) -> None:
    meet_pair(pair)
    pair.start_anew("bank")
    pair.bank_tap.loses = lambda header: header.kind != Kind.DATA
    say(pair.bank, HOST, "check in, second")
    assert pair.settle(0.2) == ([], [])
    late = [each for each in pair.bank_tap.sent if read(each).kind == Kind.HELLO]
    assert late
    pair.start_anew("bank")
    say(pair.bank, HOST, "check in, third")
    assert pair.settle() == (["bank restarted", "check in, third"], [])
    replay(pair, late, "bank", pair.host_tap)
    assert pair.settle() == ([], [])
    say(pair.bank, HOST, "batch 0")
    assert pair.settle() == (["batch 0"], [])


def test_a_left_over_first_message_does_not_hide_the_first_message_to_a_new_host(pair: Pair) -> None:
    meet_pair(pair)
    left_over = pair.bank_tap.sent[:1]
    assert read(left_over[0]).receiver == UNKNOWN
    pair.start_anew(HOST)
    replay(pair, left_over, "bank", pair.host_tap)
    assert hear(pair.host) == ["check in"]
    assert pair.settle() == ([], [])
    say(pair.bank, HOST, "batch 7")
    assert pair.settle(2.0) == ([], [f"{HOST} restarted"])
    say(pair.bank, HOST, "check in again")
    assert pair.settle() == (["bank restarted", "check in again"], [])


def test_a_process_that_only_claims_to_be_new_is_not_believed(pair: Pair) -> None:
    meet_pair(pair)
    for n in range(50):
        claim = Header(Kind.DATA, b"claim %02d" % n, UNKNOWN, 0, 0, 0)
        pair.bank_tap.inner.send(HOST, [pack(claim), b"a lie"])
        guess = Header(Kind.HELLO, b"claim %02d" % n, read(pair.host_tap.sent[0]).sender, 0, 12345 + n, 0)
        pair.bank_tap.inner.send(HOST, [pack(guess)])
        assert hear(pair.host) == []
    assert len(pair.host_tap.headers(Kind.HELLO)) == 1
    say(pair.bank, HOST, "I am still the old one")
    assert hear(pair.host) == ["I am still the old one"]


def test_a_process_that_comes_and_goes_many_times_is_told_of_each_time(pair: Pair) -> None:
    say(pair.bank, HOST, "start 0")
    assert pair.settle() == (["start 0"], [])
    for n in range(1, 6):
        pair.start_anew("bank")
        say(pair.bank, HOST, f"start {n}")
        assert pair.settle() == (["bank restarted", f"start {n}"], [])


# A peer that breaks the rules


@pytest.mark.parametrize(
    "frames",
    [
        [b"x"],
        [b"x" * (HEADER_BYTES - 1)],
        [b"x" * HEADER_BYTES],
        [pack(Header(Kind.DATA, b"whoever.", UNKNOWN, 0, 0, 0))],
        [pack((9, b"whoever.", UNKNOWN, 0, 0, 0)), b"content"],
        [pack(Header(Kind.PROBE, b"whoever.", UNKNOWN, 0, 0, 0)), b"content"],
    ],
)
def test_what_is_no_message_is_counted_and_dropped(
    pair: Pair, frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    meet_pair(pair)
    for _ in range(3):
        pair.bank_tap.inner.send(HOST, frames)
    say(pair.bank, HOST, "still here")
    assert hear(pair.host) == ["still here"]
    assert pair.host.malformed["bank"] + pair.host.damaged["bank"] == 3
    assert caplog.text.count("something from bank was") == 1


def rogue(pair: Pair) -> tuple[bytes, bytes]:
    """Both incarnations, for a bank that makes its messages itself."""
    meet_pair(pair)
    return read(pair.bank_tap.sent[-1]).sender, read(pair.host_tap.sent[-1]).sender


def test_who_acknowledges_what_was_not_sent_is_not_heard(pair: Pair) -> None:
    bank, host_end = rogue(pair)
    for kind in (Kind.ACK, Kind.DATA, Kind.PROBE):
        pair.bank_tap.inner.send(HOST, [pack((kind, bank, host_end, 1, 2, 1)), *[b"x"] * (kind == Kind.DATA)])
    assert hear(pair.host) == []
    assert pair.host.malformed["bank"] == 3
    say(pair.bank, HOST, "still here")
    assert hear(pair.host) == ["still here"]


def test_numbers_from_anywhere_take_no_memory(pair: Pair) -> None:
    bank, host_end = rogue(pair)
    for number in [*range(2, 500), 1 << 40, (1 << 63) - 1]:
        pair.bank_tap.inner.send(HOST, [pack((Kind.DATA, bank, host_end, number, 1, 1)), bytes(b"x" * 1000)])
    assert hear(pair.host) == []
    kept = pair.host._conversations["bank"]._incoming
    assert len(kept._beyond) == 63
    for number in (0, 1 << 62, 1 << 63, (1 << 64) - 1):
        pair.bank_tap.inner.send(HOST, [pack((Kind.PROBE, bank, host_end, number, 1, 1))])
        pair.bank_tap.inner.send(HOST, [pack((Kind.ACK, bank, host_end, number, 1, 0))])
        pair.bank_tap.inner.send(HOST, [pack((Kind.HELLO, bank, host_end, number, number, 0))])
    hear(pair.host)


def test_a_flood_does_not_hold_a_reader_beyond_its_deadline(pair: Pair) -> None:
    bank, host_end = rogue(pair)
    probe = [pack((Kind.PROBE, bank, host_end, 1, 1, 1))]
    for _ in range(1000):
        pair.bank_tap.inner.send(HOST, probe)
    before = len(pair.host_tap.sent)
    assert pair.host.receive(0.0) is None
    assert len(pair.host_tap.sent) - before < 100


# Closing, waiting, limits


def test_flush_waits_until_everything_is_handed_out() -> None:
    hub = MemoryHub(HOST)
    ends = {party: ReliableTransport(hub.transport(party)) for party in (HOST, "bank", "shop")}
    for party in ("bank", "shop"):
        say(ends[party], HOST, "hi")
        hear(ends[HOST])
        say(ends[HOST], party, "0", "1")
    assert not ends[HOST].flush(0.02)
    reader = threading.Timer(0.1, lambda: (arrival(ends["bank"]), arrival(ends["bank"]), ends["bank"].receive(0.5)))
    reader.start()
    began = time.monotonic()
    assert ends[HOST].flush(PATIENCE_S, ["bank"])
    assert 0.05 < time.monotonic() - began < 2.0
    assert not ends[HOST].flush(0.02)
    assert not ends[HOST].flush(0.0, ["shop", "nobody"])
    assert ends[HOST].flush(0.0, ["nobody"])
    reader.join()


def test_flush_asks_nobody_who_owes_nothing_and_nobody_if_it_may_not_wait(pair: Pair) -> None:
    meet_pair(pair)
    assert pair.bank.flush(1.0)
    assert not pair.host.flush(0.0)
    assert len(pair.bank_tap.sent) == len(pair.host_tap.sent) == 1


def test_what_was_not_handed_out_is_gone_when_an_end_closes(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.bank, HOST, "unread")
    assert pair.host.flush(0.001)
    pair.host.close(0)
    with pytest.raises(WireError, match="closed"):
        pair.host.receive(0.0)


def test_flush_asks_a_silent_party_once(pair: Pair) -> None:
    say(pair.bank, HOST, "x")
    bank = ReliableTransport(pair.bank_tap)
    say(bank, HOST, "x")
    for _ in range(20):
        assert not bank.flush(0.002)
    assert len(pair.bank_tap.headers(Kind.PROBE)) == 1


def test_an_end_that_closes_asks_often_however_rare_its_probes_have_become(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "dismissed")
    for _ in range(600):
        pair.clock.now += 0.1
        hear(pair.host)
    before = len(pair.host_tap.headers(Kind.PROBE))
    pair.host.close(linger_s=2.0)
    assert len(pair.host_tap.headers(Kind.PROBE)) - before in (3, 4)


def test_the_last_word_of_an_end_is_what_it_has_handed_out(pair: Pair) -> None:
    meet_pair(pair)
    say(pair.host, "bank", "dismissed")
    assert hear(pair.bank) == ["dismissed"]
    pair.bank.close()
    assert pair.host.flush(PATIENCE_S, ["bank"])


def test_closing_waits_for_a_reader_but_not_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliable, "GONE_AFTER_S", 0.02)
    for is_gone in (False, True):
        hub = MemoryHub(HOST)
        ends = {party: ReliableTransport(hub.transport(party)) for party in (HOST, "bank")}
        say(ends["bank"], HOST, "x")
        if is_gone:
            ends[HOST].close(0)
            time.sleep(0.03)
        began = time.monotonic()
        ends["bank"].close(linger_s=0.2)
        assert (time.monotonic() - began < 0.1) == is_gone


def test_closing_outlasts_a_link_that_is_down_for_a_moment(pair: Pair) -> None:
    meet_pair(pair)
    pair.bank_tap.is_down = True
    say(pair.bank, HOST, "the last word")
    end = threading.Timer(0.05, setattr, (pair.bank_tap, "is_down", False))
    end.start()
    heard: list[str] = []
    pair.bank_tap.clock = None
    closing = threading.Thread(target=pair.bank.close)
    closing.start()
    deadline = time.monotonic() + PATIENCE_S
    while not heard and time.monotonic() < deadline:
        pair.clock.now += 0.01
        heard += hear(pair.host)
        time.sleep(0.001)
    closing.join(PATIENCE_S)
    assert heard == ["the last word"]


def test_a_refusal_passes_through_and_does_not_stop_an_end_from_closing(pair: Pair) -> None:
    say(pair.bank, HOST, "x")

    def refuse(*args: object) -> None:
        raise PeerRefused("another process already runs as bank", party="bank")

    pair.bank_tap.receive = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(PeerRefused):
        pair.bank.receive(0.0)
    pair.bank.close()
    assert pair.host.down_for("bank") > 0


def test_who_never_had_a_link_is_gone(pair: Pair) -> None:
    with pytest.raises(PeerGone, match="nobody"):
        say(pair.host, "nobody", "x")
    assert pair.host.flush(0.0)


@pytest.mark.parametrize(
    "limits",
    [{"window_messages": 0}, {"window_bytes": 0}, {"first_probe_s": 0.0}, {"first_probe_s": 2.0, "most_probe_s": 1.0}],
)
def test_limits_that_do_not_fit_together_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="do not fit together"):
        Pair(limits=limits)


# Over TCP


def test_a_connection_that_is_cut_again_and_again_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PROBE_PAUSE_S", PROBE_PAUSE_S)
    star = TcpStar()
    star.list_key("bank")
    with Relay(star.host.endpoint) as relay:
        inner = star.dial("bank", endpoint=relay.endpoint)
        ends = {HOST: ReliableTransport(star.host), "bank": ReliableTransport(inner)}
        heard: dict[str, list[str]] = {HOST: [], "bank": []}

        def answer() -> None:
            while len(heard[HOST]) < 120:
                heard[HOST].append(content(arrival(ends[HOST]))[1].decode())
                ends[HOST].send("bank", [b"gradient", heard[HOST][-1].encode(), bytes(5000)], PATIENCE_S)

        thread = threading.Thread(target=answer)
        thread.start()
        for n in range(120):
            ends["bank"].send(HOST, [b"embedding", b"%d" % n, bytes(5000)], PATIENCE_S)
            if n % 3 == 2:  # three under way at a time
                heard["bank"] += [content(arrival(ends["bank"]))[1].decode() for _ in range(3)]
            if n % 40 == 31:
                relay.cut()
        thread.join(PATIENCE_S)
        assert heard == {HOST: numbers(120), "bank": numbers(120)}
        assert relay.connections == 4
        for end in ends.values():
            end.close(0)
    star.close()


def test_what_comes_soon_is_said_to_the_transport_below() -> None:
    hub = MemoryHub(HOST)
    told: list[bool] = []

    class Listening(FaultyTransport):
        def expect_soon(self, soon: bool) -> None:
            told.append(soon)
            super().expect_soon(soon)

    with Brisk(Listening(hub.transport(HOST), seed=1)) as end:
        end.expect_soon(True)
        end.expect_soon(False)

    assert told == [True, False]

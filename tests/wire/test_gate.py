"""Strangers at a host's door: turned away, said once in the log, and not felt by those inside."""

from __future__ import annotations

import contextlib
import itertools
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from heterofed.wire.keys import KeyPair
from heterofed.wire.parts import to_parts
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import collaborator, descriptors, sockets
from heterofed.wire.zeromq.strangers import LINES_AT_ONCE, REMEMBERED, Connections, Notices
from tests.wire.contract import HOST, PATIENCE_S, arrival, content, meet
from tests.wire.test_zeromq import RawPeers, TcpStar, refusal

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collaborator, "REDIAL_PAUSE_S", 0.05)
    monkeypatch.setattr(sockets, "_HANDSHAKE_S", 0.25)


@pytest.fixture
def star() -> Iterator[TcpStar]:
    star = TcpStar()
    yield star
    star.close()


@pytest.fixture
def raw(star: TcpStar) -> Iterator[RawPeers]:
    raw = RawPeers(star)
    yield raw
    raw.close()


def address(star: TcpStar) -> tuple[str, int]:
    where, port = star.host.endpoint.removeprefix("tcp://").split(":")
    return where, int(port)


def wait_for(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def exchange(star: TcpStar, end: Transport, times: int) -> None:
    for n in range(times):
        end.send(HOST, [b"embedding %d" % n, bytes(10_000)])
        assert content(arrival(star.host)) == [b"embedding %d" % n, bytes(10_000)]
        star.host.send("bank", [b"gradient %d" % n, bytes(10_000)])
        assert content(arrival(end)) == [b"gradient %d" % n, bytes(10_000)]


def test_an_unlisted_key_that_knocks_again_and_again_is_one_line_with_its_start_and_its_address(
    star: TcpStar, caplog: pytest.LogCaptureFixture
) -> None:
    key = KeyPair.generate()
    refusal(star.dial("stranger", key=key, admission_patience_s=0.5))
    start = key.public[:8].decode()
    assert warnings(caplog) == [
        f"the key {start}… from 127.0.0.1 was turned away: the task does not list it, or is over"
    ]
    star.host.close()
    last = warnings(caplog)[1:]
    assert len(last) == 1
    assert last[0].startswith("turned away or ignored besides: ")
    assert last[0].endswith(" x a key that may not come in")
    assert key.public[:9].decode() not in caplog.text
    assert key.secret.decode() not in caplog.text


@pytest.mark.parametrize(
    "what",
    [b"", GREETING[:4], GREETING, b"GET / HTTP/1.1\r\n\r\n", bytes(200), GREETING + b"\x04\xc8" + b"x" * 200],
    ids=["nothing", "half a greeting", "a greeting", "http", "zeros", "a greeting and garbage"],
)
def test_who_makes_no_handshake_is_one_line_with_the_address_and_hung_up_on(
    star: TcpStar, caplog: pytest.LogCaptureFixture, what: bytes
) -> None:
    for n in range(3):
        with socket.create_connection(address(star), timeout=PATIENCE_S) as end:
            if n == 0:
                wait_for(lambda: len(star.host._gate._connections._open) == 1)  # its address is known
            end.sendall(what)
            with contextlib.suppress(ConnectionResetError):
                while end.recv(1000):
                    pass
            wait_for(lambda: bool(warnings(caplog)))
    wait_for(lambda: not star.host._gate._connections._open)
    told = [each for each in warnings(caplog) if "an address that was gone already" not in each]
    assert told == ["a connection from 127.0.0.1 ended without a CURVE handshake: it was no party, or its line broke"]


def test_a_peer_without_curve_is_one_line(star: TcpStar, raw: RawPeers, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        raw.dealer(None).send(b"hi")
    wait_for(lambda: bool(warnings(caplog)))
    meet(star, "bank")
    told = [each for each in warnings(caplog) if "an address that was gone already" not in each]
    assert len(told) <= 1
    assert all("ended without a CURVE handshake" in each for each in warnings(caplog))


def test_parties_that_come_and_go_are_no_strangers(star: TcpStar, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        end = meet(star, "bank")
        end.close()
        wait_for(lambda: star.host.down_for("bank") > 0)
    assert warnings(caplog) == []


def test_a_second_process_that_comes_again_and_again_is_one_line(
    star: TcpStar, caplog: pytest.LogCaptureFixture
) -> None:
    meet(star, "bank")
    for _ in range(3):
        second = star.dial("bank")
        second.send(HOST, [b"I am the bank too"])
        deadline = time.monotonic() + PATIENCE_S
        while second._refusal is None:
            assert time.monotonic() < deadline
            star.host.receive(0.02)
            second._settle()
            if second._socket.poll(0):
                refusal(second)
        second.close(0)
    assert warnings(caplog) == ["a second process came as bank and was refused"]


def test_a_party_that_sends_nonsense_is_one_line(
    star: TcpStar, raw: RawPeers, caplog: pytest.LogCaptureFixture
) -> None:
    peer = raw.dealer(star.list_key("bank"), b"R" * 16)
    for _ in range(50):
        peer.send_multipart([b"", b"no such signal"])
    peer.send_multipart(to_parts([b"a message"], 100))
    assert content(arrival(star.host)) == [b"a message"]
    assert warnings(caplog) == ["bank sent something that is no message, or is too large"]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_a_thousand_connections_disturb_nobody_and_are_given_up(
    star: TcpStar, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = meet(star, "bank")
    before = open_descriptors()
    crowd: list[socket.socket] = []
    try:
        for n in range(1000):
            crowd.append(socket.create_connection(address(star), timeout=PATIENCE_S))
            crowd[-1].sendall((b"", GREETING[:30], b"GET / HTTP/1.1\r\n\r\n")[n % 3])
            if n % 50 == 0:
                exchange(star, end, 1)
        exchange(star, end, 100)
        assert star.host.down_for("bank") == 0.0
        assert end.down_for(HOST) == 0.0
        wait_for(lambda: not star.host._gate._connections._open.keys() - known_descriptors(star))
        assert open_descriptors() == before + len(crowd)
    finally:
        for each in crowd:
            each.close()
    exchange(star, end, 10)
    assert len(warnings(caplog)) <= 3
    assert star.host._links["bank"].doubts == 0


def known_descriptors(star: TcpStar) -> set[int | None]:
    return {each.descriptor for each in star.host._links.values()}


def test_strangers_that_go_raise_no_doubts_about_those_inside(star: TcpStar) -> None:
    end = meet(star, "bank")
    exchange(star, end, 1)
    for what in (b"", b"GET / HTTP/1.1\r\n\r\n", GREETING):
        with socket.create_connection(address(star)) as stranger:
            stranger.sendall(what)
    refusal(star.dial("stranger", key=KeyPair.generate(), admission_patience_s=0.0))
    wait_for(lambda: len(star.host._gate._connections._open) == 1)
    assert not star.host._gate.broken


def test_a_key_that_nobody_can_look_up_now_is_one_line(star: TcpStar, caplog: pytest.LogCaptureFixture) -> None:
    star.guests.broken = True
    end = star.join("bank")
    end.send(HOST, [b"patient"])
    end.receive(0.5)
    assert warnings(caplog) == ["a party waits outside, because looking up its key raised RuntimeError"]
    star.guests.broken = False
    end.receive(0.2)
    assert content(arrival(star.host)) == [b"patient"]


# What is said, and what is counted


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notices(clock: Clock) -> Notices:
    return Notices(clock)


def test_what_is_not_said_is_summed_up_at_growing_pauses(
    notices: Notices, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    sums: list[float] = []
    began = clock.now
    assert notices.due_in_s() is None
    for _ in range(36_000):
        notices.tell("a key", "k", "the key k")
        notices.tell("a noise", "n", "the noise n")
        notices.sum_up()
        if len(warnings(caplog)) > 2 + len(sums):
            sums.append(clock.now - began)
        clock.now += 0.1
    assert warnings(caplog)[:2] == ["the key k", "the noise n"]
    assert len(sums) <= 12
    assert all(later - sooner >= 9.9 for sooner, later in itertools.pairwise(sums))
    due_in_s = notices.due_in_s()
    assert due_in_s is not None
    clock.now += due_in_s
    notices.sum_up()
    assert notices.due_in_s() is None
    counted = [each.removeprefix("turned away or ignored besides: ").split(", ") for each in warnings(caplog)[2:]]
    assert [sum(int(each[n].split(" x ")[0]) for each in counted) for n in (0, 1)] == [35_999, 35_999]
    assert counted[0][0].endswith(" x a key")


def test_after_a_quiet_time_the_next_sum_comes_soon_again(
    notices: Notices, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2000):
        notices.tell("a key", "k", "the key k")
        notices.sum_up()
        clock.now += 1
    clock.now += 2000
    notices.sum_up()
    caplog.clear()
    clock.now += 5000
    notices.tell("a key", "k", "the key k")
    assert notices.due_in_s() == pytest.approx(10.0)


def test_a_crowd_of_new_names_gets_a_bounded_number_of_lines_and_of_memory(
    notices: Notices, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(100_000):
        notices.tell("a key", str(n), f"the key {n}")
    assert len(warnings(caplog)) == LINES_AT_ONCE
    clock.now += 10.0
    notices.tell("a key", "later", "the key later")
    assert warnings(caplog)[-1] == "the key later"
    for n in range(5000):
        clock.now += 10.0
        notices.tell("a key", f"slow {n}", "slow")
    assert len(notices._known) == REMEMBERED


def test_what_the_monitor_says_is_told_apart(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(notices)

    def note(*events: int) -> None:
        for event in events:
            connections.note(event, 5000 if event in (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED) else 0)

    note(zmq.EVENT_ACCEPTED, zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED)
    assert (list(connections.broken), warnings(caplog)) == ([5000], [])
    connections.broken.clear()
    note(zmq.EVENT_ACCEPTED, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_DISCONNECTED)
    assert (list(connections.broken), warnings(caplog)) == ([], [])
    note(zmq.EVENT_DISCONNECTED)
    assert list(connections.broken) == [5000]  # of one that was there before we looked
    connections.broken.clear()
    note(zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED)
    assert list(connections.broken) == []
    assert warnings(caplog) == [
        "a connection from an address that was gone already ended without a CURVE handshake: "
        "it was no party, or its line broke"
    ]
    # Another one got in meanwhile: it may have been this one, so the host had better look.
    note(zmq.EVENT_ACCEPTED, zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED)
    assert list(connections.broken) == [5000]


# Room for connections


@pytest.mark.parametrize(
    ("before", "after"),
    [((1024, 20_000), 20_000), ((1024, 1 << 20), 65_536), ((70_000, 1 << 20), 70_000), ((256, 1024), 1024)],
)
def test_a_host_may_open_as_many_descriptors_as_its_user(
    before: tuple[int, int], after: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [before]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    descriptors.raise_descriptor_limit()
    assert limits[-1] == (after, before[1])
    few = [
        "this process may open 1024 files and connections only; a host that strangers can reach needs 4096 (ulimit -n)"
    ]
    assert warnings(caplog) == (few if after < 4096 else [])


def test_a_limit_that_cannot_be_raised_is_said_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int, new: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 20_000))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_descriptor_limit()
    assert "may open 1024 files" in caplog.text
    monkeypatch.setattr(descriptors, "resource", None)
    descriptors.raise_descriptor_limit()

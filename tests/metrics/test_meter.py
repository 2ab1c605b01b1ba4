"""What a party sends is what its peers receive, and time is either waiting, the wire's, or its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from heterofed import run_locally
from heterofed.config import Settings
from heterofed.frames.codec import Codec, size_of
from heterofed.frames.messages import CheckIn, Matching, Welcome
from heterofed.metrics.meter import Meter
from heterofed.protocol.phases import Role
from heterofed.scheduler.link import Link
from heterofed.wire.keys import KeyPair
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport
from tests.own_batches import OwnCollaborator, OwnHost
from tests.tiny import Collaborator, Host

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
    nonce=NONCE, session=NONCE, parties=("host", "c1"), max_rounds=1, calculation_timeout_s=0, matched=False, resume=0
)

Kind = Literal["memory", "zeromq"]
BOTH = pytest.mark.parametrize("kind", ["memory", "zeromq"])


class OnlyOne:
    """Lets one collaborator in."""

    def __init__(self, public_key: bytes) -> None:
        self._known = public_key

    def party_of(self, public_key: bytes) -> str | None:
        return "c1" if public_key == self._known else None


def transports(kind: Kind) -> tuple[Transport, Transport]:
    if kind == "memory":
        hub = MemoryHub(host="host")
        return hub.transport("host"), hub.transport("c1")
    hosts, theirs = KeyPair.generate(), KeyPair.generate()
    host = HostTransport("host", key=hosts, doorkeeper=OnlyOne(theirs.public))
    other = CollaboratorTransport(
        "c1", host_party="host", endpoint=host.endpoint, host_public_key=hosts.public, key=theirs
    )
    return host, other


@contextmanager
def ends(kind: Kind) -> Iterator[tuple[Link, Link]]:
    """The two ends of a link, before anybody has said anything."""
    host, other = transports(kind)
    settings = Settings(notice_every_s=10, rejoin_timeout_s=5)
    try:
        yield (
            Link(host, Role.HOST, ["c1"], settings, say=print),
            Link(other, Role.COLLABORATOR, ["host"], settings, say=print),
        )
    finally:
        other.close()
        host.close()


@BOTH
def test_a_link_counts_the_bytes_of_each_message_once_at_either_end(kind: Kind) -> None:
    with ends(kind) as (host, other):
        other.send("host", HELLO)
        host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=10)
        host.send("c1", WELCOME)
        other.expect(Welcome, from_=["host"], waiting_for="welcome", timeout_s=10)

    codec = Codec(1 << 20)
    hello, welcome = (size_of(codec.encode(each)) for each in (HELLO, WELCOME))
    assert (other.meter.bytes_sent, other.meter.bytes_received) == (hello, welcome)
    assert (host.meter.bytes_sent, host.meter.bytes_received) == (welcome, hello)
    assert hello > 0 < welcome


@BOTH
def test_waiting_is_counted_for_the_peer_that_was_waited_for_and_is_not_the_wires_time(kind: Kind) -> None:
    with ends(kind) as (host, other):
        late = threading.Timer(0.3, lambda: other.send("host", HELLO))
        began = time.perf_counter()
        late.start()
        host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=10)
        took_s = time.perf_counter() - began
        late.join()

    assert set(host.meter.waited_s) == {"c1"}
    assert 0.25 < host.meter.waited_s["c1"] <= took_s
    assert 0 < host.meter.wire_s < 0.2
    assert host.meter.waited_s["c1"] + host.meter.wire_s == pytest.approx(took_s, abs=0.05)


def test_a_message_that_lies_in_the_mailbox_costs_no_wait() -> None:
    with ends("memory") as (host, other):
        other.send("host", HELLO)
        assert host.poll((Welcome,), from_="c1", waiting_for="nothing") is None
        host.expect(CheckIn, from_=["c1"], waiting_for="check-in", timeout_s=10)

    assert sum(host.meter.waited_s.values()) == 0
    assert host.meter.bytes_received > 0


def test_what_has_been_added_since_a_copy_is_a_difference_of_sums() -> None:
    meter = Meter()
    meter.waited_s["c1"] = 1.0
    meter.wire_s, meter.bytes_sent, meter.bytes_received = 0.5, 10, 20
    earlier = meter.copy()
    meter.waited_s["c1"] += 0.25
    meter.waited_s["c2"] += 2.0
    meter.wire_s += 0.125
    meter.bytes_sent += 1
    meter.bytes_received += 2

    added = meter.since(earlier)

    assert dict(added.waited_s) == {"c1": 0.25, "c2": 2.0}
    assert (added.wire_s, added.bytes_sent, added.bytes_received) == (0.125, 1, 2)
    assert (earlier.bytes_sent, dict(earlier.waited_s)) == (10, {"c1": 1.0})


@pytest.mark.parametrize("transport", ["memory", "zeromq"])
def test_in_a_whole_run_the_host_receives_what_the_collaborators_send_and_the_other_way_round(
    transport: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    host, *others = Host(parties=3), Collaborator("c1", party=1), Collaborator("c2", party=2)

    run_locally(host, *others, transport=transport)

    hosts, theirs = host._linked.meter, [each._linked.meter for each in others]
    assert hosts.bytes_received == sum(each.bytes_sent for each in theirs)
    assert hosts.bytes_sent == sum(each.bytes_received for each in theirs)
    assert set(hosts.waited_s) == {"c1", "c2"}
    assert all(set(each.waited_s) == {"host"} for each in theirs)


def test_in_a_whole_run_with_batches_of_the_users_the_sums_agree_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    host, other = OwnHost(), OwnCollaborator()

    run_locally(host, other)

    assert host._linked.meter.bytes_received == other._linked.meter.bytes_sent
    assert host._linked.meter.bytes_sent == other._linked.meter.bytes_received


def test_the_time_that_a_party_computes_is_the_time_that_the_others_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HETEROFED_PSI_PROTOCOL", "ecdh")
    slow_s = 0.4  # much more than the rest takes on a busy machine

    class Slow(Collaborator):
        def load_batch(self, ids: list[str]) -> object:
            time.sleep(slow_s)
            return super().load_batch(ids)

    host, other = Host(log_rounds=0, max_rounds=1), Slow()

    run_locally(host, other)

    batches = 3
    waited = host.storage.history("round/wait_s/c1").latest()
    computed = other.storage.history("round/compute_s").latest()
    assert waited > 0.9 * batches * slow_s
    assert computed > 0.9 * batches * slow_s
    assert host.storage.history("round/compute_s").latest() < waited + slow_s
    assert other.storage.history("round/wait_s/host").latest() < computed

"""A faulty transport without faults keeps the contract; with faults it breaks it the same way every time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from heterofed.errors import ConfigError, PeerGone
from heterofed.wire.faulty import FaultyTransport
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport
from tests.wire.contract import HOST, Contract, Star, arrival, content


class FaultlessStar:
    def __init__(self, queue_messages: int, max_message_bytes: int) -> None:
        self.hub = MemoryHub(HOST, queue_messages=queue_messages, max_message_bytes=max_message_bytes)
        self.host: Transport = FaultyTransport(self.hub.transport(HOST), seed=1)
        self.ends: list[Transport] = [self.host]

    def join(self, party: str) -> Transport:
        self.ends.append(FaultyTransport(self.hub.transport(party), seed=2))
        return self.ends[-1]

    def close(self) -> None:
        for end in self.ends:
            end.close()


class TestFaultyWithoutFaults(Contract):
    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        return FaultlessStar(queue_messages, max_message_bytes)


def pair(**faults: float | Callable[[], float]) -> tuple[FaultyTransport, Transport]:
    """A collaborator whose sends go wrong, and its host."""
    hub = MemoryHub(HOST, queue_messages=10_000)
    host = hub.transport(HOST)
    return FaultyTransport(hub.transport("bank"), seed=7, **faults), host  # type: ignore[arg-type]  # seed is apart


def heard(host: Transport) -> list[bytes]:
    """Everything that has arrived, the last frame of each message."""
    messages: list[bytes] = []
    while (delivery := host.receive(0.0)) is not None:
        messages.append(content(delivery)[-1])
    return messages


def numbers(count: int) -> list[bytes]:
    return [b"%04d" % n for n in range(count)]


def send_all(end: Transport, messages: list[bytes]) -> None:
    for message in messages:
        end.send(HOST, [b"head", message])


def test_dropped_messages_are_missing_and_the_rest_is_in_order() -> None:
    end, host = pair(drop=0.3)
    send_all(end, numbers(200))
    arrived = heard(host)
    assert arrived == sorted(arrived)
    assert len(arrived) == 200 - end.faults["drop"]
    assert 30 < end.faults["drop"] < 90


def test_duplicated_messages_come_twice_in_a_row() -> None:
    end, host = pair(duplicate=0.3)
    send_all(end, numbers(200))
    arrived = heard(host)
    assert arrived == sorted(arrived)
    assert sorted(set(arrived)) == numbers(200)
    assert len(arrived) == 200 + end.faults["duplicate"] > 220


def test_reordered_messages_are_overtaken_by_the_next_one() -> None:
    end, host = pair(reorder=0.2, max_delay_s=60.0)
    send_all(end, numbers(200))
    arrived = heard(host)
    assert arrived != sorted(arrived)
    end.close()
    everything = arrived + heard(host)
    assert sorted(everything) == numbers(200)
    assert end.faults["reorder"] > 20


def test_a_message_that_nobody_overtakes_comes_after_its_longest_delay() -> None:
    end, host = pair(reorder=1.0, max_delay_s=0.1)
    end.send(HOST, [b"alone"])
    assert host.receive(0.0) is None
    assert end.receive(0.2) is None
    assert heard(host) == [b"alone"]


def test_delayed_messages_come_late_and_in_order() -> None:
    end, host = pair(delay=0.2, max_delay_s=0.1)
    send_all(end, numbers(50))
    assert len(heard(host)) < 50
    end, host = pair(delay=0.2, max_delay_s=0.1)
    send_all(end, numbers(50))
    began = time.monotonic()
    assert end.receive(0.15) is None
    assert time.monotonic() - began < 5.0
    assert heard(host) == numbers(50)
    assert end.faults["delay"] > 0


def test_a_delayed_message_does_not_follow_its_senders_memory() -> None:
    end, host = pair(delay=1.0, max_delay_s=0.01)
    memory = bytearray(b"before")
    end.send(HOST, [memory])
    memory[:] = b"after!"
    end.receive(0.05)
    assert heard(host) == [b"before"]


def test_a_corrupt_message_differs_in_one_byte_and_the_senders_copy_does_not() -> None:
    end, host = pair(corrupt=1.0)
    memory = bytearray(b"a" * 1000)
    end.send(HOST, [b"head", memory])
    frames = content(arrival(host))
    damage = [a != b for a, b in zip(b"head" + bytes(1000 * b"a"), b"".join(frames), strict=True)]
    assert sum(damage) == 1
    assert memory == b"a" * 1000


def test_a_cut_link_sends_and_delivers_nothing_until_it_is_mended() -> None:
    end, host = pair(cut_after=3)
    send_all(end, numbers(3))
    assert end.down_for(HOST) == 0.0
    with pytest.raises(PeerGone, match="cut on purpose"):
        end.send(HOST, [b"x"])
    host.send("bank", [b"lost"])
    began = time.monotonic()
    assert end.receive(0.1) is None
    assert 0.1 <= time.monotonic() - began < 5.0
    first = end.down_for(HOST)
    time.sleep(0.02)
    assert end.down_for(HOST) > first >= 0.1
    end.mend()
    assert end.down_for(HOST) == 0.0
    end.send(HOST, [b"head", b"again"])
    host.send("bank", [b"heard"])
    assert content(arrival(end)) == [b"heard"]
    assert heard(host) == [*numbers(3), b"again"]


def test_what_is_held_when_the_link_is_cut_is_lost() -> None:
    end, host = pair(delay=1.0, max_delay_s=0.01)
    end.send(HOST, [b"lost"])
    end.cut()
    end.mend()
    assert end.receive(0.05) is None
    assert heard(host) == []


def test_links_are_cut_by_chance_and_mend_themselves() -> None:
    now = [0.0]
    end, host = pair(cut=0.2, mend_after_s=1.0, clock=lambda: now[0])
    cut = 0
    for message in numbers(200):
        try:
            end.send(HOST, [b"head", message])
        except PeerGone:
            cut += 1
            assert end.down_for(HOST) > 0.0
            now[0] += 0.5
            assert end.down_for(HOST) == 0.5
            with pytest.raises(PeerGone, match="cut on purpose"):
                end.send(HOST, [b"head", message])
            now[0] += 0.5
            assert end.down_for(HOST) == 0.0
    assert 20 < cut == end.faults["cut"] < 60
    assert len(heard(host)) == 200 - cut


def test_what_arrives_while_a_link_mends_itself_is_lost_and_what_comes_later_is_not() -> None:
    end, host = pair(cut_after=0, mend_after_s=0.1)
    with pytest.raises(PeerGone):
        end.send(HOST, [b"x"])
    host.send("bank", [b"lost"])
    assert end.receive(0.05) is None
    assert end.receive(0.1) is None
    host.send("bank", [b"heard"])
    assert content(arrival(end)) == [b"heard"]


def test_a_double_that_finds_no_room_is_not_reported_as_a_message_that_did_not() -> None:
    hub = MemoryHub(HOST, queue_messages=1)
    host = hub.transport(HOST)
    end = FaultyTransport(hub.transport("bank"), seed=7, duplicate=1.0)
    end.send(HOST, [b"once"], timeout_s=0.05)
    assert heard(host) == [b"once"]


def test_what_comes_through_it_is_not_vouched_for() -> None:
    end, host = pair()
    assert host.intact
    assert not end.intact


def test_the_same_seed_makes_the_same_faults() -> None:
    runs = []
    for _ in range(2):
        end, host = pair(drop=0.2, duplicate=0.2, reorder=0.2, corrupt=0.2, max_delay_s=60.0)
        send_all(end, numbers(100))
        runs.append((heard(host), dict(end.faults)))
    assert runs[0] == runs[1]


def test_the_rate_of_one_fault_does_not_move_another() -> None:
    lost = []
    for corrupt in (0.0, 1.0):
        end, host = pair(drop=0.3, corrupt=corrupt)
        fate = []
        for message in numbers(100):
            end.send(HOST, [message])
            fate.append(host.receive(0.0) is None)
        lost.append(fate)
    assert lost[0] == lost[1]


def test_closing_sends_what_is_held_and_closes_the_inner_one() -> None:
    end, host = pair(delay=1.0, max_delay_s=60.0)
    send_all(end, numbers(5))
    assert heard(host) == []
    end.close()
    assert heard(host) == numbers(5)
    assert host.down_for("bank") > 0.0


@pytest.mark.parametrize(
    "faults",
    [{"drop": 1.5}, {"corrupt": -0.1}, {"cut": 2.0}, {"max_delay_s": -1.0}, {"cut_after": -1}, {"mend_after_s": -1.0}],
)
def test_rates_that_make_no_sense_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        pair(**faults)

"""The contract in one process, and what only the hub has."""

from __future__ import annotations

import threading
import time

import pytest

from heterofed.errors import ConfigError, PeerGone, PeerRefused, WireError
from heterofed.wire.memory import MemoryHub
from heterofed.wire.transport import Transport
from tests.wire.contract import HOST, Contract, Star, arrival, content


class MemoryStar:
    def __init__(self, queue_messages: int, max_message_bytes: int) -> None:
        self.hub = MemoryHub(HOST, queue_messages=queue_messages, max_message_bytes=max_message_bytes)
        self.host: Transport = self.hub.transport(HOST)
        self.ends: list[Transport] = [self.host]

    def join(self, party: str) -> Transport:
        self.ends.append(self.hub.transport(party))
        return self.ends[-1]

    def close(self) -> None:
        for end in self.ends:
            end.close()


class TestMemory(Contract):
    def open_star(self, queue_messages: int = 64, max_message_bytes: int = 1 << 30) -> Star:
        return MemoryStar(queue_messages, max_message_bytes)


def test_two_open_ends_of_one_party_are_refused() -> None:
    hub = MemoryHub(HOST)
    with hub.transport("bank"), pytest.raises(PeerRefused, match=r"bank.*Close that one first"):
        hub.transport("bank")
    hub.transport("bank").close()


def test_what_a_collaborator_says_before_the_host_opens_waits_for_it() -> None:
    hub = MemoryHub(HOST)
    hub.transport("bank").send(HOST, [b"early"])
    assert content(arrival(hub.transport(HOST))) == [b"early"]


def test_a_host_that_opens_again_gets_nothing_that_was_meant_for_the_one_before() -> None:
    hub = MemoryHub(HOST)
    first, bank = hub.transport(HOST), hub.transport("bank")
    bank.send(HOST, [b"old"])
    first.close()
    with pytest.raises(PeerGone, match=HOST):
        bank.send(HOST, [b"lost"])
    second = hub.transport(HOST)
    assert bank.down_for(HOST) == 0.0
    bank.send(HOST, [b"new"])
    assert content(arrival(second)) == [b"new"]


def test_closing_an_end_wakes_who_waits_in_it() -> None:
    hub = MemoryHub(HOST, queue_messages=1)
    host, bank = hub.transport(HOST), hub.transport("bank")
    bank.send(HOST, [b"full"])
    woken: list[str] = []

    def wait_for_room() -> None:
        with pytest.raises(WireError, match="closed"):
            bank.send(HOST, [b"x"])
        woken.append("sender")

    def wait_for_news() -> None:
        shop = hub.transport("shop")
        threading.Timer(0.05, shop.close).start()
        with pytest.raises(WireError, match="closed"):
            shop.receive(10.0)
        woken.append("receiver")

    threads = [threading.Thread(target=wait_for_room), threading.Thread(target=wait_for_news)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    bank.close()
    for thread in threads:
        thread.join(5.0)
    assert sorted(woken) == ["receiver", "sender"]
    assert content(arrival(host)) == [b"full"]


def test_a_sender_that_waits_for_room_hears_that_the_receiver_closed() -> None:
    hub = MemoryHub(HOST, queue_messages=1)
    host, bank = hub.transport(HOST), hub.transport("bank")
    bank.send(HOST, [b"full"])
    threading.Timer(0.05, host.close).start()
    with pytest.raises(PeerGone, match=f"the end of {HOST} is not open"):
        bank.send(HOST, [b"x"])


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        MemoryHub(HOST, queue_messages=0)

"""A wait at a socket stays awake where the one before was short, and only there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from heterofed.wire.zeromq import watch
from heterofed.wire.zeromq.watch import AWAKE_S, SMALL_BYTES, Watch

TIMEOUT_MS = 2000


class Pair:
    """Two real sockets of this process, and how often one of them was asked in which way."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.ours, self.theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self.ours.bind("inproc://watch")
        self.theirs.connect("inproc://watch")
        self.ours.rcvtimeo = TIMEOUT_MS
        self.slept = self.looked = 0

    def receive(self, flags: int = 0, *, copy: bool) -> zmq.Frame:
        if flags:
            self.looked += 1
        else:
            self.slept += 1
        part = self.ours.recv(flags, copy=copy)
        assert isinstance(part, zmq.Frame)
        return part

    def say_later(self, seconds: float) -> None:
        threading.Timer(seconds, self.theirs.send, [b"word"]).start()


def watching(sockets: Pair) -> Watch:
    waits = Watch(sockets.receive)
    waits.soon = True
    return waits


@contextmanager
def pair() -> Iterator[Pair]:
    with zmq.Context() as context:
        made = Pair(context)
        try:
            yield made
        finally:
            made.ours.close(0)
            made.theirs.close(0)


def test_a_wait_after_a_short_one_finds_what_comes_without_sleeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    monkeypatch.setattr(watch, "AWAKE_S", 1.0)
    with pair() as sockets:
        waits = watching(sockets)
        sockets.theirs.send(b"first")
        assert waits.wait(TIMEOUT_MS).bytes == b"first" and sockets.slept == 1

        sockets.say_later(0.02)
        assert waits.wait(TIMEOUT_MS).bytes == b"word"

        assert sockets.slept == 1 and sockets.looked > 1


def test_a_wait_after_a_long_one_sleeps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    with pair() as sockets:
        waits = watching(sockets)
        for slept in (1, 2):
            sockets.say_later(20 * AWAKE_S)
            assert waits.wait(TIMEOUT_MS).bytes == b"word"
            assert sockets.slept == slept and sockets.looked == 0


def test_who_has_stayed_awake_in_vain_sleeps_and_has_the_message_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    with pair() as sockets:
        waits = watching(sockets)
        sockets.theirs.send(b"first")
        waits.wait(TIMEOUT_MS)
        sockets.say_later(20 * AWAKE_S)
        assert waits.wait(TIMEOUT_MS).bytes == b"word"
        assert sockets.slept == 2 and sockets.looked > 0

        looked = sockets.looked
        sockets.theirs.send(b"next")
        waits.wait(TIMEOUT_MS)
        assert sockets.slept == 3 and sockets.looked == looked


def test_nobody_stays_awake_on_the_only_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 1)
    with pair() as sockets:
        waits = watching(sockets)
        for slept in (1, 2):
            sockets.theirs.send(b"word")
            waits.wait(TIMEOUT_MS)
            assert sockets.slept == slept and sockets.looked == 0


def test_a_short_timeout_is_not_stretched_by_staying_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    monkeypatch.setattr(watch, "AWAKE_S", 1.0)
    with pair() as sockets:
        waits = watching(sockets)
        sockets.theirs.send(b"first")
        waits.wait(TIMEOUT_MS)
        sockets.ours.rcvtimeo = 5
        began = time.perf_counter()
        with pytest.raises(zmq.Again):
            waits.wait(5)
        assert time.perf_counter() - began < 0.1  # 5 ms awake, 5 ms asleep


def test_nobody_stays_awake_for_what_is_not_said_to_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    with pair() as sockets:
        waits = watching(sockets)
        waits.soon = False
        for slept in (1, 2):
            sockets.theirs.send(b"word")
            waits.wait(TIMEOUT_MS)
            assert sockets.slept == slept and sockets.looked == 0


def test_a_wait_after_a_large_message_sleeps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cores", lambda: 2)
    with pair() as sockets:
        waits = watching(sockets)
        for slept, size in ((1, SMALL_BYTES), (1, SMALL_BYTES + 1), (2, 1)):
            sockets.theirs.send(b"word")
            waits.wait(TIMEOUT_MS)
            waits.note_size(size)
            assert sockets.slept == slept

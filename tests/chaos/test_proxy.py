"""The proxy does to a connection what its methods say, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.proxy import MOST_HELD, Proxy, free_ports


class Echo:
    """Sends back what it gets; `reads` False: accepts and reads nothing."""

    def __init__(self, *, reads: bool = True, port: int = 0) -> None:
        self.reads = reads
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                each, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(each)
            if self.reads:
                threading.Thread(target=self._serve, args=(each,), daemon=True).start()

    @staticmethod
    def _serve(each: socket.socket) -> None:
        try:
            while data := each.recv(65_536):
                each.sendall(data)
            each.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self.accepted:
            each.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    there = Echo()
    yield there
    there.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address, seed=3) as there:
        yield there


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=2.0)


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return answer(connection, len(data))


def answer(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            break
        got += piece
    return got


def test_what_goes_in_comes_out_and_is_counted(proxy: Proxy) -> None:
    data = bytes(range(256)) * 1000
    with connect(proxy) as connection:
        assert ask(connection, data) == data
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the end of one direction comes out too, and the other's after it"
    assert proxy.sent == proxy.received == len(data)
    assert proxy.connections == 1


def test_a_reset_reaches_both_sides_and_new_connections_pass(proxy: Proxy, echo: Echo) -> None:
    echo.reads = False
    with connect(proxy) as first:
        first.sendall(b"x")
        while not echo.accepted:
            time.sleep(0.005)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            first.recv(1)
        echo.accepted[0].settimeout(2.0)
        with pytest.raises(ConnectionResetError):
            answer(echo.accepted[0], 2)
    echo.reads = True
    with connect(proxy) as second:
        assert ask(second, b"again") == b"again"


def test_nothing_passes_during_a_cut_and_everything_after_it(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert ask(old, b"before") == b"before"
        passed = proxy.sent
        began = time.monotonic()
        proxy.cut(0.4)
        old.sendall(b"during")
        with connect(proxy) as new:
            new.sendall(b"new")
            new.settimeout(0.15)
            with pytest.raises(TimeoutError):
                new.recv(1)
            assert proxy.sent == passed
            new.settimeout(2.0)
            assert answer(old, 6) == b"during"
            assert time.monotonic() - began >= 0.4
            assert answer(new, 3) == b"new"


def test_refused_connections_are_refused_while_open_ones_go_on(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert ask(old, b"a") == b"a"
        proxy.refuse(0.3)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(old, b"b") == b"b"
        time.sleep(0.4)
        with connect(proxy) as new:
            assert ask(new, b"c") == b"c"


def test_a_delay_holds_every_byte_back_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection, b"a") == b"a"
        proxy.delay(0.4)
        began = time.monotonic()
        assert ask(connection, b"b") == b"b"
        assert time.monotonic() - began >= 0.8
        proxy.delay(0)
        began = time.monotonic()
        assert ask(connection, b"c") == b"c"
        assert time.monotonic() - began < 0.8


def test_a_throttled_connection_carries_what_it_may(proxy: Proxy) -> None:
    proxy.throttle(100_000)
    with connect(proxy) as connection:
        began = time.monotonic()
        assert ask(connection, bytes(40_000)) == bytes(40_000)
        assert 0.3 <= time.monotonic() - began < 5.0


@pytest.mark.parametrize("size", [100_000, 2_500_000])
def test_a_long_line_carries_as_much_as_a_short_one(proxy: Proxy, echo: Echo, size: int) -> None:
    """100 Mbit/s with 20 ms one way: what is on its way meanwhile does not count as waiting."""
    least = 0.04 + size / 12_500_000
    most = 1.5 * least + 0.1
    with connect(proxy) as connection:
        assert ask(connection, b"a") == b"a"
        proxy.delay(0.02)
        proxy.throttle(12_500_000)
        seconds = []
        for _ in range(5):  # something else may hold this machine up now and then
            began = time.monotonic()
            sending = threading.Thread(target=connection.sendall, args=(bytes(size),))
            sending.start()
            assert len(answer(connection, size)) == size
            seconds.append(time.monotonic() - began)
            sending.join()
            if seconds[-1] < most:
                break
    assert least <= min(seconds) < most


def test_a_short_message_does_not_wait_for_the_one_behind_it(proxy: Proxy) -> None:
    proxy.throttle(200_000)
    with connect(proxy) as connection:
        began = time.monotonic()
        connection.sendall(b"first" + bytes(300_000))
        assert answer(connection, 5) == b"first"
        assert time.monotonic() - began < 1.0
        assert len(answer(connection, 300_000)) == 300_000


def test_a_damaged_piece_differs_in_one_bit(proxy: Proxy) -> None:
    proxy.corrupt(1.0)
    with connect(proxy) as connection:
        got = ask(connection, bytes(100))
    ones = sum(each.bit_count() for each in got)
    assert len(got) == 100
    assert ones in (0, 2), "one bit on each way; the two may be the same one"
    proxy.corrupt(0.0)
    with connect(proxy) as connection:
        assert ask(connection, bytes(100)) == bytes(100)


def test_a_sender_feels_a_reader_that_does_not_read() -> None:
    deaf = Echo(reads=False)
    with Proxy(deaf.address) as proxy, connect(proxy) as connection:
        connection.setblocking(False)
        pushed, data = 0, bytes(1 << 20)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                pushed += connection.send(data)
            except BlockingIOError:
                time.sleep(0.02)
        assert sum(way.size for way in proxy._ways) <= 2 * MOST_HELD
    deaf.close()


def test_the_target_may_move(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as old:
        assert ask(old, b"a") == b"a"
        other = Echo()
        proxy.target = other.address
        with connect(proxy) as new:
            assert ask(new, b"b") == b"b"
        assert len(other.accepted) == 1
        assert ask(old, b"c") == b"c"
        other.close()


def test_a_target_that_is_away_hangs_up(proxy: Proxy) -> None:
    proxy.target = ("127.0.0.1", free_ports(1))
    with pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.sendall(b"x")
        connection.recv(1)

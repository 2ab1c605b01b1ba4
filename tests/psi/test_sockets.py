"""Runs over real sockets: results, no deadlock, and a named error for every way in which a peer can fail."""

from __future__ import annotations

import contextlib
import datetime
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import psi
from psi.messages import MAX_MESSAGE_BYTES, Kind
from psi.oprf import ECDH, RSA
from psi.sockets import Traffic, ask, serve
from tests.psi import helpers
from tests.psi.helpers import initiator, responder

A = [f"id {number}" for number in range(12)]
B = [f"id {number}" for number in range(7, 30)]
SHARED = sorted(set(A) & set(B))
QUICK_S = 0.2
"""For waits that are meant to end in a timeout."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname(), 5)
        right, _ = listener.accept()
    with left, right:
        yield left, right


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def narrow(*connections: socket.socket) -> None:
    """Small buffers, so that a sender soon has to wait."""
    for each in connections:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


def read_message(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
    return connection.recv(size, socket.MSG_WAITALL)


def both(
    pool: ThreadPoolExecutor,
    left: psi.Initiator,
    right: psi.Responder,
    connections: tuple[socket.socket, socket.socket],
    timeout_s: float = 20,
) -> tuple[Traffic, Traffic]:
    """Carry both runs to their end: what each party's driver returned."""
    served = pool.submit(serve, right, connections[1], timeout_s=timeout_s)
    asked = ask(left, connections[0], timeout_s=timeout_s)
    return asked, served.result(20)


@pytest.mark.parametrize(
    ("protocol", "reveal"), [(RSA, "both"), (RSA, "initiator"), (ECDH, "both"), (ECDH, "cardinality")]
)
def test_both_parties_come_to_the_result(
    protocol: str, reveal: str, pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    left = initiator(A, protocol=protocol, reveal=reveal)
    right = responder(B, protocol=protocol, reveal=reveal)

    asked, served = both(pool, left, right, pair)

    assert left.finished and right.finished
    assert left.cardinality == len(SHARED)
    if reveal != "cardinality":
        assert left.intersection == SHARED
    if reveal == "both":
        assert right.intersection == SHARED
    assert (asked.sent, asked.received) == (served.received, served.sent)
    assert asked.sent > len(A) * helpers.WIDTH[protocol]


def test_empty_lists_are_carried_too(pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor) -> None:
    left, right = initiator([]), responder([])

    both(pool, left, right, pair)

    assert left.intersection == right.intersection == []


def test_only_the_given_ids_are_revealed(pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor) -> None:
    left, right = initiator(A), responder(B)
    served = pool.submit(serve, right, pair[1], timeout_s=5)

    ask(left, pair[0], ids=SHARED[:2], timeout_s=5)

    served.result(5)
    assert right.intersection == SHARED[:2]


def test_parties_that_both_send_more_than_the_connection_holds_do_not_block_each_other(
    pool: ThreadPoolExecutor,
) -> None:
    many = [f"id {number}" for number in range(900)]
    connections = socket.socketpair()
    narrow(*connections)
    with connections[0], connections[1]:
        left, right = initiator(many, protocol=ECDH, chunk=150), responder(many, protocol=ECDH, chunk=150)

        both(pool, left, right, connections)

    assert right.cardinality == len(many)


def test_messages_that_come_in_single_bytes_are_put_together(pool: ThreadPoolExecutor) -> None:
    (left_end, left_relay), (right_end, right_relay) = socket.socketpair(), socket.socketpair()

    def relay(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(1):
            target.sendall(data)

    with left_end, left_relay, right_end, right_relay:
        for ends in ((left_relay, right_relay), (right_relay, left_relay)):
            pool.submit(relay, *ends)
        left, right = initiator(A, protocol=ECDH), responder(B, protocol=ECDH)

        both(pool, left, right, (left_end, right_end))
        left_end.shutdown(socket.SHUT_RDWR)
        right_end.shutdown(socket.SHUT_RDWR)

    assert left.intersection == right.intersection == SHARED


def test_a_responder_works_on_its_own_ids_while_no_message_comes(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    served = pool.submit(serve, responder(B), pair[1], timeout_s=5)

    kinds = [read_message(pair[0])[1] for _ in range(1 + -(-len(B) // 4))]

    assert kinds == [Kind.OFFER] + [Kind.TAGS] * (len(kinds) - 1)
    pair[0].close()
    with pytest.raises(ConnectionError):
        served.result(5)


def test_messages_that_wait_are_answered_before_own_ids(pool: ThreadPoolExecutor) -> None:
    sent = threading.Event()

    def hold(progress: psi.Progress) -> None:
        sent.wait(5)

    connections = socket.socketpair()
    with connections[0], connections[1]:
        right = responder(B, protocol=ECDH, chunk=1)
        served = pool.submit(serve, right, connections[1], timeout_s=5, progress=hold)
        questions = list(initiator(A, protocol=ECDH, chunk=1).receive(read_message(connections[0])))
        connections[0].sendall(b"".join(map(framed, questions)))
        sent.set()

        kinds = [read_message(connections[0])[1] for _ in range(len(questions) + len(B))]

        connections[0].close()
        with pytest.raises(ConnectionError):
            served.result(5)
    assert kinds == [Kind.ANSWERS] * len(questions) + [Kind.TAGS] * len(B)


def test_a_joint_run_stops_for_the_join_and_then_goes_on(pool: ThreadPoolExecutor) -> None:
    third = [f"id {number}" for number in range(9, 40)]
    shared = sorted(set(SHARED) & set(third))
    links = [socket.socketpair(), socket.socketpair()]
    rights = [
        responder(ids, session=session, joint=helpers.PAIR_KEYS)
        for ids, session in ((B, b"first session"), (third, b"second session"))
    ]
    lefts = [initiator(A, session=session, joint=True) for session in (b"first session", b"second session")]
    served = [pool.submit(serve, run, link[1], timeout_s=5) for run, link in zip(rights, links, strict=True)]

    for run, link in zip(lefts, links, strict=True):
        ask(run, link[0], timeout_s=5)
    assert all(run.matched and not run.finished for run in lefts)
    assert psi.join(lefts) == shared
    for run, link in zip(lefts, links, strict=True):
        ask(run, link[0], timeout_s=5)

    for future in served:
        future.result(5)
    assert [run.intersection for run in rights] == [shared, shared]
    for ends in links:
        for each in ends:
            each.close()


def test_progress_is_told_until_all_is_done(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    told: dict[str, list[psi.Progress]] = {"left": [], "right": []}
    left, right = initiator(A), responder(B)

    served = pool.submit(serve, right, pair[1], timeout_s=5, progress=told["right"].append)
    ask(left, pair[0], timeout_s=5, progress=told["left"].append)
    served.result(5)

    for each in told.values():
        assert [progress.done for progress in each] == sorted(progress.done for progress in each)
        assert len({progress.done for progress in each}) > 3
        assert each[-1].done == each[-1].total > 0


def test_the_connection_stays_open_and_as_it_was(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    pair[0].settimeout(3.5)
    pair[1].settimeout(None)

    both(pool, initiator(A), responder(B), pair)

    assert (pair[0].gettimeout(), pair[1].gettimeout()) == (3.5, None)
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    pair[0].sendall(b"more")
    assert pair[1].recv(4, socket.MSG_WAITALL) == b"more"


def _certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a party of this test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - hour, now + hour)
    path.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def test_a_connection_with_tls_carries_a_run(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    certificate = _certificate(tmp_path / "party.pem")
    server, client = (ssl.SSLContext(each) for each in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    for context in (server, client):  # both show the certificate, and both ask for it
        context.check_hostname = False
        context.load_cert_chain(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    narrow(*pair)
    accepted = pool.submit(server.wrap_socket, pair[1], server_side=True)
    many = [f"id {number}" for number in range(500)]
    with client.wrap_socket(pair[0]) as left_end, accepted.result(5) as right_end:
        left, right = initiator(many, protocol=ECDH, chunk=100), responder(many, protocol=ECDH, chunk=100)

        both(pool, left, right, (left_end, right_end))

    assert left.cardinality == right.cardinality == len(many)


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_a_peer_that_says_nothing_is_given_up_after_the_deadline(
    role: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"the {role} sent no whole message within 0\.2 s"):
        if role == "initiator":
            serve(responder([]), pair[1], timeout_s=QUICK_S)
        else:
            ask(initiator(A), pair[0], timeout_s=QUICK_S)

    assert QUICK_S <= time.monotonic() - started < 5


def test_single_bytes_now_and_then_do_not_put_the_deadline_off(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            for byte in framed(bytes(1000)):
                pair[1].sendall(bytes([byte]))
                if over.wait(QUICK_S / 4):
                    return

    dripping = pool.submit(drip)
    try:
        with pytest.raises(TimeoutError, match="no whole message"):
            ask(initiator(A), pair[0], timeout_s=QUICK_S)
    finally:
        over.set()
    dripping.result(5)


def _offered(connections: tuple[socket.socket, socket.socket], many: list[str]) -> psi.Initiator:
    """An initiator that finds an offer and has more to say than the connection holds."""
    narrow(*connections)
    connections[1].sendall(b"".join(map(framed, responder(many, protocol=ECDH).start())))
    return initiator(many, protocol=ECDH, chunk=400)


def test_a_peer_that_does_not_read_is_given_up_after_the_deadline() -> None:
    many = [f"id {number}" for number in range(2000)]
    connections = socket.socketpair()
    with connections[0], connections[1]:
        run = _offered(connections, many)

        with pytest.raises(TimeoutError, match=r"the responder did not accept a whole message within 0\.2 s; \d+ of"):
            ask(run, connections[0], timeout_s=QUICK_S)


def test_a_peer_that_will_say_nothing_more_and_does_not_read_is_not_waited_for() -> None:
    many = [f"id {number}" for number in range(2000)]
    connections = socket.socketpair()
    with connections[0], connections[1]:
        run = _offered(connections, many)
        connections[1].shutdown(socket.SHUT_WR)
        started = time.monotonic()

        with pytest.raises(ConnectionError, match="the connection to the responder ended"):
            ask(run, connections[0], timeout_s=30)

        assert time.monotonic() - started < 15


def test_a_peer_that_floods_us_while_we_wait_to_write_fills_a_bounded_memory_and_no_time(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    class Counting(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            waits.append(timeout)
            return super().select(timeout)

    monkeypatch.setattr("psi.sockets.selectors.DefaultSelector", Counting)
    many = [f"id {number}" for number in range(2000)]
    connections = socket.socketpair()
    with connections[0], connections[1]:
        run = _offered(connections, many)
        asked = pool.submit(ask, run, connections[0], timeout_s=1)
        accepted = 0
        connections[1].settimeout(5)
        with contextlib.suppress(OSError):
            for _ in range(4000):
                connections[1].sendall(framed(bytes(1000)))
                accepted += 1000
        with pytest.raises(TimeoutError):
            asked.result(5)

    assert 18 * 1000 <= accepted < 100_000
    assert len(waits) < 100  # it sleeps while it waits


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_a_peer_that_goes_away_is_named(role: str, pair: tuple[socket.socket, socket.socket]) -> None:
    run: psi.Initiator | psi.Responder
    pair[0 if role == "initiator" else 1].close()
    with pytest.raises(ConnectionError, match=f"the connection to the {role} ended"):
        if role == "initiator":
            run = responder(B)
            serve(run, pair[1], timeout_s=5)
        else:
            run = initiator(A)
            ask(run, pair[0], timeout_s=5)

    with pytest.raises(psi.UsedTwice):
        list(run.receive(b""))


def test_a_peer_that_goes_away_in_the_middle_of_a_message_is_named(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].sendall(framed(bytes(100))[:50])
    pair[1].close()

    with pytest.raises(ConnectionError, match="the connection to the responder ended"):
        ask(initiator(A), pair[0], timeout_s=5)


@pytest.mark.parametrize("size", [0, MAX_MESSAGE_BYTES + 1, 2**32 - 1])
def test_a_length_that_no_message_has_is_refused_at_once(size: int, pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].sendall(size.to_bytes(4, "big"))

    with pytest.raises(psi.BadMessage, match=f"the responder announces a message of {size} bytes"):
        ask(initiator(A), pair[0], timeout_s=5)


def test_an_error_of_one_party_ends_the_wait_of_the_other_at_once(
    pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor
) -> None:
    served = pool.submit(serve, responder(B, session=b"another session"), pair[1], timeout_s=30)
    started = time.monotonic()

    with pytest.raises(psi.BadMessage, match="another task or session"):
        ask(initiator(A), pair[0], timeout_s=30)
    with pytest.raises(ConnectionError, match="the connection to the initiator ended"):
        served.result(20)

    assert time.monotonic() - started < 10
    assert pair[0].fileno() == pair[1].fileno() == -1


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_deadline_that_is_none_is_refused(timeout_s: float, pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(psi.BadArgument, match="timeout_s"):
        ask(initiator(A), pair[0], timeout_s=timeout_s)


def test_an_interrupt_ends_the_run(pair: tuple[socket.socket, socket.socket], pool: ThreadPoolExecutor) -> None:
    def stop(progress: psi.Progress) -> None:
        raise KeyboardInterrupt

    served = pool.submit(serve, responder(B), pair[1], timeout_s=5)

    with pytest.raises(KeyboardInterrupt):
        ask(initiator(A), pair[0], timeout_s=5, progress=stop)
    with pytest.raises(ConnectionError):
        served.result(5)

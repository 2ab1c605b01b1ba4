"""One party of an OpenMined PSI run, executed by the interpreter of OpenMined's own environment.

The library computes and leaves transport to its user. Here the two roles are two processes joined by a TCP connection
on loopback, and as much overlaps as the API allows: the server encrypts its own set while the client encrypts its
request, and the request goes in chunks, so that the client decrypts one answer while the server works on the
next (about 2n operations in a row instead of 3n). Each call is single-threaded inside. The setup message is of the RAW
kind, the only one that is exact.

The variant is the number of chunks. The server never learns the result: the library has no such mode.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import socket
import struct
import threading
import time
from typing import Any

from benchmarks.peers.party import Job, Report, Stopwatch, read_ids, read_job, send_report, wait_for_go, write_ids

LENGTH = struct.Struct("!Q")
UNUSED_FALSE_POSITIVE_RATE = 1e-9
"""CreateSetupMessage wants a rate for every data structure; RAW has no false positives."""


class Channel:
    """Messages with a length before each, over TCP; sending is done by a thread, so that it never holds up the work."""

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link = link
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()
        self.bytes_sent = 0

    def send(self, message: bytes) -> None:
        """Queue a message."""
        self.bytes_sent += LENGTH.size + len(message)
        self._outgoing.put(message)

    def receive(self) -> bytes:
        """The next message, whole."""
        (length,) = LENGTH.unpack(self._receive_exactly(LENGTH.size))
        return bytes(self._receive_exactly(length))

    def close(self) -> None:
        """Send what is queued, and close."""
        self._outgoing.put(None)
        self._sender.join()
        self._link.close()

    def _send_all(self) -> None:
        while (message := self._outgoing.get()) is not None:
            self._link.sendall(LENGTH.pack(len(message)))
            self._link.sendall(message)

    def _receive_exactly(self, length: int) -> bytearray:
        received = bytearray(length)
        view, at = memoryview(received), 0
        while at < length:
            count = self._link.recv_into(view[at:])
            if not count:
                raise ConnectionError("the other party closed the connection in the middle of a message")
            at += count
        return received


def connect(job: Job) -> Channel:
    """The connection between the parties: the sender listens, the receiver calls until it is there."""
    address = ("127.0.0.1", job.ports[1])
    if not job.receives:
        with socket.create_server(address) as door:
            door.settimeout(job.deadline_s)
            link, _ = door.accept()
    else:
        link = call(address, time.monotonic() + job.deadline_s)
    link.settimeout(job.deadline_s)
    return Channel(link)


def call(address: tuple[str, int], deadline: float) -> socket.socket:
    """Connect, trying again while nobody listens, until `deadline` on the monotonic clock."""
    while True:
        try:
            return socket.create_connection(address, timeout=1)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def chunk_bounds(size: int, chunks: int) -> list[tuple[int, int]]:
    """Where each of `chunks` nearly equal chunks of `size` ids begins and ends."""
    edges = [size * i // chunks for i in range(chunks + 1)]
    return list(itertools.pairwise(edges))


def run_client(psi: Any, channel: Channel, ids: list[str], chunks: int, watch: Stopwatch) -> tuple[Report, list[str]]:
    """The receiver's part: the measurements up to the moment it knows the result, and the result."""
    client = psi.client.CreateWithNewKey(True)
    bounds = chunk_bounds(len(ids), chunks)
    for start, end in bounds:
        channel.send(client.CreateRequest(ids[start:end]).SerializeToString())
    setup = psi.ServerSetup()
    setup.ParseFromString(channel.receive())
    common: list[str] = []
    for start, _ in bounds:
        response = psi.Response()
        response.ParseFromString(channel.receive())
        common.extend(ids[start + index] for index in client.GetIntersection(setup, response))
    return watch.stop(channel.bytes_sent), common


def run_server(psi: Any, channel: Channel, ids: list[str], chunks: int, other_size: int, watch: Stopwatch) -> Report:
    """The sender's part: its own set first, then each chunk of the request."""
    server = psi.server.CreateWithNewKey(True)
    setup = server.CreateSetupMessage(UNUSED_FALSE_POSITIVE_RATE, other_size, ids, psi.DataStructure.RAW)
    channel.send(setup.SerializeToString())
    for _ in range(chunks):
        request = psi.Request()
        request.ParseFromString(channel.receive())
        channel.send(server.ProcessRequest(request).SerializeToString())
    return watch.stop(channel.bytes_sent)


def main() -> None:
    """Take part in one run."""
    job = read_job()
    psi: Any = importlib.import_module("private_set_intersection.python")
    ids, chunks = read_ids(job.ids), int(job.variant)
    channel = connect(job)
    watch = wait_for_go()
    if job.receives:
        report, common = run_client(psi, channel, ids, chunks, watch)
        write_ids(job.answer, common)
    else:
        report = run_server(psi, channel, ids, chunks, job.other_size, watch)
    channel.close()
    send_report(report)


if __name__ == "__main__":
    main()

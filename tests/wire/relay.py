"""A TCP relay for tests: records what passes, slows it down, freezes it, cuts it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time


class Relay:
    """Listens on a free port and passes every connection on to `endpoint`.

    Args:
        endpoint: "tcp://address:port" of the real listener.
        bytes_per_s: speed towards the listener; None is as fast as it goes.
    """

    def __init__(self, endpoint: str, *, bytes_per_s: float | None = None) -> None:
        self.turn_to(endpoint)
        self._bytes_per_s = bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._sockets: list[socket.socket] = []
        self._closing = False
        self.frozen = False
        self.connections = 0
        self.recorded = bytearray()
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def turn_to(self, endpoint: str) -> None:
        """Pass connections on to another listener from now on."""
        address, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
        self._target = (address, int(port))

    def cut(self) -> None:
        """Reset every open connection; new ones are accepted."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()

    def close(self) -> None:
        self._closing = True
        self.cut()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self.connections += 1
            for each in (near, far):
                each.settimeout(5.0)
                self._sockets.append(each)
            for source, sink, speed in ((near, far, self._bytes_per_s), (far, near, None)):
                thread = threading.Thread(target=self._pump, args=(source, sink, speed))
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, bytes_per_s: float | None) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(source), contextlib.closing(sink):
            while not self._closing:
                if self.frozen:
                    time.sleep(0.02)
                    continue
                if not select.select([source], [], [], 0.05)[0]:
                    continue
                data = source.recv(16_384)
                if not data:
                    return
                self.recorded += data
                if bytes_per_s:
                    time.sleep(len(data) / bytes_per_s)
                sink.sendall(data)

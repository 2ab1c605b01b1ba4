"""Both ends of a link, on heterofed's whole stack and on nothing but sockets: what `benchmarks/wire.py` compares.

An end of any kind sends batches and answers them; the tensors are its own. Bytes, encryption and kinds of sockets are
the same for all. A bare end does what a loop on sockets has to do with a batch: it sends a header and the tensor's
memory, and makes a tensor of what comes. The least does not even that: its bytes are ready, in one part, and nobody
looks at what comes. Either sends large messages without copying them.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

import torch
import zmq

from heterofed.config import Settings
from heterofed.frames.codec import Codec, size_of
from heterofed.frames.forms import RawTensor
from heterofed.frames.messages import Embedding, Gradient
from heterofed.frames.tensors import pack, unpack
from heterofed.protocol.phases import Phase, Role
from heterofed.protocol.session import Session
from heterofed.scheduler.link import Link
from heterofed.wire.headers import HEADER_BYTES
from heterofed.wire.keys import KeyPair
from heterofed.wire.zeromq import CollaboratorTransport, HostTransport

HOST, OTHER = "host", "collaborator"

PATIENCE_S = 60.0
NOT_COPIED_FROM = 1 << 16
"""From so many bytes on a bare end sends without a copy; with fewer a copy is quicker."""

_DIGEST_BYTES = 32
_SIZES_BYTES = 5
"""What a small message of three frames says of their sizes."""

_ANY_NUMBER = 1 << 30


class End(ABC):
    """One end of a link. `size` tells (rows, width) of the embeddings that follow."""

    def __init__(self) -> None:
        self.tensor = torch.zeros(1, 1)

    def size(self, rows: int, width: int) -> None:
        """Have a tensor of this size, and begin a new exchange."""
        self.tensor = torch.randn(rows, width)

    @abstractmethod
    def ask(self) -> None:
        """Send an embedding."""

    @abstractmethod
    def answer(self) -> None:
        """Send a gradient."""

    @abstractmethod
    def heard(self) -> None:
        """Wait for what the other end sends."""

    @abstractmethod
    def close(self) -> None:
        """Leave."""


def header_bytes(rows: int, width: int) -> int:
    """Return what a message with an embedding of ours has besides the tensor, in all its frames."""
    tensor = torch.zeros(rows, width)
    message = Embedding(1, 400, rows, bytes(_DIGEST_BYTES), pack(tensor))
    return HEADER_BYTES + _SIZES_BYTES + size_of(Codec().encode(message)) - tensor.nbytes


class Ours(End):
    """An end on Link, codec, ReliableTransport and ZeroMQ, in the middle of a round.

    Args:
        role: of this end.
        host: the host's key.
        other: the collaborator's.
        encrypted: whether the link is.
        endpoint: where the host listens; empty at the host.
    """

    def __init__(self, role: Role, host: KeyPair, other: KeyPair, *, encrypted: bool, endpoint: str = "") -> None:
        super().__init__()
        self._role = role
        self._peer = OTHER if role is Role.HOST else HOST
        self._kind: type[Embedding] | type[Gradient] = Embedding if role is Role.HOST else Gradient
        transport: HostTransport | CollaboratorTransport
        if role is Role.HOST:
            transport = HostTransport(
                HOST, key=host, doorkeeper=_Only(other.public), plain_parties=None if encrypted else [OTHER]
            )
        else:
            transport = CollaboratorTransport(
                OTHER, host_party=HOST, endpoint=endpoint, host_public_key=host.public, key=other, encrypted=encrypted
            )
        self.endpoint = transport.endpoint
        self._link = Link(transport, role, [self._peer], Settings(), say=lambda line: None)
        self._link.expect_soon(True)  # as in a round in lock-step
        self._digest = secrets.token_bytes(_DIGEST_BYTES)

    def size(self, rows: int, width: int) -> None:
        """Have a tensor of this size, and be at the first batch of a round, with no limit to what is unanswered."""
        super().size(rows, width)
        session = Session(self._role, self._peer)
        session.phase, session.round, session.max_staleness = Phase.TRAINING, 1, _ANY_NUMBER
        self._link.sessions[self._peer] = session

    def ask(self) -> None:
        """Send an embedding."""
        session = self._link.sessions[self._peer]
        batch = session.batch + session.unanswered
        values = pack(self.tensor)
        self._link.send(self._peer, Embedding(1, batch, len(self.tensor), self._digest, values), PATIENCE_S)

    def answer(self) -> None:
        """Send a gradient."""
        batch = self._link.sessions[self._peer].batch
        self._link.send(self._peer, Gradient(1, batch, 0.5, False, pack(self.tensor)), PATIENCE_S)

    def heard(self) -> None:
        """Wait for the other end's message, and have it as a tensor."""
        _, message = self._link.expect(
            self._kind, from_=[self._peer], waiting_for="what was sent", timeout_s=PATIENCE_S
        )
        if isinstance(message.values, RawTensor):
            unpack(message.values)

    def close(self) -> None:
        """Leave."""
        self._link.close(0.0)


class Bare(End):
    """An end on one socket; arguments as `Ours`."""

    def __init__(self, role: Role, host: KeyPair, other: KeyPair, *, encrypted: bool, endpoint: str = "") -> None:
        super().__init__()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER if role is Role.HOST else zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = self._socket.sndtimeo = int(1000 * PATIENCE_S)
        self._header = b""
        self._copied = True
        self._to: list[bytes] = []
        if encrypted:
            ours = host if role is Role.HOST else other
            self._socket.curve_publickey, self._socket.curve_secretkey = ours.public, ours.secret
        if role is Role.HOST:
            self._to = [OTHER.encode()]
            self._socket.curve_server = encrypted
            self._socket.bind("tcp://127.0.0.1:0")
            self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        else:
            if encrypted:
                self._socket.curve_serverkey = host.public
            self._socket.routing_id = OTHER.encode()
            self.endpoint = endpoint
            self._socket.connect(endpoint)

    def size(self, rows: int, width: int) -> None:
        """Have a tensor of this size, and a header as long as ours."""
        super().size(rows, width)
        self._header = bytes(header_bytes(rows, width))
        self._copied = self.tensor.nbytes < NOT_COPIED_FROM

    def ask(self) -> None:
        """Send the header and the tensor's memory."""
        self._socket.send_multipart([self._header, self.tensor.numpy().data], 0, self._copied)

    def answer(self) -> None:
        """The same, to the one who is there."""
        self._socket.send_multipart([*self._to, self._header, self.tensor.numpy().data], 0, self._copied)

    def heard(self) -> None:
        """Wait for the other end's message, and have it as a tensor."""
        data = self._socket.recv_multipart(copy=False)[-1]
        torch.frombuffer(data.buffer, dtype=torch.float32).view(self.tensor.shape)

    def close(self) -> None:
        """Leave."""
        self._socket.close()
        self._context.term()


class Least(Bare):
    """An end on one socket that has its bytes and looks at none."""

    def size(self, rows: int, width: int) -> None:
        """Have as many bytes as ours has for a tensor of this size."""
        super().size(rows, width)
        self._data = memoryview(bytearray(len(self._header) + self.tensor.nbytes))

    def ask(self) -> None:
        """Send the bytes."""
        self._socket.send(self._data, 0, self._copied)

    def answer(self) -> None:
        """Send the bytes, to the one who is there."""
        self._socket.send(self._to[0], zmq.SNDMORE)
        self._socket.send(self._data, 0, self._copied)

    def heard(self) -> None:
        """Wait for the other end's bytes."""
        if self._to:
            self._socket.recv()
        self._socket.recv(copy=self._copied)


class _Only:
    """Lets one key in."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def party_of(self, public_key: bytes) -> str | None:
        """Return the collaborator for its key."""
        return OTHER if public_key == self._public else None

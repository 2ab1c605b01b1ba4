"""What the benchmark of many parties computes, next to nothing, and a throwaway loop that does it on bare sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
import zmq
from torch import Tensor, nn, optim

from benchmarks.common import tcp_bytes
from psi.bench_processes import hear, say

HEADER_BYTES = 16
"""Of a message of the bare loop: enough for a round, a batch and a number of rows."""

STUCK_MS = 60_000
"""Longest wait for a message."""


@dataclass(frozen=True)
class Shape:
    """What crosses."""

    rows: int
    width: int
    batches: int


class Ready(nn.Module):
    """A feature model whose embedding is there already: a parameter of (rows, width)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(0.01 * torch.randn(shape.rows, shape.width))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embedding; (rows, …) -> (rows, width)."""
        return self.table


class Infer(nn.Module):
    """The least that makes one number of all embeddings."""

    def __init__(self, parties: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(parties * width, 1)

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """(rows, width) of each party -> a scalar."""
        loss: Tensor = self.linear(torch.cat(list(embeddings), dim=1)).mean()
        return loss


def sgd(model: nn.Module) -> optim.Optimizer:
    """What every model here is trained with."""
    return optim.SGD(model.parameters(), lr=1e-3)


def host_barely(pipe: Connection, shape: Shape, count: int, public: str, secret: str) -> None:
    """The host of the bare loop: the work of a worker."""
    torch.set_num_threads(1)
    feature, infer = Ready(shape), Infer(count + 1, shape.width)
    optimizers = [sgd(infer), sgd(feature)]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.rcvtimeo = STUCK_MS
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = public.encode(), secret.encode()
        port = router.bind_to_random_port("tcp://127.0.0.1")
        say(pipe, endpoint=f"tcp://127.0.0.1:{port}")
        for _ in range(count):
            router.recv_multipart()  # one word from each: all are there
        say(pipe, ready=True)
        while hear(pipe):
            before = _now()
            for _ in range(shape.batches):
                leaves: dict[bytes, Tensor] = {}
                while len(leaves) < count:
                    sender, _, data = router.recv_multipart(copy=False)
                    leaf = torch.frombuffer(data.buffer, dtype=torch.float32).view(shape.rows, shape.width)
                    leaf.requires_grad_().register_post_accumulate_grad_hook(gradient_sender(router, sender.bytes))
                    leaves[sender.bytes] = leaf
                for each in optimizers:
                    each.zero_grad()
                torch.autograd.backward(infer([feature(leaf), *leaves.values()]))
                for each in optimizers:
                    each.step()
            say(pipe, **{name: now - before[name] for name, now in _now().items()})


def gradient_sender(router: zmq.Socket[bytes], to: bytes) -> Callable[[Tensor], None]:
    """Return what sends a leaf's gradient to a peer."""

    def send(leaf: Tensor) -> None:
        gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        router.send_multipart([to, bytes(HEADER_BYTES), gradient.numpy().data])

    return send


def collaborate_barely(pipe: Connection, shape: Shape, endpoint: str, public: str, number: int) -> None:
    """A collaborator of the bare loop: the work of a worker."""
    torch.set_num_threads(1)
    feature = Ready(shape)
    optimizer = sgd(feature)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = STUCK_MS
        dealer.routing_id = bytes([number])
        dealer.curve_serverkey = public.encode()
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.connect(endpoint)
        dealer.send(b"here")
        while hear(pipe):
            for _ in range(shape.batches):
                embedding = feature(torch.empty(shape.rows, 1))
                dealer.send_multipart([bytes(HEADER_BYTES), embedding.detach().numpy().data])
                _, data = dealer.recv_multipart(copy=False)
                optimizer.zero_grad()
                gradient = torch.frombuffer(data.buffer, dtype=torch.float32).view(shape.rows, shape.width)
                torch.autograd.backward(embedding, gradient)
                optimizer.step()


def _now() -> dict[str, float]:
    sent, received = tcp_bytes() or (0, 0)
    return {
        "seconds": time.perf_counter(),
        "cpu_s": time.process_time(),
        "thread_s": time.thread_time(),
        "tcp_sent": sent,
        "tcp_received": received,
    }

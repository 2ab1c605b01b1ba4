"""One party computes at a time: each has random generators of its own, and lets the others compute while it waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from heterofed.errors import PeerTimeout
from heterofed.wire.transport import Buffer, Delivery, Transport

AT_ONCE_S = 0.001
"""Enough for a send that does not have to wait for room."""

RandomState = tuple[torch.Tensor, object, object]
"""Of torch's, Python's and numpy's generators."""


class Turn:
    """Lets one party compute at a time, with random generators of its own.

    Args:
        seeds: one for each party.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._states = [seeded_state(each) for each in seeds]

    @contextmanager
    def taken(self, party: int) -> Iterator[None]:
        """Hold the turn, with this party's generators."""
        with self._lock:
            set_state(self._states[party])
            try:
                yield
            finally:
                self._states[party] = get_state()

    @contextmanager
    def given_up(self, party: int) -> Iterator[None]:
        """Let the others compute while this party waits; called with the turn held."""
        self._states[party] = get_state()
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            set_state(self._states[party])


def get_state() -> RandomState:
    """Return where torch's, Python's and numpy's generators are."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def set_state(state: RandomState) -> None:
    """Put them where they were."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])  # type: ignore[arg-type]  # what getstate gave
    np.random.set_state(state[2])  # type: ignore[arg-type]  # what get_state gave


def seeded_state(seed: int) -> RandomState:
    """Return where they are when they begin with a seed; they themselves stay where they are."""
    outside = get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    state = get_state()
    set_state(outside)
    return state


class InTurn(Transport):
    """A transport whose waits let the other parties compute."""

    def __init__(self, inner: Transport, turn: Turn, index: int) -> None:
        self.party = inner.party
        self._inner = inner
        self._turn = turn
        self._index = index

    def send(self, to: str, frames: Sequence[Buffer], timeout_s: float = 0.0) -> None:
        """As the inner transport.

        The turn is kept unless the queue is full: a gradient may leave from one of autograd's own threads, which the
        next party needs for its backward pass.
        """
        try:
            self._inner.send(to, frames, AT_ONCE_S)
        except PeerTimeout:
            with self._turn.given_up(self._index):
                self._inner.send(to, frames, timeout_s)

    def receive(self, timeout_s: float) -> Delivery | None:
        """As the inner transport."""
        with self._turn.given_up(self._index):
            return self._inner.receive(timeout_s)

    def down_for(self, party: str) -> float:
        """As the inner transport."""
        return self._inner.down_for(party)

    def close(self, linger_s: float = 2.0) -> None:
        """As the inner transport."""
        self._inner.close(linger_s)

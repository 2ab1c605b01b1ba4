"""A wait that is soon over stays awake: it looks again and again for a moment before it sleeps.

In lock-step every batch has a wait of some hundred microseconds at either end. A thread that sleeps through it pays for
being woken, and on many machines for a core that has gone to rest meanwhile: on two cores a round of the digits demo
took a twelfth longer. So a wait does not sleep at once where all of this is so: the caller says that what it waits for
comes soon, the wait before was a short one, and its message was small. Else to stay awake would cost a core and gain
nothing: large messages keep the network threads busy, which want that core themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import zmq

from heterofed.cores import cores

AWAKE_S = 0.002
"""The longest time to stay awake in one wait, and so the longest wait that is a short one."""

SMALL_BYTES = 1 << 20
"""The largest message after which a wait stays awake."""

AT_ONCE = int(zmq.NOBLOCK)

_step_aside: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


class Watch:
    """Waits for the first part of a message at one socket, awake for a moment where that is likely to do.

    Args:
        receive: the socket's `recv`.
    """

    def __init__(self, receive: Callable[..., Any]) -> None:
        self._receive = receive
        self._may = cores() > 1  # on the only core nothing could come meanwhile
        self._short = False
        """Whether the last wait was a short one, for a small message."""

        self.soon = False
        """Whether the caller says that what it waits for comes soon."""

    def wait(self, timeout_ms: int) -> zmq.Frame:
        """Return the first part of the next message.

        Args:
            timeout_ms: what the socket's RCVTIMEO is: how long a sleeping call waits. Staying awake comes on top of it,
                for as long again at most, and never for longer than `AWAKE_S`.

        Raises:
            zmq.Again: none came.
        """
        began = time.perf_counter()
        if self.soon and self._short and self._may:
            until = began + min(AWAKE_S, timeout_ms / 1000)
            while time.perf_counter() < until:
                try:
                    part: zmq.Frame = self._receive(AT_ONCE, copy=False)
                except zmq.Again:
                    _step_aside()  # others who want this core come first, the network thread among them
                else:
                    return part
        self._short = False
        part = self._receive(copy=False)
        self._short = time.perf_counter() - began < AWAKE_S
        return part

    def note_size(self, size: int) -> None:
        """Note how large the message was whose first part `wait` has returned, in bytes."""
        if size > SMALL_BYTES:
            self._short = False

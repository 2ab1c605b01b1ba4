"""Going through the motions while waiting, so that what comes next is quick when its message is there.

A pass through a model drives everything else out of a core's caches: measured after one of 2.5 ms, to look whether an
embedding is finite, to pack it, to encode its message take ten times as long as right after each other, 0.4 ms in all,
while every other party waits. A party that has nothing to do but wait does these things once with a made-up tensor,
step by step, until its message is there. Nothing of it is kept, and no random number is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD

from heterofed.finite import is_finite
from heterofed.frames.codec import Codec
from heterofed.frames.messages import AnyMessage, Embedding, Gradient
from heterofed.frames.precision import unpack_as
from heterofed.frames.tensors import pack
from heterofed.grads.cut_layer import CutLayer
from heterofed.wire.parts import from_parts, keep, to_parts

COLD_AFTER_S = 0.001
"""After computing for less than so many seconds, what was used before is still at hand."""

_MOST_BYTES = 1 << 16
_HEADER = bytes(48)
_SHAPE = (4, 4)


class Rehearsal:
    """What one party does between the coming of a message and its answer, on a small scale; a context for the wait.

    Args:
        arrived: whether a message is there, or nobody can tell: then nothing is rehearsed.
        clock: what this thread has computed, in seconds.
    """

    def __init__(self, arrived: Callable[[], bool], clock: Callable[[], float] = time.thread_time) -> None:
        self._arrived = arrived
        self._clock = clock
        self._woke = clock()
        self._codec = Codec()
        self._numbers = torch.zeros(_SHAPE, dtype=torch.float32, device="cpu")
        self._parts = self._parts_of(self._comes())
        self._message: AnyMessage | None = None
        self._tensor = self._numbers
        self._steps: Sequence[Callable[[], object]] = (self._read, self._take, *self._others())

    def __enter__(self) -> None:
        self.before_waiting()

    def __exit__(self, *exc_info: object) -> None:
        self._woke = self._clock()

    def before_waiting(self) -> int:
        """Go through the steps until a message is there, if it pays; return how many were gone through."""
        if self._clock() - self._woke < COLD_AFTER_S or torch.is_inference_mode_enabled():
            return 0
        for done, step in enumerate(self._steps):
            if self._arrived():
                return done
            step()
        return len(self._steps)

    def _comes(self) -> AnyMessage:
        return Gradient(1, 0, 0.0, False, pack(self._numbers))

    def _others(self) -> Sequence[Callable[[], object]]:
        return (self._differentiate,)

    def _parts_of(self, message: AnyMessage) -> list[memoryview]:
        parts = to_parts([_HEADER, *keep(self._codec.encode(message))], _MOST_BYTES)
        return [memoryview(bytearray(part)) for part in parts if isinstance(part, bytes)]

    def _read(self) -> None:
        frames = from_parts(self._parts, _MOST_BYTES)
        if isinstance(frames, list):
            self._message = self._codec.decode(frames[1:])

    def _take(self) -> None:
        if isinstance(self._message, Embedding | Gradient):
            self._tensor = unpack_as(self._message.values, None)
            is_finite(self._tensor)

    def _differentiate(self) -> None:
        with torch.enable_grad():
            output = self._numbers.detach().requires_grad_() @ self._numbers
            torch.autograd.backward(output, self._tensor)


class HostRehearsal(Rehearsal):
    """At a host: an embedding comes, becomes a leaf, is fused with others and inferred from; its gradient leaves."""

    def _comes(self) -> AnyMessage:
        return Embedding(1, 0, _SHAPE[0], bytes(16), pack(self._numbers))

    def _others(self) -> Sequence[Callable[[], object]]:
        self._cut = CutLayer(self._answer, lambda line: None)
        self._optimizer = SGD([nn.Parameter(self._numbers.clone())])
        self._loss = self._numbers
        return self._infer, self._differentiate

    def _infer(self) -> None:
        self._optimizer.zero_grad()
        with torch.enable_grad():
            leaf = self._cut.open({"": self._tensor}, frozenset({""}))[""]
            fused = torch.cat([self._numbers, leaf], dim=1)
            self._loss = torch.log_softmax(fused @ fused.T.detach(), dim=-1).mean()

    def _differentiate(self) -> None:
        torch.autograd.backward(self._loss)

    def _answer(self, peer: str, gradient: Tensor) -> None:
        self._parts_of(Gradient(1, 0, 0.0, False, pack(gradient)))

"""The host's side of predictions: asks the collaborators for embeddings of rows that it names; checks what comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heterofed.errors import AlignmentError, EmbeddingError, HeterofedError
from heterofed.features.alignment import digest_of_places, same
from heterofed.features.form import EmbeddingForm
from heterofed.frames.forms import Blob
from heterofed.frames.messages import MOST_ASKED, Ask, BatchesEnd, Draw, Embedding, Proceed
from heterofed.frames.precision import unpack_as
from heterofed.frames.tensors import DTYPE_NAMES, TORCH_DTYPES
from heterofed.protocol.phases import TEST_AHEAD
from heterofed.scheduler.link import Link
from heterofed.scheduler.waits import Deadline

Places = NDArray[np.int64]
"""Places among the shared ids, (rows,)."""

Form = tuple[str, tuple[int, ...]]
"""Name of the dtype and shape of one row of an embedding."""

MADE_ALIKE = frozenset({("bfloat16", "float32"), ("float32", "bfloat16"), ("float64", "float32")})
"""Dtype of an answer, and that of the training which may have made it: a party may predict with mixed precision and
train without it, or the other way; and what crosses with a precision that was agreed on arrives as float32."""


class Asker:
    """Asks all collaborators of a session for embeddings, request by request.

    Args:
        link: to them.
        key: of the session, for digests.
        round_: the last round that was trained.
        timeout_s: longest wait for an embedding, in seconds; 0: no limit.
        room_s: longest wait for room in a peer's queue, in seconds; 0: no limit.
        finite: whether embeddings with NaN or infinite numbers are refused.
        forms: what each collaborator's embeddings were in training, where that is known.
    """

    def __init__(
        self,
        link: Link,
        key: bytes,
        round_: int,
        *,
        timeout_s: float,
        room_s: float,
        finite: bool,
        forms: Mapping[str, Form],
    ) -> None:
        self._link = link
        self._key = key
        self._round = round_
        self._timeout_s = timeout_s
        self._room_s = room_s
        self._expected = forms
        self.over = False
        """Whether the session is: what was asked for and is not read yet is let be."""
        self._forms = {peer: EmbeddingForm(peer, "the feature model", finite=finite) for peer in link.peers}

    @property
    def peers(self) -> list[str]:
        """Feature keys of those that are asked."""
        return self._link.peers

    @property
    def seen(self) -> dict[str, Form]:
        """Dtype and shape of one row of each party's embeddings, where there was one."""
        return {peer: form.seen for peer, form in self._forms.items() if form.seen is not None}

    def stream(self, places: Places, batch_size: int, draw: Draw | None = None) -> Stream:
        """Ask for the embeddings of these rows, one at least; they can be taken as many at a time as are wanted.

        Args:
            places: of the rows.
            batch_size: rows of every batch but the last.
            draw: of every party's model; None: as they are.
        """
        size = min(batch_size, MOST_ASKED)
        rows = MOST_ASKED // size * size
        requests = [places[start : start + rows] for start in range(0, len(places), rows)]
        self._ask(requests[0], size, draw)
        return Stream(self._read(requests, size, draw), self)

    def _ask(self, places: Places, size: int, draw: Draw | None) -> None:
        self._link.broadcast(Ask(self._round, size, Blob(places.astype("<u4").tobytes()), draw), self._room_s)

    def _read(
        self, requests: Sequence[Places], size: int, draw: Draw | None
    ) -> Generator[dict[str, Tensor], None, None]:
        """Yield the batches of all requests, of which the first is made already; who stops leaves the session READY."""
        for number, places in enumerate(requests):
            batches = -(-len(places) // size)
            for batch in range(batches):
                found = self._next(places, size, batch)
                more = batch + 1 == batches and number + 1 < len(requests)
                if more:  # before the host makes use of this batch
                    self._ask(requests[number + 1], size, draw)
                try:
                    yield found
                except GeneratorExit:
                    if self.over:
                        raise
                    left = requests[number + 1] if more else places
                    for each in range(0 if more else batch + 1, -(-len(left) // size)):
                        self._next(left, size, each)
                    raise

    def _next(self, places: Places, size: int, batch: int) -> dict[str, Tensor]:
        batches = -(-len(places) // size)
        found = self._receive(places[batch * size : (batch + 1) * size], batch)
        if batch + TEST_AHEAD + 1 < batches:  # the last ones want no word
            self._link.broadcast(Proceed(self._round, batch, None, False), self._room_s)
        if batch + 1 == batches:
            self._end(batches)
        return found

    def _receive(self, places: Places, batch: int) -> dict[str, Tensor]:
        digest = digest_of_places(places, self._key)
        deadline = Deadline(self._timeout_s, self._link.clock)
        found: dict[str, Tensor] = {}
        while pending := [peer for peer in self.peers if peer not in found]:
            peer, message = self._link.expect(
                (Embedding, BatchesEnd),
                from_=pending,
                waiting_for=f"embedding of batch {batch} of a prediction",
                timeout_s=deadline,
            )
            if isinstance(message, BatchesEnd):
                raise self._misaligned(peer, f"ended after {message.batches} batches", "one for each that was asked")
            if message.rows != len(places):
                raise self._misaligned(peer, f"sent {message.rows} rows", f"the {len(places)} that were asked")
            if not same(digest, message.digest):
                raise self._misaligned(peer, f"sent {message.rows} rows of other ids", "those that were asked")
            try:
                found[peer] = self._checked(peer, self._forms[peer].check(unpack_as(message.values, None, None)))
            except HeterofedError as error:
                raise error.located(party=peer) from None
        return found

    def _checked(self, peer: str, values: Tensor) -> Tensor:
        """Return embeddings as the model that was trained gave them, which the infer model has learnt to take.

        Raises:
            EmbeddingError: they are those of another model.
        """
        form = self._expected.get(peer)
        if form is None:
            return values
        (before, shape), now = form, DTYPE_NAMES[values.dtype]
        if tuple(values.shape[1:]) != tuple(shape) or (now != before and (now, before) not in MADE_ALIKE):
            raise EmbeddingError(
                f"sent an embedding of {now} and shape {tuple(values.shape[1:])} for each row",
                party=peer,
                expected=f"{before} and {tuple(shape)}, as in training",
                advice="Load the model that was trained in this run.",
            )
        return values if now == before else values.to(TORCH_DTYPES[before])

    def _end(self, batches: int) -> None:
        deadline = Deadline(self._timeout_s, self._link.clock)
        pending = set(self.peers)
        while pending:
            peer, message = self._link.expect(
                (BatchesEnd, Embedding), from_=pending, waiting_for="end of a prediction", timeout_s=deadline
            )
            if isinstance(message, Embedding):
                raise self._misaligned(peer, f"has more than the {batches} batches that were asked", "as many")
            pending.discard(peer)

    def _misaligned(self, peer: str, problem: str, expected: str) -> AlignmentError:
        return AlignmentError(
            problem,
            party=peer,
            phase="predicting",
            expected=expected,
            advice="Check that all parties run the same version of heterofed.",
        )


class Stream:
    """Rows of embeddings in the order in which they were asked for.

    Args:
        batches: gives them as they come.
        asker: has asked for them.
    """

    def __init__(self, batches: Generator[dict[str, Tensor], None, None], asker: Asker) -> None:
        self._batches = batches
        self._asker = asker
        self._begun = False
        self._first = asker.peers[0]
        self._waiting: deque[dict[str, Tensor]] = deque()
        self._rows = 0

    def take(self, rows: int) -> dict[str, Tensor]:
        """Return the next rows, one at least, of every party: {feature key: (rows, width, …)}."""
        self._begun = True
        while self._rows < rows:
            batch = next(self._batches)
            self._waiting.append(batch)
            self._rows += len(batch[self._first])
        self._rows -= rows
        pieces: list[dict[str, Tensor]] = []
        while rows:
            piece = self._waiting.popleft()
            if len(piece[self._first]) > rows:
                self._waiting.appendleft({peer: each[rows:] for peer, each in piece.items()})
                piece = {peer: each[:rows] for peer, each in piece.items()}
            rows -= len(piece[self._first])
            pieces.append(piece)
        if len(pieces) == 1:
            return pieces[0]
        return {peer: torch.cat([each[peer] for each in pieces]) for peer in pieces[0]}

    def close(self) -> None:
        """Let the rest of a request come, so that another one can be made; not where the session is over."""
        if not self._begun and not self._asker.over:
            self._begun = True
            next(self._batches)  # a generator that was not begun would be closed without a word
        self._batches.close()

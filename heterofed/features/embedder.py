"""Local rows -> embeddings, by either door: the user's own generator, or the framework's batches and `load_batch`.

What comes out is checked at once, so that the error is raised at the party whose code made it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from heterofed.errors import AlignmentError, EmbeddingError
from heterofed.features.batches import RoundOrder
from heterofed.features.form import EmbeddingForm


@dataclass(frozen=True)
class LocalBatch:
    """One batch as this party sees it."""

    embedding: Tensor
    """(rows, width, …), floating point; in training it carries its autograd graph."""

    labels: Any
    """Whatever the host's code gave, of length rows; None at a collaborator."""

    digest: bytes
    """Keyed digest of which rows these are; empty where the user's code chose them."""

    again: Callable[[], Tensor] | None = None
    """Runs the feature model on the same rows once more, as it is now; None where the user's code ran it."""


PendingBatch = Callable[[], LocalBatch]
"""A batch whose rows are there; calling it, once, runs the feature model on them, unless the user's code has."""


class BatchSource(Protocol):
    """Gives the batches of one pass in order."""

    def pending(self) -> Iterator[PendingBatch]:
        """Yield the batches of the pass, each to be embedded before the next one is asked for."""

    def __iter__(self) -> Iterator[LocalBatch]: ...

    def prefetch(self) -> None:
        """Do what can be done for the next batch before this one's gradient has come."""


Guard = Callable[[str], AbstractContextManager[None]]
"""Marks a call of the user's code; what it raises becomes an error that names what was called."""

Place = Callable[[Any], Any]
"""Returns what the user's code gave, moved to where the models are."""


def _as_it_is(value: Any) -> Any:
    return value


class UserBatches:
    """Batches that the user's `iterate_*` generator chooses.

    Args:
        generate: calls the user's method.
        rows_expected: rows that one pass should have.
        with_labels: True at the host, where it yields (embedding, labels).
        form: checks the embeddings.
        method: the user's method, for the text of errors.
        guard: frames every call of the user's code.
        place: puts labels where the models are.
        warn: told once, in one line, when a pass has more or fewer rows than expected.
    """

    def __init__(
        self,
        generate: Callable[[], Iterator[Any]],
        *,
        rows_expected: int,
        with_labels: bool,
        form: EmbeddingForm,
        method: str,
        guard: Guard,
        warn: Callable[[str], None],
        place: Place = _as_it_is,
    ) -> None:
        self._generate = generate
        self._rows_expected = rows_expected
        self._with_labels = with_labels
        self._form = form
        self._method = method
        self._guard = guard
        self._warn = warn
        self._place = place

    def __iter__(self) -> Iterator[LocalBatch]:
        return (each() for each in self.pending())

    def pending(self) -> Iterator[PendingBatch]:
        """Yield the batches as the user's generator makes them, embedded already."""
        with self._guard(self._method):
            produced = self._generate()
        if not isinstance(produced, Iterator):
            raise EmbeddingError(
                f"{self._method} returned {type(produced).__name__}", expected="a generator: use yield, not return"
            )
        rows, told = 0, False
        try:
            while True:
                with self._guard(self._method):
                    each = next(produced, _END)
                if each is _END:
                    break
                local = self._checked(each)
                rows += local.embedding.shape[0]
                if rows > self._rows_expected and not told:
                    told = True
                    self._warn(f"{self._method} yields more rows than the {self._rows_expected} ids of this pass")
                yield partial(as_made, local)
            if rows < self._rows_expected:
                self._warn(f"{self._method} yielded {rows} rows for the {self._rows_expected} ids of this pass")
        finally:
            if isinstance(produced, Generator):
                produced.close()

    def _checked(self, each: Any) -> LocalBatch:
        if not self._with_labels:
            return LocalBatch(self._form.check(each), None, b"")
        if not isinstance(each, tuple) or len(each) != 2:
            raise EmbeddingError(f"{self._method} yielded {type(each).__name__}", expected="(embedding, labels)")
        embedding = self._form.check(each[0])
        check_labels(each[1], embedding.shape[0], self._method)
        return LocalBatch(embedding, self._place(each[1]), b"")

    def prefetch(self) -> None:
        """Nothing: the user's generator decides when it reads."""


_END = object()


def as_made(local: LocalBatch) -> LocalBatch:
    """Return a batch that is embedded already."""
    return local


class PlannedBatches:
    """Batches of a `RoundOrder`, read by the user's `load_batch`.

    Args:
        order: the ids of this pass and where they are cut.
        load: calls the user's `load_batch(ids)`.
        model: makes embeddings of what it returned.
        place: puts what it returned where the models are.
        with_labels: True at the host, where `load_batch` returns (inputs, labels).
        form: checks the embeddings.
        guard: frames every call of the user's code.
        first: the first batch to give, from 0; those before it are not loaded.
        in_use: how many batches may be in use at a time, besides the one that is loaded.
        method: what errors call `load`.
    """

    def __init__(
        self,
        order: RoundOrder,
        *,
        load: Callable[[list[str]], Any],
        model: Callable[[Any], Any],
        with_labels: bool,
        form: EmbeddingForm,
        guard: Guard,
        place: Place = _as_it_is,
        first: int = 0,
        in_use: int = 1,
        method: str = "load_batch",
    ) -> None:
        self._first = first
        self._order = order
        self._load = load
        self._model = model
        self._with_labels = with_labels
        self._form = form
        self._guard = guard
        self._place = place
        self._queue: Iterator[tuple[int, list[str]]] = iter(())
        self._next: tuple[bytes, int, Any, Any] | None = None
        self._method = method
        self._in_use: deque[tuple[Any, Any]] = deque(maxlen=in_use)

    def __iter__(self) -> Iterator[LocalBatch]:
        return (each() for each in self.pending())

    def pending(self) -> Iterator[PendingBatch]:
        """Yield the batches of the order, loaded; the feature model runs when one is called."""
        self._queue = islice(enumerate(self._order), self._first, None)
        self._next = None
        self._in_use.clear()
        while True:
            self.prefetch()
            if self._next is None:
                return
            loaded = self._next
            self._next = None
            yield partial(self._embed, *loaded)

    def _embed(self, digest: bytes, rows: int, inputs: Any, labels: Any) -> LocalBatch:
        again = partial(self._run_model, inputs, rows)
        return LocalBatch(again(), labels, digest, again)

    def _run_model(self, inputs: Any, rows: int) -> Tensor:
        with self._guard("the feature model"):
            output = self._model(inputs)
        embedding = self._form.check(output)
        if embedding.shape[0] != rows:
            raise AlignmentError(
                f"{self._method} and the feature model gave {embedding.shape[0]} rows for {rows} ids",
                expected="one row for each id, in their order",
            )
        return embedding

    def prefetch(self) -> None:
        """Load the next batch's rows, unless they are there already."""
        if self._next is not None:
            return
        batch, ids = next(self._queue, (0, None))
        if ids is None:
            return
        with self._guard(self._method):
            loaded = self._load(ids)
        labels = None
        if self._with_labels:
            if not isinstance(loaded, tuple) or len(loaded) != 2:
                raise EmbeddingError(f"{self._method} returned {type(loaded).__name__}", expected="(inputs, labels)")
            loaded, labels = loaded
            check_labels(labels, len(ids), self._method)
        # Batches before may still wait for their gradients, or for the test that they are part of. We hold them, so
        # their memory can come again only if the user's code has written over it.
        if any(_same_memory(loaded, old) or _same_memory(labels, known) for old, known in self._in_use):
            raise EmbeddingError(
                f"{self._method} returned memory that still holds the batch before",
                expected="new memory for every batch",
                advice="Return a copy (clone(), copy()) of a buffer that you use again.",
            )
        self._in_use.append((loaded, labels))
        self._next = (self._order.digest_of(batch), len(ids), self._place(loaded), self._place(labels))


def _same_memory(new: object, old: object) -> bool:
    """Whether two arrays begin at one address; anything else is taken to be new."""
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return new.data_ptr() == old.data_ptr() != 0
    if isinstance(new, np.ndarray) and isinstance(old, np.ndarray):
        return new.ctypes.data == old.ctypes.data
    return False


def check_labels(labels: Any, rows: int, method: str) -> None:
    """Check that there is one label for each row; of a dict or tuple of labels, each member has one.

    Raises:
        AlignmentError: there is not, or the labels have no length.
    """
    if isinstance(labels, dict | tuple) and labels:
        for each in labels.values() if isinstance(labels, dict) else labels:
            check_labels(each, rows, method)
        return
    try:
        count = len(labels)
    except TypeError:
        raise AlignmentError(f"{method} gave labels of type {type(labels).__name__}", expected="a tensor") from None
    if count != rows:
        raise AlignmentError(
            f"{method} gave {count} labels for {rows} rows",
            expected="one label for each row",
            advice="Make the labels from the same rows as the embedding.",
        )

"""What a host predicts with the other parties: of ids in any order, again and again, a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.batches import RoundOrder
from heterofed.grads.cut_layer import device_of
from heterofed.scheduler.checks import check_count
from heterofed.scheduler.predicting.asking import Asker, Stream
from heterofed.scheduler.predicting.evaluating import batches_of
from heterofed.training.devices import moved

if TYPE_CHECKING:
    from heterofed.scheduler.host_course import HostCourse

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

MOST_ROWS = 65_536
"""Rows of one batch at most."""


class RowStatus(Enum):
    """Whether there is a prediction of an id, and of what it is made; the values are what people see."""

    PREDICTED = "predicted"
    """Every party's embedding is that of this id."""
    PARTIAL = "partial"
    """Some parties' embeddings are stand-ins, because these parties are absent or do not have this id."""
    UNKNOWN = "unknown"
    """There is none: the host does not have this id, or other parties do not and stand-ins are not wanted."""


@dataclass(frozen=True)
class PredictedBatch:
    """A few of the ids that were asked for, in the order in which they were."""

    ids: list[str]
    status: list[RowStatus]
    """One for each id."""
    stand_ins: list[tuple[str, ...]]
    """For each id the parties whose embedding was a stand-in; () where it was PREDICTED or is UNKNOWN."""
    values: Any
    """What `predict_a_batch` gave for the ids that are not UNKNOWN, in their order; None where all are."""


class Predictions:
    """The way to predictions while it is open; `HostScheduler.open_predictions` and `conclude` give it.

    Every request names ids among those that it was opened for; they may repeat, and be asked again. The same ids in
    the same order, in batches of the same size, give the same bits. One request at a time: read an iterator to its
    end, or close it, before the next one. For one thread.

    Args:
        party: the host.
        asked: the ids that it was opened for.
        known: those that the host has.
        shared: those that all parties present have, in their own order.
        asker: asks the others; None where nobody is there.
        parties: feature keys of all parties of the task, host first.
        absent: those of them that are not here.
        stand_ins: feature key -> (1, width, …), in the place of what is not known; None: there is to be no such thing.
        means: feature key -> (1, width, …), the mean embedding of each party in training, where it was kept.
    """

    def __init__(
        self,
        party: HostCourse,
        *,
        asked: Sequence[str],
        known: Collection[str],
        shared: Sequence[str],
        asker: Asker | None,
        parties: Sequence[str],
        absent: Sequence[str] = (),
        stand_ins: Mapping[str, Tensor] | None = None,
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.asked = tuple(asked)
        """The ids that it was opened for."""
        self.parties = tuple(parties)
        """All parties of the task, the host first."""
        self.absent = tuple(absent)
        """The parties that are not here."""
        self._party = party
        self._known = frozenset(known)
        self._places = {each: place for place, each in enumerate(shared)}
        self._asker = asker
        self._stand_ins = stand_ins
        self._means = dict(means or {})
        self._busy = False
        self._over = ""

    @property
    def shared(self) -> int:
        """How many of the ids all parties present have."""
        return len(self._places)

    def mean_embedding(self, party: str) -> Tensor:
        """Return a party's mean embedding over train ids, (1, width, …), as it was at the end of training.

        Raises:
            ConfigError: it was not kept, or the task has no such party.
        """
        if party not in self._means:
            kept = ", ".join(self._means) or "none: mean_rows is 0"
            raise ConfigError(
                f"there is no mean embedding of {party}", expected=f"a party of which one was kept ({kept})"
            )
        return self._means[party].clone()

    def status_of(self, ids: Sequence[str]) -> list[RowStatus]:
        """Return what comes of each id, before it is asked for."""
        return [self._status(each) for each in ids]

    def projections(
        self, ids: Sequence[str] | None = None, *, batch_size: int | None = None
    ) -> Generator[tuple[list[str], dict[str, Tensor]], None, None]:
        """Yield the embeddings of the ids that are not UNKNOWN, batch by batch, in the order of the ids.

        Args:
            ids: which; None: all that it was opened for.
            batch_size: rows of every batch but the last; the host's own by default.

        Returns:
            (ids, {feature key: (rows, width, …)}), host first, on the device of its models; in evaluation mode and
            without gradients.

        Raises:
            ConfigError: another request is not at its end, or the session is closed.
            HeterofedError: a party failed; the session is over.
        """
        return self._batches(*self._request(ids, batch_size))

    def predict(
        self, ids: Sequence[str] | None = None, *, batch_size: int | None = None
    ) -> Generator[PredictedBatch, None, None]:
        """Yield predictions of ids in their order, a row for each; arguments and errors as `projections`.

        Raises:
            TemplateError: `predict_a_batch` raised.
        """
        return self._predicted(*self._request(ids, batch_size))

    # --- inside -------------------------------------------------------------------------------------------------------

    def close(self, why: str = "the session is closed") -> None:
        """Let no more requests be made."""
        self._over = self._over or why
        if self._asker is not None:
            self._asker.over = True

    def _status(self, id_: str) -> RowStatus:
        if id_ not in self._known:
            return RowStatus.UNKNOWN
        if id_ in self._places:
            return RowStatus.PARTIAL if self.absent else RowStatus.PREDICTED
        return RowStatus.UNKNOWN if self._stand_ins is None else RowStatus.PARTIAL

    def _stood_in(self, id_: str, status: RowStatus) -> tuple[str, ...]:
        if status is not RowStatus.PARTIAL:
            return ()
        return self.absent if id_ in self._places else self.parties[1:]

    def _request(self, ids: Sequence[str] | None, batch_size: int | None) -> tuple[Sequence[str], int]:
        size = self._party.batch_size if batch_size is None else batch_size
        check_count("batch_size", size, 1)
        if isinstance(ids, str):
            raise ConfigError("the ids are one str", expected="a list of ids")
        self._check_free()
        return self.asked if ids is None else ids, min(size, MOST_ROWS)

    def _check_free(self) -> None:
        if self._over:
            raise ConfigError(f"no predictions any more: {self._over}", expected="them inside the `with` block")
        if self._busy:
            raise ConfigError(
                "a request is not at its end yet",
                expected="one request at a time",
                advice="Read the iterator of the other one to its end, or close() it.",
            )

    def _predicted(self, ids: Sequence[str], size: int) -> Generator[PredictedBatch, None, None]:
        done = 0
        with closing(self._batches(ids, size)) as batches:
            for made, projection in batches:
                values = self._values(projection)
                piece, found = done, 0
                while found < len(made):
                    found += self._status(ids[piece]) is not RowStatus.UNKNOWN
                    piece += 1
                if not self._more(ids, piece):
                    piece = len(ids)
                yield self._piece(ids[done:piece], values)
                done = piece
        for start in range(done, len(ids), size):  # none of them is known
            yield self._piece(ids[start : start + size], None)

    def _more(self, ids: Sequence[str], start: int) -> bool:
        """Whether there is something to predict from here on, or so many rows that they are better told apart."""
        return len(ids) - start > MOST_ROWS or any(
            self._status(ids[place]) is not RowStatus.UNKNOWN for place in range(start, len(ids))
        )

    def _piece(self, ids: Sequence[str], values: Any) -> PredictedBatch:
        status = self.status_of(ids)
        return PredictedBatch(
            list(ids), status, [self._stood_in(each, is_) for each, is_ in zip(ids, status, strict=True)], values
        )

    def _values(self, projection: dict[str, Tensor]) -> Any:
        party = self._party
        device = device_of(party.infer_model)
        with party._calling("predict_a_batch"), torch.no_grad(), party._computing.autocast(device):
            return party.predict_a_batch(projection)

    def _batches(self, ids: Sequence[str], size: int) -> Generator[tuple[list[str], dict[str, Tensor]], None, None]:
        """Yield what is to be predicted, with every party's embeddings of it."""
        self._check_free()
        wanted = [each for each in ids if self._status(each) is not RowStatus.UNKNOWN]
        if not wanted:
            return
        self._busy = True
        try:
            yield from self._made(wanted, size)
        except HeterofedError as error:
            self.close(f"it ended with {type(error).__name__}")
            raise
        finally:
            self._busy = False

    def _made(self, wanted: Sequence[str], size: int) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        places = np.fromiter((self._places.get(each, -1) for each in wanted), np.int64, len(wanted))
        there = places >= 0
        # The others begin with their part of it before the host does with its own.
        stream = self._asker.stream(places[there], size) if self._asker is not None and there.any() else None
        party = self._party
        order = RoundOrder(wanted, size, b"-")
        own = batches_of(party, order, party.load_inputs, "load_inputs", may_be_hollow=True).pending()
        for batch, ids in enumerate(order):
            with torch.no_grad():
                embedding = next(own)().embedding
                projection = self._fused(embedding, stream, there[batch * size : (batch + 1) * size])
            try:
                yield ids, projection
            except GeneratorExit:
                if stream is not None:
                    stream.close()
                raise

    def _fused(self, own: Tensor, stream: Stream | None, there: Mask) -> dict[str, Tensor]:
        party = self._party
        rows = int(there.sum())
        found: dict[str, Tensor] = stream.take(rows) if stream is not None and rows else {}
        projection = {party.feature_key: own}
        for peer in self.parties[1:]:
            values = found.get(peer)
            if values is None or rows < len(there):
                values = self._filled(peer, values, there)
            projection[peer] = moved(values, own.device)
        return projection

    def _filled(self, peer: str, values: Tensor | None, there: Mask) -> Tensor:
        if self._stand_ins is None:
            raise RuntimeError("a row without an embedding")
        stand_in = self._stand_ins[peer]
        if values is not None:
            stand_in = stand_in.to(values.dtype)
        full = stand_in.expand(len(there), *stand_in.shape[1:]).clone()
        if values is not None:
            full[torch.from_numpy(there)] = values
        return full

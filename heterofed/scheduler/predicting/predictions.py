"""What a host predicts with the other parties: of ids in any order, again and again, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from heterofed.checks import check_count
from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.batches import RoundOrder
from heterofed.frames.messages import MOST_ASKED, Draw, DrawMethod
from heterofed.grads.cut_layer import device_of
from heterofed.scheduler.predicting.asking import Asker, Stream
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.scheduler.predicting.embedding import batches_of
from heterofed.scheduler.predicting.predicted import Absent, PredictedBatch, RowStatus, SpreadBatch
from heterofed.scheduler.predicting.several import (
    ROWS_OF_A_DRAW,
    Several,
    checked_output,
    choose_draws,
    say_together,
    warn_if_equal,
)
from heterofed.training.devices import moved

if TYPE_CHECKING:
    from heterofed.scheduler.host_course import HostCourse

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

V = TypeVar("V")
B = TypeVar("B", bound=PredictedBatch)


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
        drawing: makes the host's part of a draw.
    """

    def __init__(
        self,
        party: HostCourse,
        *,
        asked: Sequence[str],
        known: Collection[str],
        shared: Sequence[str],
        asker: Asker | None,
        drawing: Drawing,
        parties: Sequence[str],
        absent: Sequence[str] = (),
        stand_ins: Mapping[str, Tensor] | None = None,
        policy: Absent = "fail",
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.asked = tuple(asked)
        """The ids that it was opened for."""
        self.parties = tuple(parties)
        """All parties of the task, the host first."""
        self.absent = tuple(absent)
        """The parties that are not here."""
        self.policy: Absent = policy
        """What is done where a party, or its embedding of an id, is not here."""
        self._party = party
        self._known = frozenset(known)
        self._places = {each: place for place, each in enumerate(shared)}
        self._asker = asker
        self._drawing = drawing
        self._stand_ins = stand_ins
        self._means = dict(means or {})
        self._busy = False
        self._stream: Stream | None = None
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
        ids, size = self._request(ids, batch_size)
        return self._in_pieces(ids, size, self._valued(ids, size), PredictedBatch)

    def spread(
        self,
        ids: Sequence[str] | None = None,
        *,
        method: DrawMethod,
        draws: int = 30,
        seed: int | None = None,
        batch_size: int | None = None,
    ) -> Generator[SpreadBatch, None, None]:
        """Yield the mean of several predictions of each id, and how far they are apart, in the order of the ids.

        For each prediction every party draws for itself: with "swag" its weights, around where training went; with
        "mc_dropout" the units that its layers of dropout drop. All draws of some batches are made before the next ones
        are asked for; a collaborator's limits count the rows of every draw.

        Args:
            ids: which; None: all that it was opened for.
            method: "mc_dropout", or "swag" where all parties' runs have collected moments.
            draws: how many predictions, 2 or more.
            seed: 0 to 2^63 - 1; the same one gives the same bits. None: another one every time.
            batch_size: rows of every batch but the last; the host's own by default.

        Raises:
            ConfigError: an argument cannot work, a party's run has no moments, or `predict_a_batch` gives something
                else than numbers of shape (rows,) or (rows, classes); and as `projections`.
            TemplateError: `predict_a_batch` raised.
        """
        ids, size = self._request(ids, batch_size)
        chosen = choose_draws(method, draws, seed)
        self._drawing.check(chosen[0])
        return self._in_pieces(ids, size, self._of_all_draws(ids, size, chosen), SpreadBatch.of)

    # --- inside -------------------------------------------------------------------------------------------------------

    def finish(self, why: str = "the session is closed") -> None:
        """Let no more requests be made, and let the rest of one come that was not read to its end."""
        if self._stream is not None:
            self._stream.close()
        self.close(why)

    def close(self, why: str = "the session is closed") -> None:
        """Let no more requests be made; the others are not listened to any more."""
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
        return self.asked if ids is None else ids, min(size, MOST_ASKED)

    def _check_free(self) -> None:
        if self._over:
            raise ConfigError(f"no predictions any more: {self._over}", expected="them inside the `with` block")
        if self._busy:
            raise ConfigError(
                "a request is not at its end yet",
                expected="one request at a time",
                advice="Read the iterator of the other one to its end, or close() it.",
            )

    def _in_pieces(
        self,
        ids: Sequence[str],
        size: int,
        made: Generator[tuple[int, V], None, None],
        make: Callable[[list[str], list[RowStatus], list[tuple[str, ...]], V | None], B],
    ) -> Generator[B, None, None]:
        """Yield all ids with what was made of those that are known: of how many at a time, and what."""
        done = 0
        with closing(made):
            for rows, values in made:
                piece, found = done, 0
                while found < rows:
                    found += self._status(ids[piece]) is not RowStatus.UNKNOWN
                    piece += 1
                if not self._more(ids, piece):
                    piece = len(ids)
                yield make(*self._piece(ids[done:piece]), values)
                done = piece
        for start in range(done, len(ids), size):  # none of them is known
            yield make(*self._piece(ids[start : start + size]), None)

    def _more(self, ids: Sequence[str], start: int) -> bool:
        """Whether there is something to predict from here on, or so many rows that they are better told apart."""
        return len(ids) - start > MOST_ASKED or any(
            self._status(ids[place]) is not RowStatus.UNKNOWN for place in range(start, len(ids))
        )

    def _piece(self, ids: Sequence[str]) -> tuple[list[str], list[RowStatus], list[tuple[str, ...]]]:
        status = self.status_of(ids)
        return list(ids), status, [self._stood_in(each, is_) for each, is_ in zip(ids, status, strict=True)]

    def _valued(self, ids: Sequence[str], size: int) -> Generator[tuple[int, Any], None, None]:
        with closing(self._batches(ids, size)) as batches:
            for made, projection in batches:
                yield len(made), self._values(projection)

    def _of_all_draws(
        self, ids: Sequence[str], size: int, draws: Sequence[Draw]
    ) -> Generator[tuple[int, Several], None, None]:
        """Yield what all draws say together of each batch; some batches at a time, since each draw is a trip."""
        wanted = self._wanted(ids)
        rows = max(size, ROWS_OF_A_DRAW // size * size)
        for start in range(0, len(wanted), rows):
            block = list(RoundOrder(wanted[start : start + rows], size, b"-"))
            outputs: list[list[Tensor]] = [[] for _ in block]
            for draw in draws:
                with closing(self._batches(wanted[start : start + rows], size, draw)) as batches:
                    for batch, (made, projection) in enumerate(batches):
                        with self._drawing.units(draw, "infer", made):
                            values = self._values(projection)
                        outputs[batch].append(checked_output(values, len(made)))
            if not start:
                warn_if_equal(outputs)
            for made, each in zip(block, outputs, strict=True):
                yield len(made), say_together(each)

    def _values(self, projection: dict[str, Tensor]) -> Any:
        party = self._party
        device = device_of(party.infer_model)
        with party._calling("predict_a_batch"), torch.no_grad(), party._computing.autocast(device):
            return party.predict_a_batch(projection)

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        return [each for each in ids if self._status(each) is not RowStatus.UNKNOWN]

    def _batches(
        self, ids: Sequence[str], size: int, draw: Draw | None = None
    ) -> Generator[tuple[list[str], dict[str, Tensor]], None, None]:
        """Yield what is to be predicted, with every party's embeddings of it; meanwhile the host's models are drawn."""
        self._check_free()
        wanted = self._wanted(ids)
        if not wanted:
            return
        self._busy = True
        try:
            with self._drawing.drawn(draw):
                yield from self._made(wanted, size, draw)
        except HeterofedError as error:
            self.close(f"it ended with {type(error).__name__}")
            raise
        finally:
            self._busy = False
            self._stream = None

    def _made(
        self, wanted: Sequence[str], size: int, draw: Draw | None
    ) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        places = np.fromiter((self._places.get(each, -1) for each in wanted), np.int64, len(wanted))
        there = places >= 0
        # The others begin with their part of it before the host does with its own.
        stream = self._asker.stream(places[there], size, draw) if self._asker is not None and there.any() else None
        self._stream = stream
        party = self._party
        order = RoundOrder(wanted, size, b"-")
        own = batches_of(party, order, party.load_inputs, "load_inputs", may_be_hollow=True).pending()
        for batch, ids in enumerate(order):
            pending = next(own)
            with torch.no_grad():
                with self._drawing.units(draw, "feature", ids):
                    embedding = pending().embedding
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

"""The host's side of the batch exchange: every collaborator's embedding of a batch, checked, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from heterofed.errors import AlignmentError, HeterofedError
from heterofed.features.alignment import same
from heterofed.features.embedder import LocalBatch
from heterofed.features.form import EmbeddingForm
from heterofed.frames.forms import WireTensor
from heterofed.frames.messages import LOCK_STEP, AnyMessage, BatchesEnd, CheckIn, Embedding, Gradient, Proceed, Terms
from heterofed.frames.precision import unpack_as
from heterofed.scheduler.batches.packing import precision_of
from heterofed.scheduler.link import Link
from heterofed.scheduler.waits import Deadline


class HostExchange:
    """Knows where in a round the host is, and holds every collaborator to it.

    Args:
        link: to the collaborators.
        check_ins: what each collaborator said of itself.
        calculation_timeout_s: longest wait for an embedding, in seconds; 0: no limit.
        room_s: longest wait for room in a peer's queue, in seconds; 0: no limit.
        check_finite: whether embeddings with NaN or infinite numbers are refused.
        terms: how batches are exchanged.
    """

    def __init__(
        self,
        link: Link,
        check_ins: Mapping[str, CheckIn],
        *,
        calculation_timeout_s: float,
        room_s: float,
        check_finite: bool = True,
        terms: Terms = LOCK_STEP,
    ) -> None:
        self.terms = terms
        self.round = 0
        self.batch = 0
        """Number of the batch at hand, from 0; after a pass, how many there were."""
        self._trainable = frozenset(peer for peer, each in check_ins.items() if each.trainable)
        self.learning = self._trainable
        """Collaborators that want gradients in the round at hand."""
        self._link = link
        self._follow_plan = frozenset(peer for peer, each in check_ins.items() if not each.own_batches)
        self.all_follow_plan = len(self._follow_plan) == len(check_ins)
        """Whether no collaborator chooses its own batches."""
        self._forms = {peer: EmbeddingForm(peer, "the feature model", finite=check_finite) for peer in check_ins}
        self._timeout_s = calculation_timeout_s
        self._room_s = room_s
        self._precision = precision_of(terms.embedding_precision)
        self._dtype = torch.float32 if self._precision is not None else None
        self._held: dict[str, list[AnyMessage]] = {peer: [] for peer in check_ins}
        self._ends_message = True

    @property
    def seen(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Feature key -> dtype and shape of one row of a collaborator's embedding, where there was one."""
        return {peer: form.seen for peer, form in self._forms.items() if form.seen is not None}

    def begin_round(self, number: int, moving: frozenset[str] | None) -> None:
        """Enter a round.

        Args:
            number: of the round, from 1.
            moving: the parties whose models move in it; None: all that can.
        """
        self.round = number
        self.learning = self._trainable if moving is None else self._trainable & moving
        for held in self._held.values():
            held.clear()

    def begin_batch(self, number: int, *, ends_message: bool = True) -> None:
        """Enter a batch.

        Args:
            number: of the batch, from 0.
            ends_message: whether its answers leave now, with those that are held; else they are held too.
        """
        self.batch = number
        self._ends_message = ends_message

    def receive(self, local: LocalBatch) -> dict[str, Tensor]:
        """Return every collaborator's embedding of the batch at hand, on the CPU, in the order of the parties.

        Raises:
            AlignmentError: a collaborator has no such batch, or another number of rows, or other ids.
            EmbeddingError: its embedding has another dtype or shape than its first one.
            PeerTimeout, PeerGone, TaskAborted: as `Link.expect`.
        """
        rows = local.embedding.shape[0]
        deadline = Deadline(self._timeout_s, self._link.clock)
        found: dict[str, Tensor] = {}
        while pending := [peer for peer in self._link.peers if peer not in found]:
            peer, message = self._link.expect(
                (Embedding, BatchesEnd),
                from_=pending,
                waiting_for=f"embedding of round {self.round}, batch {self.batch}",
                timeout_s=deadline,
            )
            if isinstance(message, BatchesEnd):
                problem = f"ended after {message.batches} batches where {self._link.party} has more"
                raise self._misaligned(peer, problem, "as many batches")
            if message.rows != rows:
                raise self._misaligned(peer, f"sent {message.rows} rows", f"{rows} as at {self._link.party}")
            if peer in self._follow_plan and not same(local.digest, message.digest):
                raise self._misaligned(peer, f"sent {rows} rows of other ids", f"the ids of {self._link.party}")
            try:
                values = unpack_as(message.values, self._precision, self._dtype)
                found[peer] = self._forms[peer].check(values)
            except HeterofedError as error:
                raise error.located(party=peer) from None
        return {peer: found[peer] for peer in self._link.peers}

    def receive_ends(self, what: str, batches: int) -> None:
        """End a pass: check that every collaborator has as many batches as we had.

        Args:
            what: the pass, "training" or "test".
            batches: how many we had.

        Raises:
            AlignmentError: one has more.
            PeerTimeout, PeerGone, TaskAborted: as `Link.expect`.
        """
        self.batch = batches
        deadline = Deadline(self._timeout_s, self._link.clock)
        pending = set(self._link.peers)
        while pending:
            peer, message = self._link.expect(
                (BatchesEnd, Embedding),
                from_=pending,
                waiting_for=f"end of round {self.round}'s {what}",
                timeout_s=deadline,
            )
            if isinstance(message, Embedding):
                problem = f"has more batches than the {batches} of {self._link.party}"
                raise self._misaligned(peer, problem, "as many batches")
            pending.discard(peer)

    def send_gradient(self, peer: str, gradient: WireTensor, loss: float | None, *, keep: bool = False) -> None:
        """Send a collaborator the gradient of the batch at hand, of the shape of its embedding.

        Args:
            peer: feature key.
            gradient: (rows, width, …), as it crosses the wire.
            loss: the round's mean loss so far, if it is shared.
            keep: whether a checkpoint follows the batch that comes `max_staleness` + 1 after this one.
        """
        self._answer(peer, Gradient(self.round, self.batch, loss, keep, gradient))

    def send_proceed(self, peer: str, loss: float | None = None, *, keep: bool = False) -> None:
        """Tell a collaborator that the batch at hand needs nothing more of it; arguments as `send_gradient`."""
        self._answer(peer, Proceed(self.round, self.batch, loss, keep))

    def _answer(self, peer: str, message: AnyMessage) -> None:
        held = self._held[peer]
        held.append(message)
        if self._ends_message:
            self._link.send_together(peer, held, self._room_s)
            held.clear()

    def _misaligned(self, peer: str, problem: str, expected: str) -> AlignmentError:
        return AlignmentError(
            f"{problem} in round {self.round}, batch {self.batch}",
            party=peer,
            phase=self._link.phase(peer).value,
            expected=expected,
            advice="Use the same batch size and the same ids, in the same order, at every party.",
        )

"""A collaborator's loop: its embedding out, the gradient in, its feature model's step; the host leads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import torch

from heterofed.errors import AlignmentError, ConfigError, EmbeddingError
from heterofed.features.batches import RoundOrder, shuffled_order
from heterofed.features.embedder import LocalBatch, PendingBatch, as_made
from heterofed.frames.messages import (
    AnyMessage,
    Ask,
    BatchesEnd,
    BatchPlan,
    CloseRound,
    CompleteTask,
    Embedding,
    Gradient,
    Proceed,
    RoundClosed,
    RoundReady,
    StartTest,
)
from heterofed.grads.stash import stashed_weights
from heterofed.protocol.phases import TEST_AHEAD
from heterofed.scheduler.batches.early import EarlyBatches, Watchers, numbered
from heterofed.scheduler.batches.gradient import gradient_of
from heterofed.scheduler.batches.pace import Pace
from heterofed.scheduler.batches.party_trainer import PartyTrainer
from heterofed.scheduler.link import M, N
from heterofed.scheduler.predicting.answering import answer
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.training.context import Context, CtxVar
from heterofed.training.devices import moved
from heterofed.training.hooks import EarlyStopper, HookBase
from heterofed.training.triggers import LIFECYCLE, MODE

if TYPE_CHECKING:
    from heterofed.scheduler.collaborator import CollaboratorScheduler


_LEARNING = "the backward pass of the feature model or the step of its optimizer"


class CollaboratorTrainer(PartyTrainer["CollaboratorScheduler"]):
    """The trainer of a collaborator.

    `ctx` holds besides: `gradient` (the host's, of the embedding's shape; None where this party does not learn). Its
    `mean_loss` is the host's word, up to the batch before, and `loss_batch_total` is that times `num_samples`.
    """

    # Of embeddings only: a gradient that comes a round late is that of weights long gone, and was seen to do harm.
    feeds_back = True
    _plan: BatchPlan | None = None

    def __init__(self, party: CollaboratorScheduler) -> None:
        super().__init__(party)
        self._left_at: dict[int, float] = {}
        """Batch in flight -> when its embedding left, by the performance counter."""
        self._watchers = Watchers()
        self._early: EarlyBatches | None = None
        self._left_early: int | None = None  # the batch whose embedding has left before its turn
        self._cleared = False  # whether the gradients of the batch before were cleared while we waited

    @property
    def precision_sent(self) -> str:
        """How exactly embeddings cross."""
        return self.terms.embedding_precision

    # --- a round ------------------------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Refuse: a hook here cannot end the training of all.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"a hook of this collaborator would end the training ({reason})",
            expected="the host to decide when training ends",
            advice="Register it at the host.",
        ).privately("a hook of this collaborator would end the training")

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Add hook objects, as every trainer does.

        Raises:
            ConfigError: one of them is to end the training, or cannot be added.
        """
        given = list(hooks)
        for each in given:
            if isinstance(each, EarlyStopper):
                raise ConfigError(
                    f"the hook {each.name or type(each).__name__} would end the training at a collaborator",
                    expected="the host to decide when training ends",
                    advice="Register it at the host.",
                )
        super().register_hooks(given)

    def is_finished(self) -> bool:
        """Wait for the host's word: another round, or the end of the task."""
        party = self.party
        drawing = Drawing(party, party._swag_moments)
        while True:
            _, order = party._linked.expect(
                (BatchPlan, Ask, CompleteTask),
                from_=[party._host],
                waiting_for="next round",
                timeout_s=party._patience_s,
            )
            if not isinstance(order, Ask):
                break
            answer(party, order, party.id_intersection, party._patience_s, drawing)
        if isinstance(order, CompleteTask):
            return True
        if order.round != self.round + 1:
            raise AlignmentError(
                f"begins round {order.round} where {party.feature_key} has completed {self.round}",
                party=party._host,
                expected=f"round {self.round + 1}",
                advice="Launch all parties with recover=True.",
            )
        self._plan = order
        return False

    def run_round(self) -> None:
        """Follow the host's plan through a pass, a test if it wants one, and to its word that the round is over."""
        party, plan = self.party, self._plan
        if plan is None:
            raise RuntimeError("no round has begun")
        size = plan.batch_size or len(party.train_ids)
        if plan.shuffle:
            self.order = shuffled_order(party.train_ids, plan.seed, size, party._session_key)
        else:
            self.order = RoundOrder(party.train_ids, size, party._session_key)
        self.order.check(plan.digest, party._host, plan.round)
        if plan.first != self.done_in_routine:
            raise AlignmentError(
                f"goes on with batch {plan.first} of round {plan.round}",
                party=party._host,
                expected=f"batch {self.done_in_routine}, where {party.feature_key} is",
            )
        self.stops.clear()
        self.stops.update([] if plan.keep is None else [plan.keep])
        self.learns = plan.learns
        self.max_iter = self.planned_iterations()
        party._linked.send(party._host, RoundReady(plan.round), party._room_s)
        self.run_routine(MODE.FINETUNE if plan.finetune else MODE.TRAIN, "train")
        closing = self._hear((StartTest, CloseRound), "end of the round")
        if isinstance(closing, StartTest):
            party._at_seat.progress.phase("testing")
            super().evaluate("test")
            closing = self._hear(CloseRound, "end of the round")
        self.round_loss.show(closing.loss)
        if closing.best:
            self.request_checkpoint("model_best", tag=False)

    @overload
    def _hear(self, kinds: type[M], waiting_for: str) -> M: ...
    @overload
    def _hear(self, kinds: tuple[type[M], type[N]], waiting_for: str) -> M | N: ...
    def _hear(self, kinds: Any, waiting_for: str) -> Any:
        """Wait for a word of the host's, and return it."""
        host, limit_s = self.party._host, self.party._patience_s
        return self.party._linked.expect(kinds, from_=[host], waiting_for=waiting_for, timeout_s=limit_s)[1]

    def close_round(self) -> None:
        """Tell the host that the checkpoint is on the disk."""
        self.party._linked.send(self.party._host, RoundClosed(self.round), self.party._room_s)

    def evaluate(self, target_data_split_name: str = "test", hooks_set: Any = None) -> None:
        """Refuse: the host begins tests.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a collaborator cannot begin a test", expected="the host to begin it, after a round")

    def test_order(self) -> RoundOrder:
        """Return the test ids in batches of the round's size."""
        party = self.party
        size = self._plan.batch_size if self._plan else 0
        return RoundOrder(party.test_ids, size or max(1, len(party.test_ids)), party._session_key)

    def needs_gradients(self, mode: str) -> bool:
        """Whether autograd records: where this party's model learns in the round at hand."""
        return mode in MODE.LEARNING and self.learns and self.party.is_trainable

    # --- default hooks ------------------------------------------------------------------------------------------------

    def _hook_on_batch_exchange(self, ctx: Context) -> None:
        batch = ctx.cur_batch_i
        if not self.terms.max_staleness:  # else it is on its way
            if batch != self._left_early:
                self._send([self._message_of(ctx.local_batch, batch)])
            if self._early is not None and self._unwatched() and self.needs_gradients(ctx.cur_mode or ""):
                self._clear_gradients()
                self._cleared = True
            if self.source is not None and batch not in self.stops:
                # Where a checkpoint follows, the next rows are not drawn before it: load_batch may use random numbers.
                self.source.prefetch()
        meter = self.party._linked.meter
        waited_s = meter.waited_s[self.party._host]
        word = self._hear((Gradient, Proceed), f"gradient of {self._place(batch)}")
        if (left := self._left_at.pop(batch, None)) is not None:
            meter.note_trip(time.perf_counter() - left, meter.waited_s[self.party._host] - waited_s)
        gradient = None
        if isinstance(word, Gradient):
            finite = self.party.settings.check_finite
            gradient = gradient_of(ctx.embedding, word.values, self.terms, self.party._linked, finite=finite)
        ctx.gradient = CtxVar(gradient, LIFECYCLE.BATCH)
        if word.keep:
            self.stops.add(batch + self.terms.max_staleness + 1)
        self.round_loss.show(word.loss)

    def batches(self, epoch: int) -> Iterator[PendingBatch]:
        """Yield this party's batches of the pass at hand; in training, their embeddings may have left already."""
        made = super().batches(epoch)
        self._early = self._left_early = None
        if self.ctx.cur_mode not in MODE.LEARNING:
            return made
        if self.terms.max_staleness:
            return self._ahead(made)
        if not self.party.own_batches:
            self._early = made = EarlyBatches(made)
        return made

    def _unwatched(self) -> bool:
        """Whether nobody can tell if the next embedding is made before or after the end of the batch at hand."""
        return type(self) is CollaboratorTrainer and self._watchers.none_in(self._active[-1], self._objects)

    def _leave_early(self, batch: int) -> None:
        """Let a batch's embedding leave before its turn, unless a checkpoint of the batch before comes first."""
        if self._early is None or batch - 1 in self.stops or self._requested or not self._unwatched():
            return
        with numbered(self, batch):
            if self._early.make_next(lambda local: self._send([self._message_of(local, batch)])):
                self._left_early = batch

    def _ahead(self, made: Iterator[PendingBatch]) -> Iterator[PendingBatch]:
        """Run ahead of the gradients: whenever the pace lets us, make and send embeddings before the batch at hand.

        Batch b leaves when the gradients up to batch b - max_staleness - 1 are applied, never earlier or later, so what
        is trained does not depend on how quick the link is.
        """
        batch = self.done_in_routine
        self._left_at.clear()
        yield from islice(made, batch)
        pace = Pace(self.terms, self.stops, None if self.party.own_batches else len(self.train_order))
        flight: deque[LocalBatch] = deque()
        last: int | None = None
        stopped = ended = False
        while True:
            stopped = bool(flight) and last in self.stops
            while not ended and not stopped and pace.lets_on(len(flight)):
                together: list[Embedding] = []
                while not together or not pace.ends_message(batch - 1):
                    with self._stashed():  # user code runs its model in the first of these two, ours in the second
                        pending = next(made, None)
                        local = pending() if pending is not None else None
                    if local is None:
                        ended = True
                        break
                    together.append(self._message_of(local, batch))
                    flight.append(local)
                    last, batch = batch, batch + 1
                if together:
                    self._send(together)
                    left = time.perf_counter()
                    self._left_at.update((each.batch, left) for each in together)
                stopped = last in self.stops
            if not flight:
                return
            if self.source is not None and not stopped:
                self.source.prefetch()
            yield partial(as_made, flight.popleft())

    def _stashed(self) -> AbstractContextManager[None]:
        """Where the weights move on before the gradient comes, let the batch's graph keep those it was made with."""
        if self.needs_gradients(self.ctx.cur_mode or ""):
            return stashed_weights(self.party.feature_model)
        return nullcontext()

    def _hook_on_test_exchange(self, ctx: Context) -> None:
        batch = ctx.cur_batch_i
        self._send([self._message_of(ctx.local_batch, batch)])
        if self.source is not None:
            self.source.prefetch()
        if batch >= TEST_AHEAD:
            self._hear(Proceed, f"answer to the test of {self._place(batch - TEST_AHEAD)}")

    def _hook_on_test_end(self, ctx: Context) -> None:
        for batch in range(max(0, self.batches_made - TEST_AHEAD), self.batches_made):
            self._hear(Proceed, f"answer to the test of {self._place(batch)}")
        self._hook_on_fit_end(ctx)

    def _place(self, batch: int) -> str:
        return f"round {self.current_round}, batch {batch}"

    def _send(self, messages: Sequence[AnyMessage]) -> None:
        self.party._linked.send_together(self.party._host, messages, self.party._room_s)

    def _message_of(self, local: LocalBatch, batch: int) -> Embedding:
        embedding, learning = local.embedding, self.ctx.cur_mode in MODE.LEARNING
        if self.needs_gradients(self.ctx.cur_mode or "") and not embedding.requires_grad:
            raise EmbeddingError(
                "the embedding does not depend on the feature model's parameters",
                expected="the output of the model that was passed in, with its graph",
                advice="Do not detach it; or set is_feature_trainable=False.",
            )
        packer, meter = self.packer(self.party._host), self.party._linked.meter
        values = packer.pack(embedding, meter, self.order if learning else None, batch)
        return Embedding(self.current_round, batch, embedding.shape[0], local.digest, values)

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        """Backpropagate the host's gradient through our feature model and step."""
        if ctx.gradient is not None:
            if not self._cleared:
                self._clear_gradients()
            self._cleared = False
            with self.party._calling(_LEARNING):
                torch.autograd.backward(ctx.embedding, moved(ctx.gradient, ctx.embedding.device))
                self.before_optimizer_step()
                self.party.feature_optimizer.step()
            for _ in range(1, self.terms.local_steps):
                self._step_again(ctx)
        self._leave_early(ctx.cur_batch_i + 1)

    def _clear_gradients(self) -> None:
        with self.party._calling(_LEARNING):
            self.party.feature_optimizer.zero_grad()

    def _step_again(self, ctx: Context) -> None:
        """Backpropagate the same gradient through the model as it is now, as the host goes on with the same embedding.

        Source: Liu et al., FedBCD, IEEE Transactions on Signal Processing 70 (2022).
        """
        again = ctx.local_batch.again
        if again is None:
            raise RuntimeError("local steps without load_batch")
        embedding = again()
        self._clear_gradients()
        with self.party._calling(_LEARNING):
            torch.autograd.backward(embedding, ctx.gradient.to(embedding.device))
            self.before_optimizer_step()
            self.party.feature_optimizer.step()

    def _hook_on_batch_end(self, ctx: Context) -> None:
        super()._hook_on_batch_end(ctx)
        mean = self.round_loss.value
        if mean is not None:
            ctx.loss_batch_total = CtxVar(mean * ctx.num_samples, LIFECYCLE.ROUTINE)
            self.storage.put_scalar("mean_loss", mean, smoothing_hint=False)

    def _hook_on_fit_end(self, ctx: Context) -> None:
        ended = BatchesEnd(self.current_round, self.batches_made)
        self.party._linked.send(self.party._host, ended, self.party._room_s)

"""A collaborator's loop: its embedding out, the gradient in, its feature model's step; the host leads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from heterofed.errors import AlignmentError, ConfigError, EmbeddingError, RemoteProtocolError, TrainingDiverged
from heterofed.features.batches import RoundOrder, shuffled
from heterofed.frames.messages import (
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
from heterofed.frames.tensors import pack, unpack
from heterofed.scheduler.party_trainer import PartyTrainer
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import EarlyStopper, HookBase
from heterofed.training.triggers import LIFECYCLE, MODE

if TYPE_CHECKING:
    from heterofed.scheduler.collaborator import CollaboratorScheduler  # noqa: F401 - named in a string below


class CollaboratorTrainer(PartyTrainer["CollaboratorScheduler"]):
    """The trainer of a collaborator.

    `ctx` holds besides: `gradient` (the host's, of the embedding's shape; None where this party does not learn). Its
    `mean_loss` is the host's word, up to the batch before, and `loss_batch_total` is that times `num_samples`.
    """

    _plan: BatchPlan | None = None

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
        _, order = party._linked.expect(
            (BatchPlan, CompleteTask),
            from_=[party._host_key],
            waiting_for="next round",
            timeout_s=party._patience_s,
        )
        if isinstance(order, CompleteTask):
            return True
        if order.round != self.round + 1:
            raise AlignmentError(
                f"begins round {order.round} where {party.feature_key} has completed {self.round}",
                party=party._host_key,
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
        ids = shuffled(party.train_ids, plan.seed) if plan.shuffle else party.train_ids
        self.order = RoundOrder(ids, plan.batch_size or len(ids), party._session_key)
        self.order.check(plan.digest, party._host_key, plan.round)
        if plan.first != self.done_in_routine:
            raise AlignmentError(
                f"goes on with batch {plan.first} of round {plan.round}",
                party=party._host_key,
                expected=f"batch {self.done_in_routine}, where {party.feature_key} is",
            )
        self.keep_now = plan.keep
        self.learns = plan.learns
        self.max_iter = self.planned_iterations()
        party._linked.send(party._host_key, RoundReady(plan.round), party._room_s)
        self.run_routine(MODE.FINETUNE if plan.finetune else MODE.TRAIN, "train")
        closing = self._next_word((StartTest, CloseRound))
        if isinstance(closing, StartTest):
            party._at_seat.progress.phase("testing")
            super().evaluate("test")
            closing = self._next_word((CloseRound, CloseRound))
        self.round_loss.show(closing.loss)
        if closing.best:
            self.request_checkpoint("model_best", tag=False)

    def _next_word(self, kinds: Any) -> Any:
        _, message = self.party._linked.expect(
            kinds,
            from_=[self.party._host_key],
            waiting_for="end of the round",
            timeout_s=self.party._patience_s,
        )
        return message

    def close_round(self) -> None:
        """Tell the host that the checkpoint is on the disk."""
        self.party._linked.send(self.party._host_key, RoundClosed(self.round), self.party._room_s)

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
        answer = self._exchanged(ctx, (Gradient, Proceed), "gradient of")
        gradient = None
        if isinstance(answer, Gradient):
            gradient = unpack(answer.values)
            self._check_gradient(ctx.embedding, gradient)
        ctx.gradient = CtxVar(gradient, LIFECYCLE.BATCH)
        self.keep_next = answer.keep
        self.round_loss.show(answer.loss)

    def _hook_on_test_exchange(self, ctx: Context) -> None:
        self._exchanged(ctx, (Proceed, Proceed), "answer to the test of")

    def _exchanged(self, ctx: Context, kinds: Any, what: str) -> Any:
        """Send the embedding of the batch at hand, load the next one's rows, and return the host's answer."""
        party, batch = self.party, ctx.cur_batch_i
        self._send(ctx, batch)
        if self.source is not None and not self.keep_now:
            # Where a checkpoint follows, the next rows are not drawn before it: load_batch may use random numbers.
            self.source.prefetch()
        _, answer = party._linked.expect(
            kinds,
            from_=[party._host_key],
            waiting_for=f"{what} round {self.current_round}, batch {batch}",
            timeout_s=party._patience_s,
        )
        return answer

    def _send(self, ctx: Context, batch: int) -> None:
        embedding: Tensor = ctx.embedding
        if self.needs_gradients(ctx.cur_mode or "") and not embedding.requires_grad:
            raise EmbeddingError(
                "the embedding does not depend on the feature model's parameters",
                expected="the output of the model that was passed in, with its graph",
                advice="Do not detach it; or set is_feature_trainable=False.",
            )
        message = Embedding(self.current_round, batch, ctx.batch_size, ctx.local_batch.digest, pack(embedding))
        self.party._linked.send(self.party._host_key, message, self.party._room_s)

    def _check_gradient(self, embedding: Tensor, gradient: Tensor) -> None:
        if gradient.shape != embedding.shape or gradient.dtype != embedding.dtype:
            raise RemoteProtocolError(
                f"sent a gradient of {gradient.dtype} {tuple(gradient.shape)}",
                party=self.party._host_key,
                expected=f"{embedding.dtype} {tuple(embedding.shape)}, as the embedding",
            )
        if self.party.settings.check_finite and not gradient.isfinite().all():
            raise TrainingDiverged(
                "sent a gradient that is NaN or infinite",
                party=self.party._host_key,
                expected="finite numbers",
                advice="The host has to lower its learning rate, or check its inputs and labels for NaN.",
            )

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        """Backpropagate the host's gradient through our feature model and step."""
        if ctx.gradient is None:
            return
        with self.party._calling("the backward pass of the feature model or the step of its optimizer"):
            self.party.feature_optimizer.zero_grad()
            torch.autograd.backward(ctx.embedding, ctx.gradient.to(ctx.embedding.device))
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
        self.party._linked.send(self.party._host_key, ended, self.party._room_s)

    _hook_on_test_end = _hook_on_fit_end

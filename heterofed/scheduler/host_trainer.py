"""The host's loop: its batches, every collaborator's embeddings, the user's `train_a_batch`, tests, the round's end."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.features.batches import RoundOrder, round_seed, shuffled
from heterofed.features.embedder import LocalBatch
from heterofed.frames.messages import BatchPlan, CloseRound, RoundClosed, RoundReady, StartTest
from heterofed.grads.cut_layer import CutLayer, check_finite_gradients
from heterofed.metrics.progress import logger
from heterofed.scheduler.exchange import HostExchange
from heterofed.scheduler.party_trainer import PartyTrainer
from heterofed.tasks.model import TaskStatus
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks import BestCheckpointer
from heterofed.training.triggers import LIFECYCLE, MODE

if TYPE_CHECKING:
    from heterofed.scheduler.host import HostScheduler


_ORDER = ("batch_size", "shuffle", "seed")
"""Attributes of a host on which the order of rows in a round depends."""


class Stage(Enum):
    """How far the round at hand is."""

    CLOSED = "no round is in progress"
    TRAINING = "its training is not over"
    TRAINED = "trained"
    TESTED = "it was tested already"


class HostTrainer(PartyTrainer["HostScheduler"]):
    """The trainer of a host.

    `ctx` holds besides: `labels` (also `y_true`), `embeddings` (feature key -> tensor, own first, as `train_a_batch`
    gets them), `loss_batch` (what `train_a_batch` returned, if it is a loss).
    """

    with_labels = True

    def __init__(self, party: HostScheduler) -> None:
        super().__init__(party)
        self._finished: bool | None = None
        self._stage = Stage.CLOSED
        self._best = False
        self._kept_at = 0.0

    @cached_property
    def exchange(self) -> HostExchange:
        """The session's batch exchange; there once the parties are gathered."""
        return self.party._batch_exchange

    @cached_property
    def cut(self) -> CutLayer:
        """Where embeddings enter the graph and gradients leave it."""
        return CutLayer(
            lambda peer, gradient: self.exchange.send_gradient(peer, gradient, self.shown_loss, keep=self.keep_next),
            logger.warning,
            check_finite=self.party.settings.check_finite,
        )

    @property
    def shown_loss(self) -> float | None:
        """The mean loss of the round so far, if collaborators are to see it."""
        return self.round_loss.value if self.party.share_loss else None

    # --- a round ------------------------------------------------------------------------------------------------------

    def is_finished(self) -> bool:
        """Whether the round just closed was the last one; a run trains one round at least, unless it resumes."""
        return self.round > 0 and self._asked_if_finished()

    def _asked_if_finished(self) -> bool:
        """Ask the user's `is_task_finished`, once a round."""
        if self._finished is None:
            with self.party._calling("is_task_finished"):
                self._finished = bool(self.party.is_task_finished())
        return self._finished or self.stopping

    def run_round(self) -> None:
        """Publish the plan, train a pass with every party that follows it."""
        self._finished, self._stage, self._best = None, Stage.TRAINING, False
        moving = self._moving_parties()
        finetune = moving is not None
        self.learns = moving is None or self.party.feature_key in moving
        self.exchange.begin_round(self.current_round, moving)
        self.party.optimizer.frozen = not self.learns
        self._kept_at = time.monotonic()
        self._publish(finetune, moving)
        self.max_iter = self.planned_iterations()
        self.run_routine(MODE.FINETUNE if finetune else MODE.TRAIN, "train")
        self._stage = Stage.TRAINED

    def _moving_parties(self) -> frozenset[str] | None:
        """Ask the user which parties' models move in the round that begins; None: all."""
        with self.party._calling("trainable_parties"):
            named = self.party.trainable_parties()
        if named is None:
            return None
        if not isinstance(named, Collection):
            raise self.party._made_wrong("trainable_parties", named, "feature keys of parties, or None for all")
        moving = frozenset([named] if isinstance(named, str) else named)
        parties = (self.party.feature_key, *self.party._linked.peers)
        if not moving or not moving <= set(parties):
            raise ConfigError(
                f"trainable_parties() named {', '.join(map(str, sorted(moving))) or 'nobody'}",
                expected=f"some of {', '.join(parties)}, or None for all",
            )
        return moving if moving < set(parties) else None

    def _publish(self, finetune: bool, moving: frozenset[str] | None) -> None:
        party = self.party
        if party.own_batches:
            self.order = RoundOrder(party.train_ids, len(party.train_ids), party._session_key)
            batch_size, batches, seed = 0, 0, 0
        else:
            seed = round_seed(party.seed, self.current_round) if party.shuffle else 0
            ids = shuffled(party.train_ids, seed) if party.shuffle else party.train_ids
            self.order = RoundOrder(ids, party.batch_size, party._session_key)
            batch_size, batches = party.batch_size, len(self.order)
        digest, first = self.order.digest(), self.done_in_routine
        self.keep_now = self._is_checkpoint_due(first)
        for peer in party._linked.peers:
            plan = BatchPlan(
                round=self.current_round,
                own_batches=party.own_batches,
                batch_size=batch_size,
                batches=batches,
                shuffle=bool(party.shuffle) and not party.own_batches,
                seed=seed,
                digest=digest,
                finetune=finetune,
                learns=moving is None or peer in moving,
                first=first,
                keep=self.keep_now,
            )
            party._linked.send(peer, plan, party._room_s)
        self.exchange.collect(RoundReady, "agreement to the round", party.schedule_timeout)

    def _is_checkpoint_due(self, batch: int) -> bool:
        """Whether all parties keep a checkpoint after this batch of the round; never after the last one."""
        party = self.party
        if batch + 1 >= len(self.train_order) or not self.exchange.all_follow_plan or party.own_batches:
            return False
        every, every_s = party.checkpoint_every, party.checkpoint_every_s
        done = self.iter - self.done_in_routine + batch + 1
        by_count = every is not None and done % every == 0
        if not by_count and every_s and not self.keep_now:
            by_count = time.monotonic() - self._kept_at >= every_s
        return by_count

    def keep_point(self) -> None:
        """Write the numbered checkpoint of the last finished batch, as in `PartyTrainer`."""
        super().keep_point()
        self._kept_at = time.monotonic()

    def rewind(self, name: str) -> None:
        """Go back to a checkpoint while the run goes on, as in `PartyTrainer`."""
        self._finished, self._stage, self._best = None, Stage.CLOSED, False
        super().rewind(name)

    def new_session(self) -> None:
        """Let go of what belonged to the session before."""
        for name in ("exchange", "cut"):
            vars(self).pop(name, None)

    def test_if_due(self) -> None:
        """Run the round's test if `log_rounds` wants one, or if no further round comes."""
        if self.party._test_is_due() or (self._asked_if_finished() and self.party._tests_at_all()):
            self.evaluate("test")

    def round_done(self) -> None:
        """Test once more where a hook has ended the training after a round that was not tested."""
        if self.stopping and self._stage is Stage.TRAINED and self.party._tests_at_all():
            self.evaluate("test")
            for each in self.hooks.values():
                if isinstance(each, BestCheckpointer):
                    each.after_round()  # this test may be the best one

    def close_round(self) -> None:
        """Let the collaborators keep a checkpoint and wait until they have."""
        self._stage = Stage.CLOSED
        self.party._linked.broadcast(CloseRound(self.round, self._best, self.shown_loss), self.party._room_s)
        self.exchange.collect(RoundClosed, "checkpoint of the round", self.party._step_and_answer_s)

    def request_checkpoint(self, name: str = "", *, tag: bool = True) -> None:
        """Write a checkpoint, as in `Trainer`; the best one of a round is kept by the collaborators too."""
        self._best = self._best or (name == "model_best" and not self._active)
        super().request_checkpoint(name, tag=tag)

    def test_order(self) -> RoundOrder:
        """Return the test ids in batches."""
        party = self.party
        size = len(party.test_ids) if party.own_batches else party.batch_size
        return RoundOrder(party.test_ids, size, party._session_key)

    def evaluate(self, target_data_split_name: str = "test", hooks_set: Any = None) -> None:
        """Run the test over the test ids, with every party.

        Raises:
            ConfigError: another split than "test", or another time than once after a round's training: the other
                parties would not follow.
        """
        if target_data_split_name != "test":
            raise ConfigError(
                f"a host cannot evaluate on the split {target_data_split_name!r}: the others do not have it",
                expected='"test"',
            )
        if self._stage is not Stage.TRAINED:
            raise ConfigError(
                f"a host cannot test now: {self._stage.value}",
                expected="one test in a round, after its training and before its end",
                advice="Leave it to log_rounds; or, with log_rounds=0, call it in on_round_end (EvalHook: period 1).",
            )
        self._stage = Stage.TESTED
        record, progress = self.party._at_seat.record, self.party._at_seat.progress
        record.task_is(TaskStatus.TESTING)
        progress.phase("testing")
        self.party._linked.broadcast(StartTest(self.current_round), self.party._room_s)
        super().evaluate("test", hooks_set)
        record.task_is(TaskStatus.ONGOING)

    def own_state(self) -> dict[str, Any]:
        """Keep what makes the order of rows besides."""
        return {**super().own_state(), **{name: getattr(self.party, name) for name in _ORDER}}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the order that the run began with.

        Raises:
            ConfigError: the batches would be cut in another way.
        """
        for name in ("batch_size", "shuffle"):
            if not self.party.own_batches and state[name] != getattr(self.party, name):
                raise ConfigError(
                    f"{name} is {getattr(self.party, name)}",
                    expected=f"{state[name]}, with which the run began that is to be resumed",
                )
        self.party.seed = state["seed"]
        limit = self.party.max_rounds
        if limit is not None and self.round > limit:
            raise ConfigError(f"max_rounds is {limit}", expected=f"{self.round} or more, the rounds trained already")
        super().load_own_state(state)

    # --- default hooks ------------------------------------------------------------------------------------------------

    def _hook_on_fit_start_init(self, ctx: Context) -> None:
        super()._hook_on_fit_start_init(ctx)
        self.exchange.batch = 0
        if ctx.cur_mode not in MODE.LEARNING:
            ctx.projections = CtxVar([], LIFECYCLE.ROUTINE)
            ctx.batched_labels = CtxVar([], LIFECYCLE.ROUTINE)

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        self.exchange.batch = ctx.cur_batch_i
        super()._hook_on_batch_forward(ctx)

    def _labels_of(self, local: LocalBatch) -> dict[str, Any]:
        return {"labels": local.labels, "y_true": local.labels}

    def _hook_on_batch_exchange(self, ctx: Context) -> None:
        exchange, device = self.exchange, ctx.device
        local: LocalBatch = ctx.local_batch
        received = {peer: each.to(device) for peer, each in exchange.receive(local).items()}
        self.keep_next = self._is_checkpoint_due(ctx.cur_batch_i + 1)
        for peer in received.keys() - exchange.learning:
            exchange.send_proceed(peer, self.shown_loss, keep=self.keep_next)
        own: Tensor = ctx.embedding
        self.cut.watch(own)
        projection = {self.party.feature_key: own, **self.cut.open(received, exchange.learning)}
        ctx.embeddings = CtxVar(projection, LIFECYCLE.BATCH)

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        with self.party._calling("train_a_batch"):
            loss = self.party.train_a_batch(ctx.embeddings, ctx.labels)
        self.cut.close()
        rows = ctx.batch_size
        if self.round_loss.add(loss, rows):
            ctx.loss_batch = CtxVar(loss, LIFECYCLE.BATCH)
            ctx.loss_batch_total = self.round_loss.total
            self.storage.put_scalar("loss", self.round_loss.last)
        elif not self.exchange.learning and self.party.settings.check_finite:
            check_finite_gradients(self.party.infer_model)  # nothing else would notice a NaN

    def _hook_on_fit_end(self, ctx: Context) -> None:
        self.exchange.batch = self.batches_made
        self.exchange.receive_ends("training")
        if self.exchange.learning or (self.learns and self.party.is_trainable):
            self.cut.check_reached(self.exchange.batch)

    def _hook_on_test_exchange(self, ctx: Context) -> None:
        received = self.exchange.receive(ctx.local_batch)
        for peer in received:
            self.exchange.send_proceed(peer)
        moved = {peer: each.to(ctx.device) for peer, each in received.items()}
        projection = {self.party.feature_key: ctx.embedding, **moved}
        ctx.embeddings = CtxVar(projection, LIFECYCLE.BATCH)
        ctx.projections.append(projection)
        ctx.batched_labels.append(_kept(ctx.labels))

    def _hook_on_test_end(self, ctx: Context) -> None:
        self.exchange.batch = self.batches_made
        self.exchange.receive_ends("test")
        with self.party._calling("test"):
            self.party.test(ctx.projections, ctx.batched_labels)


def _kept(labels: Any) -> Any:
    """Return labels that stay as they are when the user's code uses its buffer again."""
    if isinstance(labels, Tensor):
        return labels.clone()
    return copy.deepcopy(labels)

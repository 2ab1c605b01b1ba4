"""The host's loop: its batches, every collaborator's embeddings, the user's `train_a_batch`, tests, the round's end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heterofed.errors import ConfigError
from heterofed.features.batches import RoundOrder, round_seed, shuffled_order
from heterofed.features.embedder import LocalBatch
from heterofed.frames.messages import BatchPlan, CloseRound, RoundClosed, RoundReady, StartTest
from heterofed.grads.cut_layer import CutLayer, check_finite_gradients
from heterofed.metrics.progress import logger
from heterofed.scheduler.batches.exchange import HostExchange
from heterofed.scheduler.batches.pace import Pace
from heterofed.scheduler.batches.party_trainer import PartyTrainer
from heterofed.scheduler.batches.stops import StopClock
from heterofed.scheduler.batches.streamed import BatchStream, kept
from heterofed.tasks.model import TaskStatus
from heterofed.training.context import Context, CtxVar
from heterofed.training.devices import moved
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
        self._stop_clock = StopClock(party.checkpoint_every, party.checkpoint_every_s)
        self.pace = Pace(self.terms, self.stops, None)
        self._stops_later = False
        """Whether a checkpoint follows the batch that comes `max_staleness` + 1 after the one at hand."""

    @cached_property
    def exchange(self) -> HostExchange:
        """The session's batch exchange; there once the parties are gathered."""
        return self.party._batch_exchange

    @cached_property
    def cut(self) -> CutLayer:
        """Where embeddings enter the graph and gradients leave it."""
        return CutLayer(
            self._send_gradient,
            logger.warning,
            check_finite=self.party.settings.check_finite,
        )

    def _send_gradient(self, peer: str, gradient: Tensor) -> None:
        """Let a gradient leave, the moment autograd has it."""
        values = self.packer(peer).pack(gradient, self.party._linked.meter, self.order, self.exchange.batch)
        self.exchange.send_gradient(peer, values, self.shown_loss, keep=self._stops_later)

    @property
    def precision_sent(self) -> str:
        """How exactly gradients cross."""
        return self.terms.gradient_precision

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
                self._finished = bool(self.party.is_task_finished()) or self.party._has_the_tasks_rounds()
        return self._finished or self.stopping

    def run_round(self) -> None:
        """Publish the plan, train a pass with every party that follows it."""
        self._finished, self._stage, self._best = None, Stage.TRAINING, False
        moving = self._moving_parties()
        finetune = moving is not None
        self.learns = moving is None or self.party.feature_key in moving
        self.exchange.begin_round(self.current_round, moving)
        self.party.optimizer.frozen = not self.learns
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
            if party.shuffle:
                self.order = shuffled_order(party.train_ids, seed, party.batch_size, party._session_key)
            else:
                self.order = RoundOrder(party.train_ids, party.batch_size, party._session_key)
            batch_size, batches = party.batch_size, len(self.order)
        digest, first = self.order.digest(), self.done_in_routine
        stoppable = self.exchange.all_follow_plan and not party.own_batches
        self._stop_clock.begin_round(self.iter - first, batches if stoppable else 0)
        soon = range(first, first + self.terms.max_staleness + 1)
        self.stops.clear()
        self.stops.update(filter(self._stop_clock.is_due_by_count, soon))
        self.pace = Pace(self.terms, self.stops, batches or None)
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
                keep=min(self.stops, default=None),
            )
            party._linked.send(peer, plan, party._room_s)
        self.party._linked.collect(RoundReady, "agreement to the round", party.schedule_timeout)

    def keep_point(self) -> None:
        """Write the numbered checkpoint of the last finished batch, as in `PartyTrainer`."""
        super().keep_point()
        self._stop_clock.kept()

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
        super().round_done()

    def close_round(self) -> None:
        """Let the collaborators keep a checkpoint and wait until they have."""
        self._stage = Stage.CLOSED
        self.party._linked.broadcast(CloseRound(self.round, self._best, self.shown_loss), self.party._room_s)
        self.party._linked.collect(RoundClosed, "checkpoint of the round", self.party._step_and_answer_s)

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
        if self.party._skips_tests():
            return  # also where a hook has asked for one
        self._stage = Stage.TESTED
        record, progress = self.party._at_seat.record, self.party._at_seat.progress
        record.task_is(TaskStatus.TESTING)
        progress.phase("testing")
        self.party._linked.broadcast(StartTest(self.current_round), self.party._room_s)
        with self.stepwise(MODE.TEST, "test", hooks_set) as steps:
            self._call_test(steps)
        record.task_is(TaskStatus.ONGOING)
        self.party._telling.tested(self.current_round, self.party._metric_sets)

    def _call_test(self, steps: Iterator[Any]) -> None:
        """Let the user's code read the batches of a test; it runs them by that."""
        party = self.party
        known = None if party.own_batches else len(self.test_order())
        stream = BatchStream(steps, known, party.settings.test_keep_bytes)
        try:
            with party._calling("test"), party._computing.autocast(self.ctx.device):
                party.test(stream.projections, stream.labels)
        finally:
            stream.end()

    def outcome(self) -> Any:
        """Return what `test()` gets of a batch: its embeddings and labels, in memory of their own."""
        ctx = self.ctx
        if ctx.cur_mode in MODE.LEARNING:
            return None
        if "embeddings" not in ctx:
            raise ConfigError(
                "the hooks of this test leave no ctx.embeddings",
                expected="the default hooks of tests, or others in their place that set it",
            )
        own = self.party.feature_key
        projection = {key: kept(each) if key == own else each for key, each in ctx.embeddings.items()}
        return projection, kept(ctx.labels)

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
        self.exchange.begin_batch(0)

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        batch = ctx.cur_batch_i
        self.exchange.begin_batch(batch, ends_message=self._ends_message(batch))
        super()._hook_on_batch_forward(ctx)

    def _ends_message(self, batch: int) -> bool:
        return self.ctx.cur_mode not in MODE.LEARNING or self.pace.ends_message(batch)

    def _labels_of(self, local: LocalBatch) -> dict[str, Any]:
        return {"labels": local.labels, "y_true": local.labels}

    def _hook_on_batch_exchange(self, ctx: Context) -> None:
        exchange, device = self.exchange, ctx.device
        own: Tensor = ctx.embedding
        self.cut.watch(own)
        later = ctx.cur_batch_i + self.terms.max_staleness + 1
        self._stops_later = self._stop_clock.is_due(later, another=bool(self.stops))
        if self._stops_later:
            self.stops.add(later)
        received = {peer: moved(each, device) for peer, each in exchange.receive(ctx.local_batch).items()}
        for peer in received.keys() - exchange.learning:
            exchange.send_proceed(peer, self.shown_loss, keep=self._stops_later)
        projection = {self.party.feature_key: own, **self.cut.open(received, exchange.learning)}
        ctx.embeddings = CtxVar(projection, LIFECYCLE.BATCH)

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        with self.party._calling("train_a_batch"), self.party._computing.autocast(ctx.device):
            loss = self.party.train_a_batch(ctx.embeddings, ctx.labels)
        self.cut.close()
        for _ in range(1, self.terms.local_steps if self.learns else 1):
            self._step_again(ctx)
        rows = ctx.batch_size
        if self.round_loss.add(loss, rows):
            ctx.loss_batch = CtxVar(loss, LIFECYCLE.BATCH)
            ctx.loss_batch_total = self.round_loss.total
            self.storage.put_scalar("loss", self.round_loss.last)
        elif not self.exchange.learning and self.party.settings.check_finite:
            check_finite_gradients(self.party.infer_model)  # nothing else would notice a NaN

    def _step_again(self, ctx: Context) -> None:
        """Train on the same batch once more, with the embeddings as they came; the collaborators do the same there."""
        again = ctx.local_batch.again
        if again is None:
            raise RuntimeError("local steps without load_batch")
        known = {peer: each.detach() for peer, each in ctx.embeddings.items()}
        with self.party._calling("train_a_batch"), self.party._computing.autocast(ctx.device):
            self.party.train_a_batch({**known, self.party.feature_key: again()}, ctx.labels)

    def _hook_on_fit_end(self, ctx: Context) -> None:
        self.exchange.receive_ends("training", self.batches_made)
        if self.exchange.learning or (self.learns and self.party.is_trainable):
            self.cut.check_reached(self.batches_made)

    def _hook_on_test_exchange(self, ctx: Context) -> None:
        received = self.exchange.receive(ctx.local_batch)
        for peer in received:
            self.exchange.send_proceed(peer)
        others = {peer: moved(each, ctx.device) for peer, each in received.items()}
        projection = {self.party.feature_key: ctx.embedding, **others}
        ctx.embeddings = CtxVar(projection, LIFECYCLE.BATCH)

    def _hook_on_test_end(self, ctx: Context) -> None:
        self.exchange.receive_ends("test", self.batches_made)

"""The host: has the labels, runs the infer model, leads the course of the task."""

from __future__ import annotations

import copy
import secrets
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.batches import RoundOrder, round_seed, shuffled
from heterofed.frames.messages import (
    BatchPlan,
    CloseRound,
    Completed,
    CompleteTask,
    RoundClosed,
    RoundReady,
    Split,
    StartTest,
)
from heterofed.grads.cut_layer import CutLayer, check_finite_gradients, device_of
from heterofed.grads.optimizer import OptimizerFacade
from heterofed.metrics.loss import MeanLoss
from heterofed.metrics.progress import logger
from heterofed.protocol.phases import Role
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.checks import check_count, check_seconds
from heterofed.scheduler.exchange import HostExchange
from heterofed.scheduler.gathering import check_doors, gather
from heterofed.scheduler.launch import launch
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import job_of, match_as_host
from heterofed.scheduler.seat import Seat, TaskResult
from heterofed.scheduler.splitting import compare_splits, describe_split
from heterofed.scheduler.templates import HostTemplates
from heterofed.tasks.model import TaskStatus


class HostScheduler(Scheduler, HostTemplates):
    """The party with the labels. Subclass it, write the template methods, call `launch_task(task_id=…)`.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        name: what people call this run; the task's name by default.
        max_rounds: rounds to train, 1 or more; None: until `is_task_finished()`, which must then be overridden.
        calculation_timeout: longest time that any one step of any party may take, in seconds; 0: no limit.
        schedule_timeout: longest wait for an answer between two steps, in seconds; 0: no limit.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part of the
            intersection), in seconds; 0: no limit.
        log_rounds: test after every so many rounds, and after the first and the last; 0: never.
        is_feature_trainable: False freezes this party's feature model.
        batch_size: rows of a batch, where `load_batch` is written; 128 by default.
        shuffle: a new order in every round, the same at every party, where `load_batch` is written; False by default.
        seed: of these orders, 0 <= seed < 2**32; a random one by default.
        share_loss: whether the collaborators' progress shows the round's mean loss so far.
        out_dir: folder for checkpoints and results; `runs/<task id>/<feature key>` by default.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        ConfigError: an argument cannot work.
    """

    batch_size: int
    shuffle: bool
    seed: int

    def __init__(
        self,
        feature_key: str,
        name: str | None = None,
        max_rounds: int | None = None,
        calculation_timeout: float = 300,
        schedule_timeout: float = 30,
        data_channel_timeout: tuple[float, float] = (30, 60),
        log_rounds: int = 0,
        is_feature_trainable: bool = True,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        seed: int | None = None,
        share_loss: bool = True,
        out_dir: str | Path | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(
            feature_key,
            name,
            schedule_timeout=schedule_timeout,
            data_channel_timeout=data_channel_timeout,
            is_feature_trainable=is_feature_trainable,
            out_dir=out_dir,
            settings=settings,
        )
        check_count("max_rounds", max_rounds, 1, or_none="train until is_task_finished()")
        check_count("log_rounds", log_rounds, 0)
        check_count("batch_size", batch_size, 1, or_none="128")
        check_count("seed", seed, 0, 2**32 - 1, or_none="a random one")
        check_seconds("calculation_timeout", calculation_timeout)
        self.max_rounds = max_rounds
        self.calculation_timeout = float(calculation_timeout)
        self.log_rounds = log_rounds
        # What a subclass has set before it called us stays, unless it is given here.
        for name, given, default in (
            ("batch_size", batch_size, 128),
            ("shuffle", shuffle, False),
            ("seed", seed, secrets.randbits(32)),
        ):
            if given is not None or name not in vars(self):
                setattr(self, name, default if given is None else given)
        self.share_loss = bool(share_loss)
        self._round_loss = MeanLoss()

    # --- what users may override --------------------------------------------------------------------------------------

    def is_task_finished(self) -> bool:
        """Whether training ends with the round just trained and, if it was due, tested; asked once a round.

        By default when `max_rounds` is reached.
        """
        return self._is_reach_max_rounds()

    def _is_reach_max_rounds(self) -> bool:
        return self.max_rounds is not None and self._round_number >= self.max_rounds

    def validate_context(self) -> None:
        """Check that this party can run, as in `Scheduler`, and the infer model and the end of training besides."""
        super().validate_context()
        if not isinstance(self.infer_model, nn.Module):
            raise self._made_wrong("make_infer_model", self.infer_model, "a torch.nn.Module")
        if not isinstance(self.infer_optimizer, Optimizer):
            raise self._made_wrong("make_infer_optimizer", self.infer_optimizer, "a torch.optim.Optimizer")
        if self.max_rounds is None and type(self).is_task_finished is HostScheduler.is_task_finished:
            raise ConfigError("max_rounds is not given", expected="1 or more", advice="Or override is_task_finished().")
        if self.log_rounds and type(self).test is HostTemplates.test:
            raise ConfigError(f"log_rounds is {self.log_rounds}, but there is no test()", expected="a test() method")

    # --- what users may call ------------------------------------------------------------------------------------------

    @cached_property
    def infer_model(self) -> nn.Module:
        """The model over the fused embeddings, made at its first use."""
        with self._calling("make_infer_model"):
            return self.make_infer_model()

    @cached_property
    def infer_optimizer(self) -> Optimizer:
        """The optimizer of the infer model, made at its first use."""
        with self._calling("make_infer_optimizer"):
            return self.make_infer_optimizer(self.infer_model)

    @cached_property
    def optimizer(self) -> OptimizerFacade:
        """`zero_grad()` and `step()` of the infer model and, unless frozen, of this party's feature model."""
        own = [self.feature_optimizer] if self.is_trainable else []
        return OptimizerFacade([self.infer_optimizer, *own])

    def launch_task(self, task_id: str) -> TaskResult:
        """Run this party of a task to its end, with the other parties over the network.

        Raises:
            HeterofedError: the task cannot go on; the text says whose trouble it is and what to do. Every other
                party ends with the same reason.
        """
        return launch(self, task_id, host=True)

    # --- the course of a task -----------------------------------------------------------------------------------------

    def _run(self, seat: Seat) -> TaskResult:
        _, self._party_transport = seat.connect()
        self._party_link = Link(
            self._party_transport,
            Role.HOST,
            seat.others,
            seat.settings,
            say=seat.progress.say,
            look=seat.record.look,
            clock=seat.clock,
        )
        seat.record.task_is(TaskStatus.GATHERING)
        seat.progress.phase("gathering the parties")
        self._gather(seat)
        seat.record.task_is(TaskStatus.ALIGNING)
        self._align(seat)
        seat.record.task_is(TaskStatus.ONGOING)
        finished = False
        while not finished:
            self._round_number += 1
            self._train_round(seat)
            tested = self._test_is_due()
            if tested:
                self._test_round(seat)
            with self._calling("is_task_finished"):
                finished = bool(self.is_task_finished())
            if finished and not tested and self.log_rounds and self.test_ids:
                self._test_round(seat)
            self._close_round()
        result = self._complete(seat)
        seat.record.task_is(TaskStatus.COMPLETED)
        return result

    def _give_up(self, error: HeterofedError) -> None:
        super()._give_up(error)
        self._at_seat.record.task_is(TaskStatus.FAILED, error.for_peers())

    def _prepare(self) -> list[str]:
        if not self.own_batches:
            # Subclasses may set these after our constructor; what they set is checked here.
            check_count("batch_size", self.batch_size, 1)
            check_count("seed", self.seed, 0, 2**32 - 1)
        return super()._prepare()

    def _gather(self, seat: Seat) -> None:
        self._local_ids = self._prepare()
        self._session_key, here = gather(
            self._linked,
            self._transport_open,
            seat,
            max_rounds=self.max_rounds,
            calculation_timeout_s=self.calculation_timeout,
        )
        check_doors(here, self.feature_key, own_batches=self.own_batches, shuffle=self.shuffle)
        self._batch_exchange = HostExchange(
            self._linked, here, calculation_timeout_s=self.calculation_timeout, room_s=self._room_s
        )
        self._cut_layer = CutLayer(
            lambda peer, gradient: self._batch_exchange.send_gradient(peer, gradient, self._shown_loss), logger.warning
        )

    def _align(self, seat: Seat) -> None:
        seat.progress.phase("matching ids")
        job = job_of(seat, self._session_key, self.data_channel_timeout[1])
        common = match_as_host(self._linked, self._local_ids, job, seat.progress).ids or []
        seat.progress.phase("comparing the splits")
        self._split_ids(common)
        ours = describe_split(self.train_ids, self.test_ids, self._session_key)
        splits = self._batch_exchange.collect(Split, "digests of its split", self.calculation_timeout)
        for peer, theirs in splits.items():
            compare_splits(peer, theirs, self.feature_key, ours)
        self._linked.broadcast(ours, self._room_s)
        seat.progress.say(
            f"{len(common)} ids are common to all parties: {ours.train} to train on, {ours.test} to test on"
        )

    # --- a round ------------------------------------------------------------------------------------------------------

    def _train_round(self, seat: Seat) -> None:
        order = self._start_round()
        self._round_loss = MeanLoss()
        self._set_mode(training=True)
        exchange, cut = self._batch_exchange, self._cut_layer
        device = device_of(self.infer_model)
        seat.progress.begin_round(self._round_number, self.max_rounds, len(self.train_ids))
        source = self._pass_over(order, train=True, with_labels=True)
        for local in exchange.counted(iter(source)):
            received = {peer: each.to(device) for peer, each in exchange.receive(local).items()}
            for peer in received.keys() - exchange.learning:
                exchange.send_proceed(peer, self._shown_loss)
            cut.watch(local.embedding)
            projection = {self.feature_key: local.embedding, **cut.open(received, exchange.learning)}
            with self._calling("train_a_batch"):
                loss = self.train_a_batch(projection, local.labels)
            cut.close()
            rows = local.embedding.shape[0]
            if not self._round_loss.add(loss, rows) and not exchange.learning:
                check_finite_gradients(self.infer_model)  # nothing else would notice a NaN
            seat.progress.advance(rows, self._round_loss.value)
        exchange.receive_ends("training")
        seat.progress.end_round()
        if exchange.learning or self.is_trainable:
            cut.check_reached(exchange.batch)

    def _start_round(self) -> RoundOrder:
        """Publish the round's plan, wait until every collaborator follows it, return our order."""
        if self.own_batches:
            order = RoundOrder(self.train_ids, len(self.train_ids), self._session_key)
            plan = BatchPlan(self._round_number, True, 0, 0, False, 0, order.digest())
        else:
            seed = round_seed(self.seed, self._round_number) if self.shuffle else 0
            ids = shuffled(self.train_ids, seed) if self.shuffle else self.train_ids
            order = RoundOrder(ids, self.batch_size, self._session_key)
            plan = BatchPlan(
                self._round_number, False, self.batch_size, len(order), bool(self.shuffle), seed, order.digest()
            )
        self._linked.broadcast(plan, self._room_s)
        self._batch_exchange.round = self._round_number
        self._batch_exchange.collect(RoundReady, "agreement to the round", self.schedule_timeout)
        return order

    def _test_is_due(self) -> bool:
        """Test after round 1, every `log_rounds` rounds and the last round; never when `log_rounds` is 0."""
        if not self.log_rounds:
            return False
        if not self.test_ids:
            if self._round_number == 1:
                logger.warning("%s: the split has no test ids, so no test is run", self.feature_key)
            return False
        return self._round_number == 1 or self._round_number % self.log_rounds == 0 or self._is_reach_max_rounds()

    @torch.no_grad()
    def _test_round(self, seat: Seat) -> None:
        seat.record.task_is(TaskStatus.TESTING)
        seat.progress.phase("testing")
        self._linked.broadcast(StartTest(self._round_number), self._room_s)
        self._set_mode(training=False)
        device = device_of(self.infer_model)
        projections: list[dict[str, Tensor]] = []
        labels: list[Any] = []
        size = len(self.test_ids) if self.own_batches else self.batch_size
        order = RoundOrder(self.test_ids, size, self._session_key)
        source = self._pass_over(order, train=False, with_labels=True)
        for local in self._batch_exchange.counted(iter(source)):
            received = self._batch_exchange.receive(local)
            for peer in received:
                self._batch_exchange.send_proceed(peer)
            moved = {peer: each.to(device) for peer, each in received.items()}
            projections.append({self.feature_key: local.embedding, **moved})
            labels.append(_kept(local.labels))
        self._batch_exchange.receive_ends("test")
        with self._calling("test"):
            self.test(projections, labels)
        seat.record.task_is(TaskStatus.ONGOING)

    def _close_round(self) -> None:
        self._keep_checkpoint()
        self._linked.broadcast(CloseRound(self._round_number), self._room_s)
        self._batch_exchange.collect(RoundClosed, "checkpoint of the round", self.schedule_timeout)

    def _complete(self, seat: Seat) -> TaskResult:
        seat.progress.phase("completing the task")
        self._linked.broadcast(CompleteTask(self._round_number), self._room_s)
        result = self._write_outputs()
        self._batch_exchange.collect(Completed, "word that its model is written", self.schedule_timeout)
        return result

    # --- small things -------------------------------------------------------------------------------------------------

    def _set_mode(self, *, training: bool) -> None:
        super()._set_mode(training=training)
        self.infer_model.train(training)

    def _kept_models(self) -> dict[str, nn.Module]:
        return {**super()._kept_models(), "infer": self.infer_model}

    def _kept_optimizers(self) -> dict[str, Optimizer]:
        return {**super()._kept_optimizers(), "infer": self.infer_optimizer}

    @property
    def _shown_loss(self) -> float | None:
        return self._round_loss.value if self.share_loss else None


def _kept(labels: Any) -> Any:
    """Return labels that stay as they are when the user's code uses its buffer again."""
    if isinstance(labels, Tensor):
        return labels.clone()
    return copy.deepcopy(labels)

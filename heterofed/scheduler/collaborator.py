"""A collaborator: has features only, follows the host through the task, keeps its model to itself."""

from __future__ import annotations

import torch
from torch import Tensor

from heterofed.errors import EmbeddingError, RemoteProtocolError
from heterofed.features.batches import RoundOrder, shuffled
from heterofed.features.embedder import LocalBatch
from heterofed.frames.messages import (
    BatchesEnd,
    BatchPlan,
    CloseRound,
    Completed,
    CompleteTask,
    Embedding,
    Gradient,
    Proceed,
    RoundClosed,
    RoundReady,
    Split,
    StartTest,
    Welcome,
)
from heterofed.frames.tensors import pack, unpack
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.gathering import check_in
from heterofed.scheduler.launch import launch
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import job_of, match_as_collaborator
from heterofed.scheduler.seat import Seat, TaskResult
from heterofed.scheduler.splitting import compare_splits, describe_split
from heterofed.wire.transport import Transport


class CollaboratorScheduler(Scheduler):
    """A party with features only. Subclass it, write the template methods, call `launch_task(task_id=…)`.

    Its arguments are those of `Scheduler`. Within a round it waits for the host for up to three times the host's
    `calculation_timeout` and its own `schedule_timeout` together.
    """

    _host_key = ""
    _patience_s = 0.0
    _rounds_in_all: int | None = None
    _planned_batch_size = 0

    def launch_task(self, task_id: str) -> TaskResult:
        """Run this party of a task to its end, with the other parties over the network.

        Raises:
            HeterofedError: the task cannot go on; the text says whose trouble it is and what to do. Every other
                party ends with the same reason.
        """
        return launch(self, task_id, host=False)

    # --- the course of a task -----------------------------------------------------------------------------------------

    def _run(self, seat: Seat) -> TaskResult:
        ids = self._prepare()
        seat.progress.phase("checking in")
        link, welcome = check_in(seat, trainable=self.is_trainable, own_batches=self.own_batches, opened=self._opened)
        self._host_key = link.peers[0]
        self._session_key = welcome.session
        self._rounds_in_all = welcome.max_rounds or None
        self._patience_s = self._patience(welcome)
        seat.progress.phase("matching ids")
        job = job_of(seat, self._session_key, self.data_channel_timeout[1])
        matched = match_as_collaborator(
            link, ids, job, seat.progress, host=self._host_key, collaborators=welcome.parties[1:]
        )
        common = matched.ids or []
        seat.progress.phase("comparing the splits")
        self._split_ids(common)
        self._agree_on_split(link)
        seat.progress.say(f"{len(common)} ids are common to all parties")
        while True:
            _, order = link.expect(
                (BatchPlan, CompleteTask), from_=[self._host_key], waiting_for="next round", timeout_s=self._patience_s
            )
            if isinstance(order, CompleteTask):
                break
            self._round_number = order.round
            self._train_round(seat, link, order)
            _, next_ = link.expect(
                (StartTest, CloseRound),
                from_=[self._host_key],
                waiting_for="end of the round",
                timeout_s=self._patience_s,
            )
            if isinstance(next_, StartTest):
                self._test_round(seat, link)
                link.expect(
                    CloseRound, from_=[self._host_key], waiting_for="end of the round", timeout_s=self._patience_s
                )
            self._keep_checkpoint()
            link.send(self._host_key, RoundClosed(self._round_number), self._room_s)
        seat.progress.phase("completing the task")
        result = self._write_outputs()
        link.send(self._host_key, Completed(self._round_number), self._room_s)
        return result

    def _opened(self, link: Link, transport: Transport) -> None:
        self._party_link, self._party_transport = link, transport

    def _patience(self, welcome: Welcome) -> float:
        """How long the host may be silent: three steps, and an answer's time.

        Between two messages to us it may make its own embedding, wait for the slowest collaborator, and train or test.
        """
        if not welcome.calculation_timeout_s or not self.schedule_timeout:
            return 0.0
        return 3 * welcome.calculation_timeout_s + self.schedule_timeout

    def _agree_on_split(self, link: Link) -> None:
        ours = describe_split(self.train_ids, self.test_ids, self._session_key)
        link.send(self._host_key, ours, self._room_s)
        _, theirs = link.expect(
            Split, from_=[self._host_key], waiting_for="digests of its split", timeout_s=self._patience_s
        )
        compare_splits(self._host_key, theirs, self.feature_key, ours)

    # --- a round ------------------------------------------------------------------------------------------------------

    def _train_round(self, seat: Seat, link: Link, plan: BatchPlan) -> None:
        ids = shuffled(self.train_ids, plan.seed) if plan.shuffle else self.train_ids
        order = RoundOrder(ids, plan.batch_size or len(ids), self._session_key)
        order.check(plan.digest, self._host_key, plan.round)
        self._planned_batch_size = plan.batch_size
        link.send(self._host_key, RoundReady(self._round_number), self._room_s)
        self._set_mode(training=True)
        seat.progress.begin_round(self._round_number, self._rounds_in_all, len(ids))
        source = self._pass_over(order, train=True, with_labels=False)
        batch = 0
        with torch.set_grad_enabled(self.is_trainable):
            for local in source:
                self._send(link, local, batch)
                source.prefetch()
                _, answer = link.expect(
                    (Gradient, Proceed),
                    from_=[self._host_key],
                    waiting_for=f"gradient of round {self._round_number}, batch {batch}",
                    timeout_s=self._patience_s,
                )
                if isinstance(answer, Gradient):
                    self._learn(local.embedding, unpack(answer.values))
                batch += 1
                seat.progress.advance(local.embedding.shape[0], answer.loss)
        link.send(self._host_key, BatchesEnd(self._round_number, batch), self._room_s)
        seat.progress.end_round()

    def _send(self, link: Link, local: LocalBatch, batch: int) -> None:
        if self.is_trainable and torch.is_grad_enabled() and not local.embedding.requires_grad:
            raise EmbeddingError(
                "the embedding does not depend on the feature model's parameters",
                expected="the output of the model that was passed in, with its graph",
                advice="Do not detach it; or set is_feature_trainable=False.",
            )
        rows = local.embedding.shape[0]
        message = Embedding(self._round_number, batch, rows, local.digest, pack(local.embedding))
        link.send(self._host_key, message, self._room_s)

    def _learn(self, embedding: Tensor, gradient: Tensor) -> None:
        """Backpropagate the host's gradient through our feature model and step."""
        if gradient.shape != embedding.shape or gradient.dtype != embedding.dtype:
            raise RemoteProtocolError(
                f"sent a gradient of {gradient.dtype} {tuple(gradient.shape)}",
                party=self._host_key,
                expected=f"{embedding.dtype} {tuple(embedding.shape)}, as the embedding",
            )
        with self._calling("the backward pass of the feature model or the step of its optimizer"):
            self.feature_optimizer.zero_grad()
            torch.autograd.backward(embedding, gradient.to(embedding.device))
            self.feature_optimizer.step()

    @torch.no_grad()
    def _test_round(self, seat: Seat, link: Link) -> None:
        seat.progress.phase("testing")
        self._set_mode(training=False)
        order = RoundOrder(self.test_ids, self._planned_batch_size or max(1, len(self.test_ids)), self._session_key)
        source = self._pass_over(order, train=False, with_labels=False)
        batch = 0
        for local in source:
            self._send(link, local, batch)
            source.prefetch()
            link.expect(
                Proceed, from_=[self._host_key], waiting_for=f"answer to test batch {batch}", timeout_s=self._patience_s
            )
            batch += 1
        link.send(self._host_key, BatchesEnd(self._round_number, batch), self._room_s)

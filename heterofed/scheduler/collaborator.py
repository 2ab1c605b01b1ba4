"""A collaborator: has features only, follows the host through the task, keeps its model to itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from heterofed.errors import PeerRestarted
from heterofed.frames.messages import Completed, Split, Welcome
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.batches.collaborator_trainer import CollaboratorTrainer
from heterofed.scheduler.gathering import check_in
from heterofed.scheduler.launch import launch
from heterofed.scheduler.leaving import await_dismissal
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import job_of, match_as_collaborator
from heterofed.scheduler.predicting.loading import find_run
from heterofed.scheduler.predicting.serve_limits import DEFAULT_LIMITS, ServeLimits
from heterofed.scheduler.predicting.serving import PredictionsAnswered, answer_session, serve
from heterofed.scheduler.seat import Seat, TaskResult
from heterofed.scheduler.splitting import compare_splits
from heterofed.scheduler.standing import Agreement, Standing
from heterofed.scheduler.terms import summary
from heterofed.scheduler.waits import longest


class CollaboratorScheduler(Scheduler):
    """A party with features only. Subclass it, write the template methods, call `launch_task(task_id=…)`.

    Its arguments are those of `Scheduler`. Within a round it waits for the host for up to three times the host's
    `calculation_timeout` and its own `schedule_timeout` together.
    """

    _host = ""
    _patience_s = 0.0
    _collaborators: Sequence[str] = ()
    _rounds_in_all: int | None = None

    def launch_task(self, task_id: str, recover: bool = False) -> TaskResult:
        """Run this party of a task to its end, with the other parties over the network.

        Args:
            task_id: as `heterofed task create` printed it.
            recover: go on from the newest checkpoint that every party holds, if there is one.

        Raises:
            HeterofedError: the task cannot go on; the text says whose trouble it is and what to do. Every other
                party ends with the same reason.
        """
        return launch(self, task_id, host=False, recover=recover)

    def answer_predictions(
        self,
        task_id: str | None = None,
        *,
        limits: ServeLimits = DEFAULT_LIMITS,
        audit: Path | None = None,
        host_key: bytes | str | None = None,
    ) -> PredictionsAnswered:
        """Answer one session of the host for predictions, with the model of the completed run in `out_dir`.

        Args:
            task_id: the task that run must be of; None: whichever it is.
            limits: what the host may ask.
            audit: a file to which a line of JSON is added for each event, before the host learns anything by it; this
                user's alone, and without ids.
            host_key: the only public key that is the host; None: the one that it had in the training.

        Raises:
            DataError: the folder does not hold a completed run, or a file of it was changed.
            ConfigError: `host_key` is no public key.
            OutputError: the account cannot be kept.
            HeterofedError: the session failed; the text says whose trouble it is.
        """
        manifest = find_run(self, "collaborator", task_id)
        wait_s = self.settings.gather_timeout_s
        return answer_session(self, manifest, limits, wait_s=wait_s, audit=audit, host_key=host_key)

    def serve_predictions(
        self,
        task_id: str | None = None,
        *,
        limits: ServeLimits = DEFAULT_LIMITS,
        audit: Path | None = None,
        stop: threading.Event | None = None,
        sessions: int | None = None,
        host_key: bytes | str | None = None,
    ) -> int:
        """Answer one session after the other, as `answer_predictions`, until it is told to stop. May run in a thread.

        A session that fails does not end it. SIGTERM and Ctrl-C do, where this is the main thread.

        Args:
            task_id: as in `answer_predictions`.
            limits: what hosts may ask; what goes beyond ends that session.
            audit: as in `answer_predictions`.
            stop: ends it once it is set.
            sessions: after how many it ends; None: it does not.
            host_key: as in `answer_predictions`.

        Returns:
            How many sessions came to their end.

        Raises:
            DataError: the folder does not hold a completed run, or a file of it was changed.
            ConfigError: this party cannot serve here.
            OutputError: the account cannot be kept.
        """
        manifest = find_run(self, "collaborator", task_id)
        return serve(
            self,
            manifest,
            limits,
            audit=audit,
            stop=stop or threading.Event(),
            sessions=sessions,
            host_key=host_key,
        )

    @cached_property
    def trainer(self) -> CollaboratorTrainer:
        """The loop that runs this party's rounds; hooks are registered here."""
        return self._make_trainer(CollaboratorTrainer)

    # --- the course of a task -----------------------------------------------------------------------------------------

    @property
    def task_parties(self) -> tuple[str, ...]:
        """Feature keys of all parties; host first once this one has met it."""
        return (self._host, *self._collaborators) if self._host else super().task_parties

    @property
    def _rounds(self) -> int | None:
        return self._rounds_in_all

    def _arrive(self, seat: Seat) -> None:
        self._prepare()

    def _gather(self, seat: Seat, standing: Standing) -> Agreement:
        seat.progress.phase("checking in")
        link, welcome = check_in(
            seat,
            trainable=self.is_trainable,
            own_batches=self.own_batches,
            opened=self._opened,
            link=self._party_link,
            standing=standing,
            timeout_s=longest(self.rejoin_timeout, self._patience_s) if self._met else None,
            rejoin_timeout_s=self.rejoin_timeout,
            threads=torch.get_num_threads(),
        )
        self._host = link.peers[0]
        self._session_key = welcome.session
        self._collaborators = welcome.parties[1:]
        self._rounds_in_all = welcome.max_rounds or None
        self._patience_s = self._patience(welcome)
        self._terms = welcome.terms
        if said := summary(self._terms):
            seat.progress.say(f"{self._host} declares: {said}")
        return Agreement(welcome.resume, welcome.matched)

    def _end_session(self, restarted: PeerRestarted) -> None:
        self._at_seat.progress.say(
            f"{restarted.party} opens a new session; all parties go on from where all of them can"
        )

    def _opened(self, link: Link) -> None:
        self._party_link = link

    def _patience(self, welcome: Welcome) -> float:
        """How long the host may be silent: three steps, and an answer's time.

        Between two messages to us it may make its own embedding, wait for the slowest collaborator, and train or test.
        """
        if not welcome.calculation_timeout_s or not self.schedule_timeout:
            return 0.0
        return 3 * welcome.calculation_timeout_s + self.schedule_timeout

    def _match(self, seat: Seat) -> Sequence[str]:
        job = job_of(seat, self._session_key, self.data_channel_timeout[1])
        matched = match_as_collaborator(
            self._linked,
            self._local_ids,
            job,
            seat.progress,
            host=self._host,
            collaborators=self._collaborators,
        )
        return matched.ids or []

    def _compare_splits(self, ours: Split) -> None:
        self._linked.send(self._host, ours, self._room_s)
        _, theirs = self._linked.expect(
            Split, from_=[self._host], waiting_for="digests of its split", timeout_s=self._patience_s
        )
        compare_splits(self._host, theirs, self.feature_key, ours)

    def _complete(self, seat: Seat) -> TaskResult:
        seat.progress.phase("completing the task")
        result = self._write_outputs()
        seat.record.outputs(self._for_the_record, host=False)
        self._linked.send(self._host, Completed(self.trainer.round), self._room_s)
        await_dismissal(self._linked, seat, self._patience_s)
        return result

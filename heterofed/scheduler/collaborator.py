"""A collaborator: has features only, follows the host through the task, keeps its model to itself."""

from __future__ import annotations

from functools import cached_property

from heterofed.frames.messages import Completed, Split, Welcome
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.collaborator_trainer import CollaboratorTrainer
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

    def launch_task(self, task_id: str, recover: bool = False) -> TaskResult:
        """Run this party of a task to its end, with the other parties over the network.

        Args:
            task_id: as `heterofed task create` printed it.
            recover: go on after the round of this party's last checkpoint, if it has one. All parties have to begin
                after the same round: give it to all of them, or to none.

        Raises:
            HeterofedError: the task cannot go on; the text says whose trouble it is and what to do. Every other
                party ends with the same reason.
        """
        return launch(self, task_id, host=False, recover=recover)

    @cached_property
    def trainer(self) -> CollaboratorTrainer:
        """The loop that runs this party's rounds; hooks are registered here."""
        return self._make_trainer(CollaboratorTrainer)

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
        self._train(self._rounds_in_all)
        seat.progress.phase("completing the task")
        result = self._write_outputs()
        link.send(self._host_key, Completed(self.trainer.round), self._room_s)
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

"""The host's course through a task: it gathers the parties, leads the alignment and the rounds, and ends it for all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heterofed.checks import check_count
from heterofed.errors import ConfigError, HeterofedError, PeerRestarted
from heterofed.features.batches import shuffled
from heterofed.frames.messages import Completed, CompleteTask, Split
from heterofed.protocol.phases import Role
from heterofed.scheduler.admitting import check_batching
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.batches.exchange import HostExchange
from heterofed.scheduler.batches.host_trainer import HostTrainer
from heterofed.scheduler.crowding import crowding, on_one_machine
from heterofed.scheduler.gathering import gather
from heterofed.scheduler.leaving import dismiss
from heterofed.scheduler.link import Link
from heterofed.scheduler.matching import job_of, match_as_host
from heterofed.scheduler.predicting.asking import Asker
from heterofed.scheduler.predicting.drawing import Drawing
from heterofed.scheduler.predicting.means import take_means, write_means
from heterofed.scheduler.predicting.predictions import Predictions
from heterofed.scheduler.seat import Seat, TaskResult
from heterofed.scheduler.splitting import compare_splits
from heterofed.scheduler.standing import Agreement, Standing
from heterofed.scheduler.templates import HostTemplates
from heterofed.scheduler.terms import needs_plan
from heterofed.tasks.model import Task, TaskStatus
from heterofed.training.evaluating import evaluating


class HostCourse(Scheduler, HostTemplates):
    """What of `HostScheduler` is not for its users; see there."""

    max_rounds: int | None
    calculation_timeout: float
    log_rounds: int
    batch_size: int
    shuffle: bool
    seed: int
    checkpoint_every: int | None
    checkpoint_every_s: float | None
    _batch_exchange: HostExchange
    _on_one_machine = False
    _seen_at_the_end: Mapping[str, tuple[str, tuple[int, ...]]] = {}
    mean_rows: int
    _means: Mapping[str, Tensor] | None = None

    @property
    @abstractmethod
    def trainer(self) -> HostTrainer:
        """The loop that runs this party's rounds; hooks are registered here."""

    @abstractmethod
    def _is_reach_max_rounds(self) -> bool: ...

    # --- the course of a task -----------------------------------------------------------------------------------------

    @property
    def _rounds(self) -> int | None:
        return self.max_rounds

    def _arrive(self, seat: Seat) -> None:
        _, transport = seat.connect()
        self._on_one_machine = on_one_machine(transport, seat.settings.advertise)
        self._party_link = Link(
            transport,
            Role.HOST,
            seat.others,
            seat.settings,
            say=seat.progress.say,
            look=seat.record.look,
            clock=seat.clock,
            rejoin_timeout_s=self.rejoin_timeout,
        )
        self._party_link.tell_of_the_lost(seat.record.lost)
        seat.record.task_is(TaskStatus.GATHERING)
        seat.progress.phase("gathering the parties")
        self._prepare()

    @property
    def task_parties(self) -> tuple[str, ...]:
        """Feature keys of all parties, this host's first."""
        return (self.feature_key, *self._at_seat.others)

    def _embeddings_seen(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {**self._batch_exchange.seen, **self._seen_at_the_end}

    def _obey(self, seat: Seat) -> None:
        super()._obey(seat)
        if seat.rounds is not None and seat.rounds != self.max_rounds:
            own = "does not say how many" if self.max_rounds is None else f"has max_rounds={self.max_rounds}"
            seat.progress.say(f"the task says {seat.rounds} rounds, so these are trained; {self.feature_key} {own}")
            self.max_rounds = seat.rounds

    def _obey_completed(self, task: Task) -> None:
        super()._obey_completed(task)
        if task.rounds is not None:
            self.max_rounds = task.rounds

    def _has_the_tasks_rounds(self) -> bool:
        """Whether the rounds are trained that the task asks for, whatever the user's `is_task_finished` says."""
        return self._seat is not None and self._seat.rounds is not None and self.current_round >= self._seat.rounds

    @property
    def _step_and_answer_s(self) -> float:
        """How long a collaborator may take for its hooks at the end of a round or of the task, and its answer."""
        if not self.calculation_timeout or not self.schedule_timeout:
            return 0.0
        return self.calculation_timeout + self.schedule_timeout

    def _give_up(self, error: HeterofedError) -> None:
        super()._give_up(error)
        if self._party_link is not None:
            self._party_link.stay_until_heard()
        self._at_seat.record.task_is(TaskStatus.FAILED, error.for_peers())

    def _prepare(self) -> None:
        if not self.own_batches:
            # Subclasses may set these after our constructor; what they set is checked here.
            check_count("batch_size", self.batch_size, 1)
            check_count("seed", self.seed, 0, 2**32 - 1)
        elif self.checkpoint_every or self.checkpoint_every_s:
            raise ConfigError(
                "checkpoints in the middle of rounds are wanted, but this party chooses its own batches",
                expected="load_batch in the place of iterate_*, or neither checkpoint_every nor checkpoint_every_s",
            )
        if self.own_batches and (argument := needs_plan(self._terms)):
            raise ConfigError(
                f"{argument} is declared, but this party chooses its own batches",
                expected=f"load_batch in the place of iterate_*, or no {argument}",
            )
        if self.own_batches and self._concludes:
            raise ConfigError(
                f"{type(self).__name__} would predict when training ends, but it chooses its own batches",
                expected="load_batch in the place of iterate_*, or neither conclude() nor mean_rows",
            )
        super()._prepare()

    def _end_session(self, restarted: PeerRestarted) -> None:
        self._at_seat.progress.say(f"{restarted.party} was started again; all parties go on from where all of them can")
        self._linked.reopen()
        self._at_seat.record.task_is(TaskStatus.GATHERING)
        self._at_seat.progress.phase("gathering the parties")

    def _gather(self, seat: Seat, standing: Standing) -> Agreement:
        gathered = gather(
            self._linked,
            seat,
            max_rounds=self.max_rounds,
            calculation_timeout_s=self.calculation_timeout,
            standing=standing,
            timeout_s=self.rejoin_timeout if self._met else None,
            again=self._met,
            terms=self._terms,
        )
        self._session_key = gathered.session
        here = gathered.check_ins
        threads = {self.feature_key: torch.get_num_threads(), **{peer: each.threads for peer, each in here.items()}}
        if self._on_one_machine and (crowded := crowding(threads)):
            self._warn_once(crowded)
        check_batching(here, self.feature_key, own_batches=self.own_batches, shuffle=self.shuffle, terms=self._terms)
        strange = [peer for peer, each in here.items() if each.own_batches]
        if strange and self._concludes:
            raise ConfigError(
                f"{self.feature_key} would predict in the end, but {', '.join(strange)} chooses its own batches",
                expected="load_batch at every party, or neither conclude() nor mean_rows at the host",
            )
        self._batch_exchange = HostExchange(
            self._linked,
            here,
            calculation_timeout_s=self.calculation_timeout,
            room_s=self._room_s,
            check_finite=self.settings.check_finite,
            terms=self._terms,
        )
        if self._models_made:
            self.trainer.new_session()
        if (self.checkpoint_every or self.checkpoint_every_s) and not self._batch_exchange.all_follow_plan:
            self._warn_once("a collaborator chooses its own batches, so checkpoints are kept only after rounds")
        return gathered.agreement

    def _align(self, seat: Seat, agreement: Agreement) -> None:
        seat.record.task_is(TaskStatus.ALIGNING)
        super()._align(seat, agreement)
        seat.record.task_is(TaskStatus.ONGOING)

    def _match(self, seat: Seat) -> Sequence[str]:
        job = job_of(seat, self._session_key, self.data_channel_timeout[1])
        return match_as_host(self._linked, self._local_ids, job, seat.progress).ids or []

    def _compare_splits(self, ours: Split) -> None:
        splits = self._linked.collect(Split, "digests of its split", self.calculation_timeout)
        for peer, theirs in splits.items():
            compare_splits(peer, theirs, self.feature_key, ours)
        self._linked.broadcast(ours, self._room_s)

    # --- a round ------------------------------------------------------------------------------------------------------

    def _test_is_due(self) -> bool:
        """Test after round 1, every `log_rounds` rounds and the last round; never when `log_rounds` is 0.

        Where the task has options, these win: after each round, or after the last one only.
        """
        if not self._tests_at_all():
            return False
        if (options := self._at_seat.options) is not None:
            return options.model_test_after_each_round or self._is_reach_max_rounds()
        return self.current_round == 1 or self.current_round % self.log_rounds == 0 or self._is_reach_max_rounds()

    def _skips_tests(self) -> bool:
        """Whether the task wants no test at all."""
        options = self._at_seat.options
        return options is not None and options.skip_model_tests

    def _tests_at_all(self) -> bool:
        if self._skips_tests() or (self._at_seat.options is None and not self.log_rounds):
            return False
        if type(self).test is HostTemplates.test:
            self._warn_once(f"the task asks for tests, but {type(self).__name__} has no test(), so none is run")
            return False
        if not self.test_ids:
            self._warn_once("the split has no test ids, so no test is run")
            return False
        return True

    @property
    def _concludes(self) -> bool:
        """Whether there is something to predict when training ends."""
        return bool(self.mean_rows) or type(self).conclude is not HostTemplates.conclude

    def _conclude(self) -> None:
        """Predict with the models as they are now, while all parties are there."""
        if not self._concludes:
            return
        shared = self.id_intersection
        asker = Asker(
            self._linked,
            self._session_key,
            self.trainer.round,
            timeout_s=self._step_and_answer_s,
            room_s=self._room_s,
            finite=self.settings.check_finite,
            forms={},
        )
        arguments: dict[str, Any] = {
            "asked": shared,
            "known": shared,
            "shared": shared,
            "asker": asker,
            "parties": self.task_parties,
            "drawing": Drawing(self, self._swag_moments),
        }
        with evaluating([self.feature_model, self.infer_model]):
            if self.mean_rows:
                chosen = shuffled(self.train_ids, 0)[: self.mean_rows]
                self._means = take_means(Predictions(self, **arguments), chosen)
            predictions = Predictions(self, **arguments, means=self._means)
            with self._calling("conclude"):
                self.conclude(predictions)
            predictions.finish("training is over")
        self._seen_at_the_end = asker.seen

    def _own_artifacts(self, folder: Path) -> tuple[Path, ...]:
        return (*super()._own_artifacts(folder), *write_means(folder, self._means or {}))

    def _complete(self, seat: Seat) -> TaskResult:
        self._conclude()
        seat.progress.phase("completing the task")
        self._linked.broadcast(CompleteTask(self.trainer.round), self._room_s)
        result = self._write_outputs()
        self._linked.collect(Completed, "word that its model is written", self._step_and_answer_s)
        seat.record.outputs(self._for_the_record, host=True)
        seat.record.task_is(TaskStatus.COMPLETED)
        dismiss(self._linked)
        return result

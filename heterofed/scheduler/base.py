"""One party of a task from its launch to its end, and what both roles share of that."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from heterofed.errors import (
    AlignmentError,
    ConfigError,
    HeterofedError,
    OutputError,
    PeerRefused,
    PeerRestarted,
    TaskAborted,
    TaskFailed,
)
from heterofed.features.alignment import OrderedIds, checked_ids
from heterofed.files import held, make_folder
from heterofed.frames.messages import Split
from heterofed.metrics.progress import AFTER_MATCHING, logger
from heterofed.scheduler.checks import check_matchings
from heterofed.scheduler.keeping import Keeping
from heterofed.scheduler.manifest import results_folder
from heterofed.scheduler.recovery import (
    CHECKPOINTS,
    Alignment,
    Points,
    drop_alignment,
    find_alignment,
    keep_alignment,
    standing_with,
)
from heterofed.scheduler.seat import AlreadyCompleted, Seat, TaskResult, presence
from heterofed.scheduler.splitting import checked_split, describe_split
from heterofed.scheduler.standing import START, Agreement, Standing
from heterofed.tasks.model import PartyStatus

MOST_MEETINGS = 20
"""How often the parties go on from one and the same point."""


class Scheduler(Keeping):
    """One party of a task; subclass `HostScheduler` or `CollaboratorScheduler` rather than this.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        name: what people call this run; the task's name by default.
        schedule_timeout: longest wait for another party's answer between two steps, in seconds; 0: no limit.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part of the
            intersection), in seconds; 0: no limit.
        is_feature_trainable: False freezes this party's feature model.
        rejoin_timeout: how long to wait for a party whose link is down or whose process has ended, in seconds; 0: no
            limit. By default as the settings say.
        max_to_keep: how many numbered checkpoints to keep, 2 or more.
        device: where this party's models compute, "cuda" for example; they and what `load_batch` returns are moved
            there. None: the models stay where they were made.
        mixed_precision: "bfloat16": forward passes under `torch.autocast`; embeddings cross as float32. None: no.
        compile_models: True: the models are compiled by `torch.compile`; or the name of one of its backends.
        out_dir: folder for checkpoints and results; `runs/<task id>/<feature key>` by default.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        ConfigError: an argument cannot work.
    """

    def validate_context(self) -> None:
        """Check that this party can run. Extend it by calling `super().validate_context()` first.

        Raises:
            ConfigError: a `make_*` method gave something else than it should, or the template methods are incomplete.
        """
        if not isinstance(self.feature_model, nn.Module):
            raise self._made_wrong("make_feature_model", self.feature_model, "a torch.nn.Module")
        if self.is_trainable and not isinstance(self.feature_optimizer, Optimizer):
            raise self._made_wrong("make_feature_optimizer", self.feature_optimizer, "a torch.optim.Optimizer")
        by_hand = [self._wrote(each) for each in ("iterate_train_feature", "iterate_test_feature")]
        if any(by_hand) == self._wrote("load_batch") or any(by_hand) != all(by_hand):
            raise ConfigError(
                f"{type(self).__name__} does not say how to make its embeddings",
                expected="iterate_train_feature and iterate_test_feature, or load_batch",
                advice="Write one of the two, not parts of both.",
            )

    @property
    def id_intersection(self) -> OrderedIds:
        """The ids that all parties share, sorted.

        Raises:
            ConfigError: the ids are not matched yet.
        """
        if self._intersection is None:
            raise ConfigError("the ids of the parties are not matched yet")
        return self._intersection

    # --- a run --------------------------------------------------------------------------------------------------------

    def take_part(self, seat: Seat, *, recover: bool = False) -> TaskResult:
        """Run this party to the end of its task. `launch_task` and `run_locally` call it.

        Args:
            seat: its place in the task.
            recover: whether to go on from the newest checkpoint that all parties hold, if there is one.

        Raises:
            HeterofedError: the task cannot go on; every other party has been told why.
        """
        if self._seat is not None:
            raise ConfigError("this scheduler has run already", advice="Make a new one for each launch.")
        self._seat = seat
        self._recovers = recover
        if self.out_dir is None:
            self.out_dir = results_folder(seat.task_id, self.feature_key)
        seat.progress.say(f"{self.feature_key} takes part in {seat.task_name} (task {seat.task_id})")
        try:
            with presence(seat, self._give_up), ExitStack() as self._at_the_end:
                try:
                    return self._run(seat)
                except AlreadyCompleted:
                    if not recover:
                        raise ConfigError(
                            f"task {seat.task_id} was completed before this party was there",
                            party=self.feature_key,
                            advice="Create a new one with `heterofed task create`.",
                        ) from None
                    return self.completed_before(seat.task_id)
        finally:
            if self._party_link is not None:
                self._party_link.close()

    def _run(self, seat: Seat) -> TaskResult:
        """Go through the course of the task; from the meeting on again when a party was started again."""
        self._arrive(seat)
        try:
            self._meet(seat)
        except PeerRestarted as restarted:
            self._meet_again(restarted)
        while True:
            self.trainer.run(self._rounds)
            try:
                return self._complete(seat)
            except PeerRestarted as restarted:
                self._meet_again(restarted)

    @abstractmethod
    def _arrive(self, seat: Seat) -> None:
        """Do what is done once: prepare, and be there for the others."""

    def _obey(self, seat: Seat) -> None:
        """Take over what the task says in the place of this party's own arguments."""

    def _meet_again(self, restarted: PeerRestarted) -> None:
        """Open a new session in the place of one that a party's restart has ended."""
        seat = self._at_seat
        while True:
            self._end_session(restarted)
            try:
                self._meet(seat)
                return
            except PeerRestarted as another:
                restarted = another

    @abstractmethod
    def _end_session(self, restarted: PeerRestarted) -> None:
        """Let go of the session with the others, and tell the user why."""

    def _meet(self, seat: Seat) -> None:
        """Gather, agree on the shared ids and on where to go on from, and go there."""
        standing = self._stand()
        agreement = self._gather(seat, standing)
        self._met = True
        self._meetings[agreement.point] += 1
        if self._meetings[agreement.point] > MOST_MEETINGS:
            raise TaskFailed(
                f"the parties have met {MOST_MEETINGS} times and gone on after batch {agreement.point} each time",
                expected="a restart now and then",
                advice="Some party ends there again and again: look at its output, its memory and its code.",
            )
        newest = max(standing.points, default=START)
        if agreement.point < newest:
            logger.warning(
                "%s goes back from batch %d to %d, the newest point that every party holds",
                self.feature_key,
                newest,
                agreement.point,
            )
        self._align(seat, agreement)
        if agreement.point == START:
            seat.record.begins_anew()
        name = self._points.name(agreement.point) if self._points is not None else None
        if name is not None:
            self._go_on_from(name)
        elif self._recovers and self._untouched:
            seat.progress.say(f"{self.feature_key} begins with the first round")

    @abstractmethod
    def _gather(self, seat: Seat, standing: Standing) -> Agreement:
        """Check in with the others; return where all parties go on."""

    @abstractmethod
    def _match(self, seat: Seat) -> Sequence[str]:
        """Find the ids that all parties share, in this session."""

    @abstractmethod
    def _compare_splits(self, ours: Split) -> None:
        """Exchange digests of the split with the others, and compare them."""

    @abstractmethod
    def _complete(self, seat: Seat) -> TaskResult:
        """Write what is left, and leave when all parties have."""

    @property
    @abstractmethod
    def _rounds(self) -> int | None:
        """Rounds in all, where that is known."""

    def _stand(self) -> Standing:
        """Find out from where this party can go on now."""
        if self._alignment is None and self._recovers:
            self._alignment = find_alignment(self._checkpoints, self._local_ids)
        self._points = Points(self.trainer.checkpointer, self._alignment.run) if self._alignment is not None else None
        return standing_with(self._points, self._alignment, recover=self._recovers or self._met, fresh=self._untouched)

    def _align(self, seat: Seat, agreement: Agreement) -> None:
        """Come to the shared ids and to the split, the same at every party."""
        kept = self._alignment if agreement.matched else None
        if kept is not None:
            seat.progress.say(f"the {len(kept.shared)} shared ids are known from before")
        else:
            seat.progress.phase("matching ids")
            self._matchings += 1
            check_matchings(self._matchings)
            drop_alignment(self._checkpoints)
        alignment = kept or Alignment(self._session_key, list(self._match(seat)))
        seat.progress.phase(AFTER_MATCHING)
        if self._intersection is None or list(self._intersection) != alignment.shared:
            if self._models_made and self.models_after_alignment:
                raise AlignmentError(
                    "the shared ids are others than those that the models were made for",
                    party=self.feature_key,
                    expected="the ids of the run that is to be resumed",
                    advice="Begin anew, without recover=True.",
                )
            self._split_ids(alignment.shared)
        if not self._models_made:
            self._make_ready()
        ours = describe_split(self.train_ids, self.test_ids, self._session_key)
        self._compare_splits(ours)
        if kept is None:
            keep_alignment(self._checkpoints, alignment)
            self._alignment = alignment
        seat.progress.say(
            f"{len(alignment.shared)} ids are common to all parties: {ours.train} to train on, {ours.test} to test on"
        )

    def _give_up(self, error: HeterofedError) -> None:
        """Say where the error belongs, tell the peers, and note it."""
        self._tell_peers(error)
        if self._given_up is not None and not self._met and isinstance(error, PeerRefused | ConfigError):
            # It was not to begin anew: the run before can still be gone on with.
            with suppress(OutputError):
                keep_alignment(self._checkpoints, self._given_up)
        if isinstance(error, PeerRefused):  # the task goes on without us, and may let us in later
            self._at_seat.record.party_is(PartyStatus.INVITED, error.for_peers())
        else:
            self._at_seat.record.party_is(PartyStatus.FAILED, error.for_peers())

    def _tell_peers(self, error: HeterofedError) -> None:
        """Say where the error belongs and tell it to the peers, unless they know."""
        if not self._failed_in:  # what is told first says where; afterwards the session is over
            self._failed_in = self._party_link.phase().value if self._party_link is not None else "starting"
        if not isinstance(error, TaskAborted):  # that is no trouble of ours
            error.located(party=self.feature_key, phase=self._failed_in)
        if self._party_link is not None and not isinstance(error, PeerRefused):
            self._party_link.abort(error)

    def _prepare(self) -> None:
        """Do what needs no other party: check the set-up, prove that outputs can be written, load the ids."""
        seat = self._at_seat
        self._obey(seat)
        if not self.models_after_alignment:
            self._make_ready()
        self._claim_results_folder()
        with self._calling("load_local_ids"):
            ids = self.load_local_ids()
        self._local_ids = checked_ids(ids, "load_local_ids")
        if not self._recovers:
            self._given_up = drop_alignment(self._checkpoints)
        elif not self._models_made and (before := find_alignment(self._checkpoints, self._local_ids)) is not None:
            self._split_ids(before.shared)
            self._make_ready()

    def _make_ready(self) -> None:
        """Make the models and what uses them, and check that this party can run."""
        self._models_made = True
        seat = self._at_seat
        with self._calling("validate_context"):
            self.validate_context()
        self._check_plugins()
        if seat.options is not None and not seat.options.delete_local_models_after_aggregation:
            self.trainer.keep_all_checkpoints()
        self._collect(seat.uncertainty)

    @property
    def _checkpoints(self) -> Path:
        """The folder of this party's checkpoints."""
        return self._results_folder / CHECKPOINTS

    @property
    def _untouched(self) -> bool:
        """Whether the models are as they are made: nothing was trained or loaded."""
        return not self._models_made or self.trainer.untouched

    def _claim_results_folder(self) -> None:
        """Make the folder for results and keep every other party out of it until this one ends."""
        taken = ConfigError(
            f"another running party writes to {self._results_folder}",
            expected="a folder of its own for every party",
            advice="Give each party its own out_dir.",
        )
        self._at_the_end.enter_context(held(make_folder(self._results_folder) / ".in-use.lock", taken))

    def _split_ids(self, intersection: Sequence[str]) -> None:
        """Let the user split the shared ids, and check the result."""
        self._intersection = OrderedIds(intersection)
        with self._calling("split_dataset"):
            split = self.split_dataset(self._intersection)
        self._id_split = checked_split(split, self._intersection, party=self.feature_key, own_batches=self.own_batches)

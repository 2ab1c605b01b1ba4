"""One party of a task from its launch to its end, and what both roles share of that."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout
from torch import nn
from torch.optim import Optimizer

from heterofed.errors import ConfigError, HeterofedError
from heterofed.features.alignment import OrderedIds, checked_ids
from heterofed.files import make_folder
from heterofed.scheduler.learner import Learner
from heterofed.scheduler.outputs import write_outputs
from heterofed.scheduler.seat import Seat, TaskResult, presence
from heterofed.scheduler.splitting import checked_split
from heterofed.tasks.model import PartyStatus


class Scheduler(Learner):
    """One party of a task; subclass `HostScheduler` or `CollaboratorScheduler` rather than this.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        name: what people call this run; the task's name by default.
        schedule_timeout: longest wait for another party's answer between two steps, in seconds; 0: no limit.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part of the
            intersection), in seconds; 0: no limit.
        is_feature_trainable: False freezes this party's feature model.
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
            recover: whether to go on from this party's last checkpoint, if there is one.

        Raises:
            HeterofedError: the task cannot go on; every other party has been told why.
        """
        if self._seat is not None:
            raise ConfigError("this scheduler has run already", advice="Make a new one for each launch.")
        self._seat = seat
        self._recovers = recover
        if self.out_dir is None:
            self.out_dir = Path("runs") / seat.task_id / self.feature_key
        seat.progress.say(f"{self.feature_key} takes part in {seat.task_name} (task {seat.task_id})")
        try:
            with presence(seat, self._give_up), ExitStack() as self._at_the_end:
                return self._run(seat)
        finally:
            if self._party_transport is not None:
                self._party_transport.close()

    @abstractmethod
    def _run(self, seat: Seat) -> TaskResult:
        """Go through the course of the task."""

    def _give_up(self, error: HeterofedError) -> None:
        """Say where the error belongs, tell the peers, and note it."""
        self._tell_peers(error)
        self._at_seat.record.party_is(PartyStatus.FAILED, error.for_peers())

    def _tell_peers(self, error: HeterofedError) -> None:
        """Say where the error belongs and tell it to the peers, unless they know."""
        if not self._failed_in:  # what is told first says where; afterwards the session is over
            self._failed_in = self._party_link.phase().value if self._party_link is not None else "starting"
        error.located(party=self.feature_key, phase=self._failed_in)
        if self._party_link is not None:
            self._party_link.abort(error)

    def _prepare(self) -> list[str]:
        """Do what needs no other party: check the set-up, prove that outputs can be written, load the ids."""
        with self._calling("validate_context"):
            self.validate_context()
        self._check_plugins()
        self._claim_results_folder()
        self._resumed = self._resume() if self._recovers else None
        with self._calling("load_local_ids"):
            ids = self.load_local_ids()
        return checked_ids(ids, "load_local_ids")

    def _claim_results_folder(self) -> None:
        """Make the folder for results and keep every other party out of it until this one ends."""
        lock = FileLock(make_folder(self._results_folder) / ".in-use.lock")
        try:
            self._at_the_end.enter_context(lock.acquire(timeout=0))
        except Timeout:
            raise ConfigError(
                f"another running party writes to {self._results_folder}",
                expected="a folder of its own for every party",
                advice="Give each party its own out_dir.",
            ) from None

    def _split_ids(self, intersection: Sequence[str]) -> None:
        """Let the user split the shared ids, and check the result."""
        self._intersection = OrderedIds(intersection)
        with self._calling("split_dataset"):
            split = self.split_dataset(self._intersection)
        self._id_split = checked_split(split, self._intersection, party=self.feature_key, own_batches=self.own_batches)
        self.trainer.check_ids()

    def _write_outputs(self) -> TaskResult:
        names = {"feature": f"feature_model_{self.feature_key}", "infer": "infer_model"}
        models = {names[key]: model for key, model in self._kept_models().items()}
        files = write_outputs(self._results_folder, models, self._metric_sets)
        return TaskResult(
            self.task_id, self.feature_key, self.trainer.round, self._results_folder, files, dict(self._metric_sets)
        )

"""A party's trainer where it is kept and where it fails: its checkpoints, going on from one, what others are told."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from heterofed.errors import AlignmentError, ConfigError, DataError, HeterofedError, PeerRestarted, TemplateError
from heterofed.features.alignment import digest_of
from heterofed.metrics.loss import MeanLoss
from heterofed.scheduler.recovery import CHECKPOINTS, START_NAME
from heterofed.scheduler.seat import as_failure
from heterofed.training.context import NoVariable
from heterofed.training.hook_registry import HookEntry
from heterofed.training.trainer import RunState, Trainer

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

S = TypeVar("S", bound="Scheduler")

LOOK_EVERY_S = 1.0
"""How often a party that trains looks at the task's record."""


class ResumingTrainer(Trainer, Generic[S], ABC):
    """What of a party's trainer has to do with checkpoints and failures; `PartyTrainer` adds the exchange of batches.

    Args:
        party: whose trainer it is.
    """

    def __init__(self, party: S) -> None:
        super().__init__(party._kept_models(), party._kept_optimizers(), max_to_keep=party.max_to_keep)
        self.party = party
        self.round_loss = MeanLoss()
        self.stops: set[int] = set()
        """Batches of the pass at hand, at hand or to come, after which all parties keep a checkpoint."""
        self._resumed_ids: str | None = None
        self._resumed_pass: Mapping[str, Any] = {}
        self._rng_of: str | None = None
        self._rng_again: str | None = None
        self._started_run = ""
        self._points_kept = 0
        self._next_look = 0.0

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def checkpoint_folder(self) -> Path | None:
        """`checkpoints/` in the party's results folder, once it is in a task or has an `out_dir`."""
        return None if self.party.out_dir is None else self.party.out_dir / CHECKPOINTS

    @checkpoint_folder.setter
    def checkpoint_folder(self, folder: Path | None) -> None:
        """Nothing: it follows the party's results folder."""

    def request_checkpoint(self, name: str = "", *, tag: bool = True) -> None:
        """Write a checkpoint, as in `Trainer`; one that a run can go on from only after a round's training.

        Raises:
            ConfigError: inside a routine: the parties can resume together only where a round ends.
        """
        if tag and self._active:
            raise ConfigError(
                "a party cannot go on from a checkpoint inside a round",
                expected="checkpoints at the ends of rounds",
                advice='Use every="round", or on_round_end; or a name and tag=False for one that is only kept.',
            )
        super().request_checkpoint(name, tag=tag)

    @property
    def untouched(self) -> bool:
        """Whether the models are as they were made: nothing was trained or loaded."""
        return self.state is RunState.IDLE and self.iter == 0

    def go_to(self, name: str) -> None:
        """Take the state of a checkpoint, before a run or in its middle.

        Random generators follow before the next round.

        Raises:
            AlignmentError: it was made with other ids.
            ConfigError: this party is set up in another way than the run that wrote it.
            DataError: a file cannot be read or does not fit.
        """
        try:
            if self.state is RunState.RUNNING:
                self.rewind(name)
            else:
                self.checkpointer.load(name)
        except DataError as error:
            if isinstance(error.__cause__, ConfigError):
                raise error.__cause__ from None
            raise
        for each in self.checkpointer.names():  # of the run that was given up: it comes there again, maybe otherwise
            if (self.checkpointer.iteration_of(each) or 0) >= self.iter:
                self.checkpointer.remove(each)
        for model in self.models.values():
            model.zero_grad()  # of a batch that was cut off
        self.stops.clear()
        self._points_kept = 0  # the start is needed until there are enough others beyond where we are now
        self._rng_of = name
        if self.iter:
            self._check_ids()

    def next_round(self) -> bool:
        """Run a round, as in `Trainer`; where a party was started again, meet and go on from a common checkpoint."""
        try:
            self._settle()
            if not super().next_round():
                return False
            self.party._telling.closed()
            return True
        except PeerRestarted as restarted:
            self.party._meet_again(restarted)
            return True

    def _settle(self) -> None:
        """Put the random generators to where they stood, and keep the start of a run."""
        if self._rng_of is not None:
            self.checkpointer.load(self._rng_of, only=["rng"])
            self._rng_again, self._rng_of = self._rng_of, None
        if self.iter == 0 and self.round == 0 and self._started_run != self.party._run_name:
            self.checkpointer.save(START_NAME, tag=False)
            self._started_run = self.party._run_name

    def keep_point(self) -> None:
        """Write the numbered checkpoint of the last finished batch; the start goes when there are enough others."""
        super().keep_point()
        self._points_kept += 1
        if self._points_kept >= self.party.max_to_keep:
            self.checkpointer.remove(START_NAME)

    def round_done(self) -> None:
        """Keep for the task's record what the round has cost: its checkpoint is to hold that, too."""
        self.party._note_round()

    def batch_done(self) -> None:
        """Write the checkpoint that the host wants here, and the untagged ones that hooks have asked for.

        Raises:
            TaskAborted: the task was cancelled.
        """
        if time.monotonic() >= self._next_look:  # a party that never waits long does not look by waiting
            self._next_look = time.monotonic() + LOOK_EVERY_S
            self.party._at_seat.record.look_for_cancel()
        done = self.done_in_routine - 1
        if done in self.stops:
            self.stops.remove(done)
            self.keep_point()
        if self._requested:
            self._write_requested(tagged=False)

    def own_state(self) -> dict[str, Any]:
        """Keep the rows of the metric tables, the run's name, a digest of its ids, and how far the pass at hand is."""
        loss = self.round_loss
        return {
            "run": self.party._run_name,
            "tables": {name: table.rows() for name, table in self.party._metric_sets.items()},
            "ids": self._ids_digest(),
            "pass": {"rows": self.ctx.get("num_samples", 0), "loss": [loss.total, loss.rows, loss.last]},
            "told": self.party._telling.state_dict(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put the rows of the metric tables back; those of a set that is not declared any more are left out."""
        self._resumed_ids = state["ids"]
        self._resumed_pass = state["pass"]
        self.party._telling.load_state_dict(state["told"])
        for name, rows in state["tables"].items():
            if name in self.party._metric_sets:
                self.party._metric_sets[name].replace_rows(rows)

    def _ids_digest(self) -> str:
        return digest_of([*self.party.train_ids, "", *self.party.test_ids], b"checkpoint").hex()

    def _check_ids(self) -> None:
        if self._resumed_ids is not None and self._resumed_ids != self._ids_digest():
            raise AlignmentError(
                "the checkpoint was made with other train or test ids",
                party=self.party.feature_key,
                expected="the ids, and the split, of the run that is to be resumed",
                advice="Give each task a folder of its own (out_dir), or begin anew without recover=True.",
            )

    # --- failures -----------------------------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """Tell the other parties before anything else: hooks at the end of a run may take their time."""
        self.party._tell_peers(as_failure(error))
        super().failed(error)

    def hook_failed(self, entry: HookEntry, trigger: str, error: Exception) -> Exception:
        """Return an error that names the hook; its text may quote data, so only its type goes into ours."""
        if isinstance(error, HeterofedError):
            return error
        if entry.source == "default":
            if not isinstance(error, NoVariable):
                return error
            return ConfigError(
                f"{entry.name} at {trigger} misses ctx.{error.name}",
                party=self.party.feature_key,
                expected="the default hooks, which set it, or others in their place that do",
                advice="Print the trainer to see its hooks; replace_hook_in_… puts one in another's place.",
            )
        what = f" (there is no ctx.{error.name} here)" if isinstance(error, NoVariable) else ""
        return TemplateError(
            f"the hook {entry.name} at {trigger} raised {type(error).__name__}{what}",
            party=self.party.feature_key,
            advice=f"The traceback is in the output of {self.party.feature_key}.",
        )

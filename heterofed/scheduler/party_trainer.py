"""What the trainers of host and collaborator share: the loop of `Trainer` over the batches that parties exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from heterofed.errors import AlignmentError, ConfigError, DataError, HeterofedError, TemplateError
from heterofed.features.alignment import digest_of
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, LocalBatch, PendingBatch
from heterofed.grads.cut_layer import device_of
from heterofed.metrics.loss import MeanLoss
from heterofed.metrics.writers import EventWriter
from heterofed.scheduler.seat import as_failure
from heterofed.training.context import Context, CtxVar, NoVariable
from heterofed.training.hook_registry import HookEntry, HookFunction, HookSet, entry_of
from heterofed.training.hooks import HookBase
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

S = TypeVar("S", bound="Scheduler")

KEPT_CHECKPOINTS = 2
"""The newest, and the one before: a party that fell behind by a round has what the others have."""


class PartyTrainer(Trainer, Generic[S], ABC):
    """One party's trainer. `scheduler.trainer` is its only place; the scheduler's template methods say what to do.

    Besides what every trainer has, `ctx` holds, batch by batch: `embedding` (this party's own, (rows, width, …)),
    `batch_size` (its rows), `mean_loss` (of the round so far, where it is known), and per routine `device`,
    `num_samples` and, in training, `loss_batch_total` (the sum of losses times rows, where they are known).

    Args:
        party: whose trainer it is.
    """

    def __init__(self, party: S) -> None:
        super().__init__(party._kept_models(), party._kept_optimizers(), max_to_keep=KEPT_CHECKPOINTS)
        self.party = party
        self.round_loss = MeanLoss()
        self.order: RoundOrder | None = None
        self._resumed_ids: str | None = None
        self.source: BatchSource | None = None
        self.batches_made = 0
        """Batches of the pass at hand so far; after it, how many there were."""
        self.learns = True
        """Whether this party's models move in the round at hand."""
        self._keep(self.hooks_in_train, self._learning_hooks())
        self._keep(self.hooks_in_ft, self._learning_hooks())
        self._keep(self.hooks_in_eval, self._testing_hooks())
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """Return the hook objects of the party's own `build_hooks`.

        Raises:
            ConfigError: it returned something else.
        """
        with self.party._calling("build_hooks"):
            found = self.party.build_hooks()
        if not isinstance(found, Sequence):
            raise self.party._made_wrong("build_hooks", found, "a list of hooks")
        return list(found)

    def build_writers(self) -> list[EventWriter]:
        """Return the writers of the party's own `build_writers`."""
        with self.party._calling("build_writers"):
            return self.party.build_writers()

    @staticmethod
    def _keep(hooks: HookSet, defaults: Mapping[str, HookFunction]) -> None:
        for trigger, hook in defaults.items():
            hooks.insert(trigger, entry_of(hook, "default"))

    def _learning_hooks(self) -> dict[str, HookFunction]:
        """Return the default hooks of training and fine-tuning."""
        return {
            TRIGGER.ON_FIT_START: self._hook_on_fit_start_init,
            TRIGGER.ON_BATCH_FORWARD: self._hook_on_batch_forward,
            TRIGGER.ON_BATCH_EXCHANGE: self._hook_on_batch_exchange,
            TRIGGER.ON_BATCH_BACKWARD: self._hook_on_batch_backward,
            TRIGGER.ON_BATCH_END: self._hook_on_batch_end,
            TRIGGER.ON_FIT_END: self._hook_on_fit_end,
        }

    def _testing_hooks(self) -> dict[str, HookFunction]:
        """Return the default hooks of a test."""
        return {
            TRIGGER.ON_FIT_START: self._hook_on_fit_start_init,
            TRIGGER.ON_BATCH_FORWARD: self._hook_on_batch_forward,
            TRIGGER.ON_BATCH_EXCHANGE: self._hook_on_test_exchange,
            TRIGGER.ON_BATCH_END: self._hook_on_test_batch_end,
            TRIGGER.ON_FIT_END: self._hook_on_test_end,
        }

    # --- where batches come from --------------------------------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[PendingBatch]:
        """Yield this party's batches of the pass at hand."""
        learning = self.ctx.cur_mode in MODE.LEARNING
        order = self.train_order if learning else self.test_order()
        self.source = self.party._pass_over(order, train=learning, with_labels=self.with_labels)
        self.batches_made = 0
        for each in self.source.pending():
            yield each
            self.batches_made += 1

    with_labels = False
    """Whether the party's own batches carry labels."""

    @abstractmethod
    def test_order(self) -> RoundOrder:
        """Return the test ids in batches."""

    @property
    def train_order(self) -> RoundOrder:
        """The train ids of the round at hand, in batches."""
        if self.order is None:
            raise RuntimeError("no round has begun")
        return self.order

    def planned_iterations(self) -> int | None:
        """Return the batches of all rounds, where the framework makes them and the number of rounds is known."""
        if self.party.own_batches or self.max_rounds is None or self.order is None:
            return None
        return self.max_rounds * len(self.order)

    # --- modes --------------------------------------------------------------------------------------------------------

    def apply_mode(self, mode: str) -> None:
        """Switch the models; one that does not move in this round, or is frozen, evaluates."""
        for name, model in self.models.items():
            frozen = name == "feature" and not self.party.is_feature_trainable
            model.train(mode in MODE.LEARNING and self.learns and not frozen)

    # --- default hooks ------------------------------------------------------------------------------------------------

    def _hook_on_fit_start_init(self, ctx: Context) -> None:
        ctx.device = CtxVar(device_of(ctx.models[-1]), LIFECYCLE.ROUTINE)
        ctx.num_samples = CtxVar(0, LIFECYCLE.ROUTINE)
        if ctx.cur_mode in MODE.LEARNING:
            ctx.loss_batch_total = CtxVar(0.0, LIFECYCLE.ROUTINE)
            self.round_loss = MeanLoss()

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        local: LocalBatch = ctx.data_batch()
        own = local.embedding
        ctx.put(LIFECYCLE.BATCH, local_batch=local, embedding=own, batch_size=own.shape[0], **self._labels_of(local))

    def _labels_of(self, local: LocalBatch) -> dict[str, Any]:
        """Return what `ctx` shows of a batch's labels."""
        return {}

    @abstractmethod
    def _hook_on_batch_exchange(self, ctx: Context) -> None:
        """Exchange with the other end what the batch needs."""

    @abstractmethod
    def _hook_on_batch_backward(self, ctx: Context) -> None:
        """Let the gradients come and the parameters change."""

    def _hook_on_batch_end(self, ctx: Context) -> None:
        ctx.num_samples += ctx.batch_size
        ctx.mean_loss = CtxVar(self.round_loss.value, LIFECYCLE.BATCH)

    @abstractmethod
    def _hook_on_fit_end(self, ctx: Context) -> None:
        """End the pass at both ends."""

    @abstractmethod
    def _hook_on_test_exchange(self, ctx: Context) -> None:
        """Exchange what a batch of the test needs."""

    def _hook_on_test_batch_end(self, ctx: Context) -> None:
        ctx.num_samples += ctx.batch_size

    @abstractmethod
    def _hook_on_test_end(self, ctx: Context) -> None:
        """End the test at both ends."""

    # --- checkpoints and failures -------------------------------------------------------------------------------------

    @property
    def checkpoint_folder(self) -> Path | None:
        """`checkpoints/` in the party's results folder, once it is in a task or has an `out_dir`."""
        return None if self.party.out_dir is None else self.party.out_dir / "checkpoints"

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

    def resume_or_load(self, path: str | Path = "", *, resume: bool = True) -> str | None:
        """Go on where the last checkpoint left off, as in `Trainer`.

        Raises:
            ConfigError: that run has finished, or this one is set up in another way.
            DataError: a file cannot be read or does not fit.
        """
        try:
            return super().resume_or_load(path, resume=resume)
        except DataError as error:
            if isinstance(error.__cause__, ConfigError):
                raise error.__cause__ from None
            raise

    def batch_done(self) -> None:
        """Write the untagged checkpoints that hooks have asked for; a party resumes between rounds only."""
        if self._requested:
            self._write_requested(tagged=False)

    def own_state(self) -> dict[str, Any]:
        """Keep the rows of the metric tables, and a digest of the ids that are trained and tested on."""
        return {
            "tables": {name: table.rows() for name, table in self.party._metric_sets.items()},
            "ids": self._ids_digest(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put the rows of the metric tables back; those of a set that is not declared any more are left out."""
        self._resumed_ids = state["ids"]
        for name, rows in state["tables"].items():
            if name in self.party._metric_sets:
                self.party._metric_sets[name].replace_rows(rows)

    def _ids_digest(self) -> str:
        return digest_of([*self.party.train_ids, "", *self.party.test_ids], b"checkpoint").hex()

    def check_ids(self) -> None:
        """Compare the ids of a resumed run with those that it began with.

        Raises:
            AlignmentError: they differ.
        """
        if self._resumed_ids is not None and self._resumed_ids != self._ids_digest():
            raise AlignmentError(
                "the checkpoint was made with other train or test ids",
                party=self.party.feature_key,
                expected="the ids, and the split, of the run that is to be resumed",
                advice="Give each task a folder of its own (out_dir), or begin anew without recover=True.",
            )

    def train(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> None:
        """Refuse: one party cannot train alone.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a party cannot train alone: the others would not follow", expected="rounds to do it")

    finetune = train

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

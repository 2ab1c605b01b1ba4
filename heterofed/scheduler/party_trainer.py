"""What the trainers of host and collaborator share: the loop of `Trainer` over the batches that parties exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from heterofed.errors import AlignmentError, ConfigError, DataError, HeterofedError, PeerRestarted, TemplateError
from heterofed.features.alignment import digest_of
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, LocalBatch, PendingBatch
from heterofed.grads.cut_layer import device_of
from heterofed.metrics.loss import MeanLoss
from heterofed.metrics.writers import EventWriter
from heterofed.scheduler.recovery import START_NAME
from heterofed.scheduler.seat import as_failure
from heterofed.training.context import Context, CtxVar, NoVariable
from heterofed.training.hook_registry import HookEntry, HookFunction, HookSet, entry_of
from heterofed.training.hooks import HookBase
from heterofed.training.trainer import RunState, Trainer
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

S = TypeVar("S", bound="Scheduler")


class PartyTrainer(Trainer, Generic[S], ABC):
    """One party's trainer. `scheduler.trainer` is its only place; the scheduler's template methods say what to do.

    Besides what every trainer has, `ctx` holds, batch by batch: `embedding` (this party's own, (rows, width, …)),
    `batch_size` (its rows), `mean_loss` (of the round so far, where it is known), and per routine `device`,
    `num_samples` and, in training, `loss_batch_total` (the sum of losses times rows, where they are known).

    Args:
        party: whose trainer it is.
    """

    def __init__(self, party: S) -> None:
        super().__init__(party._kept_models(), party._kept_optimizers(), max_to_keep=party.max_to_keep)
        self.party = party
        self.round_loss = MeanLoss()
        self.order: RoundOrder | None = None
        self.keep_now = False
        """Whether a checkpoint follows the batch at hand."""
        self.keep_next = False
        """Whether one follows the batch after it."""
        self._resumed_ids: str | None = None
        self._resumed_pass: Mapping[str, Any] = {}
        self._rng_of: str | None = None
        self._rng_again: str | None = None
        self._started_run = ""
        self._points_kept = 0
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
        first = self.done_in_routine if learning else 0
        self.source = self.party._pass_over(order, train=learning, with_labels=self.with_labels, first=first)
        self.batches_made = first
        yield from [_done] * first  # the loop passes over them
        if first and self._rng_again is not None:
            self.checkpointer.load(self._rng_again, only=["rng"])  # hooks have drawn for this round once more
            self._rng_again = None
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
        learning = ctx.cur_mode in MODE.LEARNING
        before = self._resumed_pass if learning and self.done_in_routine else {}
        ctx.num_samples = CtxVar(before.get("rows", 0), LIFECYCLE.ROUTINE)
        if learning:
            self.round_loss = MeanLoss(*before.get("loss", ()))
            ctx.loss_batch_total = CtxVar((self.round_loss.value or 0.0) * ctx.num_samples, LIFECYCLE.ROUTINE)

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
        self.keep_now = self.keep_next = False
        self._points_kept = 0  # the start is needed until there are enough others beyond where we are now
        self._rng_of = name
        if self.iter:
            self._check_ids()

    def next_round(self) -> bool:
        """Run a round, as in `Trainer`; where a party was started again, meet and go on from a common checkpoint."""
        try:
            self._settle()
            return super().next_round()
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

    def batch_done(self) -> None:
        """Write the checkpoint that the host wants here, and the untagged ones that hooks have asked for."""
        if self.keep_now:
            self.keep_point()
        self.keep_now, self.keep_next = self.keep_next, False
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
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put the rows of the metric tables back; those of a set that is not declared any more are left out."""
        self._resumed_ids = state["ids"]
        self._resumed_pass = state["pass"]
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

    def train(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> None:
        """Refuse: one party cannot train alone.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a party cannot train alone: the others would not follow", expected="rounds to do it")

    finetune = train

    def rewind(self, name: str) -> None:
        """Go back to a checkpoint while the run goes on, as in `Trainer`."""
        super().rewind(name)
        self.max_iter = self.planned_iterations()

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


def _done() -> LocalBatch:
    """Stand for a batch that was done before the run was cut off.

    Raises:
        RuntimeError: always; nobody asks for it.
    """
    raise RuntimeError("a batch that is done was asked for again")

"""What the trainers of host and collaborator share: the loop of `Trainer` over the batches that parties exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from heterofed.errors import HeterofedError, TemplateError
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, LocalBatch, PendingBatch
from heterofed.metrics.loss import MeanLoss
from heterofed.scheduler.seat import as_failure
from heterofed.training.context import Context, CtxVar
from heterofed.training.hook_registry import HookEntry, HookFunction, HookSet, entry_of
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

if TYPE_CHECKING:
    from heterofed.scheduler.base import Scheduler

S = TypeVar("S", bound="Scheduler")

KEPT_CHECKPOINTS = 2
"""The newest, and the one before: a party that fell behind by a round has what the others have."""


class PartyTrainer(Trainer, Generic[S]):
    """One party's trainer. `scheduler.trainer` is its only place; the scheduler's template methods say what to do.

    Besides what every trainer has, `ctx` holds, batch by batch: `embedding` (this party's own, (rows, width, …)),
    `batch_size` (its rows), `mean_loss` (of the round so far, where it is known), and per routine `num_samples` and
    `loss_batch_total` (the sum of losses times rows).

    Args:
        party: whose trainer it is.
    """

    def __init__(self, party: S) -> None:
        super().__init__(party._kept_models(), party._kept_optimizers(), max_to_keep=KEPT_CHECKPOINTS)
        self.party = party
        self.round_loss = MeanLoss()
        self.order: RoundOrder | None = None
        self.source: BatchSource | None = None
        self.batches_made = 0
        """Batches of the pass at hand so far; after it, how many there were."""
        self.learns = True
        """Whether this party's models move in the round at hand."""
        self._keep(self.hooks_in_train, self._learning_hooks())
        self._keep(self.hooks_in_ft, self._learning_hooks())
        self._keep(self.hooks_in_eval, self._testing_hooks())
        with party._calling("build_hooks"):
            hooks = party.build_hooks()
        self.register_hooks(hooks)

    @staticmethod
    def _keep(hooks: HookSet, defaults: Mapping[TRIGGER, HookFunction]) -> None:
        for trigger, hook in defaults.items():
            hooks.insert(trigger.value, entry_of(hook, "default"))

    def _learning_hooks(self) -> dict[TRIGGER, HookFunction]:
        """Return the default hooks of training and fine-tuning."""
        return {
            TRIGGER.ON_FIT_START: self._hook_on_fit_start_init,
            TRIGGER.ON_BATCH_FORWARD: self._hook_on_batch_forward,
            TRIGGER.ON_BATCH_EXCHANGE: self._hook_on_batch_exchange,
            TRIGGER.ON_BATCH_BACKWARD: self._hook_on_batch_backward,
            TRIGGER.ON_BATCH_END: self._hook_on_batch_end,
            TRIGGER.ON_FIT_END: self._hook_on_fit_end,
        }

    def _testing_hooks(self) -> dict[TRIGGER, HookFunction]:
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

    def test_order(self) -> RoundOrder:
        """Return the test ids in batches."""
        raise NotImplementedError

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
        ctx.num_samples = CtxVar(0, LIFECYCLE.ROUTINE)
        ctx.loss_batch_total = CtxVar(0.0, LIFECYCLE.ROUTINE)
        if ctx.cur_mode in MODE.LEARNING:
            self.round_loss = MeanLoss()

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        local: LocalBatch = ctx.data_batch()
        ctx.local_batch = CtxVar(local, LIFECYCLE.BATCH)
        ctx.embedding = CtxVar(local.embedding, LIFECYCLE.BATCH)
        ctx.batch_size = CtxVar(local.embedding.shape[0], LIFECYCLE.BATCH)

    def _hook_on_batch_exchange(self, ctx: Context) -> None:
        raise NotImplementedError

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        raise NotImplementedError

    def _hook_on_batch_end(self, ctx: Context) -> None:
        ctx.num_samples += ctx.batch_size
        ctx.mean_loss = CtxVar(self.round_loss.value, LIFECYCLE.BATCH)

    def _hook_on_fit_end(self, ctx: Context) -> None:
        raise NotImplementedError

    def _hook_on_test_exchange(self, ctx: Context) -> None:
        raise NotImplementedError

    def _hook_on_test_batch_end(self, ctx: Context) -> None:
        ctx.num_samples += ctx.batch_size

    def _hook_on_test_end(self, ctx: Context) -> None:
        raise NotImplementedError

    # --- checkpoints and failures -------------------------------------------------------------------------------------

    @property
    def checkpoint_folder(self) -> Path | None:
        """`checkpoints/` in the party's results folder, once it is in a task or has an `out_dir`."""
        return None if self.party.out_dir is None else self.party.out_dir / "checkpoints"

    @checkpoint_folder.setter
    def checkpoint_folder(self, folder: Path | None) -> None:
        """Nothing: it follows the party's results folder."""

    def own_state(self) -> dict[str, Any]:
        """Keep the rows of the metric tables."""
        return {"tables": {name: table.rows() for name, table in self.party._metric_sets.items()}}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put the rows of the metric tables back; those of a set that is not declared any more are left out."""
        for name, rows in state["tables"].items():
            if name in self.party._metric_sets:
                self.party._metric_sets[name].replace_rows(rows)

    def failed(self, error: BaseException) -> None:
        """Tell the other parties before anything else: hooks at the end of a run may take their time."""
        self.party._tell_peers(as_failure(error))
        super().failed(error)

    def hook_failed(self, entry: HookEntry, trigger: TRIGGER, error: Exception) -> Exception:
        """Return an error that names the hook; its text may quote data, so only its type goes into ours."""
        if isinstance(error, HeterofedError) or entry.source == "default":
            return error
        return TemplateError(
            f"the hook {entry.name} at {trigger.value} raised {type(error).__name__}",
            party=self.party.feature_key,
            advice=f"The traceback is in the output of {self.party.feature_key}.",
        )

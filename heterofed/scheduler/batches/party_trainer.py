"""What the trainers of host and collaborator share: the loop of `Trainer` over the batches that parties exchange."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heterofed.errors import ConfigError
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, LocalBatch, PendingBatch
from heterofed.frames.messages import Terms
from heterofed.grads.cut_layer import device_of
from heterofed.metrics.loss import MeanLoss
from heterofed.metrics.writers import EventWriter
from heterofed.scheduler.batches.packing import Packer
from heterofed.scheduler.batches.resuming import ResumingTrainer, S
from heterofed.training.context import Context, CtxVar
from heterofed.training.hook_registry import HookFunction, HookSet, entry_of
from heterofed.training.hooks import HookBase
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER


class PartyTrainer(ResumingTrainer[S]):
    """One party's trainer. `scheduler.trainer` is its only place; the scheduler's template methods say what to do.

    Besides what every trainer has, `ctx` holds, batch by batch: `embedding` (this party's own, (rows, width, …)),
    `batch_size` (its rows), `mean_loss` (of the round so far, where it is known), and per routine `device`,
    `num_samples` and, in training, `loss_batch_total` (the sum of losses times rows, where they are known).

    Args:
        party: whose trainer it is.
    """

    def __init__(self, party: S) -> None:
        super().__init__(party)
        self.order: RoundOrder | None = None
        self.source: BatchSource | None = None
        self.batches_made = 0
        """Batches of the pass at hand so far; after it, how many there were."""
        self.learns = True
        """Whether this party's models move in the round at hand."""
        self._packers: dict[str, Packer] = {}
        self._packed_before: Mapping[str, Any] = {}
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

    def train(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> None:
        """Refuse: one party cannot train alone.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a party cannot train alone: the others would not follow", expected="rounds to do it")

    finetune = train

    def run_routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> None:
        """Run the loop of a routine, as every trainer does; in lock-step the other party's word comes soon."""
        link = self.party._linked
        link.expect_soon(mode in MODE.LEARNING and not self.terms.max_staleness)
        try:
            super().run_routine(mode, split, hooks_set)
        finally:
            link.expect_soon(False)

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

    def rewind(self, name: str) -> None:
        """Go back to a checkpoint while the run goes on, as in `Trainer`."""
        super().rewind(name)
        self.max_iter = self.planned_iterations()

    @property
    def terms(self) -> Terms:
        """How batches are exchanged in this session, as the host has declared it."""
        return self.party._terms

    @property
    @abstractmethod
    def precision_sent(self) -> str:
        """How exactly the tensors cross that this party sends; empty: as they are."""

    feeds_back = False
    """Whether what is left out of a tensor is sent when its sample comes again."""

    def packer(self, peer: str) -> Packer:
        """Return what packs the tensors for a peer."""
        if peer not in self._packers:
            self._packers[peer] = Packer(self.precision_sent, len(self.party.train_ids) if self.feeds_back else 0)
            self._packers[peer].load_state_dict(self._packed_before.get(peer, {}))
        return self._packers[peer]

    def own_state(self) -> dict[str, Any]:
        """Keep what was left out of tensors that were sent besides."""
        packed = {peer: each.state_dict() for peer, each in self._packers.items()}
        return {**super().own_state(), "packers": {**self._packed_before, **packed}}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what was left out then besides."""
        super().load_own_state(state)
        self._packers, self._packed_before = {}, state["packers"]

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


def _done() -> LocalBatch:
    """Stand for a batch that was done before the run was cut off.

    Raises:
        RuntimeError: always; nobody asks for it.
    """
    raise RuntimeError("a batch that is done was asked for again")

"""Training and evaluation of a model on this party's own rows: FederatedScope's GeneralTorchTrainer.

trainer = LocalTrainer(model, {"train": dataset, "test": {"x": x, "y": y}}, config=LocalConfig(batch_size=32))
samples, parameters, metrics = trainer.train()          # one routine
trainer.evaluate("test")                                # {"test_acc": 0.93, "test_avg_loss": …, …}
trainer.run(10)                                         # or ten rounds, with hooks, measurements and checkpoints
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from heterofed.errors import ConfigError
from heterofed.metrics.calculator import MetricCalculator
from heterofed.training.base_trainer import BaseTrainer
from heterofed.training.context import CtxVar
from heterofed.training.data import BatchCounts, calculate_batch_epoch_num, parse_data
from heterofed.training.hook_registry import HookSet, entry_of
from heterofed.training.local_config import LocalConfig, RoutineConfig
from heterofed.training.local_data import Pass, Passes
from heterofed.training.local_hooks import EVALUATION_HOOKS, LEARNING_HOOKS
from heterofed.training.local_optimizers import RoutineOptimizers, name_in
from heterofed.training.parameters import Parameters
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import LIFECYCLE, MODE, TRIGGER

__all__ = ["BaseTrainer", "LocalConfig", "LocalTrainer", "RoutineConfig"]

Outcome = tuple[int, dict[str, Any]]
"""(samples, metrics) of a routine of one model."""


class LocalTrainer(Parameters, Trainer, BaseTrainer):
    """Trains, fine-tunes and evaluates a model on local data. All it does at a point is a hook of `local_hooks`.

    In ctx, besides what `Trainer` puts there: cfg, data, device, criterion, regularizer, regularizer_mu, grad_clip,
    trainable_para_names, and of each split `{split}_data`, `{split}_loader`, `num_{split}_data`; during a routine
    optimizer, scheduler, the statistics (num_samples, loss_batch_total, loss_regular_total, ys_true, ys_prob) and how
    much is to be done: num_{split}_batch and num_{split}_epoch, and where it learns num_train_batch (of a pass),
    num_train_batch_last_epoch, num_train_epoch, num_total_train_batch. eval_metrics of the last routine stays.

    A run that resumes in mid-routine goes on with the next batch; that routine's statistics cover the batches since.

    Args:
        model: what learns.
        data: split -> Dataset, DataLoader, {"x": …, "y": …} or None; "train", "val", "test" and any other name.
        device: where it computes.
        config: how.
        only_for_eval: whether it never trains, and has no hooks for that.
        checkpoint_folder: as in `Trainer`.

    Raises:
        TypeError: `data` is none of these.
        ConfigError: the configuration does not work with the model.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Any],
        device: torch.device | str = "cpu",
        config: LocalConfig | None = None,
        *,
        only_for_eval: bool = False,
        checkpoint_folder: Path | None = None,
    ) -> None:
        self._set_up([model], data, device, config or LocalConfig(), only_for_eval, checkpoint_folder)

    def _set_up(
        self,
        models: Sequence[nn.Module],
        data: Mapping[str, Any],
        device: torch.device | str,
        config: LocalConfig,
        only_for_eval: bool,
        checkpoint_folder: Path | None,
    ) -> None:
        parsed = parse_data(data)
        named = {name_in(MODE.TRAIN, i): model for i, model in enumerate(models)}
        Trainer.__init__(self, named, {}, checkpoint_folder=checkpoint_folder)
        BaseTrainer.__init__(self, models[0], data, torch.device(device), config=config, only_for_eval=only_for_eval)
        self.config: LocalConfig
        self.only_for_eval: bool
        self._optimizers = RoutineOptimizers(self.models, config)
        self.optimizers = self._optimizers.optimizers
        if not only_for_eval:
            self._optimizers.make_all()
        self.passes = Passes(config.seed)
        self._behind = 0
        self._outcomes: list[Outcome] = []
        self.prepare_ctx(parsed)
        if not only_for_eval:
            self.register_default_hooks_train()
            self.register_default_hooks_ft()
        self.register_default_hooks_eval()
        self.register_hooks(self.build_hooks())

    def prepare_ctx(self, parsed: Mapping[str, Any]) -> None:
        """Put into ctx what stays there; `parsed` is what `parse_data` gave."""
        config = self.config
        self.ctx.merge_from_dict(
            {
                "cfg": config,
                "data": self.data,
                "device": self.device,
                "criterion": config.criterion,
                "regularizer": config.regularizer,
                "regularizer_mu": config.regularizer_mu,
                "grad_clip": config.grad_clip,
                "metric_calculator": MetricCalculator(config.metrics, task=config.task),
                "trainable_para_names": [name for name, each in self.model.named_parameters() if each.requires_grad],
                "eval_metrics": {},
                "optimizers": self._optimizers.of_training(),
                "optimizer": self._optimizers.of_training()[0],
                "scheduler": None,
                **parsed,
            }
        )

    # --- default hooks ------------------------------------------------------------------------------------------------

    def register_default_hooks_train(self) -> None:
        """Register what training does; override it for something else."""
        _register(self.hooks_in_train, LEARNING_HOOKS)

    def register_default_hooks_ft(self) -> None:
        """Register what fine-tuning does; override it for something else."""
        _register(self.hooks_in_ft, LEARNING_HOOKS)

    def register_default_hooks_eval(self) -> None:
        """Register what evaluation does; override it for something else."""
        _register(self.hooks_in_eval, EVALUATION_HOOKS)

    # --- routines -----------------------------------------------------------------------------------------------------

    def train(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Train on a split.

        Args:
            target_data_split_name: which.
            hooks_set: trigger -> functions, instead of the trainer's own.

        Returns:
            (number of samples trained on, parameters as `get_model_para`, metrics "<split>_<metric>" -> value).

        Raises:
            ValueError: there is no such split.
            ConfigError: the trainer is only for evaluation, or `use_diff` is set and there is no split "val".
        """
        before = self._evaluated_for_diff()
        samples, metrics = self._learn(MODE.TRAIN, target_data_split_name, hooks_set)
        if before is not None:
            metrics = self._with_difference(metrics, before, self.evaluate("val"))
            self.ctx.eval_metrics = metrics
        return samples, self.get_model_para(), metrics

    def finetune(self, target_data_split_name: str = "train", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Train on a split with the steps, optimizer and hooks of fine-tuning.

        Returns:
            The metrics.

        Raises:
            ValueError, ConfigError: as `train` does.
        """
        return self._learn(MODE.FINETUNE, target_data_split_name, hooks_set)[1]

    def evaluate(self, target_data_split_name: str = "test", hooks_set: Mapping[str, Any] | None = None) -> Any:
        """Pass once over a split, any, and return its metrics, "<split>_<metric>" -> value.

        A split that is not there draws a warning and gives {}. May be called in a hook of training.
        """
        if not self.ctx.check_split(target_data_split_name, skip=True):
            self.ctx.eval_metrics = {}
            return {}
        mode = MODE.VAL if target_data_split_name == "val" else MODE.TEST
        return self.summary(self._outcomes_of(mode, target_data_split_name, hooks_set))[1]

    def _learn(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None) -> tuple[Any, Any]:
        if self.only_for_eval and hooks_set is None:
            raise ConfigError("this trainer is only for evaluation", expected="one that is made without only_for_eval")
        self.ctx.check_split(split)
        return self.summary(self._outcomes_of(mode, split, hooks_set))

    def _outcomes_of(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None) -> list[Outcome]:
        around, self._outcomes = self._outcomes, []
        try:
            self.run_routine(mode, split, hooks_set)
            return self._outcomes
        finally:
            self._outcomes = around

    def run_routine(self, mode: str, split: str, hooks_set: Mapping[str, Any] | None = None) -> None:
        """Run the loop of a routine, as `Trainer.run_routine`, unless a resumed run has it behind itself already."""
        outermost = not self._active
        self._behind = 0
        if outermost and mode in MODE.LEARNING and self._skip:
            total = self.counts(mode, split).total
            if self._skip > total:  # at `total` itself its last hooks are yet to come
                self._skip -= total
                self._outcomes.append((0, {}))
                return
            self._behind = self._skip
        try:
            super().run_routine(mode, split, hooks_set)
        finally:
            if outermost and self.config.discharge:
                self.discharge_model()

    def fire(self, trigger: str) -> None:
        """Call the hooks of a trigger; a routine is set up before its first ones and summed up after its last."""
        if trigger is TRIGGER.ON_FIT_START:
            self.begin_routine()
        super().fire(trigger)
        if trigger is TRIGGER.ON_FIT_END:
            self.end_routine()

    def begin_routine(self) -> None:
        """Put into ctx how much is to be done."""
        ctx, split, mode = self.ctx, self.ctx.cur_split, self.ctx.cur_mode
        counts = self.counts(str(mode), str(split))
        behind, self._behind = self._behind, 0
        known = {
            f"num_{split}_batch": counts.per_epoch,
            f"num_{split}_epoch": counts.epochs,
            "behind": behind,
            "metrics_before": ctx.get("eval_metrics"),
        }
        if mode in MODE.LEARNING:
            known |= {
                "num_train_batch": counts.per_epoch,
                "num_train_batch_last_epoch": counts.last_epoch,
                "num_train_epoch": counts.epochs,
                "num_total_train_batch": counts.total,
            }
            number = self.passes.begin_routine(nested=ctx.nested, resumed=behind > 0)
            ctx.routine_number = CtxVar(number, LIFECYCLE.ROUTINE)
        ctx.merge_from_dict({name: CtxVar(value, LIFECYCLE.ROUTINE) for name, value in known.items()})

    def end_routine(self) -> None:
        """Keep what the routine of the current model came to."""
        metrics = self.ctx.get("eval_metrics", {})
        self._outcomes.append((self.ctx.get("num_samples", 0), {} if metrics is self.ctx.metrics_before else metrics))

    def summary(self, outcomes: list[Outcome]) -> tuple[Any, Any]:
        """Return (samples, metrics) of a routine, given what each model came to; none where it was done before."""
        return outcomes[-1] if outcomes else (0, {})

    def optimizer_of_routine(self) -> tuple[Any, Any]:
        """Return the optimizer and the schedule (None: none) that the current model uses in this routine."""
        ctx = self.ctx
        found = self._optimizers.of_routine(str(ctx.cur_mode), ctx.get("cur_model_idx", 0), resumed=ctx.behind > 0)
        ctx.optimizers[:] = self._optimizers.of_training()
        return found

    def scalar_name(self, name: str) -> str:
        """Return the name under which the current model's numbers are stored."""
        return name

    def _evaluated_for_diff(self) -> Any:
        if not self.config.use_diff:
            return None
        if self.ctx.get("val_data") is None and self.ctx.get("val_loader") is None:
            raise ConfigError('use_diff compares the metrics of "val", and there is no such split')
        return self.evaluate("val")

    def _with_difference(self, metrics: Any, before: Any, after: Any) -> Any:
        return {
            **metrics,
            "val_total": before["val_total"],
            "val_avg_loss_before": before["val_avg_loss"],
            "val_avg_loss_after": after["val_avg_loss"],
        }

    # --- passes and batches -------------------------------------------------------------------------------------------

    def counts(self, mode: str, split: str) -> BatchCounts:
        """Return how many passes and batches a routine makes: one whole pass where it evaluates.

        Raises:
            NoBatches: (a ConfigError and RuntimeError) the split makes no batch.
        """
        config, own, loader = self.config, self.config.routine(mode), self.ctx.get(f"{split}_loader")
        steps, unit = (own.local_update_steps, own.batch_or_epoch) if mode in MODE.LEARNING else (1, "epoch")
        if unit == "batch":
            steps *= config.grad_accum_count
        if isinstance(loader, DataLoader):  # its own batches, which may be of any size
            return calculate_batch_epoch_num(steps, unit, len(loader), 1, False)
        rows = self.ctx[f"num_{split}_data"]
        return calculate_batch_epoch_num(steps, unit, rows, config.batch_size, config.drop_last)

    def epochs(self) -> int:
        """Return how many passes this routine makes."""
        return int(self.ctx[f"num_{self.ctx.cur_split}_epoch"])

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield None for each batch of a pass: the hook of on_batch_start fetches it."""
        ctx = self.ctx
        per_epoch = count = ctx[f"num_{ctx.cur_split}_batch"]
        if ctx.cur_mode in MODE.LEARNING and epoch == self.epochs() - 1:
            count = ctx.num_train_batch_last_epoch
        done = min(max(ctx.behind - epoch * per_epoch, 0), count)
        if 0 < done < count:
            self.skip_batches(done)
        return repeat(None, count)

    def skip_batches(self, number: int) -> None:
        """Pass over the first batches of a pass, which a resumed run has done."""
        rows = self.ctx.get(f"{self.ctx.cur_split}_loader")
        if isinstance(rows, Pass):
            self.passes.skip(self.ctx, rows, number)

    def planned_iterations(self) -> int | None:
        """Return the batches of a run whose rounds are one routine of training each."""
        there = self.ctx.get("train_data") is not None or self.ctx.get("train_loader") is not None
        if self.max_rounds is None or not there:
            return None
        total = self.counts(MODE.TRAIN, "train").total * self.routines_of_train()
        return self.iter - self._skip + max(0, self.max_rounds - self.round) * total

    def routines_of_train(self) -> int:
        """Return how many routines one call of `train` runs."""
        return 1

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def own_state(self) -> dict[str, Any]:
        """Return the schedules, the order of rows, and gradients that wait for more batches."""
        return {
            "schedulers": self._optimizers.schedules(),
            "passes": self.passes.state_dict(self._loaders()),
            "gradients": self._waiting_gradients(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take what `own_state` gave."""
        self._optimizers.load_schedules(state["schedulers"])
        self.passes.load_state_dict(state["passes"], self._loaders())
        for name, gradients in state["gradients"].items():
            parameters = dict(self.models[name].named_parameters())
            for each, gradient in gradients.items():
                parameters[each].grad = gradient.to(parameters[each].device, copy=True)

    def _loaders(self) -> dict[str, Any]:
        given = {}
        for split in self.data:
            loader = self.ctx.get(f"{split}_loader")
            given[split] = loader.loader if isinstance(loader, Pass) else loader
        return {
            split: each for split, each in given.items() if each is not None and self.ctx.get(f"{split}_data") is None
        }

    def _waiting_gradients(self) -> dict[str, dict[str, Tensor]]:
        if self.config.grad_accum_count == 1:
            return {}
        return {
            name: {each: p.grad.detach().clone() for each, p in model.named_parameters() if p.grad is not None}
            for name, model in self.models.items()
        }


def _register(hooks: HookSet, defaults: Mapping[str, Sequence[Callable[..., None]]]) -> None:
    for trigger, functions in defaults.items():
        for each in functions:
            hooks.insert(trigger, entry_of(each, "default"))

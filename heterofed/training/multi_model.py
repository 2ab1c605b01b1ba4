"""Several models that one party trains, after each other or in step: FederatedScope's MultiModelTrainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from heterofed.checks import is_whole
from heterofed.errors import ConfigError
from heterofed.training.context import CtxVar
from heterofed.training.hook_registry import HookSet
from heterofed.training.local import LocalTrainer, Outcome
from heterofed.training.local_config import LocalConfig
from heterofed.training.model_hooks import ModelHooks, copied
from heterofed.training.models_context import ModelsContext
from heterofed.training.parameters import fitting
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import RUN_TRIGGERS, TRIGGER

Interact = Literal["sequential", "parallel"]


class MultiModelTrainer(ModelHooks, LocalTrainer):
    """Trains several models on the same data, each with hooks, optimizers and statistics of its own.

        sequential      for each model: switch to it, its whole routine; `_interact_to_other_models` after its
                        on_fit_end hooks
        parallel        one routine; at every trigger, for each model: its hooks, `_interact_to_other_models`,
                        `_switch_model_ctx` to the next one, and so back to the first

    In parallel, on_optimizer_step is called within the turn of the model whose parameters are about to change, and
    that model's hooks only. Points outside of routines (before_train, on_round_start, …) are those of model 0's hooks.
    A hook object is called once for each batch and routine that the trainer counts: sequential, each model's; in
    parallel, before the first model's turn or after the last one's. before_optimizer_step is called for every model.

    With more than one model get_model_para() and the metrics of train(), finetune() and evaluate() are lists, in the
    order of the models, and the number of samples is the mean of theirs.

    Args:
        models: one or more models; or (model, n) for a model and n - 1 copies of it.
        data, device, config, only_for_eval, checkpoint_folder: as in `LocalTrainer`.
        interact: "sequential" or "parallel".

    Attributes:
        registries: the hook sets of each model; hooks_in_train, hooks_in_eval and hooks_in_ft are those of model 0.

    Raises:
        ValueError: n is no whole number of 1 or more, or there is no model.
        ConfigError: there is no such interaction; or one model is there twice.
    """

    def __init__(
        self,
        models: Sequence[nn.Module] | tuple[nn.Module, int],
        data: Mapping[str, Any],
        device: torch.device | str = "cpu",
        config: LocalConfig | None = None,
        *,
        interact: Interact = "sequential",
        only_for_eval: bool = False,
        checkpoint_folder: Path | None = None,
    ) -> None:
        if interact not in ("sequential", "parallel"):
            raise ConfigError(f"interact is {interact!r}", expected='"sequential" or "parallel"')
        self.interact, self.in_step = interact, interact == "parallel"
        self._turns: list[list[HookSet]] = []
        self._set_up(_models(models), data, device, config or LocalConfig(), only_for_eval, checkpoint_folder)
        self.separate_hooks(len(self.models))

    @classmethod
    def from_trainer(cls, trainer: LocalTrainer, n: int, *, interact: Interact = "sequential") -> MultiModelTrainer:
        """Return a trainer of n copies of another one's model, with copies of its hook sets, optimizers and variables.

        The other trainer stays as it is and shares nothing that learns with this one.

        Raises:
            ValueError: n is no whole number of 1 or more.
            ConfigError: it has several models, or hook objects: an object belongs to one trainer.
        """
        if len(trainer.models) != 1 or trainer.hooks:
            raise ConfigError(
                f"this trainer has {len(trainer.models)} models and {len(trainer.hooks)} hook objects",
                expected="one model and no hook objects",
                advice="Register hook objects with the new trainer.",
            )
        made = cls(
            (copy.deepcopy(trainer.model), n),
            trainer.data,
            trainer.device,
            trainer.config,
            interact=interact,
            only_for_eval=trainer.only_for_eval,
            checkpoint_folder=trainer.checkpoint_folder,
        )
        for name, optimizer in made.optimizers.items():
            kind = name.partition("_")[0]
            optimizer.load_state_dict(copy.deepcopy(trainer.optimizers[kind].state_dict()))  # it keeps the tensors
            schedule = trainer._optimizers.schedules().get(kind)
            if schedule is not None:
                made._optimizers.load_schedules({name: copy.deepcopy(schedule)})
        copies = copied(trainer)
        made.hooks_in_train, made.hooks_in_eval = copies.hooks_in_train, copies.hooks_in_eval
        made.hooks_in_ft = copies.hooks_in_ft
        made.separate_hooks(n)
        own = {"trainer", "models", "model", "optimizers", "optimizer", "cur_model_idx"}
        made.ctx.merge_from_dict({name: trainer.ctx[name] for name in set(trainer.ctx.keys()) - own})
        return made

    def prepare_ctx(self, parsed: Mapping[str, Any]) -> None:
        """Put into ctx what stays there, `cur_model_idx` too."""
        before = {name: self.ctx[name] for name in list(self.ctx.keys())}
        self.ctx = ModelsContext(apply_mode=self.apply_mode, keep_mode=self._keep_mode, **before)
        super().prepare_ctx(parsed)
        self.ctx.cur_model_idx = 0

    # --- turns --------------------------------------------------------------------------------------------------------

    def run_routine(self, mode: str, split: str, hooks_set: Any = None) -> None:
        """Run the routine of every model.

        Args:
            mode, split: as in `Trainer.run_routine`.
            hooks_set: trigger -> functions, for all models; or a list of these, one for each.
        """
        sets = self._hooks_of_all(mode, hooks_set)
        around = self.ctx.cur_model_idx  # more than 0 where this is an evaluation within the turn of another model
        try:
            if self.in_step:
                self._switch_model_ctx(0)
                with self._taking_turns(sets):
                    super().run_routine(mode, split, sets[0])
            else:
                for index, hooks in enumerate(sets):
                    self._switch_model_ctx(index)
                    super().run_routine(mode, split, hooks)
        finally:
            self._switch_model_ctx(around)

    def _hooks_of_all(self, mode: str, hooks_set: Any) -> list[HookSet]:
        if hooks_set is None:
            return [each.hooks_in(mode) for each in self.registries]
        given = [hooks_set] * len(self.models) if isinstance(hooks_set, Mapping) else list(hooks_set)
        if len(given) != len(self.models):
            raise ConfigError(f"there are {len(given)} hook sets", expected=f"one, or {len(self.models)}")
        return [HookSet.of(each) for each in given]

    @contextmanager
    def _taking_turns(self, sets: list[HookSet]) -> Iterator[None]:
        self._turns.append(sets)
        try:
            yield
        finally:
            self._turns.pop()

    def fire(self, trigger: str) -> None:
        """Call the hooks of a trigger: the current model's, or in parallel those of all models in turn."""
        if not self.in_step or trigger in RUN_TRIGGERS or trigger == TRIGGER.ON_OPTIMIZER_STEP:
            super().fire(trigger)
            if trigger == TRIGGER.ON_FIT_END:
                self._interact_to_other_models()
            return
        if trigger == TRIGGER.ON_FIT_START:
            self.begin_routine()
        self.ctx.share()
        for hooks in self._turns[-1]:
            self._active[-1] = hooks
            Trainer.fire(self, trigger)
            if trigger == TRIGGER.ON_FIT_END:
                self.end_routine()
            self._interact_to_other_models()
            self._switch_model_ctx()

    def _switch_model_ctx(self, next_model_idx: int | None = None) -> None:
        """Go over to a model, the next one unless said otherwise; override it to exchange more than this does."""
        ctx = self.ctx
        index = (ctx.cur_model_idx + 1) % len(ctx.models) if next_model_idx is None else next_model_idx
        if self.in_step:
            ctx.select(index)
        ctx.cur_model_idx = CtxVar(index)
        ctx.model = CtxVar(ctx.models[index])
        ctx.optimizer = CtxVar(ctx.optimizers[index])

    def _interact_to_other_models(self) -> None:
        """Called when the current model's hooks are done: sequential after on_fit_end, in parallel at every trigger.

        Override it. ctx.cur_model_idx, ctx.cur_mode and ctx.models tell what is at hand.
        """

    def skip_batches(self, number: int) -> None:
        """Pass over batches that a resumed run has done; in parallel each model has passes of its own."""
        for _ in range(len(self.models) if self.in_step else 1):
            super().skip_batches(number)
            if self.in_step:
                self._switch_model_ctx()

    def routines_of_train(self) -> int:
        """Return how many routines one call of `train` runs."""
        return 1 if self.in_step else len(self.models)

    def scalar_name(self, name: str) -> str:
        """Return the name under which the current model's numbers are stored: loss, loss_1, …"""
        index = self.ctx.cur_model_idx
        return name if index == 0 else f"{name}_{index}"

    # --- results ------------------------------------------------------------------------------------------------------

    def summary(self, outcomes: list[Outcome]) -> tuple[Any, Any]:
        """Return (mean of the samples, the metrics of each model)."""
        if len(self.models) == 1:
            return super().summary(outcomes)
        return sum(samples for samples, _ in outcomes) / len(outcomes), [metrics for _, metrics in outcomes]

    def _with_difference(self, metrics: Any, before: Any, after: Any) -> Any:
        if len(self.models) == 1:
            return super()._with_difference(metrics, before, after)
        return [
            super(MultiModelTrainer, self)._with_difference(*each) for each in zip(metrics, before, after, strict=True)
        ]

    def get_model_para(self) -> Any:
        """Return the parameters of each model as `LocalTrainer` does: a list, unless there is only one model."""
        parameters = [self._para_of(model) for model in self.models.values()]
        return parameters if len(parameters) > 1 else parameters[0]

    def update(self, model_parameters: Any, strict: bool = False) -> None:
        """Take parameters, a list with those of each model; as `LocalTrainer.update`.

        Raises:
            ConfigError: there are more or fewer than models, or a value does not fit; nothing is changed.
        """
        given = [model_parameters] if isinstance(model_parameters, Mapping) else list(model_parameters)
        if len(given) != len(self.models):
            raise ConfigError(f"there are parameters of {len(given)} models", expected=f"of {len(self.models)}")
        for model, parameters in zip(self.models.values(), given, strict=True):
            fitting(model, parameters, strict=strict)
        for model, parameters in zip(self.models.values(), given, strict=True):
            self._update_one(model, parameters, strict)


def _models(given: Sequence[nn.Module] | tuple[nn.Module, int]) -> list[nn.Module]:
    """Return the models that a trainer is to have."""
    listed: list[Any] = list(given)
    if len(listed) == 2 and isinstance(listed[0], nn.Module) and not isinstance(listed[1], nn.Module):
        model, number = listed
        if not is_whole(number, 1):
            raise ValueError(f"the number of models is {number!r}, and should be a whole number of 1 or more")
        return [model, *(copy.deepcopy(model) for _ in range(1, number))]
    models = [each for each in listed if isinstance(each, nn.Module)]
    if not models or len(models) != len(listed):
        raise ValueError("models should be one or more of torch.nn.Module, or (model, how many)")
    if len({id(each) for each in models}) != len(models):
        raise ConfigError(
            "one model is there twice", expected="models of their own", advice="Give (model, n) for copies."
        )
    return models

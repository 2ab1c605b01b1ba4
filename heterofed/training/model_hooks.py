"""The hook sets of several models in one trainer: each model has its own."""

from __future__ import annotations

from collections.abc import Callable

from heterofed.checks import is_whole
from heterofed.errors import ConfigError
from heterofed.training.hook_objects import HookObjects
from heterofed.training.hook_registry import HookFunction, HookRegistry, HookSet
from heterofed.training.hooks.base import POINTS, HookBase
from heterofed.training.triggers import RUN_TRIGGERS, TRIGGER


class ModelHooks(HookObjects):
    """The functions that change hooks, with one argument more: `model_idx`, whose hooks; None: those of all models.

    Attributes:
        registries: the hook sets of each model. hooks_in_train, hooks_in_eval and hooks_in_ft are those of model 0.
    """

    registries: list[HookRegistry]
    in_step: bool
    """Whether the models take turns at every trigger."""

    def separate_hooks(self, number: int) -> None:
        """Give each of so many models a copy of the hook sets that there are."""
        self.registries = [self, *(copied(self) for _ in range(1, number))]

    @property
    def hooks_in_train_multiple_models(self) -> list[HookSet]:
        """The hooks of training of each model."""
        return [each.hooks_in_train for each in self.registries]

    @property
    def hooks_in_eval_multiple_models(self) -> list[HookSet]:
        """The hooks of evaluation of each model."""
        return [each.hooks_in_eval for each in self.registries]

    @property
    def hooks_in_ft_multiple_models(self) -> list[HookSet]:
        """The hooks of fine-tuning of each model."""
        return [each.hooks_in_ft for each in self.registries]

    def _chosen(self, model_idx: int | None, trigger: str) -> list[HookRegistry]:
        """Return whose hooks are meant; points outside of routines are there once, with model 0."""
        if model_idx is None:
            return self.registries[:1] if trigger in RUN_TRIGGERS else self.registries
        count = len(self.registries)
        if not is_whole(model_idx, 0, count - 1):
            raise ConfigError(f"model_idx is {model_idx!r}", expected=f"0 to {count - 1}, or None for all")
        if trigger in RUN_TRIGGERS and model_idx:
            raise ConfigError(f"{trigger} lies outside of any routine", expected="model_idx=0")
        return [self.registries[model_idx]]

    def register_hook_in_train(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
        model_idx: int | None = 0,
    ) -> None:
        """Call a function at a trigger of training of a model, or of all (None); else as `HookSet.insert`."""
        for each in self._chosen(model_idx, trigger):
            HookRegistry.register_hook_in_train(each, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def register_hook_in_eval(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
        model_idx: int | None = 0,
    ) -> None:
        """Call a function at a trigger of evaluation of a model, or of all (None); else as `HookSet.insert`."""
        for each in self._chosen(model_idx, trigger):
            HookRegistry.register_hook_in_eval(each, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def register_hook_in_ft(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
        model_idx: int | None = 0,
    ) -> None:
        """Call a function at a trigger of fine-tuning of a model, or of all (None); else as `HookSet.insert`."""
        for each in self._chosen(model_idx, trigger):
            HookRegistry.register_hook_in_ft(each, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def reset_hook_in_train(
        self, target_trigger: str, target_hook_name: object = None, model_idx: int | None = 0
    ) -> int:
        """Remove hooks of training of a model, or of all (None), as `HookSet.reset`; return where."""
        chosen = self._chosen(model_idx, target_trigger)
        places = [HookRegistry.reset_hook_in_train(each, target_trigger, target_hook_name) for each in chosen]
        return places[0]

    def reset_hook_in_eval(
        self, target_trigger: str, target_hook_name: object = None, model_idx: int | None = 0
    ) -> int:
        """Remove hooks of evaluation of a model, or of all (None), as `HookSet.reset`; return where."""
        chosen = self._chosen(model_idx, target_trigger)
        places = [HookRegistry.reset_hook_in_eval(each, target_trigger, target_hook_name) for each in chosen]
        return places[0]

    def reset_hook_in_ft(self, target_trigger: str, target_hook_name: object = None, model_idx: int | None = 0) -> int:
        """Remove hooks of fine-tuning of a model, or of all (None), as `HookSet.reset`; return where."""
        chosen = self._chosen(model_idx, target_trigger)
        places = [HookRegistry.reset_hook_in_ft(each, target_trigger, target_hook_name) for each in chosen]
        return places[0]

    def replace_hook_in_train(
        self, new_hook: HookFunction, target_trigger: str, target_hook_name: object, model_idx: int | None = 0
    ) -> None:
        """Put a function in the place of a hook of training of a model, or of all (None)."""
        for each in self._chosen(model_idx, target_trigger):
            HookRegistry.replace_hook_in_train(each, new_hook, target_trigger, target_hook_name)

    def replace_hook_in_eval(
        self, new_hook: HookFunction, target_trigger: str, target_hook_name: object, model_idx: int | None = 0
    ) -> None:
        """Put a function in the place of a hook of evaluation of a model, or of all (None)."""
        for each in self._chosen(model_idx, target_trigger):
            HookRegistry.replace_hook_in_eval(each, new_hook, target_trigger, target_hook_name)

    def replace_hook_in_ft(
        self, new_hook: HookFunction, target_trigger: str, target_hook_name: object, model_idx: int | None = 0
    ) -> None:
        """Put a function in the place of a hook of fine-tuning of a model, or of all (None)."""
        for each in self._chosen(model_idx, target_trigger):
            HookRegistry.replace_hook_in_ft(each, new_hook, target_trigger, target_hook_name)

    # --- hook objects -------------------------------------------------------------------------------------------------

    def _insert_method(self, name: str, point: str, method: Callable[..., None], hook: HookBase) -> None:
        kept = self.hooks_in_train, self.hooks_in_ft
        places = [(each.hooks_in_train, each.hooks_in_ft) for each in self._called_with(point)]
        try:
            for self.hooks_in_train, self.hooks_in_ft in places:
                super()._insert_method(name, point, method, hook)
        finally:
            self.hooks_in_train, self.hooks_in_ft = kept

    def _called_with(self, point: str) -> list[HookRegistry]:
        """Return among whose hooks an object's method stands, such that it is called as often as batches count."""
        if POINTS[point] in RUN_TRIGGERS:
            return self.registries[:1]
        if not self.in_step or POINTS[point] == TRIGGER.ON_OPTIMIZER_STEP:
            return self.registries
        return self.registries[:1] if point.startswith("before") else self.registries[-1:]

    def remove_hook(self, name: str) -> HookBase:
        """Take a hook object out of every model's hooks, and return it; else as `HookObjects.remove_hook`."""
        removed = super().remove_hook(name)
        for each in self.registries:
            each.hooks_in_train.remove_source(name)
            each.hooks_in_ft.remove_source(name)
        return removed


def copied(registry: HookRegistry) -> HookRegistry:
    """Return hook sets of their own with the same hooks."""
    made = HookRegistry()
    made.hooks_in_train = registry.hooks_in_train.copy("train")
    made.hooks_in_eval = registry.hooks_in_eval.copy("eval")
    made.hooks_in_ft = registry.hooks_in_ft.copy("finetune")
    return made

"""The object door to the hook lists: `HookBase` objects, whose methods stand in the same lists as functions."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from heterofed.errors import ConfigError
from heterofed.training.hook_registry import HookEntry, HookFunction, HookRegistry
from heterofed.training.hooks.base import POINTS, HookBase, misnamed, points_of
from heterofed.training.triggers import RUN_TRIGGERS, TRIGGER

if TYPE_CHECKING:
    from heterofed.training.trainer import Trainer

_SOURCES = ("default", "function")


class HookObjects(HookRegistry):
    """A hook registry that takes objects too."""

    def __init__(self) -> None:
        super().__init__()
        self._objects: dict[str, HookBase] = {}

    @property
    def hooks(self) -> dict[str, HookBase]:
        """The hook objects by name, in the order of registration."""
        return dict(self._objects)

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Add hook objects; their methods are called in the order of registration. None is left out.

        Raises:
            ConfigError: something is no HookBase, or two have one name.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise ConfigError(f"a hook is a {type(hook).__name__}", expected="an object of a subclass of HookBase")
            name = hook.name or type(hook).__name__
            if name in _SOURCES:
                raise ConfigError(f"a hook is named {name}", expected="another name: tables call plain functions so")
            if name in self._objects:
                raise ConfigError(
                    f"there are two hooks named {name}",
                    expected="a name of its own for every hook",
                    advice=f"Give one another name (hook.name = …), or take the other out: remove_hook({name!r}).",
                )
            wrong = misnamed(hook)
            if wrong is not None:
                raise ConfigError(
                    f"the hook {name} has a method {wrong[0]}, which is never called",
                    expected=f"{wrong[1]}()" if wrong[1] else "a function: register_hook_in_train(function, trigger)",
                )
            if _is_in_use(hook):
                raise ConfigError(
                    f"the hook {name} belongs to another trainer already",
                    expected="an object of its own for every trainer",
                    advice="Make a second one; or take it out of the other trainer first: remove_hook.",
                )
            self._objects[name] = hook
            hook.trainer = cast("Trainer", weakref.proxy(self))
            for point, method in points_of(hook).items():
                self._insert_method(name, point, method, hook)

    def _insert_method(self, name: str, point: str, method: Callable[..., None], hook: HookBase) -> None:
        trigger = POINTS[point]
        entry = HookEntry(f"{name}.{point}", _without_ctx(method, trigger), name, method)
        for hooks in (self.hooks_in_train, self.hooks_in_ft):
            if hooks is self.hooks_in_ft and trigger in RUN_TRIGGERS:
                continue
            held_back = [i for i, each in enumerate(hooks[trigger]) if self._is_last(each.source)]
            hooks.insert(trigger, entry, insert_pos=held_back[0] if held_back and not hook.last else -1)

    def _is_last(self, source: str) -> bool:
        return source in self._objects and self._objects[source].last

    def remove_hook(self, name: str) -> HookBase:
        """Take a hook object out again and return it.

        Raises:
            ConfigError: there is none of this name.
        """
        if name not in self._objects:
            raise ConfigError(f"there is no hook {name}", expected="one of " + (", ".join(self._objects) or "none"))
        for hooks in (self.hooks_in_train, self.hooks_in_ft):
            hooks.remove_source(name)
        return self._objects.pop(name)


def _without_ctx(method: Callable[..., None], trigger: str) -> HookFunction:
    if trigger == TRIGGER.ON_EXCEPTION:
        return lambda ctx: method(ctx.exception)
    return lambda ctx: method()


def _is_in_use(hook: HookBase) -> bool:
    """Whether a hook is registered with another trainer that is still there and has not ended its run."""
    try:
        return any(each is hook for each in hook.trainer.hooks.values()) and not hook.trainer.ended
    except (AttributeError, ReferenceError):
        return False  # it has had none, or one that is gone

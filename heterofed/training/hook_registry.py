"""Which functions are called at which point: {mode: {trigger: [hooks, in the order in which they are called]}}.

Functions that take `ctx` and the methods of hook objects stand in the same lists, so that either can be placed before
or after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from heterofed.checks import is_whole
from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.triggers import ALL_TRIGGERS, RUN_TRIGGERS

HookFunction = Callable[[Context], Any]
"""What is called at a trigger; what it returns is ignored."""


@dataclass(frozen=True)
class HookEntry:
    """One hook at one trigger."""

    name: str
    """By which it is found, and shown in tables and errors."""
    function: HookFunction
    source: str
    """Where it comes from: "default", "function", or the name of a hook object."""
    given: object
    """What was registered; `base_hook` is compared with it."""


def name_of(hook: object) -> str:
    """Return a name for anything that can be called; for a lambda where it was written, as it has none."""
    if isinstance(hook, functools.partial):
        return f"partial({name_of(hook.func)})"
    name = getattr(hook, "__name__", None)
    if name is None:
        return type(hook).__name__
    code = getattr(hook, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda:{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"
    return str(name)


class HookSet(Mapping[str, list[HookEntry]]):
    """The hooks of one mode: trigger -> entries, in order. Printing it shows a table."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._lists: dict[str, list[HookEntry]] = {trigger: [] for trigger in ALL_TRIGGERS}

    @classmethod
    def of(cls, hooks: Mapping[str, Sequence[HookFunction | HookEntry]], mode: str = "own") -> HookSet:
        """Return a set that is made of plain functions, trigger -> functions.

        Raises:
            ConfigError: an unknown trigger, or something that cannot be called.
        """
        if isinstance(hooks, HookSet):
            return hooks
        made = cls(mode)
        for trigger, functions in hooks.items():
            if trigger in RUN_TRIGGERS:
                raise ConfigError(f"{trigger} lies outside of any routine", expected="triggers of a routine")
            for each in functions:
                made.insert(trigger, each if isinstance(each, HookEntry) else entry_of(each))
        return made

    def copy(self, mode: str) -> HookSet:
        """Return a set of its own with the same entries."""
        made = HookSet(mode)
        made._lists = {trigger: list(entries) for trigger, entries in self._lists.items()}
        return made

    def __getitem__(self, trigger: str) -> list[HookEntry]:
        found = self._lists.get(trigger)
        return self._lists[self._checked(trigger)] if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def names(self, trigger: str) -> list[str]:
        """Return the names of the hooks at a trigger, in order."""
        return [entry.name for entry in self[trigger]]

    def insert(
        self,
        trigger: str,
        entry: HookEntry,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
    ) -> int:
        """Put an entry into a trigger's list and return its position.

        Args:
            trigger: one of `TRIGGER`.
            entry: what to call there.
            insert_pos: 0 to the length of the list, or -1 for its end; None: see base_hook.
            base_hook: a hook of this trigger, or its name; None, with no position: the end.
            insert_mode: "before" or "after" the base hook.

        Raises:
            ConfigError: an unknown trigger or mode, a position outside of the list, a base hook that is not there.
        """
        entries = self[trigger]
        if insert_mode not in ("before", "after"):
            raise ConfigError(f"insert_mode is {insert_mode!r}", expected='"before" or "after"')
        if insert_pos is not None:
            if not is_whole(insert_pos, -1, len(entries)):
                raise ConfigError(f"insert_pos is {insert_pos!r} at {trigger}", expected=f"-1, or 0 to {len(entries)}")
            position = len(entries) if insert_pos == -1 else insert_pos
        elif base_hook is not None:
            position = self.find(trigger, base_hook) + (insert_mode == "after")
        else:
            position = len(entries)
        entries.insert(position, entry)
        return position

    def find(self, trigger: str, hook: object) -> int:
        """Return the position of a hook, given itself or its name; of several of one name, the first.

        Raises:
            ConfigError: it is not at this trigger; the text names those that are.
        """
        for position, entry in enumerate(self[trigger]):
            if entry.name == hook or (not isinstance(hook, str) and entry.given == hook):
                return position
        name = hook if isinstance(hook, str) else name_of(hook)
        there = ", ".join(self.names(trigger)) or "none"
        raise ConfigError(
            f"there is no hook {name} at {self._checked(trigger)} in {self.mode}", expected=f"one of those: {there}"
        )

    def reset(self, trigger: str, hook: object = None) -> int:
        """Remove one hook and return where it was; without one, give the trigger a new empty list and return -1.

        Raises:
            ConfigError: the hook is not there.
        """
        if hook is None:
            self._lists[self._checked(trigger)] = []
            return -1
        position = self.find(trigger, hook)
        del self[trigger][position]
        return position

    def remove_source(self, source: str) -> None:
        """Remove every hook that came from one object."""
        for entries in self._lists.values():
            entries[:] = [entry for entry in entries if entry.source != source]

    @staticmethod
    def _checked(trigger: str) -> str:
        if trigger not in ALL_TRIGGERS:
            raise ConfigError(f"there is no trigger {trigger!r}", expected="one of " + ", ".join(ALL_TRIGGERS))
        return trigger

    def __str__(self) -> str:
        rows = [(trigger, entry.name, entry.source) for trigger, entries in self._lists.items() for entry in entries]
        return table_of([(f"trigger ({self.mode})", "hook", "from"), *rows])

    __repr__ = __str__


def table_of(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as aligned columns, the first row underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def entry_of(hook: object, source: str = "function") -> HookEntry:
    """Return the entry of a function that takes `ctx`.

    Raises:
        ConfigError: it cannot be called.
    """
    if not callable(hook):
        raise ConfigError(f"a hook is a {type(hook).__name__}", expected="a function that takes ctx")
    return HookEntry(name_of(hook), cast(HookFunction, hook), source, hook)


class HookRegistry:
    """The hook sets of one trainer, and the functions by which people change them.

    Run-wide triggers (before_train, on_round_start, on_round_end, on_exception, after_train) belong to training.
    """

    def __init__(self) -> None:
        self.hooks_in_train = HookSet("train")
        self.hooks_in_eval = HookSet("eval")
        self.hooks_in_ft = HookSet("finetune")

    def register_hook_in_train(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
    ) -> None:
        """Call a function at a trigger of training; arguments as `HookSet.insert`."""
        self.hooks_in_train.insert(trigger, entry_of(new_hook), insert_pos, base_hook, insert_mode)

    def register_hook_in_eval(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
    ) -> None:
        """Call a function at a trigger of evaluation; arguments as `HookSet.insert`."""
        self._routine_only(trigger)
        self.hooks_in_eval.insert(trigger, entry_of(new_hook), insert_pos, base_hook, insert_mode)

    def register_hook_in_ft(
        self,
        new_hook: HookFunction,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: object = None,
        insert_mode: str = "before",
    ) -> None:
        """Call a function at a trigger of fine-tuning; arguments as `HookSet.insert`."""
        self._routine_only(trigger)
        self.hooks_in_ft.insert(trigger, entry_of(new_hook), insert_pos, base_hook, insert_mode)

    def reset_hook_in_train(self, target_trigger: str, target_hook_name: object = None) -> int:
        """Remove a hook of training, or all of a trigger; as `HookSet.reset`."""
        return self.hooks_in_train.reset(target_trigger, target_hook_name)

    def reset_hook_in_eval(self, target_trigger: str, target_hook_name: object = None) -> int:
        """Remove a hook of evaluation, or all of a trigger; as `HookSet.reset`."""
        return self.hooks_in_eval.reset(target_trigger, target_hook_name)

    def reset_hook_in_ft(self, target_trigger: str, target_hook_name: object = None) -> int:
        """Remove a hook of fine-tuning, or all of a trigger; as `HookSet.reset`."""
        return self.hooks_in_ft.reset(target_trigger, target_hook_name)

    def replace_hook_in_train(self, new_hook: HookFunction, target_trigger: str, target_hook_name: object) -> None:
        """Put a function in the place of a hook of training.

        Raises:
            ConfigError: the hook is not there.
        """
        self._replace(self.hooks_in_train, new_hook, target_trigger, target_hook_name)

    def replace_hook_in_eval(self, new_hook: HookFunction, target_trigger: str, target_hook_name: object) -> None:
        """Put a function in the place of a hook of evaluation; raises as `replace_hook_in_train`."""
        self._routine_only(target_trigger)
        self._replace(self.hooks_in_eval, new_hook, target_trigger, target_hook_name)

    def replace_hook_in_ft(self, new_hook: HookFunction, target_trigger: str, target_hook_name: object) -> None:
        """Put a function in the place of a hook of fine-tuning; raises as `replace_hook_in_train`."""
        self._routine_only(target_trigger)
        self._replace(self.hooks_in_ft, new_hook, target_trigger, target_hook_name)

    @staticmethod
    def _replace(hooks: HookSet, new_hook: HookFunction, trigger: str, name: object) -> None:
        entry = entry_of(new_hook)  # before anything is taken out
        hooks.insert(
            trigger, entry, insert_pos=hooks.reset(trigger, name)
        )  # -1, the end of an empty list, without a name

    @staticmethod
    def _routine_only(trigger: str) -> None:
        if trigger in RUN_TRIGGERS:
            raise ConfigError(f"{trigger} lies outside of any routine", expected="register_hook_in_train")

    def hooks_in(self, mode: str) -> HookSet:
        """Return the hook set for a mode of the context: train, finetune, or any other for evaluation."""
        return {"train": self.hooks_in_train, "finetune": self.hooks_in_ft}.get(mode, self.hooks_in_eval)

    def __str__(self) -> str:
        return "\n\n".join(str(each) for each in (self.hooks_in_train, self.hooks_in_eval, self.hooks_in_ft))

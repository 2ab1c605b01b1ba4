"""The object door to the hook lists: `HookBase`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.hooks import CallbackHook, HookBase
from heterofed.training.trainer import Trainer
from heterofed.training.triggers import ALL_TRIGGERS
from tests.training.toys import Counting


def first(ctx: Context) -> None:
    """A hook."""


def second(ctx: Context) -> None:
    """A hook."""


def noting(seen: list[str], name: str) -> Callable[[Trainer], None]:
    return lambda trainer: seen.append(name)


def test_hook_objects_are_called_in_the_order_of_registration() -> None:
    seen: list[str] = []
    trainer = Counting(per_round=1)
    trainer.register_hooks(CallbackHook(name=name, after_step=noting(seen, name)) for name in "cab")
    trainer.run(1)
    assert seen == ["c", "a", "b"]


def test_none_among_hooks_is_left_out_and_other_things_are_refused() -> None:
    trainer = Counting()
    trainer.register_hooks([None, CallbackHook(name="a")])
    assert list(trainer.hooks) == ["a"]
    with pytest.raises(ConfigError, match="a hook is a function; expected an object of a subclass of HookBase"):
        trainer.register_hooks([first])  # type: ignore[list-item]  # on purpose


def test_two_hooks_of_one_name_are_refused() -> None:
    trainer = Counting()
    trainer.register_hooks([CallbackHook()])
    with pytest.raises(
        ConfigError,
        match=r"two hooks named CallbackHook;.*another name \(hook.name = …\), or take the other out: remove_hook",
    ):
        trainer.register_hooks([CallbackHook()])
    named = CallbackHook()
    named.name = "another"
    trainer.register_hooks([named])
    assert list(trainer.hooks) == ["CallbackHook", "another"]


@pytest.mark.parametrize("name", ["default", "function"])
def test_a_hook_cannot_be_named_as_tables_name_plain_functions(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a hook is named {name}"):
        Counting().register_hooks([CallbackHook(name=name)])


def test_only_the_methods_that_a_hook_overrides_are_called() -> None:
    class Two(HookBase):
        def after_round(self) -> None: ...

        def before_step(self) -> None: ...

    trainer = Counting()
    trainer.register_hooks([Two()])
    assert [entry.name for each in ALL_TRIGGERS for entry in trainer.hooks_in_train[each]] == [
        "Two.before_step",
        "Two.after_round",
    ]
    assert [entry.name for each in ALL_TRIGGERS for entry in trainer.hooks_in_ft[each]] == ["Two.before_step"]
    assert not any(trainer.hooks_in_eval[each] for each in ALL_TRIGGERS)


def test_functions_stand_before_and_after_the_methods_of_objects() -> None:
    trainer = Counting()
    trainer.register_hooks([CallbackHook(after_step=print, name="Mine")])
    trainer.register_hook_in_train(first, "on_batch_end", base_hook="Mine.after_step", insert_mode="before")
    trainer.register_hook_in_train(second, "on_batch_end", base_hook="Mine.after_step", insert_mode="after")
    assert trainer.hooks_in_train.names("on_batch_end") == ["first", "Mine.after_step", "second"]


def test_a_hook_that_comes_last_stays_behind_those_registered_after_it() -> None:
    class Writes(HookBase):
        last = True

        def after_step(self) -> None: ...

    trainer = Counting()
    trainer.register_hooks(
        [Writes(), CallbackHook(after_step=print, name="a"), CallbackHook(after_step=print, name="b")]
    )
    other = Writes()
    other.name = "Other"
    trainer.register_hooks([other])
    assert trainer.hooks_in_train.names("on_batch_end") == [
        "a.after_step",
        "b.after_step",
        "Writes.after_step",
        "Other.after_step",
    ]


def test_a_hook_can_be_removed_and_used_again() -> None:
    trainer = Counting()
    hook = CallbackHook(after_step=print, after_train=print, name="a")
    trainer.register_hooks([hook])
    trainer.register_hook_in_train(first, "on_batch_end")
    assert trainer.remove_hook("a") is hook
    assert trainer.hooks_in_train.names("on_batch_end") == ["first"]
    assert not trainer.hooks_in_train.names("after_train")
    assert not trainer.hooks
    with pytest.raises(ConfigError, match="there is no hook a; expected one of none"):
        trainer.remove_hook("a")
    trainer.register_hooks([hook])
    assert list(trainer.hooks) == ["a"]


def test_a_hooks_trainer_is_a_weak_reference() -> None:
    hook = CallbackHook()
    assert hook.trainer is None, "not registered yet"
    trainer = Counting()
    trainer.register_hooks([hook])
    assert hook.trainer.iter == 0
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError):
        _ = hook.trainer.iter


def test_a_callback_hook_has_every_point_and_no_other_and_serves_several_runs() -> None:
    seen: list[str] = []
    points = ("before_train", "after_train", "before_step", "after_step", "after_round", "before_fit")
    trainer = Counting(per_round=1)
    callbacks: Any = {each: noting(seen, each) for each in points}
    trainer.register_hooks([CallbackHook(**callbacks)])
    trainer.run(1)
    once = ["before_train", "before_fit", "before_step", "after_step", "after_round", "after_train"]
    assert seen == once
    trainer.run(2)
    assert seen == 2 * once
    with pytest.raises(TypeError, match="CallbackHook has no point 'after_batch'; the points are before_train"):
        CallbackHook(after_batch=print)


def test_an_object_belongs_to_one_trainer_at_a_time() -> None:
    hook = CallbackHook()
    first = Counting()
    first.register_hooks([hook])
    with pytest.raises(ConfigError, match="the hook CallbackHook belongs to another trainer already"):
        Counting().register_hooks([hook])

    first.run(1)
    Counting().register_hooks([hook])  # its run has ended


def test_an_object_that_was_taken_out_may_go_to_another_trainer() -> None:
    hook = CallbackHook()
    first = Counting()
    first.register_hooks([hook])
    first.remove_hook("CallbackHook")
    Counting().register_hooks([hook])


@pytest.mark.parametrize(
    ("method", "meant"),
    [("on_batch_end", "after_step"), ("after_batch", "after_step"), ("on_epoch_end", "a function: register_hook")],
)
def test_a_method_that_would_never_be_called_is_refused_with_the_one_that_is_meant(method: str, meant: str) -> None:
    misspelt = type("Misspelt", (HookBase,), {method: lambda self: None})()
    with pytest.raises(ConfigError, match=f"Misspelt has a method {method}, which is never called; expected {meant}"):
        Counting().register_hooks([misspelt])

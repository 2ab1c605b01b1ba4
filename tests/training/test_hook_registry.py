"""The two doors to the hook lists: functions that take `ctx`, and objects."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.training.context import Context
from heterofed.training.hook_registry import HookRegistry, HookSet, entry_of, name_of
from heterofed.training.hooks import CallbackHook
from heterofed.training.triggers import RUN_TRIGGERS, TRIGGER
from tests.training.toys import Counting

MODES = ["train", "eval", "ft"]


def first(ctx: Context) -> None:
    """A hook."""


def second(ctx: Context) -> None:
    """A hook."""


def third(ctx: Context) -> None:
    """A hook."""


def new(ctx: Context) -> None:
    """The hook that is put in."""


class Verb:
    """Calls register, reset and replace of one mode."""

    def __init__(self, mode: str) -> None:
        self.registry = HookRegistry()
        self.hooks: HookSet = getattr(self.registry, f"hooks_in_{mode}")
        self.register = getattr(self.registry, f"register_hook_in_{mode}")
        self.reset = getattr(self.registry, f"reset_hook_in_{mode}")
        self.replace = getattr(self.registry, f"replace_hook_in_{mode}")
        for each in (first, second, third):
            self.register(each, "on_fit_start")

    def names(self) -> list[str]:
        return self.hooks.names("on_fit_start")


@pytest.fixture(params=MODES)
def verb(request: pytest.FixtureRequest) -> Verb:
    """A registry with three hooks, in each mode."""
    return Verb(request.param)


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [-1, 0, 1, 2, 3])
def test_insert_pos_accepts_minus_one_or_0_to_the_length(verb: Verb, position: int) -> None:
    verb.register(new, "on_fit_start", insert_pos=position)
    expected = ["first", "second", "third"]
    expected.insert(3 if position == -1 else position, "new")
    assert verb.names() == expected


@pytest.mark.parametrize("position", [-2, 4, 100, True, 1.0, "0"])
def test_any_other_insert_pos_is_refused(verb: Verb, position: Any) -> None:
    with pytest.raises(ConfigError, match=rf"insert_pos is {position!r} at on_fit_start; expected -1, or 0 to 3\."):
        verb.register(new, "on_fit_start", insert_pos=position)
    assert verb.names() == ["first", "second", "third"]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("base", [first, second, third])
def test_base_hook_inserts_directly_before_or_after(verb: Verb, base: Any, by_name: bool) -> None:
    name = base.__name__
    verb.register(new, "on_fit_start", base_hook=name if by_name else base, insert_mode="before")
    assert verb.names()[verb.names().index(name) - 1] == "new"
    verb.reset("on_fit_start", new)
    verb.register(new, "on_fit_start", None, name if by_name else base, "after")
    assert verb.names()[verb.names().index(name) + 1] == "new"
    assert [each for each in verb.names() if each != "new"] == ["first", "second", "third"]


def test_a_position_goes_before_a_base_hook(verb: Verb) -> None:
    verb.register(new, "on_fit_start", insert_pos=0, base_hook=third, insert_mode="after")
    assert verb.names()[0] == "new"


def test_without_a_place_a_hook_goes_to_the_end(verb: Verb) -> None:
    verb.register(new, "on_fit_start")
    assert verb.names() == ["first", "second", "third", "new"]


def test_another_insert_mode_is_refused(verb: Verb) -> None:
    with pytest.raises(ConfigError, match='insert_mode is \'behind\'; expected "before" or "after"'):
        verb.register(new, "on_fit_start", base_hook=first, insert_mode="behind")


def test_a_base_hook_that_is_not_there_is_refused_with_those_that_are(verb: Verb) -> None:
    text = re.escape(
        f"there is no hook new at on_fit_start in {verb.hooks.mode}; expected one of those: first, second, third."
    )
    with pytest.raises(ConfigError, match=text):
        verb.register(third, "on_fit_start", base_hook=new)
    with pytest.raises(ConfigError, match=r"there is no hook first at on_fit_end in .*one of those: none"):
        verb.register(new, "on_fit_end", base_hook="first")


def test_reset_by_name_returns_the_position(verb: Verb) -> None:
    assert verb.reset("on_fit_start", "second") == 1
    assert verb.reset("on_fit_start", third) == 1
    assert verb.names() == ["first"]
    with pytest.raises(ConfigError, match="there is no hook second at on_fit_start"):
        verb.reset("on_fit_start", "second")


def test_reset_without_a_name_empties_the_trigger(verb: Verb) -> None:
    verb.register(new, "on_fit_end")
    before = verb.hooks["on_fit_start"]
    assert verb.reset("on_fit_start") == -1
    assert verb.names() == []
    assert len(before) == 3, "a list that somebody walks through keeps what it had"
    assert verb.hooks.names("on_fit_end") == ["new"]


def test_replace_keeps_the_position(verb: Verb) -> None:
    verb.replace(new, "on_fit_start", "second")
    assert verb.names() == ["first", "new", "third"]


def test_replace_refuses_what_is_not_there_and_what_is_no_function(verb: Verb) -> None:
    with pytest.raises(ConfigError, match="there is no hook new at on_fit_start"):
        verb.replace(third, "on_fit_start", new)
    with pytest.raises(ConfigError, match="a hook is a int; expected a function that takes ctx"):
        verb.replace(3, "on_fit_start", "second")
    assert verb.names() == ["first", "second", "third"]


def test_an_unknown_trigger_is_refused(verb: Verb) -> None:
    for call in (
        lambda: verb.register(new, "on_fit_begin"),
        lambda: verb.reset("on_fit_begin"),
        lambda: verb.replace(new, "on_fit_begin", "first"),
        lambda: verb.hooks["on_fit_begin"],
    ):
        with pytest.raises(ConfigError, match="there is no trigger 'on_fit_begin'; expected one of before_train, on_r"):
            call()
    assert not TRIGGER.contains("on_fit_begin")
    assert TRIGGER.contains("on_fit_start")


def test_a_trigger_is_named_by_text_or_by_its_constant(verb: Verb) -> None:
    verb.register(new, TRIGGER.ON_FIT_START, insert_pos=0)
    assert verb.names()[0] == "new"
    assert [entry.name for entry in verb.hooks[TRIGGER.ON_FIT_START]] == verb.names()


@pytest.mark.parametrize("trigger", sorted(RUN_TRIGGERS))
def test_triggers_outside_of_routines_belong_to_training(trigger: str) -> None:
    registry = HookRegistry()
    registry.register_hook_in_train(new, trigger)
    assert registry.hooks_in_train.names(trigger) == ["new"]
    for register in (registry.register_hook_in_eval, registry.register_hook_in_ft):
        with pytest.raises(ConfigError, match=f"{trigger} lies outside of any routine; expected register_hook_in_trai"):
            register(new, trigger)


def test_lambdas_partials_methods_and_callables_have_names() -> None:
    def outer() -> Any:
        return lambda ctx: None

    class Callable_:
        def __call__(self, ctx: Context) -> None: ...

        def method(self, ctx: Context) -> None: ...

    assert re.fullmatch(r"lambda:test_hook_registry\.py:\d+", name_of(outer()))
    assert name_of(functools.partial(first)) == "partial(first)"
    assert name_of(Callable_()) == "Callable_"
    assert name_of(Callable_().method) == "method"
    assert name_of(print) == "print"


def test_two_lambdas_are_told_apart_by_themselves() -> None:
    hooks = HookSet("train")
    one, other = (lambda ctx: 1), (lambda ctx: 2)  # of one line, and so of one name
    hooks.insert("on_fit_start", entry_of(one))
    hooks.insert("on_fit_start", entry_of(other))
    assert hooks.reset("on_fit_start", other) == 1
    assert hooks["on_fit_start"][0].function is one


def test_a_bound_method_is_found_again() -> None:
    class Owner:
        def hook(self, ctx: Context) -> None: ...

    owner = Owner()
    hooks = HookSet("train")
    hooks.insert("on_fit_start", entry_of(Owner().hook))
    hooks.insert("on_fit_start", entry_of(owner.hook))
    assert hooks.find("on_fit_start", owner.hook) == 1


def test_a_set_is_made_of_plain_functions() -> None:
    hooks = HookSet.of({"on_batch_end": [first, second]})
    assert hooks.names("on_batch_end") == ["first", "second"]
    assert HookSet.of(hooks) is hooks
    copied = hooks.copy("other")
    copied.reset("on_batch_end", first)
    assert hooks.names("on_batch_end") == ["first", "second"]
    with pytest.raises(ConfigError, match="there is no trigger 'no'"):
        HookSet.of({"no": [first]})


def test_hook_sets_are_printed_as_tables() -> None:
    trainer = Counting()
    trainer.register_hook_in_train(first, "on_fit_start")
    trainer.hooks_in_train.insert("on_batch_forward", entry_of(second, "default"))
    trainer.register_hooks([CallbackHook(before_step=print, after_train=print, name="Mine")])
    assert str(trainer) == (
        "trigger (train)   hook              from\n"
        "----------------  ----------------  --------\n"
        "on_fit_start      first             function\n"
        "on_batch_start    Mine.before_step  Mine\n"
        "on_batch_forward  second            default\n"
        "after_train       Mine.after_train  Mine\n"
        "\n"
        "trigger (eval)  hook  from\n"
        "--------------  ----  ----\n"
        "\n"
        "trigger (finetune)  hook              from\n"
        "------------------  ----------------  ----\n"
        "on_batch_start      Mine.before_step  Mine"
    )


_PLACES = st.one_of(
    st.tuples(st.just("position"), st.integers(-3, 12)),
    st.tuples(st.sampled_from(["before", "after"]), st.integers(0, 12)),
    st.tuples(st.just("remove"), st.integers(0, 12)),
    st.tuples(st.just("end"), st.none()),
)


@given(st.lists(_PLACES, max_size=20))
def test_any_sequence_of_insertions_gives_the_list_that_it_describes(places: list[tuple[str, Any]]) -> None:
    hooks = HookSet("train")
    expected: list[str] = []

    def named(name: str) -> Any:
        def hook(ctx: Context) -> None: ...

        hook.__name__ = name
        return hook

    for number, (how, where) in enumerate(places):
        entry, name = entry_of(named(f"h{number}")), f"h{number}"
        if how == "end":
            assert hooks.insert("on_fit_start", entry) == len(expected)
            expected.append(name)
        elif how == "remove":
            if where < len(expected):
                assert hooks.reset("on_fit_start", expected.pop(where)) == where
        elif how == "position":
            if -1 <= where <= len(expected):
                hooks.insert("on_fit_start", entry, insert_pos=where)
                expected.insert(len(expected) if where == -1 else where, name)
            else:
                with pytest.raises(ConfigError):
                    hooks.insert("on_fit_start", entry, insert_pos=where)
        else:
            base = expected[where] if where < len(expected) else "nobody"
            if base == "nobody":
                with pytest.raises(ConfigError):
                    hooks.insert("on_fit_start", entry, base_hook=base, insert_mode=how)
            else:
                hooks.insert("on_fit_start", entry, base_hook=base, insert_mode=how)
                expected.insert(where if how == "before" else where + 1, name)
        assert hooks.names("on_fit_start") == expected


@pytest.mark.parametrize("mode", ["eval", "ft"])
def test_a_point_outside_of_any_routine_is_refused_where_it_could_never_be_reached(mode: str) -> None:
    registry = HookRegistry()
    with pytest.raises(ConfigError, match="on_round_end lies outside of any routine"):
        getattr(registry, f"replace_hook_in_{mode}")(print, "on_round_end", None)
    with pytest.raises(ConfigError, match="on_round_end lies outside of any routine"):
        HookSet.of({"on_round_end": [print]})

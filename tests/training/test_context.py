"""`ctx`: how long variables live, and that routines inside each other leave each other alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heterofed.errors import ConfigError
from heterofed.training.context import Context, CtxVar
from heterofed.training.triggers import LIFECYCLE, MODE
from tests.training.toys import Counting


class Boom(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("value", [1, 1.5, "text", None, [1], torch.ones(2), nn.Linear(1, 1), CtxVar])
def test_a_ctxvar_keeps_its_values_type(value: Any) -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.BATCH):
        ctx.it = CtxVar(value, LIFECYCLE.BATCH)
        assert ctx.it is value
        assert ctx["it"] is value
        assert ctx.get("it") is value


@pytest.mark.parametrize("kind", LIFECYCLE.SCOPES)
@pytest.mark.parametrize("fails", [False, True])
def test_a_ctxvar_ends_with_its_scope_also_on_an_exception(kind: str, fails: bool) -> None:
    ctx = Context()
    for outer in LIFECYCLE.SCOPES[: LIFECYCLE.SCOPES.index(kind)]:
        ctx.open(outer)
    try:
        with ctx.scope(kind):
            ctx.it = CtxVar(1, kind)
            for inner in LIFECYCLE.SCOPES[LIFECYCLE.SCOPES.index(kind) + 1 :]:
                with ctx.scope(inner):
                    assert ctx.it == 1
            assert "it" in ctx
            if fails:
                raise Boom
    except Boom:
        pass
    assert "it" not in ctx
    assert ctx.get("it", "gone") == "gone"


def test_a_ctxvar_without_a_lifecycle_is_never_cleared() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.RUN), ctx.scope(LIFECYCLE.BATCH):
        ctx.it = CtxVar(1)
    assert ctx.it == 1


def test_a_change_leaves_a_variable_its_lifecycle() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.ROUTINE):
        ctx.count = CtxVar(0, LIFECYCLE.ROUTINE)
        with ctx.scope(LIFECYCLE.BATCH):
            ctx.count += 5
        assert ctx.count == 5
    assert "count" not in ctx


def test_a_new_name_without_a_lifecycle_stays_until_it_is_deleted() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.BATCH):
        ctx.kept = 1
    assert ctx.kept == 1
    del ctx.kept
    assert "kept" not in ctx
    with pytest.raises(AttributeError, match="no variable 'kept'"):
        del ctx.kept


def test_the_innermost_variable_of_a_name_is_seen() -> None:
    ctx = Context(it="outside")
    with ctx.scope(LIFECYCLE.BATCH):
        ctx.it = CtxVar("inside", LIFECYCLE.BATCH)
        assert ctx.it == "inside"
        del ctx.it
        assert ctx.it == "outside"


def test_a_missing_variable_is_named_with_a_near_one_and_the_scopes() -> None:
    ctx = Context(num_samples=1)
    with ctx.scope(LIFECYCLE.RUN), ctx.scope(LIFECYCLE.ROUND), pytest.raises(AttributeError) as found:
        _ = ctx.num_sample
    assert str(found.value) == (
        "ctx has no variable 'num_sample' here; did you mean num_samples? "
        "A CtxVar ends with its scope: run, round in progress."
    )
    with pytest.raises(
        AttributeError, match=r"'something_else' here\. A CtxVar ends with its scope: no scope in progress\."
    ):
        _ = ctx.something_else
    assert not hasattr(ctx, "something_else")


def test_a_lifecycle_that_is_not_in_progress_is_refused() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.RUN), pytest.raises(ConfigError, match="as long as the batch, but none is in progress"):
        ctx.it = CtxVar(1, LIFECYCLE.BATCH)
    assert "it" not in ctx
    with pytest.raises(ConfigError, match="the lifecycle is 'forever'; expected one of run, round"):
        CtxVar(1, "forever")


@pytest.mark.parametrize("name", ["cur_mode", "scope", "keys", "nested", "_scopes", "_own"])
def test_a_name_of_the_contexts_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is heterofed's own"):
        setattr(Context(), name, 1)


def test_a_context_can_be_copied() -> None:
    ctx = Context(values=[1])
    assert copy.copy(ctx).values is ctx.values
    deep = copy.deepcopy(ctx)
    deep.values.append(2)
    assert ctx.values == [1]


def test_variables_come_from_a_dict_with_their_lifecycles() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.BATCH):
        ctx.merge_from_dict({"short": CtxVar(1, LIFECYCLE.BATCH), "long": 2})
        assert sorted(ctx.keys()) == ["long", "short"]
    assert list(ctx.keys()) == ["long"]


def test_a_scope_can_be_cleared_before_it_ends() -> None:
    ctx = Context(kept=1)
    with ctx.scope(LIFECYCLE.EPOCH), ctx.scope(LIFECYCLE.BATCH):
        ctx.epoch, ctx.batch = CtxVar(1, LIFECYCLE.EPOCH), CtxVar(2, LIFECYCLE.BATCH)
        ctx.clear(LIFECYCLE.EPOCH)
        assert "epoch" not in ctx
        assert (ctx.batch, ctx.kept) == (2, 1)


# --- routines inside each other ---------------------------------------------------------------------------------------


def test_a_routine_inside_another_sees_the_run_and_the_round_but_not_the_routine_around_it() -> None:
    ctx = Context(free="free")
    with ctx.scope(LIFECYCLE.RUN), ctx.scope(LIFECYCLE.ROUND), ctx.routine(MODE.TRAIN, "train"):
        for kind in (LIFECYCLE.RUN, LIFECYCLE.ROUND, LIFECYCLE.ROUTINE):
            setattr(ctx, kind + "_it", CtxVar(kind, kind))
        assert not ctx.nested
        with ctx.routine(MODE.TEST, "test"):
            assert ctx.nested
            assert (ctx.free, ctx.run_it, ctx.round_it) == ("free", "run", "round")
            assert "routine_it" not in ctx
            ctx.routine_it = CtxVar("inner", LIFECYCLE.ROUTINE)
            ctx.round_it = "changed"
            ctx.made = CtxVar("for the round", LIFECYCLE.ROUND)
        assert not ctx.nested
        assert (ctx.routine_it, ctx.round_it, ctx.made) == ("routine", "changed", "for the round")


def test_an_exception_in_a_routine_inside_another_leaves_the_outer_one_as_it_was() -> None:
    ctx = Context()
    with ctx.routine(MODE.TRAIN, "train"), ctx.scope(LIFECYCLE.EPOCH), ctx.scope(LIFECYCLE.BATCH):
        ctx.it = CtxVar("outer", LIFECYCLE.BATCH)
        with pytest.raises(Boom), ctx.routine(MODE.VAL, "val"), ctx.scope(LIFECYCLE.EPOCH), ctx.scope(LIFECYCLE.BATCH):
            ctx.it = CtxVar("inner", LIFECYCLE.BATCH)
            raise Boom
        assert (ctx.it, ctx.cur_mode, ctx.cur_split, ctx.nested) == ("outer", "train", "train", False)
    assert (ctx.cur_mode, ctx.cur_split) == (None, None)


def test_modes_and_splits_are_stacks_that_go_back_also_on_exceptions() -> None:
    ctx = Context()
    with ctx.mode(MODE.TRAIN), ctx.split("train"):
        with pytest.raises(Boom), ctx.mode(MODE.TEST), ctx.split("test"):
            assert (ctx.cur_mode, ctx.cur_split) == ("test", "test")
            raise Boom
        assert (ctx.cur_mode, ctx.cur_split) == ("train", "train")
    assert (ctx.cur_mode, ctx.cur_split) == (None, None)


def test_a_mode_switches_the_models_and_leaving_it_puts_each_module_back() -> None:
    trainer = Counting()
    model = trainer.models["only"] = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    with trainer.ctx.mode(MODE.TRAIN):
        assert model.training
        model[1].eval()  # a frozen BatchNorm, say
        with trainer.ctx.mode(MODE.TEST):
            assert not model.training
            assert not model[0].training
        assert model.training
        assert model[0].training
        assert not model[1].training


def test_a_split_without_data_is_refused_or_passed_over_with_a_warning() -> None:
    ctx = Context(train_data=[1], val_loader=[1], test_data=None)
    assert ctx.check_split("train")
    assert ctx.check_split("val")
    with pytest.raises(ValueError, match="no data of the split 'test': neither test_data nor test_loader"):
        ctx.check_split("test")
    with pytest.warns(UserWarning, match="no data of the split 'test'"):
        assert not ctx.check_split("test", skip=True)


# --- against a model --------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "c"])
_MOVES = st.one_of(
    st.tuples(st.just("open"), st.sampled_from(LIFECYCLE.SCOPES)),
    st.tuples(st.just("close"), st.none()),
    st.tuples(st.just("put"), st.tuples(_NAMES, st.sampled_from(LIFECYCLE.SCOPES))),
    st.tuples(st.just("set"), _NAMES),
    st.tuples(st.just("delete"), _NAMES),
)


@given(st.lists(_MOVES, max_size=40))
def test_a_context_is_a_stack_of_dicts(moves: list[tuple[str, Any]]) -> None:
    ctx = Context()
    model: list[tuple[str | None, dict[str, int]]] = [(None, {})]
    for value, (move, what) in enumerate(moves):
        if move == "open":
            ctx.open(what)
            model.append((what, {}))
        elif move == "close" and len(model) > 1:
            ctx.close()
            model.pop()
        elif move == "put":
            name, kind = what
            scopes = [variables for own, variables in model if own == kind]
            if scopes:
                setattr(ctx, name, CtxVar(value, kind))
                scopes[-1][name] = value
            else:
                with pytest.raises(ConfigError):
                    setattr(ctx, name, CtxVar(value, kind))
        elif move in ("set", "delete"):
            holders = [variables for _, variables in model if what in variables]
            if move == "set":
                setattr(ctx, what, value)
                (holders or [model[0][1]])[-1][what] = value
            elif holders:
                delattr(ctx, what)
                del holders[-1][what]
        seen: dict[str, int] = {}
        for _, variables in model:
            seen |= variables
        assert {name: ctx[name] for name in ctx.keys()} == seen  # noqa: SIM118 - a Context is no dict


def test_a_mode_that_cannot_be_applied_is_left_again() -> None:
    def refuse(mode: str) -> None:
        raise Boom

    ctx = Context(apply_mode=refuse)
    with pytest.raises(Boom), ctx.routine(MODE.TRAIN, "train"):
        pass
    assert ctx.cur_mode is None
    assert ctx.cur_split is None


def test_the_mode_and_the_split_can_be_read_like_variables() -> None:
    ctx = Context()
    assert ctx.get("cur_mode") is None
    with ctx.routine(MODE.TEST, "val"):
        assert (ctx["cur_mode"], ctx["cur_split"]) == ("test", "val")
        assert (ctx.get("cur_mode"), ctx.get("cur_split")) == ("test", "val")
        assert "cur_mode" in ctx


def test_a_variable_that_gets_a_longer_life_does_not_hide_behind_its_old_self() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.ROUTINE):
        with ctx.scope(LIFECYCLE.BATCH):
            ctx.it = CtxVar(1, LIFECYCLE.BATCH)
            ctx.it = CtxVar(5, LIFECYCLE.ROUTINE)
            assert ctx.it == 5
        assert ctx.it == 5


def test_a_name_that_is_the_contexts_own_is_refused_in_any_way_of_setting_it() -> None:
    ctx = Context()
    with ctx.scope(LIFECYCLE.BATCH), pytest.raises(ConfigError, match=r"ctx\.routine is heterofed's own"):
        ctx.put(LIFECYCLE.BATCH, routine=1)

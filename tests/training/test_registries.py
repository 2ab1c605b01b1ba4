"""Trainers and hooks by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heterofed.errors import ConfigError
from heterofed.metrics.calculator import register_metric, unregister_metric
from heterofed.training import registries
from heterofed.training.context import Context
from heterofed.training.hooks.base import HookBase
from heterofed.training.local import BaseTrainer, LocalTrainer
from heterofed.training.multi_model import MultiModelTrainer
from heterofed.training.registries import (
    apply_hook,
    hook_of,
    load_plugins,
    register_hook,
    register_trainer,
    trainer_class,
)
from tests.training.examples import network, one_thread, same, splits, trainer, weights


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registries, "_TRAINERS", dict(registries._TRAINERS))
    monkeypatch.setattr(registries, "_HOOKS", dict(registries._HOOKS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if "plugin" in name:
            del sys.modules[name]


class Mine(LocalTrainer):
    """A trainer of the user's."""


def test_a_trainer_is_registered_as_a_decorator_and_as_a_call() -> None:
    assert register_trainer("mine")(Mine) is Mine
    assert register_trainer("mine_too", Mine) is Mine
    assert trainer_class("mine") is trainer_class("mine_too") is Mine
    assert trainer_class("mine")(network(), splits()).train()[0] == 20
    assert trainer_class("local") is LocalTrainer
    assert trainer_class("multi_model") is MultiModelTrainer


def test_a_function_may_tell_the_trainer_of_a_name() -> None:
    def mine(trainer_type: str) -> type[LocalTrainer] | None:
        return Mine if trainer_type in ("key", "other") else None

    register_trainer("key", mine)
    assert trainer_class("key") is Mine
    assert trainer_class("other") is Mine
    with pytest.raises(ConfigError, match="key2"):
        trainer_class("key2")
    register_trainer("wrong", lambda trainer_type: dict if trainer_type == "wrong" else None)
    with pytest.raises(ConfigError, match="no trainer"):
        trainer_class("wrong")


def test_a_trainer_that_is_only_a_base_trainer_is_taken_but_has_no_hooks() -> None:
    @register_trainer("plain")
    class Plain(BaseTrainer):
        def train(self) -> Any: ...
        def evaluate(self, target_data_split_name: str = "test") -> Any: ...
        def update(self, model_parameters: Any, strict: bool = False) -> None: ...
        def get_model_para(self) -> Any: ...

    register_hook("any", lambda trainer: None)
    assert trainer_class("plain") is Plain
    with pytest.raises(ConfigError, match="no hooks"):
        apply_hook("any", Plain(None, None, None))


def test_an_unknown_name_is_answered_with_similar_ones() -> None:
    register_trainer("proximal", Mine)
    register_hook("log_weights", lambda trainer: None)
    with pytest.raises(ConfigError, match="proximal"):
        trainer_class("proximall")
    with pytest.raises(ConfigError, match="log_weights"):
        hook_of("log_weight")
    with pytest.raises(ConfigError, match="log_weights"):
        apply_hook("nothing_like_it", trainer())


def test_a_taken_name_is_refused_unless_it_is_the_same_object() -> None:
    register_trainer("mine", Mine)
    register_trainer("mine", Mine)
    with pytest.raises(ConfigError, match="another trainer"):
        register_trainer("mine", LocalTrainer)
    register_hook("hook", print)
    register_hook("hook", print)
    with pytest.raises(ConfigError, match="another hook"):
        register_hook("hook", len)


@pytest.mark.parametrize("wrong", [dict, 3, "text", HookBase])
def test_what_is_no_trainer_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        register_trainer("wrong", wrong)


@pytest.mark.parametrize("wrong", [dict, 3, "text", LocalTrainer])
def test_what_is_no_hook_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        register_hook("wrong", wrong)


def test_a_decorator_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="name"):
        register_hook(print)  # type: ignore[call-overload]  # forgotten brackets


def test_a_hook_class_is_made_and_registered_with_a_trainer() -> None:
    @register_hook("counting")
    class Counting(HookBase):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1

    of = trainer()
    assert apply_hook("counting", of) is of
    of.train()
    hook = of.hooks["Counting"]
    assert isinstance(hook, Counting)
    assert hook.steps == 3


def test_a_wrapper_adds_a_proximal_term_that_pulls_towards_the_weights_of_before() -> None:
    @register_hook("proximal")
    def wrap(of: LocalTrainer) -> LocalTrainer:
        def record(ctx: Context) -> None:
            ctx.anchor = [each.detach().clone() for each in ctx.model.parameters()]

        def forget(ctx: Context) -> None:
            del ctx.anchor

        def distance(ctx: Context) -> Any:
            pairs = zip(ctx.model.parameters(), ctx.anchor, strict=True)
            return sum(((each - anchor) ** 2).sum() for each, anchor in pairs)

        of.ctx.regularizer, of.ctx.regularizer_mu = distance, 5.0
        of.register_hook_in_train(record, "on_fit_start", insert_pos=-1)
        of.register_hook_in_train(forget, "on_fit_end", insert_pos=-1)
        return of

    def moved(of: LocalTrainer) -> float:
        before = weights(of.model)
        of.train()
        after = dict(of.model.named_parameters())
        return sum(float((after[name].detach() - before[name]).norm()) for name in after)

    free, held = trainer(network(dropout=0.0)), trainer(network(dropout=0.0))
    assert apply_hook("proximal", held) is held
    assert moved(held) < 0.8 * moved(free)
    assert "anchor" not in held.ctx
    assert not same(weights(free.model), weights(held.model))


def test_a_registered_metric_is_computed_by_a_trainer() -> None:
    @register_metric("share_of_ones_in_test_registries", larger_is_better=None)
    def share(scored: Any) -> float:
        return float(scored.y_true.mean())

    try:
        metrics = trainer(metrics=("share_of_ones_in_test_registries",)).evaluate()
    finally:
        unregister_metric("share_of_ones_in_test_registries")
    assert metrics["test_share_of_ones_in_test_registries"] == pytest.approx(
        splits()["test"]["y"].float().mean().item()
    )


PLUGIN = """
from heterofed.training.local import LocalTrainer
from heterofed.training.registries import register_trainer

@register_trainer("of_a_plugin")
class Plugged(LocalTrainer):
    pass
"""


def test_a_plugin_is_loaded_by_path_once(tmp_path: Path) -> None:
    path = tmp_path / "some plugin.py"
    path.write_text(PLUGIN)
    first = load_plugins([path])
    assert load_plugins([str(path), path]) == first * 2
    assert trainer_class("of_a_plugin").__name__ == "Plugged"


def test_a_plugin_is_loaded_by_its_dotted_name(tmp_path: Path) -> None:
    (tmp_path / "package_of_plugins").mkdir()
    (tmp_path / "package_of_plugins" / "one.py").write_text(PLUGIN)
    sys.path.insert(0, str(tmp_path))
    (module,) = load_plugins(["package_of_plugins.one"])
    assert trainer_class("of_a_plugin") is module.Plugged


@pytest.mark.parametrize(
    ("name", "text"),
    [("broken_plugin.py", "1 / 0"), ("torn_plugin.py", "def"), ("exits_plugin.py", "import nowhere_x")],
)
def test_a_plugin_that_cannot_be_loaded_is_named_and_may_be_mended(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        load_plugins([tmp_path / name])
    (tmp_path / name).write_text(PLUGIN)
    load_plugins([tmp_path / name])
    trainer_class("of_a_plugin")


def test_a_plugin_that_is_not_there_is_named() -> None:
    for name in ("nowhere.at.all", "nowhere/at_all.py"):
        with pytest.raises(ConfigError, match="nowhere"):
            load_plugins([name])
    with pytest.raises(ConfigError, match="list"):
        load_plugins("nowhere.at.all")

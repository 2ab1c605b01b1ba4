"""Several models in one trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heterofed.errors import ConfigError
from heterofed.training.context import Context, CtxVar
from heterofed.training.hooks.base import CallbackHook
from heterofed.training.local import RoutineConfig
from heterofed.training.multi_model import MultiModelTrainer
from tests.training.examples import calls, config, momentum, network, one_thread, same, splits, trainer, weights

MODES = pytest.mark.parametrize("interact", ["sequential", "parallel"])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def several(interact: Any, n: int = 2, *, dropout: float = 0.0, **changes: Any) -> MultiModelTrainer:
    """Return a trainer of n models that begin differently."""
    models = [network(seed=i, dropout=dropout) for i in range(n)]
    return MultiModelTrainer(models, splits(), config=config(**changes), interact=interact)


class Noting(MultiModelTrainer):
    """Writes down what is called, for which model."""

    seen: list[tuple[str, int]]

    def _interact_to_other_models(self) -> None:
        self.seen.append(("interact", self.ctx.cur_model_idx))

    def _switch_model_ctx(self, next_model_idx: int | None = None) -> None:
        super()._switch_model_ctx(next_model_idx)
        self.seen.append(("switch to", self.ctx.cur_model_idx))


def noting(interact: Any) -> Noting:
    of = Noting((network(dropout=0.0), 2), splits(), config=config(batch_size=20), interact=interact)
    of.seen = []
    for trigger in ("on_fit_start", "on_batch_forward", "on_fit_end"):
        for index in (0, 1):

            def note(ctx: Context, what: str = trigger, whose: int = index) -> None:
                assert (ctx.cur_model_idx, ctx.model) == (whose, ctx.models[whose])
                assert ctx.optimizer is ctx.optimizers[whose]
                of.seen.append((what, whose))

            of.register_hook_in_train(note, trigger, model_idx=index)
    return of


def test_sequential_runs_whole_routines_model_after_model() -> None:
    of = noting("sequential")
    of.train()
    assert of.seen == [
        *[("switch to", 0), ("on_fit_start", 0), ("on_batch_forward", 0), ("on_fit_end", 0), ("interact", 0)],
        *[("switch to", 1), ("on_fit_start", 1), ("on_batch_forward", 1), ("on_fit_end", 1), ("interact", 1)],
        ("switch to", 0),
    ]


def test_parallel_alternates_the_models_at_every_trigger() -> None:
    of = noting("parallel")
    of.train()
    turns = [("interact", 0), ("switch to", 1), ("interact", 1), ("switch to", 0)]

    def at(trigger: str) -> list[tuple[str, int]]:
        return [(trigger, 0), *turns[:2], (trigger, 1), *turns[2:]]

    expected = [("switch to", 0), *at("on_fit_start"), *turns, *turns, *at("on_batch_forward")]
    expected += [*turns * 4, *at("on_fit_end"), ("switch to", 0)]
    assert of.seen == expected


@MODES
def test_each_model_learns_as_if_it_were_alone(interact: Any) -> None:
    of = several(interact, 3, train=RoutineConfig(local_update_steps=2, optimizer=momentum))
    alone = [trainer(network(seed=i, dropout=0.0), train=of.config.train) for i in range(3)]
    for _ in range(2):  # momentum goes on
        results = [each.train() for each in alone]
        samples, parameters, metrics = of.train()
    assert samples == 40
    assert metrics == [result[2] for result in results]
    assert all(same(mine, result[1]) for mine, result in zip(parameters, results, strict=True))
    assert of.evaluate() == [each.evaluate() for each in alone]
    assert of.finetune() == [each.finetune() for each in alone]
    assert all(same(weights(model), weights(each.model)) for model, each in zip(of.models.values(), alone, strict=True))


@MODES
def test_each_model_has_variables_of_its_own_and_sees_those_of_the_loop(interact: Any) -> None:
    of = several(interact)

    def begin(ctx: Context) -> None:
        assert "mark" not in ctx
        ctx.mark = CtxVar(ctx.cur_model_idx, "batch")
        ctx.batches = ctx.batches + 1 if "batches" in ctx else CtxVar(1, "routine")

    def check(ctx: Context) -> None:
        assert ctx.mark == ctx.cur_model_idx
        assert ctx.batches == ctx.cur_batch_i + 1

    of.register_hook_in_train(begin, "on_batch_start", model_idx=None)
    of.register_hook_in_train(check, "on_batch_end", model_idx=None)
    of.train()
    assert "mark" not in of.ctx


@MODES
def test_hooks_of_one_model_are_not_those_of_another(interact: Any) -> None:
    of = several(interact)
    seen = [calls(of, "register_hook_in_train", model_idx=index) for index in (0, 1)]
    of.reset_hook_in_train("on_batch_forward", "note", model_idx=1)
    assert of.hooks_in_train_multiple_models[0] is of.hooks_in_train
    of.train()
    assert seen[0].count("on_batch_forward") == 3
    assert seen[0].count("on_optimizer_step") == 3
    assert seen[1].count("on_batch_end") == 3
    assert "on_batch_forward" not in seen[1]
    assert len(of.hooks_in_ft_multiple_models) == len(of.hooks_in_eval_multiple_models) == 2
    for index in (2, -1, True, "0"):
        with pytest.raises(ConfigError, match="model_idx"):
            of.register_hook_in_eval(print, "on_epoch_end", model_idx=index)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ConfigError, match="outside of any routine"):
        of.register_hook_in_train(print, "on_round_end", model_idx=1)


@pytest.mark.parametrize("mode", ["train", "eval", "ft"])
def test_hooks_of_all_models_are_registered_replaced_and_reset_at_once(mode: str) -> None:
    of = several("sequential")
    sets = getattr(of, f"hooks_in_{mode}_multiple_models")
    getattr(of, f"register_hook_in_{mode}")(print, "on_epoch_end", model_idx=None)
    assert [each.names("on_epoch_end") for each in sets] == [["print"]] * 2
    getattr(of, f"replace_hook_in_{mode}")(len, "on_epoch_end", "print", model_idx=None)
    assert [each.names("on_epoch_end") for each in sets] == [["len"]] * 2
    assert getattr(of, f"reset_hook_in_{mode}")("on_epoch_end", "len", model_idx=None) == 0
    assert [each.names("on_epoch_end") for each in sets] == [[]] * 2


@MODES
def test_an_evaluation_in_a_hook_of_one_model_leaves_the_others_and_its_own_training_alone(interact: Any) -> None:
    plain, nesting, found = several(interact, dropout=0.3), several(interact, dropout=0.3), []

    def evaluate(ctx: Context) -> None:
        before = ctx.cur_model_idx, ctx.model, ctx.optimizer, ctx.num_samples, ctx.cur_batch_i
        found.append(ctx.trainer.evaluate())
        assert before == (ctx.cur_model_idx, ctx.model, ctx.optimizer, ctx.num_samples, ctx.cur_batch_i)
        assert ctx.model.training

    nesting.register_hook_in_train(evaluate, "on_batch_forward", model_idx=1)
    torch.manual_seed(5)
    expected = plain.train()
    torch.manual_seed(5)
    result = nesting.train()
    assert result[2] == expected[2]
    assert all(same(one, other) for one, other in zip(result[1], expected[1], strict=True))
    assert len(found) == 3
    assert [each["test_total"] for each in found[0]] == [9, 9]


@MODES
def test_an_exception_in_the_second_models_turn_leaves_the_first_in_place(interact: Any) -> None:
    of = several(interact)

    def fail(ctx: Context) -> None:
        raise RuntimeError("on purpose")

    of.register_hook_in_train(fail, "on_batch_forward", model_idx=1)
    with pytest.raises(RuntimeError, match="on purpose"):
        of.train()
    assert (of.ctx.cur_model_idx, of.ctx.model, of.ctx.cur_mode) == (0, of.model, None)
    of.reset_hook_in_train("on_batch_forward", "fail", model_idx=1)
    assert of.train()[0] == 20


def test_models_may_interact() -> None:
    class Averaging(MultiModelTrainer):
        def _interact_to_other_models(self) -> None:
            if self.ctx.cur_mode != "train" or "ys_true" not in self.ctx or self.ctx.num_samples != 20:
                return
            if self.ctx.cur_model_idx == 1:
                first, second = self.get_model_para()
                mean = {name: (first[name] + second[name]) / 2 for name in first}
                self.update([mean, mean])

    of = Averaging([network(seed=0), network(seed=1)], splits(), config=config())
    of.train()
    first, second = of.get_model_para()
    assert same(first, second)


@MODES
def test_a_run_counts_batches_and_calls_hook_objects_once_for_each(interact: Any) -> None:
    of, seen = several(interact), []
    of.register_hooks(
        [
            CallbackHook(
                before_step=lambda of: seen.append("before"),
                after_step=lambda of: seen.append("after"),
                after_round=lambda of: seen.append("round"),
                before_optimizer_step=lambda of: seen.append("optimizer"),
            )
        ]
    )
    of.run(2)
    batches = 12 if interact == "sequential" else 6
    assert (of.iter, of.max_iter, seen.count("before"), seen.count("after")) == (batches,) * 4
    assert (seen.count("round"), seen.count("optimizer")) == (2, 12)
    assert {"loss", "loss_1"} <= of.storage.latest().keys()
    of.remove_hook("CallbackHook")
    seen.clear()
    of.train()
    assert seen == []


@MODES
@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_a_run_of_several_models_resumes_to_the_same_bits(tmp_path: Path, interact: Any, at: int) -> None:
    def made(folder: str) -> MultiModelTrainer:
        models = [network(seed=i) for i in range(2)]
        half = RoutineConfig(
            optimizer=momentum,
            scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
            schedule_every="round",
        )
        return MultiModelTrainer(
            models,
            splits(),
            config=config(train=half, shuffle=True),
            interact=interact,
            checkpoint_folder=tmp_path / folder,
        )

    torch.manual_seed(1)
    whole = made("whole")
    whole.run(2)

    torch.manual_seed(1)
    stopped = made("stopped")

    def stop(of: Any) -> None:
        if of.iter == at - 1:
            of.request_checkpoint()
        if of.iter == at:
            raise KeyboardInterrupt

    stopped.register_hooks([CallbackHook(after_step=stop)])
    with pytest.raises(KeyboardInterrupt):
        stopped.run(2)
    resumed = made("stopped")
    assert resumed.resume_or_load() is not None
    resumed.run(2)
    assert resumed.iter == resumed.max_iter == whole.iter
    for one, other in zip(resumed.models.values(), whole.models.values(), strict=True):
        assert same(weights(one), weights(other))


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_models_that_cannot_be_is_a_value_error(number: Any) -> None:
    with pytest.raises(ValueError, match="number of models"):
        MultiModelTrainer((network(), number), splits())
    with pytest.raises(ValueError, match="number of models"):
        MultiModelTrainer.from_trainer(trainer(), number)


def test_no_models_twice_the_same_and_an_unknown_interaction_are_refused() -> None:
    with pytest.raises(ValueError, match="models"):
        MultiModelTrainer([], splits())
    with pytest.raises(ValueError, match="models"):
        MultiModelTrainer([network(), network(), 3], splits())  # type: ignore[list-item]  # on purpose
    model = network()
    with pytest.raises(ConfigError, match="twice"):
        MultiModelTrainer([model, model], splits())
    with pytest.raises(ConfigError, match="interact"):
        MultiModelTrainer((model, 2), splits(), interact="random")  # type: ignore[arg-type]  # on purpose


@MODES
def test_one_model_gives_single_results(interact: Any) -> None:
    of, alone = several(interact, 1), trainer(network(dropout=0.0))
    mine, expected = of.train(), alone.train()
    assert (mine[0], mine[2]) == (expected[0], expected[2])
    assert same(mine[1], expected[1])
    assert of.evaluate() == alone.evaluate()
    of.update(mine[1])
    of.update([mine[1]])


def test_update_takes_as_many_as_there_are_models_and_all_or_none() -> None:
    of = several("sequential")
    given = of.get_model_para()
    zeros = [{name: torch.zeros_like(each) for name, each in one.items()} for one in given]
    for wrong in (zeros[:1], zeros * 2, zeros[0], [zeros[0], {"4.bias": [1.0]}]):
        with pytest.raises(ConfigError):
            of.update(wrong)
    assert all(same(one, other) for one, other in zip(of.get_model_para(), given, strict=True))
    of.update(zeros)
    assert all((each == 0).all() for one in of.get_model_para() for each in one.values())


@MODES
def test_a_trainer_of_one_model_becomes_one_of_several_and_stays_itself(interact: Any) -> None:
    base = trainer(network(dropout=0.0), train=RoutineConfig(optimizer=momentum))
    seen: list[int] = []
    base.register_hook_in_train(lambda ctx: seen.append(ctx.get("cur_model_idx", -1)), "on_fit_end")
    base.ctx.regularizer = lambda ctx: ctx.model[0].weight.sum()
    base.ctx.regularizer_mu = 0.1
    base.train()
    seen.clear()
    of = MultiModelTrainer.from_trainer(base, 2, interact=interact)
    before = weights(base.model)
    of.train()
    assert seen == [0, 1]
    assert same(weights(base.model), before)
    base.train()  # with the same momentum, regularizer and batches
    assert all(same(weights(model), weights(base.model)) for model in of.models.values())
    of.reset_hook_in_train("on_fit_end")
    assert base.hooks_in_train.names("on_fit_end")


def test_a_trainer_with_hook_objects_is_not_copied() -> None:
    base = trainer()
    base.register_hooks([CallbackHook()])
    with pytest.raises(ConfigError, match="hook objects"):
        MultiModelTrainer.from_trainer(base, 2)


@MODES
def test_hooks_of_a_call_are_for_all_models_or_one_set_for_each(interact: Any) -> None:
    of, seen = several(interact), []
    of.evaluate(hooks_set={"on_fit_start": [lambda ctx: seen.append(ctx.cur_model_idx)]})
    each = [{"on_fit_start": [lambda ctx: seen.append("a")]}, {"on_fit_end": [lambda ctx: seen.append("b")]}]
    of.evaluate(hooks_set=each)  # type: ignore[arg-type]  # several models take a list
    assert seen == [0, 1, "a", "b"]
    with pytest.raises(ConfigError, match="hook sets"):
        of.evaluate(hooks_set=each[:1])  # type: ignore[arg-type]  # several models take a list


@MODES
def test_the_difference_of_validation_is_told_for_each_model(interact: Any) -> None:
    of = several(interact, use_diff=True)
    before = of.evaluate("val")
    metrics = of.train()[2]
    assert [each["val_avg_loss_before"] for each in metrics] == [each["val_avg_loss"] for each in before]
    assert [each["val_avg_loss_after"] for each in metrics] == [each["val_avg_loss"] for each in of.evaluate("val")]


def test_all_models_are_saved_and_loaded(tmp_path: Path) -> None:
    of, other = several("sequential"), several("sequential")
    of.train()
    of.save_model(tmp_path / "models.pt", 3)
    assert other.load_model(tmp_path / "models.pt") == 3
    assert all(
        same(weights(one), weights(another))
        for one, another in zip(of.models.values(), other.models.values(), strict=True)
    )
    with pytest.raises(Exception, match="holds 2 models"):
        trainer().load_model(tmp_path / "models.pt")
    assert isinstance(of.model, nn.Sequential)

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heterofed.errors import ConfigError
from heterofed.metrics.early_stop import EarlyStop


def answers(stop: EarlyStop, values: list[float]) -> list[bool]:
    return [stop.track(value) for value in values]


# -- best ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patience", "delta", "mode", "stops_after"),
    [
        (1, 0.0, "best", 3),
        (2, 0.0, "best", 6),
        (2, 0.5, "best", 4),
        (3, 0.0, "best", None),
        (1, 0.0, "mean", 3),
        (2, 0.0, "mean", 6),
        (2, 1.5, "mean", 3),
        (3, 0.0, "mean", 6),
        (5, 0.0, "mean", 6),
    ],
)
def test_an_early_stopper_honours_patience_delta_and_mode(
    patience: int, delta: float, mode: str, stops_after: int | None
) -> None:
    found = answers(EarlyStop(patience, delta, mode), [4.0, 3.0, 3.25, 2.75, 2.8, 3.5])
    assert (found.index(True) + 1 if any(found) else None) == stops_after


def test_an_early_stop_waits_for_its_patience() -> None:
    assert answers(EarlyStop(patience=2), [3.0, 2.0, 2.5, 2.4]) == [False, False, False, True]
    assert answers(EarlyStop(patience=3), [3.0, 2.0, 2.5, 2.4]) == [False, False, False, False]
    assert answers(EarlyStop(), [1.0] + [2.0] * 5) == [False] * 5 + [True]


def test_an_early_stop_counts_an_equal_value_as_an_improvement() -> None:
    assert answers(EarlyStop(patience=1), [1.0] * 5) == [False] * 5


def test_an_early_stop_honours_its_delta() -> None:
    assert answers(EarlyStop(patience=1, delta=0.25), [2.0, 1.75, 1.625]) == [False, False, True]
    assert answers(EarlyStop(patience=1, delta=0.25, larger_is_better=True), [2.0, 2.25, 2.375]) == [False, False, True]


def test_small_steps_add_up_to_an_improvement_of_delta_on_the_best() -> None:
    stop = EarlyStop(patience=3, delta=0.5)
    assert answers(stop, [2.0, 1.75, 1.5, 1.5]) == [False] * 4
    assert (stop.best, stop.without_improvement) == (1.5, 1)


def test_an_early_stop_follows_values_of_which_larger_ones_are_better() -> None:
    assert answers(EarlyStop(patience=2, larger_is_better=True), [0.5, 0.6, 0.5, 0.55]) == [False, False, False, True]


def test_a_best_that_improves_after_a_stop_goes_on() -> None:
    stop = EarlyStop(patience=1)
    assert answers(stop, [1.0, 2.0, 0.5, 0.75]) == [False, True, False, True]
    assert (stop.best, stop.stopped) == (0.5, True)


def test_a_patience_of_zero_switches_it_off_in_either_mode() -> None:
    for mode in ("best", "mean"):
        assert answers(EarlyStop(patience=0, mode=mode), [1.0, 2.0, math.nan, 3.0]) == [False] * 4


# -- mean ------------------------------------------------------------------------------------------------------


def test_the_mean_mode_compares_with_the_mean_of_the_values_before() -> None:
    assert answers(EarlyStop(patience=2, mode="mean"), [4.0, 2.0, 2.9, 2.5]) == [False, False, False, True]
    larger = EarlyStop(patience=2, mode="mean", larger_is_better=True)
    assert answers(larger, [2.0, 4.0, 3.1, 3.5]) == [False, False, False, True]


def test_the_mean_mode_says_nothing_before_it_has_as_many_values_as_its_patience() -> None:
    assert answers(EarlyStop(patience=3, mode="mean"), [1.0, 2.0, 3.0, 4.0]) == [False, False, False, True]


def test_the_mean_mode_honours_its_delta() -> None:
    assert answers(EarlyStop(patience=2, mode="mean", delta=0.5), [2.0, 2.0, 1.5]) == [False] * 3
    assert answers(EarlyStop(patience=2, mode="mean", delta=0.5), [2.0, 2.0, 1.625]) == [False, False, True]


def test_the_mean_mode_goes_on_when_values_improve_after_a_stop() -> None:
    stop = EarlyStop(patience=2, mode="mean")
    assert answers(stop, [2.0, 2.0, 3.0, 1.0]) == [False, False, True, False]
    assert not stop.stopped


@given(st.floats(-1e300, 1e300), st.integers(1, 20), st.booleans())
def test_equal_values_are_no_worse_than_their_mean(value: float, patience: int, larger: bool) -> None:
    stop = EarlyStop(patience=patience, mode="mean", larger_is_better=larger)
    assert not any(answers(stop, [value] * (2 * patience + 1)))


# -- values that are no numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["best", "mean"])
@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_an_improvement(mode: str, larger: bool, bad: float) -> None:
    assert answers(EarlyStop(3, mode=mode, larger_is_better=larger), [bad] * 3) == [False, False, True]
    stop = EarlyStop(2, mode=mode, larger_is_better=larger)
    assert answers(stop, [1.0, bad, 1.0, bad]) == [False, False, False, mode == "mean"]
    assert stop.best == 1.0


def test_a_nan_does_not_stay_in_the_mean() -> None:
    assert answers(EarlyStop(2, mode="mean"), [1.0, 1.0, math.nan, 2.0, 0.5]) == [False, False, True, True, False]


def test_the_best_is_the_best_value_in_either_mode() -> None:
    for mode in ("best", "mean"):
        stop = EarlyStop(2, mode=mode)
        assert (stop.best, stop.without_improvement, stop.stopped) == (None, 0, False)
        answers(stop, [3.0, math.nan, 1.5, 1.25, 2.0])
        assert stop.best == 1.25


@pytest.mark.parametrize("value", [2, True, np.float32(2), np.array([2.0]), torch.tensor(2.0), torch.tensor([[2.0]])])
def test_numbers_of_any_kind_are_taken(value: Any) -> None:
    stop = EarlyStop(1)
    stop.track(value)
    assert stop.best == (1.0 if value is True else 2.0)
    assert type(stop.best) is float


@pytest.mark.parametrize("value", ["1", None, [1.0], np.zeros(2), torch.zeros(2), {"loss": 1.0}])
def test_anything_else_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^an early stop got "):
        EarlyStop(1).track(value)


# -- state -----------------------------------------------------------------------------------------------------

VALUES = st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan)), max_size=20)


@given(VALUES, VALUES, st.integers(0, 4), st.sampled_from([0.0, 0.5]), st.sampled_from(["best", "mean"]), st.booleans())
def test_a_restored_early_stop_answers_as_if_it_had_not_been_interrupted(
    before: list[float], after: list[float], patience: int, delta: float, mode: str, larger: bool
) -> None:
    whole, first, second = (EarlyStop(patience, delta, mode, larger) for _ in range(3))
    expected = answers(whole, before + after)
    answers(first, before)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert answers(second, after) == expected[len(before) :]


def test_the_state_can_be_loaded_from_a_checkpoint_that_may_hold_plain_values_only() -> None:
    stop = EarlyStop(3, mode="mean")
    answers(stop, [1.0, 2.0, 3.0, 4.0])
    file = io.BytesIO()
    torch.save(stop.state_dict(), file)
    file.seek(0)
    other = EarlyStop(3, mode="mean")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict() == stop.state_dict()
    assert other.stopped


def test_with_a_smaller_patience_the_newest_values_are_kept() -> None:
    stop, shorter = EarlyStop(3, mode="mean"), EarlyStop(2, mode="mean")
    answers(stop, [9.0, 2.0, 1.0])
    shorter.load_state_dict(stop.state_dict())
    assert shorter.state_dict()["before"] == [2.0, 1.0]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"best": 1.0},
        {"best": "x", "without_improvement": 0, "stopped": False, "before": []},
        {"best": 1.0, "without_improvement": 0.5, "stopped": False, "before": []},
        {"best": 1.0, "without_improvement": 0, "stopped": False, "before": [None]},
        None,
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(state: Any) -> None:
    stop = EarlyStop(3)
    stop.track(1.0)
    before = stop.state_dict()
    with pytest.raises(ConfigError, match="this is no state of an EarlyStop"):
        stop.load_state_dict(state)
    assert stop.state_dict() == before


# -- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"patience": -1}, "patience is -1; expected a whole number, 0 to switch"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"patience": True}, "patience is True"),
        ({"delta": -0.1}, "delta is -0.1; expected a finite number, at least 0"),
        ({"delta": math.nan}, "delta is nan"),
        ({"delta": math.inf}, "delta is inf"),
        ({"delta": "0"}, "delta is '0'"),
        ({"mode": "median"}, 'mode is \'median\'; expected "best" or "mean"'),
        ({"larger_is_better": None}, "larger_is_better is None; expected True or False"),
    ],
)
def test_an_argument_that_cannot_work_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EarlyStop(**arguments)
    assert text in str(caught.value)

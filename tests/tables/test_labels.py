"""The kind of task is recognised by a rule, and labels become numbers and come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterofed.errors import ConfigError, DataError
from heterofed.sealed import sealed
from heterofed.tables.labels import LabelEncoder, labelled_ids
from heterofed.tables.ordered import OrderedTable

HIDDEN = "ward 4711"


def column(values: list[Any]) -> pd.DataFrame:
    frame: pd.DataFrame = pd.DataFrame({"y": pd.Series(values, dtype=object)})
    return frame


def fit(values: list[Any], **options: Any) -> LabelEncoder:
    return LabelEncoder.fit(column(values), "y", **options)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["0", "1", "1"], "binary", (0, 1)),
        ([1, -1], "binary", (-1, 1)),
        (["no", "yes"], "binary", ("no", "yes")),
        ([True, False], "binary", (False, True)),
        (["1.5", "2.5"], "binary", (1.5, 2.5)),
        (["b", "a", "c"], "multiclass", ("a", "b", "c")),
        (["10", "9", "1"], "multiclass", (1, 9, 10)),
        (["001", "002", "003"], "multiclass", ("001", "002", "003")),
        (list(range(20)), "multiclass", tuple(range(20))),
        (list(range(21)), "regression", ()),
        ([1.5, 2.5, 3.0], "regression", ()),
        (["[0, 1]", "[1, 1]"], "multilabel", ("y 0", "y 1")),
        ([[0, 1, 0], [1, 1, 0]], "multilabel", ("y 0", "y 1", "y 2")),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_task_is_recognised_and_its_classes_are_sorted(values: list[Any], task: str, classes: Any) -> None:
    labels = fit(values)

    assert labels.task == task
    assert labels.classes == classes
    assert [type(each) for each in labels.classes] == [type(each) for each in classes]


@pytest.mark.parametrize(
    ("values", "asked", "task"),
    [
        (list(range(100)), "classification", "multiclass"),
        ([1, 2, 3], "regression", "regression"),
        ([0, 1], "regression", "regression"),
        ([0, 1], "classification", "binary"),
        ([0, 1], "multiclass", "multiclass"),
        ([0, 1], "binary", "binary"),
        ([1.5, 2.5, 3.5], "multiclass", "multiclass"),
    ],
)
def test_what_the_user_says_of_the_task_holds(values: list[Any], asked: Any, task: str) -> None:
    assert fit(values, task=asked).task == task


def test_binary_labels_are_zero_and_one_and_come_back_from_probabilities() -> None:
    labels = fit(["well", "ill", "well"], positive="ill")

    assert labels.classes == ("well", "ill")
    assert labels.transform(column(["ill", "well"])).tolist() == [[1], [0]]
    assert (labels.outputs, labels.shape, str(labels.dtype)) == (1, (1,), "float32")
    assert labels.decode([0.7, 0.5]) == ["ill", "well"]
    assert labels.decode(np.array([[0.7], [0.1]]), threshold=0.05) == ["ill", "ill"]
    assert labels.class_weights().tolist() == [2]


def test_classes_are_numbered_and_come_back_from_scores() -> None:
    labels = fit(["b", "a", "c", "c"])

    found = labels.transform(column(["c", "a"]))

    assert (found.tolist(), str(found.dtype)) == ([2, 0], "int64")
    assert (labels.outputs, labels.shape) == (3, ())
    assert labels.decode([[0, 5, 1], [9, 1, 1]]) == ["b", "a"]
    assert labels.class_weights() == pytest.approx([4 / 3, 4 / 3, 2 / 3])


def test_class_weights_are_those_of_scikit_learn() -> None:
    class_weight = pytest.importorskip("sklearn.utils.class_weight")
    values = np.random.default_rng(0).choice(["a", "b", "c"], 100, p=[0.6, 0.3, 0.1])

    expected = class_weight.compute_class_weight("balanced", classes=np.unique(values), y=values)

    assert fit(list(values)).class_weights() == pytest.approx(expected)


def test_numbers_are_standardised_and_come_back_in_their_unit() -> None:
    labels = fit(["100", "300", "200.5"])

    found = labels.transform(column(["100", "300"]))

    assert (labels.task, labels.classes, labels.shape) == ("regression", (), (1,))
    assert abs(found).max() < 2
    assert labels.decode(found) == pytest.approx([100, 300], rel=1e-6)
    assert fit([1.0, 2.5, 9.0], standardise=False).transform(column([2.5])).tolist() == [[2.5]]
    assert labels.class_weights().tolist() == [1]


def test_several_columns_are_labels_of_their_own() -> None:
    frame = pd.DataFrame({"a": [1, 0, 0], "b": ["yes", "no", "yes"]})

    labels = LabelEncoder.fit(frame, ["a", "b"])

    assert (labels.task, labels.classes, labels.counts) == ("multilabel", ("a", "b"), (1, 2))
    assert labels.transform(frame).tolist() == [[1, 1], [0, 0], [0, 1]]
    assert labels.decode([[0.9, 0.1]]) == [[1, 0]]
    assert labels.class_weights().tolist() == [2, 0.5]
    always = LabelEncoder.fit(pd.DataFrame({"a": [1, 1], "b": [0, 0]}), ["a", "b"])
    assert always.class_weights().tolist() == [1, 1]


def test_lists_are_labels_too() -> None:
    labels = fit(["[0, 1, 1]", "[1,0,1]"])

    assert labels.transform(column([[1, 1, 0], np.array([0, 0, 1]), "[1, 0, 0]"])).tolist() == [
        [1, 1, 0],
        [0, 0, 1],
        [1, 0, 0],
    ]
    with pytest.raises(DataError, match="the labels have 2 columns; expected 3, as in training"):
        labels.transform(column([[1, 1]]))


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (["a", "b", ""], {}, "the label column 'y' has 1 of 3 cells that are missing"),
        (["a", "a"], {}, "the label column 'y' has 1 distinct values in 2 rows"),
        ([5, 5], {"task": "regression"}, "has 1 distinct values in 2 rows"),
        (["1", HIDDEN, "3"], {"task": "regression"}, "has 1 of 3 cells that are no labels of a regression task"),
        (["1", "inf", "3"], {"task": "regression"}, "has 1 of 3 cells that are no labels of a regression task"),
        (["a", "b", "c"], {"task": "binary"}, "has 3 distinct values, which is no binary task"),
        ([[0, 1], [1, 0]], {"task": "classification"}, "has cells that are lists, which is no classification task"),
        ([[0, 1], [1, 0, 1]], {}, "has 2 of 2 cells that are no lists of one length of 0 and 1"),
        ([[0, 1], [1, 2]], {}, "has 1 of 2 cells that are no lists"),
        (["[0, 1]", "[0, 1"], {}, "has 1 of 2 cells that are no lists"),
        (list(pd.date_range("2024-01-01", periods=3)), {}, "has 3 of 3 cells that are no labels of a multiclass task"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_labels_that_do_not_fit_are_counted_and_not_shown(
    values: list[Any], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(DataError) as caught:
        fit(values, **options)
    assert text in str(caught.value)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "options", "text"),
    [
        ("y", {"task": "ranking"}, "the task is 'ranking'; expected one of binary"),
        ([], {}, "0 label columns are named"),
        (["y", "y"], {}, "2 label columns are named; expected one or more, each once"),
        (["y", "z"], {"task": "regression"}, "2 label columns are named for a regression task"),
        ("y", {"positive": HIDDEN}, "the positive class is named, and is none of the 2 classes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(columns: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        LabelEncoder.fit(column(["a", "b"]), columns, **options)
    assert HIDDEN not in str(caught.value)


def test_a_class_that_training_did_not_have_is_counted_and_not_shown() -> None:
    with pytest.raises(DataError, match="2 of 3 labels are of a class that training did not have") as caught:
        fit(["a", "b"]).transform(column(["a", HIDDEN, HIDDEN]))
    assert HIDDEN not in str(caught.value)
    with pytest.raises(DataError, match="lacks the label column 'y'"):
        fit(["a", "b"]).transform(pd.DataFrame({"z": [1]}))


def test_the_same_class_is_known_whether_a_file_has_texts_or_numbers() -> None:
    assert fit(["0", "1"]).transform(column([1, 0.0])).tolist() == [[1], [0]]
    assert fit([0, 1]).transform(column(["1", " 0"])).tolist() == [[1], [0]]
    assert fit([3, 4, 5]).transform(column(["5"])).tolist() == [2]
    assert fit([True, False]).transform(column([False, True])).tolist() == [[0], [1]]


def test_predictions_of_another_shape_are_refused() -> None:
    for labels, wrong in ((fit(["a", "b", "c"]), [0.1, 0.2]), (fit([0, 1]), [[0.1, 0.9]])):
        with pytest.raises(ConfigError, match="predictions are of shape"):
            labels.decode(wrong)


# --- rows without a label ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_rows_without_a_label_are_refused_or_dropped(memory_bytes: int) -> None:
    frame = pd.DataFrame({"id": list("abcd"), "y": ["1", "", "0", None], "z": ["1", "1", "?", "1"]})
    table = OrderedTable(frame, "id", memory_bytes=memory_bytes)

    assert labelled_ids(table, "y", "drop") == ["a", "c"]
    assert labelled_ids(table, ["y", "z"], "drop") == ["a"]
    with pytest.raises(DataError, match="2 of 4 rows of the data frame have no label in y; expected a label in every"):
        labelled_ids(table, "y")
    with pytest.raises(ConfigError, match="unlabelled is 'keep'"):
        labelled_ids(table, "y", "keep")  # type: ignore[arg-type]  # on purpose


def test_a_table_without_any_label_is_refused() -> None:
    with pytest.raises(DataError, match="2 of 2 rows"):
        labelled_ids(OrderedTable(pd.DataFrame({"id": [1, 2], "y": ["", ""]}), "id"), "y", "drop")


# --- saved ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)  # a busy machine is no failure
@given(
    values=st.lists(st.integers(-5, 5), min_size=2, max_size=20).filter(lambda each: len(set(each)) > 1)
    | st.lists(st.text("abc1. ", min_size=1).map(lambda each: f"x{each}"), min_size=2).filter(
        lambda each: len({one.strip() for one in each}) > 1
    )
    | st.lists(st.floats(-1e9, 1e9), min_size=2).filter(lambda each: len(set(each)) > 1)
)
def test_what_was_saved_is_read_to_the_bit(values: list[Any]) -> None:
    labels = fit(values)
    again = LabelEncoder.from_json(labels.to_json())

    assert again == labels
    assert again.transform(column(values)).tobytes() == labels.transform(column(values)).tobytes()
    assert again.to_json() == labels.to_json()
    if labels.task == "multiclass":
        back = labels.decode(np.eye(labels.outputs)[labels.transform(column(values))])
        assert back == [each.strip() if isinstance(each, str) else each for each in values]


def test_a_saved_file_that_was_changed_or_is_another_one_is_refused(tmp_path: Path) -> None:
    labels = fit(["a", "b"])
    path = labels.save(tmp_path / "labels.json")
    assert LabelEncoder.load(path) == labels

    path.write_text(path.read_text().replace('"a"', '"c"'))
    with pytest.raises(DataError, match=r"labels\.json is damaged"):
        LabelEncoder.load(path)
    for key, value in (("version", 0), ("classes", ["a"]), ("task", "regression"), ("columns", []), ("counts", [1])):
        content = json.loads(labels.to_json())["content"]
        content[key] = value
        with pytest.raises(DataError):
            LabelEncoder.from_json(sealed(content))


def test_the_table_of_labels_has_their_counts() -> None:
    assert fit(["a", "b", "b", "b"]).describe() == [("label", "rows"), ("a", "1 (25.0%)"), ("b", "3 (75.0%)")]
    assert fit([1.5, 2.5, 3.5]).describe()[1][1] == "3"
    assert "ward" not in repr(fit([HIDDEN, "b"]))

"""evaluation.json holds the scores, what each party is worth, and no row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heterofed.errors import DataError
from heterofed.report import Evaluation, ScoredSet, main_score, read_summary, scores_of, summarise
from heterofed.report.summary import in_figures, rounds_of, signed, write_summary
from heterofed.tables import Task
from tests.report.made import evaluation_of

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression", "multilabel")


@pytest.mark.parametrize("task", TASKS)
def test_what_is_read_is_what_was_written(task: Task, tmp_path: Path) -> None:
    summary = summarise(evaluation_of(task, remarks=["Few rows."], with_stand_ins=7))
    assert (summary.remarks, summary.with_stand_ins) == (("Few rows.",), 7)
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary


@pytest.mark.parametrize("task", TASKS)
def test_a_party_without_which_predictions_are_worse_has_a_drop_above_0(task: Task) -> None:
    summary = summarise(evaluation_of(task, 400))
    bank, shop = (summary.drops[each] for each in ("bank", "shop"))
    assert bank is not None
    assert shop is not None
    assert shop > bank > 0


@pytest.mark.parametrize("task", TASKS)
def test_scores_of_a_summary_are_those_of_its_sets(task: Task) -> None:
    evaluation = evaluation_of(task)
    summary = summarise(evaluation)
    for each in evaluation.sets:
        assert summary.sets[each.name].scores == scores_of(task, each.y_true, each.y_score)
        assert summary.sets[each.name].rows == 120
    assert summary.main == "test"
    assert summary.compared_by == main_score(task)[0]
    assert summary.host_alone is not None
    header, *lines = summary.table()
    assert header == ("score", "train (120 rows)", "valid (120 rows)", "test (120 rows)", "host alone (120 rows)")
    assert len(lines) == len(summary.sets["test"].scores)


def test_parties_are_compared_by_the_loss_where_one_class_is_alone() -> None:
    evaluation = Evaluation(
        "binary",
        (ScoredSet("test", [1, 1], [0.8, 0.9]),),
        classes=("no", "yes"),
        parties=("bank",),
        ablated={"bank": ScoredSet("test", [1, 1], [0.5, 0.5])},
    )
    summary = summarise(evaluation)
    assert summary.compared_by == "log_loss"
    assert summary.drops["bank"] is not None
    assert summary.drops["bank"] > 0
    assert summary.sets["test"].scores["roc_auc"] is None


def test_the_confusion_of_two_classes_has_a_row_for_each_true_one() -> None:
    sets = (ScoredSet("test", [0, 0, 0, 1, 1, 0], [0.1, 0.7, 0.2, 0.9, 0.3, 0.1]),)
    assert summarise(Evaluation("binary", sets, classes=("no", "yes"))).confusion == [[3, 1], [1, 1]]


def test_the_confusion_of_labels_counts_found_wrongly_found_missed_and_neither() -> None:
    truth = [[1, 0], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]]
    score = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.1], [0.1, 0.1], [0.9, 0.9]]
    evaluation = Evaluation("multilabel", (ScoredSet("test", truth, score),), classes=("a", "b"))
    assert summarise(evaluation).confusion == [[3, 1, 1, 1], [0, 1, 2, 3]]


def test_classes_without_a_row_are_in_the_confusion() -> None:
    sets = (ScoredSet("test", [2], [[0.1, 0.2, 0.7]]),)
    summary = summarise(Evaluation("multiclass", sets, classes=("a", "b", "c")))
    assert summary.confusion == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_the_file_has_null_for_what_is_undefined_and_no_prediction(tmp_path: Path) -> None:
    marked = ScoredSet("test", [1, 1], [0.8123456, 0.9123456])
    evaluation = Evaluation(
        "binary", (marked,), classes=("no", "yes"), history=[{"round": 1, "train_loss": float("nan")}]
    )
    text = write_summary(tmp_path, summarise(evaluation)).read_text()
    found: dict[str, Any] = json.loads(text)
    assert found["sets"]["test"]["scores"]["roc_auc"] is None
    assert found["history"] == [{"round": 1.0, "train_loss": None}]
    assert "8123456" not in text


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"format": "else"}'], ids=["empty", "half", "a list", "another"])
def test_a_file_that_is_no_evaluation_is_refused(broken: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(broken)
    with pytest.raises(DataError, match="is no evaluation"):
        read_summary(tmp_path)


def test_a_file_without_its_main_set_is_refused(tmp_path: Path) -> None:
    path = write_summary(tmp_path, summarise(evaluation_of("regression")))
    path.write_text(path.read_text().replace('"main": "test"', '"main": "other"'))
    with pytest.raises(DataError, match="lacks its main set"):
        read_summary(tmp_path)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.0000"),
        (0.98765, "0.9877"),
        (-1.5, "-1.5000"),
        (12.3456, "12.35"),
        (123.456, "123.5"),
        (12345.6, "12,346"),
        (1e-6, "1.00e-06"),
        (2.5e9, "2.50e+09"),
    ],
    ids=str,
)
def test_scores_are_told_in_a_few_figures(value: float | None, text: str) -> None:
    assert in_figures(value) == text


def test_differences_are_told_with_their_sign() -> None:
    assert [signed(each) for each in (0.25, -0.25, 0.0)] == ["+0.2500", "−0.2500", "0.0000"]


def test_rounds_that_lack_a_score_leave_a_gap() -> None:
    history: list[dict[str, float | None]] = [
        {"round": 1, "a": 1},
        {"round": 2, "a": None, "b": 5},
        {"round": 3, "a": 3},
    ]
    assert rounds_of(history) == {"a": ([1, 3], [1.0, 3.0]), "b": ([2], [5.0])}

"""`heterofed check`: what training would make of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from heterofed.config import Settings
from heterofed.errors import ConfigError, DataError
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import PartyStatus
from tests.cli.words import heterofed, well
from tests.tables.files import FORMS, patients, written


def broken(folder: Path) -> Path:
    frame = pd.DataFrame({"id": ["a", "b", "b"], "y": ["1", "0", "1"], "empty": [""] * 3, "x": [1, 2, 3]})
    return written(frame, folder, "csv", "broken")


@pytest.mark.parametrize("form", FORMS)
def test_a_good_table_is_shown_as_a_table(tmp_path: Path, form: str) -> None:
    said = well("check", "--data", str(written(patients(), tmp_path, form)), "--id", "id", "--label", "ill")

    rows = {words[1]: words for line in said.lines if len(words := line.split()) > 3}
    assert rows["dose"][3] == "numeric" and rows["city"][3] == "categorical"
    assert rows["smoker"][3] == "boolean" and rows["seen"][3] == "date" and rows["ill"][3] == "label"
    assert "200 rows, 200 ids" in said.out and "5 of 6 columns are features" in said.out
    assert "label column ill: binary" in said.lines
    assert said.lines[-1] == "no problem found"
    assert not any(hidden in said.out for hidden in ("Ulm", "Kiel", "1042"))


def test_several_label_columns_are_told_as_such(tmp_path: Path) -> None:
    frame = patients()
    frame["old"] = (frame["age"] > 50).astype(int)
    said = well(
        "check", "--data", str(written(frame, tmp_path, "csv")), "--id", "id", "--label", "ill", "--label", "old"
    )

    assert "label columns ill, old: multilabel" in said.lines


def test_what_is_told_of_a_table_is_not_broken_up_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    table = written(patients(), tmp_path, "csv")

    said = well("check", "--data", table.name, "--id", "id", "--label", "ill", COLUMNS="80")

    assert {"5 of 6 columns are features", "label column ill: binary", "no problem found"} <= set(said.lines)
    assert max(map(len, said.lines)) <= 80


def test_all_that_is_wrong_is_told_at_once_and_the_exit_code_says_so(tmp_path: Path) -> None:
    said = heterofed("check", "--data", str(broken(tmp_path)), "--id", "id", "--label", "y")

    assert said.code == 1 and isinstance(said.error, DataError)
    assert "PROBLEM: 1 of 3 rows repeat an id" in said.lines
    assert "PROBLEM: column 'empty' has no value in any of 2 rows" in said.lines
    assert "2 problems" in str(said.error)


def test_what_is_allowed_or_ignored_is_no_problem(tmp_path: Path) -> None:
    words = ("--duplicates", "first", "--ignore", "empty", "--kind", "x=categorical")

    said = well("check", "--data", str(broken(tmp_path)), "--id", "id", "--label", "y", *words)

    assert "as told" in said.out
    assert said.lines[-1] == "no problem found"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--id", "nr"], "has no id column 'nr'"),
        (["--id", "id", "--label", "gone"], "label names 'gone', which is no column"),
        (["--id", "id", "--label", "y", "--role", "collaborator"], "is named at a collaborator"),
        (["--id", "id", "--kind", "x"], "--kind is not COLUMN=KIND"),
        (["--id", "id", "--kind", "x=number"], "kinds says 'number' of column 'x'"),
        (["--id", "id", "--label", "y", "--task", "multilabel", "--label", "y"], "column 'y' is named twice"),
    ],
    ids=["id column", "label", "label at a collaborator", "kind without form", "unknown kind", "label twice"],
)
def test_wrong_arguments_are_one_message(tmp_path: Path, words: list[str], text: str) -> None:
    said = heterofed("check", "--data", str(broken(tmp_path)), *words)

    assert said.code == 1 and said.error is not None and text in str(said.error)
    assert "\n" not in str(said.error)


def test_ids_of_mixed_forms_are_counted_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    pd.DataFrame({"id": ["secret", "7.0", "8.0"], "x": [1, 2, 3]}).to_csv(path, index=False)

    said = heterofed("check", "--data", str(path), "--id", "id")

    assert "2 of 3 ids that are whole numbers written with a decimal point" in str(said.error)
    assert "secret" not in str(said.error) + said.out


def test_the_report_can_be_kept_as_json_and_replaces_nothing(tmp_path: Path) -> None:
    path = written(patients(), tmp_path, "csv")
    out = tmp_path / "report.json"
    words = ("check", "--data", str(path), "--id", "id", "--label", "ill", "--out", str(out))

    well(*words)
    first = out.read_text()
    again = heterofed(*words)

    kept = json.loads(first)
    assert kept["is_usable"] and kept["problems"] == [] and kept["rows"] == 200
    assert [each["name"] for each in kept["columns"] if each["is_feature"]] == ["age", "dose", "city", "smoker", "seen"]
    assert kept["labels"]["task"] == "binary" and sum(kept["labels"]["counts"]) == 200
    assert isinstance(again.error, ConfigError) and "is there already" in str(again.error)
    assert out.read_text() == first
    well(*words, "--force")


def test_the_check_notes_with_a_task_that_the_data_are_good_or_not(tmp_path: Path) -> None:
    store = open_directory(Settings.from_env()).store
    task = store.create("credit", ["bank", "shop"])
    good = str(written(patients(), tmp_path, "csv"))

    refused = heterofed("check", "--data", str(broken(tmp_path)), "--id", "id", "--role", "collaborator", task.id)
    shop = store.get(task.id).party("shop")
    assert refused.code == 1 and "2 problems" in str(refused.error)
    assert shop.status is PartyStatus.REJECTED
    assert shop.reason == "TableChecker: 2 problems with its table"

    unread = heterofed("check", "--data", good, "--id", "nr", task.id)
    shop = store.get(task.id).party("shop")
    assert "has no id column 'nr'" in str(unread.error)
    assert shop.reason is not None and "nr" not in shop.reason and good not in shop.reason

    well("check", "--data", good, "--id", "id", "--feature-key", "shop", task.id)
    well("check", "--data", good, "--id", "id", "--label", "ill", task.id)
    assert [each.status for each in store.get(task.id).parties] == [PartyStatus.VERIFIED] * 2


def test_an_unknown_task_or_party_is_told_before_the_table_is_read(tmp_path: Path) -> None:
    task = open_directory(Settings.from_env()).store.create("credit", ["bank", "shop", "lab"])

    nowhere = heterofed("check", "--data", "nowhere.csv", "nosuchtask")
    unsaid = heterofed("check", "--data", "nowhere.csv", task.id)
    unknown = heterofed("check", "--data", "nowhere.csv", "--feature-key", "mill", task.id)

    assert "there is no task 'nosuchtask'" in str(nowhere.error)
    assert "the task has 3 parties" in str(unsaid.error)
    assert "mill" in str(unknown.error)

"""report.html needs nothing but itself; pictures are drawn of what there is, and of nothing else."""

from __future__ import annotations

import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heterofed.errors import ConfigError, OutputError
from heterofed.metrics.drawing import thinned
from heterofed.report import Evaluation, ScoredSet, can_report, needs, remove_evaluation, summarise, write_evaluation
from heterofed.report.canvas import brief, named
from heterofed.report.evaluation import Array
from heterofed.report.pictures import pictures_of
from heterofed.tables import Task
from tests.report.made import evaluation_of, rows_of

OF_ALL = {"learning", "contribution"}
OF_PROBABILITIES = OF_ALL | {"roc", "precision_recall", "calibration", "confusion"}
PICTURES: dict[Task, set[str]] = {
    "binary": OF_PROBABILITIES,
    "multiclass": OF_PROBABILITIES,
    "multilabel": OF_PROBABILITIES,
    "regression": OF_ALL | {"predicted", "residuals"},
}


def drawn(evaluation: Evaluation) -> dict[str, bytes]:
    return {each.name: each.png() for each in pictures_of(evaluation, summarise(evaluation))}


class Page(HTMLParser):
    """Texts, tags and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


@pytest.mark.parametrize("task", PICTURES)
def test_a_report_is_one_page_that_needs_nothing_else_and_its_pictures(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "report"
    files = write_evaluation(folder, evaluation_of(task))
    names = [str(each.relative_to(folder)) for each in files]
    assert names[:2] == ["evaluation.json", "report.html"]
    assert set(names[2:]) == {f"pictures/{each}.png" for each in PICTURES[task]}
    assert {each for each in folder.rglob("*") if each.is_file()} == set(files)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert "script" not in page.tags
    assert "link" not in page.tags
    sources = [value for tag, name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(sources) == len(PICTURES[task])
    assert all(each.startswith("data:image/png;base64,") for each in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text).replace("http-equiv", "")
    assert page.tags.count("img") == sum(name == "alt" and bool(value) for _, name, value in page.attributes)
    assert all(each in page.words for each in ("A test", "answer", "bank (host), shop", "test (120 rows)"))


def test_pictures_are_pngs_of_one_width(tmp_path: Path) -> None:
    for png in drawn(evaluation_of("binary")).values():
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">I", png[16:20])[0] == 864


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>$x^"
    evaluation = evaluation_of(
        "binary",
        classes=(evil, "_y$"),
        parties=(evil, "shop"),
        ablated={evil: ScoredSet("test", *rows_of("binary", 9))},
        title=evil,
        label=evil,
        facts={evil: evil},
        history=[{"round": 1, f"valid_{evil}": 1.0}],
    )
    write_evaluation(tmp_path, evaluation)
    page = Page((tmp_path / "report.html").read_text())
    assert page.tags.count("img") == len(OF_PROBABILITIES)
    assert page.words.count(evil) > 4


def test_a_page_says_what_is_undefined_and_that_there_are_few_rows(tmp_path: Path) -> None:
    evaluation = Evaluation("binary", (ScoredSet("test", [1, 1], [0.8, 0.9]),), classes=("no", "yes"))
    write_evaluation(tmp_path, evaluation)
    words = Page((tmp_path / "report.html").read_text()).words
    assert "test has only 2 rows" in words
    assert "Undefined in test, and shown as –: ROC AUC, average precision" in words
    assert "compared by the log loss" in words
    assert not list(tmp_path.rglob("roc.png"))


def test_a_page_of_no_rows_says_so_and_has_no_pictures(tmp_path: Path) -> None:
    files = write_evaluation(tmp_path, Evaluation("regression", (ScoredSet("test", [], []),)))
    assert [each.name for each in files] == ["evaluation.json", "report.html"]
    assert "test has no rows" in Page((tmp_path / "report.html").read_text()).words


@pytest.mark.parametrize("task", PICTURES)
def test_a_single_row_can_be_reported(task: Task) -> None:
    names = drawn(evaluation_of(task, 1)).keys()
    assert names >= PICTURES[task] - {"roc", "precision_recall", "contribution"}


def test_a_set_of_one_class_is_left_out_of_the_curves_of_two() -> None:
    sets = (ScoredSet("train", [0, 1, 1], [0.2, 0.7, 0.9]), ScoredSet("test", [1, 1], [0.8, 0.9]))
    assert {"roc", "confusion"} <= drawn(Evaluation("binary", sets, classes=("no", "yes"))).keys()


@pytest.mark.parametrize("width", [2, 10, 40])
def test_many_classes_can_be_drawn(width: int) -> None:
    evaluation = evaluation_of("multiclass", 400, width=width, history=(), ablated={}, host_alone=None)
    assert drawn(evaluation).keys() == OF_PROBABILITIES - OF_ALL


def test_many_rows_become_a_density() -> None:
    truth = np.arange(5000.0)
    evaluation = Evaluation("regression", (ScoredSet("test", truth, truth[::-1] / 3),), label="price in $")
    assert drawn(evaluation).keys() == {"predicted", "residuals"}


def test_predictions_that_are_all_one_value_can_be_drawn() -> None:
    evaluation = Evaluation("regression", (ScoredSet("test", [5.0, 5.0], [5.0, 5.0]),))
    assert drawn(evaluation).keys() == {"predicted", "residuals"}
    even = Evaluation("binary", (ScoredSet("test", [0, 1], [0.5, 0.5]),), classes=("no", "yes"))
    assert "calibration" in drawn(even)


def test_a_second_report_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation_of("regression", history=(), title="The first"))
    write_evaluation(tmp_path, evaluation_of("regression", history=(), title="The second"))
    text = (tmp_path / "report.html").read_text()
    assert "The second" in text
    assert "The first" not in text


@pytest.mark.parametrize("task", PICTURES)
def test_what_is_removed_is_the_report_and_nothing_else_in_its_folder(task: Task, tmp_path: Path) -> None:
    mine = [tmp_path / "pictures" / "holiday.png", tmp_path / "notes.html"]
    write_evaluation(tmp_path, evaluation_of(task))
    for each in mine:
        each.write_bytes(b"mine")

    remove_evaluation(tmp_path)

    assert {each for each in tmp_path.rglob("*") if each.is_file()} == set(mine)


def test_nothing_is_removed_where_there_is_no_evaluation(tmp_path: Path) -> None:
    write_evaluation(tmp_path, evaluation_of("regression"))
    (tmp_path / "evaluation.json").unlink()
    before = set(tmp_path.rglob("*"))

    remove_evaluation(tmp_path)
    remove_evaluation(tmp_path / "nowhere")

    assert set(tmp_path.rglob("*")) == before


def test_all_parties_are_named_only_where_all_had_the_rows(tmp_path: Path) -> None:
    def words(**also: Any) -> str:
        write_evaluation(tmp_path, evaluation_of("regression", **also))
        return Page((tmp_path / "report.html").read_text()).words

    assert "120 rows, all parties" in words()
    stood_in = words(with_stand_ins=30, remarks=["A remark.", "Another one."])
    assert "120 rows, 30 with stand-ins" in stood_in
    assert "all parties" not in stood_in
    assert "A remark." in stood_in and "Another one." in stood_in


def test_nothing_is_written_where_a_picture_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("heterofed.report.pictures._draw_residuals", fails)
    with pytest.raises(MemoryError):
        write_evaluation(tmp_path, evaluation_of("regression"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        write_evaluation(tmp_path / "report", Evaluation("regression", (ScoredSet("test", [], []),)))
    assert (tmp_path / "report").read_text() == "mine"


def test_a_missing_package_is_named_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_report()
    monkeypatch.setitem(needs.PACKAGES, "no_such_module", "no-such-package")
    assert not can_report()
    with pytest.raises(ConfigError, match=r"need no-such-package.*pip install"):
        write_evaluation(tmp_path, evaluation_of("binary"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (9540, "9.5k"), (9960, "10k"), (123_456, "123k"), (2_500_000, "2.5M")],
)
def test_counts_are_brief(count: int, text: str) -> None:
    assert brief(count) == text


def test_names_in_pictures_are_short_and_no_formulas() -> None:
    assert named("a\nb") == "a b"
    assert named("_x$") == r" _x\$"
    assert len(named("x" * 100)) == 22


def test_thinned_lines_keep_their_ends() -> None:
    line: Array = np.arange(100_000.0)
    (found,) = thinned(line)
    assert (found[0], found[-1], len(found)) == (0.0, 99_999.0, 2000)
    assert thinned(line[:5])[0] is not None

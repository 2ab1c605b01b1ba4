"""The chaos run tells of every cell, and is green only if all of them are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.report import Cell, Plan, Section


def of(*cells: Cell) -> Section:
    def section(plan: Plan) -> Iterator[Cell]:
        yield from cells

    return section


def broken(plan: Plan) -> Iterator[Cell]:
    yield Cell("disk", "before", True, 0.1)
    raise KeyError("what is wrong here")


GOOD = Cell("soup", "drop 1 %", True, 0.2, "12 repeated")
RED = Cell("soup", "cut [20 %]", False, 3.5, "c1 hangs\nits last line")


def run(monkeypatch: pytest.MonkeyPatch, sections: dict[str, Section], *arguments: str) -> int:
    monkeypatch.setattr(chaos, "section_of", sections.__getitem__)
    return chaos.main(["--only", ",".join(sections), *arguments])


def test_a_green_run_ends_with_its_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sections = {"soup": of(GOOD), "soak": of(Cell("soak", "host", True, 20.0))}
    assert run(monkeypatch, sections, "--seed", "5") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "chaos: 2 of 2 green in 0 s (seed 5)"


def test_a_red_cell_fails_the_run_and_says_how_to_try_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, {"soup": of(GOOD, RED)}, "--folder", str(tmp_path), "--short") == 1
    out = capsys.readouterr().out
    assert "its last line" in out
    assert '--only soup --cell "cut [20 %]" --seed 7 --share 0.25' in out
    assert out.splitlines()[-1] == "chaos: 1 of 2 green in 0 s (seed 7)"


def test_what_could_not_be_tried_is_neither_green_nor_red_and_the_last_line_says_how_much_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = Cell.not_run("soup", "a full disk", "cannot mount")
    assert run(monkeypatch, {"soup": of(GOOD, left)}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not run  soup      a full disk  0.0 s  cannot mount" in lines
    assert lines[-1] == "chaos: 1 of 1 green, 1 not run, in 0 s (seed 7)"


def test_a_run_that_could_try_nothing_is_not_green(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, {"soup": of(Cell.not_run("soup", "a full disk", "no"))}, "--folder", str(tmp_path)) == 1


def test_a_section_that_breaks_is_red_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, {"soup": of(GOOD), "disk": broken, "fuzz": of()}, "--folder", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "what is wrong here" in out
    assert out.splitlines()[-1].startswith("chaos: 2 of 3 green")


def test_only_the_cell_that_was_asked_for_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Cell("soup", "another", True, 0.1)
    assert run(monkeypatch, {"soup": of(GOOD, other)}, "--cell", "another") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("chaos: 1 of 1 green")


def test_a_run_that_tried_nothing_is_not_green(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, {"soup": of()}, "--folder", str(tmp_path)) == 1


@pytest.mark.parametrize("arguments", [["--share", "0"], ["--share", "2"], ["--only", "sopu"], ["--jobs", "0"]])
def test_a_command_line_that_cannot_work_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        chaos.parse(arguments)
    assert refused.value.code == 2


def test_a_missing_module_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chaos.MODULES, "soup", "not_there")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        chaos.section_of("soup")

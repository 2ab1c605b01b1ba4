"""A few runs of the chaos run's fault soup, and that it would tell of those that end badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import Cell, Plan
from tests.chaos.soup import ALL, Tried, cells, compare, judged, summed_up
from tests.chaos.soup_cook import FAULTS, Cook, Ended, Recipe

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
OUTCOME = {"parameters": "a", "written": "a", "tables": {}, "metrics.json": [], "trained": 6}
GOOD = Ended({"host": OUTCOME, "c1": OUTCOME}, seconds=1.0)
GAVE_UP = Ended(errors={"host": "PeerTimeout: no embedding", "c1": "TaskAborted: ended the task"}, seconds=1.0)


def test_runs_over_links_at_their_worst_end_with_the_bits_of_undisturbed_ones(tmp_path: Path) -> None:
    done = list(cells(Plan(share=0.004, seed=5, folder=tmp_path, jobs=1)))

    assert [each.name for each in done] == ["seeds 50000 to 50003", ALL]
    assert not [f"{each.name}: {each.note}" for each in done if not each.ok]
    assert "4 with the same bits" in done[-1].note
    assert all(fault in done[-1].note for fault in FAULTS)


def test_a_run_that_hangs_says_where_and_the_next_one_is_tried(tmp_path: Path) -> None:
    deaf = Recipe(1, 2, {party: {"drop": 1.0} for party in ("host", "c1")})
    cook = Cook(tmp_path / "log", hangs_s=1.0)
    try:
        assert "in receive" in cook.cook(deaf, tmp_path / "deaf").trouble
        cook.hangs_s = 60.0
        assert cook.cook(Recipe(1, 2), tmp_path / "undisturbed").outcomes.keys() == {"host", "c1"}
    finally:
        cook.end()


@pytest.mark.parametrize(
    "ended",
    [
        Ended({**GOOD.outcomes, "c1": {**OUTCOME, "parameters": "b"}}),
        Ended({**GOOD.outcomes, "c1": {**OUTCOME, "tables": {"seen.csv": "batch\n1\n"}}}),
        Ended({**GOOD.outcomes, "c1": {**OUTCOME, "trained": 7}}),
        Ended({"host": OUTCOME}, {"c1": "PeerGone: its link is down"}),
    ],
    ids=["other bits", "another table", "a batch twice", "a party that does not hear of the end"],
)
def test_what_is_neither_the_same_nor_an_error_of_all_is_wrong(ended: Ended) -> None:
    assert compare(ended, GOOD)


def test_the_same_bits_and_an_error_of_all_are_right() -> None:
    assert not compare(GOOD, GOOD)
    assert not compare(GAVE_UP, GOOD)


def test_a_run_that_ends_wrongly_makes_its_cell_red_and_says_how_to_try_it_alone(tmp_path: Path) -> None:
    tried = [Tried(70_000, GOOD), Tried(70_001, GOOD, "c1 has other parameters")]
    cell = judged("seeds 70000 to 70001", tried, 2.0, Plan(1.0, 7, tmp_path))

    assert not cell.ok
    assert "2 runs: 1 with the same bits, 0 with a named error, 1 RED" in cell.note
    assert '--only soup --cell "seed 70001"' in cell.note


@pytest.mark.parametrize("named", [2, 3])
def test_more_than_one_run_in_a_hundred_with_a_named_error_is_red(named: int) -> None:
    tried = [Tried(seed, GAVE_UP if seed < named else GOOD) for seed in range(200)]

    assert summed_up(tried, 1.0).ok == (named == 2)


def test_a_cell_that_is_asked_for_is_tried_alone(tmp_path: Path) -> None:
    def names(cell: str) -> list[str]:
        done: list[Cell] = list(cells(Plan(share=1.0, seed=5, folder=tmp_path, cell=cell)))
        return [each.name for each in done if each.ok]

    assert names("seed 70003") == ["seed 70003"]
    assert names("of another section") == []


def test_what_goes_wrong_depends_on_the_seed_alone() -> None:
    recipes = [Recipe.of(seed) for seed in range(50)]

    assert recipes == [Recipe.of(seed) for seed in range(50)]
    assert {each.parties for each in recipes} == {2, 3}
    rates = [
        rate for each in recipes for faults in each.faults.values() for name, rate in faults.items() if name in FAULTS
    ]
    assert 0.01 <= min(rates) < 0.02 and 0.19 < max(rates) <= 0.2

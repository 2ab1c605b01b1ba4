"""A few cells of the kill matrix: those that need no long waits. `make chaos` has all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos import kill_matrix
from tests.chaos.kill_matrix import FAULTS, PHASES, SETUPS, Trial, differences, trials
from tests.chaos.report import Cell, Plan, again
from tests.chaos.task import COLLABORATORS, VARIANTS

pytestmark = pytest.mark.processes
TRIED = (
    Trial("batch", "host", "SIGKILL"),
    Trial("batch", "collaborator", "SIGKILL"),
    Trial("batch", "collaborator", "reset"),
)


@pytest.mark.timeout(120)
def test_a_task_ends_with_the_same_bits_whatever_happens_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_matrix, "trials", lambda: list(TRIED))
    found = list(kill_matrix.cells(Plan(share=1.0, seed=7, folder=tmp_path)))
    red = [f"{each.name}: {each.note}" for each in found if not each.ok]
    assert not red, "\n".join(red)
    assert len(found) == 1 + len(TRIED), "the undisturbed run is a cell of its own"


def test_every_fault_happens_to_every_role_in_every_phase() -> None:
    all_of_them = trials()
    there = {(each.phase, each.party, each.fault) for each in all_of_them if each.variant == "plan" and not each.then}
    roles = ("host", "collaborator", "second collaborator")
    assert {(phase, role, fault) for phase in PHASES for role in roles for fault in FAULTS} <= there
    assert {(phase, "host", "new address") for phase in PHASES} <= there
    assert {(phase, "all", "SIGKILL") for phase in PHASES} <= there
    assert len(there) >= 60
    assert max(Counter(each.name for each in all_of_them).values()) == 1, "a name finds one cell"


def test_in_every_setup_both_roles_are_killed_at_two_places_at_least() -> None:
    for variant in SETUPS:
        killed = {(each.phase, *each.kills) for each in trials() if each.variant == variant and each.kills}
        assert len({phase for phase, *_ in killed}) >= 2
        assert {"host", *COLLABORATORS} <= {party for _, *parties in killed for party in parties}
    assert {each.variant for each in trials()} == {*VARIANTS}, "every setup is tried"


def test_a_share_has_every_kind_and_is_the_same_for_a_seed(tmp_path: Path) -> None:
    def share(seed: int) -> list[Trial]:
        return Plan(share=0.25, seed=seed, folder=tmp_path).spread(trials(), lambda each: each.fault)

    assert share(7) == share(7) != share(8)
    assert {each.fault for each in share(7)} == {*FAULTS, "new address"}
    assert len(share(7)) == pytest.approx(len(trials()) / 4, abs=3)


def test_another_bit_a_missing_row_and_a_double_line_are_seen() -> None:
    good = {
        "parameters": "a",
        "written": "a",
        "tables": {"scores.csv": "x\n1\n2\n"},
        "metrics.json": [{"iteration": 1}],
    }
    assert differences(good, good) == []
    assert differences({**good, "parameters": "b"}, good) == ["has other parameters"]
    best = {**good, "best": {"model": "a", "rng": "b"}}
    assert differences({**best, "best": {"model": "a", "rng": "c"}}, best) == ["has another model_best: rng"]
    assert differences(good, best) == ["has another model_best: model, rng"]
    assert differences({**good, "tables": {"scores.csv": "x\n1\n"}}, good)
    assert differences({**good, "tables": {}}, good)
    assert differences({**good, "metrics.json": [{"iteration": 1}, {"iteration": 1}]}, good)


def test_a_party_that_starts_from_scratch_is_red() -> None:
    trial = Trial("batch", "collaborator", "SIGKILL")
    outcome = {"parameters": "a", "written": "a", "tables": {}, "metrics.json": [], "trained": 27, "psi_parts": 4}
    found = {party: dict(outcome) for party in ("host", "c1", "c2")}
    assert "trained 27 batches again" in kill_matrix.compare(trial, found, found)
    assert "matched ids again" in kill_matrix.compare(trial, found, found)
    found["c1"] |= {"trained": 15, "psi_parts": 0}
    assert kill_matrix.compare(trial, found, found) == ""


def test_a_red_cell_says_how_to_try_it_alone(tmp_path: Path) -> None:
    command = again(Cell("kill", "batch, host, SIGKILL", False, 1.0), Plan(0.25, 9, tmp_path))
    assert command == 'python -m tests.chaos --only kill --cell "batch, host, SIGKILL" --seed 9 --share 0.25'

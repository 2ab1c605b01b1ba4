"""A few cells of the chaos run's disk section."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.disk import cells
from tests.chaos.report import Plan

SHARE = 0.02


@pytest.mark.timeout(120)
def test_a_run_whose_disk_fails_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    done = list(cells(Plan(share=SHARE, seed=5, folder=tmp_path)))

    assert done
    assert not [f"{each.name}: {each.note}" for each in done if not each.ok]

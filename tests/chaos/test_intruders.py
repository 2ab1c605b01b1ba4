"""A small version of the intruders, without their times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.intruders import INTRUDERS, cells
from tests.chaos.report import Plan


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_intruders_are_refused_and_said_once_and_the_exchange_goes_on(tmp_path: Path) -> None:
    tried = list(cells(Plan(share=0.02, seed=1, folder=tmp_path)))
    assert [(each.name, each.note) for each in tried if not each.ok] == []
    assert len(tried) == len(INTRUDERS)

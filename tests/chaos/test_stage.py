"""A stage can do something to the way of one party alone, and sees it where its proxies do not lie on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.deeds import start_all
from tests.chaos.stage import Stage, Trouble

pytestmark = pytest.mark.processes


def test_a_link_that_is_reset_is_that_of_its_party_alone(tmp_path: Path) -> None:
    with Stage(tmp_path / "task") as stage:
        flag = start_all(stage, {"c2": "batch"})["c2"]
        stage.wait_for(flag, "c2")
        before = {party: sum(each.connections for each in stage.proxies(party)) for party in ("c1", "c2")}
        for each in stage.proxies("c2"):
            each.reset()
        flag.go()
        stage.finish()
        after = {party: sum(each.connections for each in stage.proxies(party)) for party in ("c1", "c2")}
    assert after["c1"] == before["c1"] > 0
    assert after["c2"] > before["c2"] > 0


def test_a_task_whose_parties_go_past_their_proxies_is_red(tmp_path: Path) -> None:
    """Both collaborators connect to the announced address, which is that of c1's proxy."""
    with Stage(tmp_path / "task", more=("--through", "{}")) as stage:
        start_all(stage)
        with pytest.raises(Trouble, match="nothing came through the proxy of c2:"):
            stage.finish()

"""In lock-step a party's line is told that the word it waits for comes soon, and when that is over."""

from __future__ import annotations

import pytest

from heterofed import TaskFailed, run_locally
from heterofed.scheduler.line import Line
from tests.tiny import Collaborator, Host


@pytest.mark.parametrize(("staleness", "soon"), [(0, True), (2, False)], ids=["lock-step", "batches ahead"])
def test_waits_are_short_in_the_training_of_a_round_and_nowhere_else(
    staleness: int, soon: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[bool]] = {"host": [], "c1": []}
    original = Line.expect_soon

    def noted(self: Line, is_soon: bool) -> None:
        told[self.party].append(is_soon)
        original(self, is_soon)

    monkeypatch.setattr(Line, "expect_soon", noted)

    run_locally(Host(max_rounds=2, max_staleness=staleness), Collaborator())

    for said in told.values():
        assert said[::2].count(True) == (2 if soon else 0)  # once a round; a test is another pass
        assert not any(said[1::2])


def test_a_training_that_fails_leaves_no_wait_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    last: dict[str, bool] = {}

    class Failing(Host):
        def train_a_batch(self, *given: object) -> object:
            raise RuntimeError("no")

    monkeypatch.setattr(Line, "expect_soon", lambda self, is_soon: last.update({self.party: is_soon}))

    with pytest.raises(TaskFailed, match="RuntimeError"):
        run_locally(Failing(), Collaborator())

    assert last == {"host": False, "c1": False}

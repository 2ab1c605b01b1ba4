"""A task with all parties in one process."""

from __future__ import annotations

import logging

import pytest

from heterofed import run_locally
from tests.tiny import Collaborator, Host


def test_parties_of_one_process_say_a_line_once_and_under_their_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run_locally(Host(max_rounds=1, parties=3), Collaborator("c1", party=1), Collaborator("c2", party=2))

    lines = [each for each in caplog.messages if "are common to all parties" in each or "takes part in" in each]
    assert len(lines) == 4
    assert sum("are common to all parties" in each for each in lines) == 1
    assert all(each.startswith(("host", "c1", "c2")) for each in lines)

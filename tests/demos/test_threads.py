"""The demo's parties share the cores of their machine, unless they are told otherwise."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from demos.mnist_split import command_line, run
from demos.mnist_split.data import SMALL_SET
from demos.mnist_split.options import read_options
from heterofed import Settings
from heterofed.training import threads


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], 4), (["--parties", "3"], 2), (["--parties", "9"], 1), (["--verify-exact"], 1)],
)
def test_every_party_takes_a_fair_share_but_one_thread_where_bits_are_compared(
    arguments: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)

    assert run._default_threads(command_line.parse(arguments)) == expected


def test_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_THREADS", "3")

    assert run._default_threads(command_line.parse(["--verify-exact"])) == 3


def test_the_option_of_a_party_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_THREADS", "3")
    before = torch.get_num_threads()
    monkeypatch.setattr(
        sys, "argv", ["host.py", "--task-id", "t", "--out", "o", "--threads", "2", "--data-dir", SMALL_SET]
    )
    try:
        read_options(None, host=True)
        assert torch.get_num_threads() == 2
        assert Settings.from_env().threads == 2  # which launch_task takes
    finally:
        torch.set_num_threads(before)
    assert os.environ["HETEROFED_THREADS"] == "2"

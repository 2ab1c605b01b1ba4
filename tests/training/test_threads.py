"""Parties of one machine share its cores."""

from __future__ import annotations

import os

import pytest
import torch

from heterofed.cores import cores
from heterofed.training import threads
from heterofed.training.threads import threads_each, use_threads


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)

    assert cores() == 3


def test_where_no_process_is_bound_to_cores_all_of_them_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)

    assert cores() == 6


@pytest.mark.parametrize(("have", "parties", "each"), [(8, 2, 4), (8, 3, 2), (2, 3, 1), (1, 9, 1), (4, 0, 4)])
def test_each_party_has_a_fair_share_and_one_thread_at_least(
    have: int, parties: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: have)

    assert threads_each(parties) == each


def test_0_threads_leave_torch_alone() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(before + 1)
        assert torch.get_num_threads() == before + 1
        use_threads(0)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)

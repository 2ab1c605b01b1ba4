"""The soak sees a process that grows; its hour is part of `make chaos`."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.chaos.soak import Size, judge, size_of

MIB = 1 << 20


def sizes(count: int = 200) -> list[Size]:
    """Sizes that waver by half a percent, as those of a process do."""
    return [Size(float(at), 400 * MIB + (at % 5) * MIB // 2, 20 + (at % 7 == 0), 3) for at in range(count)]


def test_a_process_that_keeps_its_size_is_green() -> None:
    ok, figures = judge(sizes())
    assert ok
    assert figures == "401.0 -> 401.0 MiB (+0.00%), 20 -> 20 descriptors, 3 -> 3 threads"


@pytest.mark.parametrize("name", ["memory", "descriptors", "threads"])
def test_a_process_that_grows_is_red(name: str) -> None:
    step = {"memory": 50_000, "descriptors": 1, "threads": 1}[name]
    growing = [replace(each, **{name: getattr(each, name) + step * at}) for at, each in enumerate(sizes())]
    assert not judge(growing)[0]


def test_a_process_is_measured() -> None:
    before = size_of(os.getpid(), 0.0)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    after = size_of(os.getpid(), 1.0)
    for each in held:
        os.close(each)
    assert after.descriptors == before.descriptors + 5
    assert after.memory > 10 * MIB
    assert after.threads >= 1

"""The benchmarks of the wire and of long lines as people run them: small, to see that every figure is there."""

from __future__ import annotations

import pytest

from benchmarks.link import OPTIONS, SYNCHRONOUS, runs_of
from benchmarks.link import _parser as link_arguments
from benchmarks.wire_ends import header_bytes
from heterofed import HostScheduler
from tests.benchmarks.test_round import run

pytestmark = [pytest.mark.processes, pytest.mark.timeout(170)]


def test_a_quick_look_at_the_wire_gives_every_figure() -> None:
    said, found = run("wire", "--quick")

    assert "128 x 1024" in said
    assert set(found["round_trip_over_bare"]) == set(found["throughput_over_bare"]) == {"plain", "curve"}
    assert [(each["encryption"], each["width"]) for each in found["cells"]] == [
        (encryption, width) for width in (10, 1024) for encryption in ("plain", "curve")
    ]
    for each in found["cells"]:
        assert each["header_bytes"] < 128
        assert 0.01 < each["round_trip_over_bare"] < 100
        assert 0.01 < each["throughput_over_bare"] < 100
        assert 1.0 < each["ours_bytes_over_tensors"] < 1.2, "with what a heartbeat may add to a few messages"
        assert each["ours_one_way_cpu_us"] > 0


@pytest.mark.parametrize("width", [10, 64, 1024, 4096])
def test_all_headers_of_an_embedding_together_are_short(width: int) -> None:
    assert header_bytes(4096, width) < 128


def test_a_quick_look_at_a_line_gives_every_figure() -> None:
    said, found = run("link", "--quick", "--synthetic")

    assert "random pictures: 1280 to train on" in said
    lock_step, other = found["runs"]
    assert (lock_step["option"], other["option"]) == (SYNCHRONOUS, "staleness-4 int8")
    assert other["batches"] == lock_step["batches"] == 10
    assert 0 < lock_step["batches_a_second"] < 100, "10 ms on the line for each batch"
    assert lock_step["speed_over_synchronous"] == 1.0
    assert 0 <= other["accuracy"] <= 1
    if other["bytes_a_batch"]:
        assert 2.5 < other["times_fewer_bytes"] < 4


def test_every_way_of_exchange_is_an_argument_of_the_host_and_all_are_run_once() -> None:
    known = HostScheduler.__init__.__kwdefaults__ or {}
    assert {name for each in OPTIONS.values() for name in each} <= set(known)
    runs = runs_of(link_arguments().parse_args([]))
    assert len(runs) == len(set(runs))
    assert {each.option for each in runs} == set(OPTIONS)
    lines = {(each.delay_ms, each.mbit) for each in runs}
    assert lines == {(each.delay_ms, each.mbit) for each in runs if each.option == SYNCHRONOUS}

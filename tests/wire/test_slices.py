"""Time slices of libzmq's threads: short where the system has such, and this thread's own are as before."""

from __future__ import annotations

import os
import platform
import sys

import pytest
import zmq

from heterofed.wire.zeromq import slices
from heterofed.wire.zeromq.slices import short_slices


def test_nothing_is_asked_of_a_system_that_has_no_such_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "a machine of nobody's")

    with short_slices():
        assert not slices._ask_for(slices._SLICE_NS)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of single threads are Linux's own")
def test_niceness_and_policy_stay_as_they_are() -> None:
    def ours() -> tuple[int, int]:
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    before = ours()
    with short_slices(), zmq.Context() as context, context.socket(zmq.DEALER):
        assert ours() == before
    assert ours() == before


def test_a_failure_in_the_body_gets_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(slices, "_ask_for", lambda slice_ns: not asked.append(slice_ns))  # type: ignore[func-returns-value]  # None is what is wanted

    with pytest.raises(KeyError), short_slices():
        raise KeyError

    assert asked == [slices._SLICE_NS, 0]

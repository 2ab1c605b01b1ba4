"""The benchmark of a round as people run it: small, with random pictures, to see that every figure is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import median_ratio, tcp_bytes
from benchmarks.crew import Failed, Worker, settings, settings_in

pytestmark = [pytest.mark.processes, pytest.mark.timeout(170)]

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run a benchmark; return what it printed for people, and the object on its last line."""
    # What it measures is no coverage, which would take more time than all the rest.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--json", *arguments],
        cwd=ROOT,
        # Threads that spin while they wait for each other hardly get on where other tests run at the same time.
        env={**environment, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=160,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    return "\n".join(lines), json.loads(last)


def test_a_quick_round_gives_every_figure() -> None:
    said, found = run("round", "--quick", "--synthetic", "--train", "1280")

    assert "random pictures" in said and "federated / floor" in said
    for name in ("federated_over_floor", "federated_over_unsplit", "federated_over_bare", "bare_over_floor"):
        assert 0.01 < found[name] < 100
    assert 0 <= found["host_idle"] < 1
    assert {"floor", "bare", "unsplit_1", "federated"} <= set(found["seconds"])
    assert all(len(each) == 1 and each[0] > 0 for each in found["seconds"].values())
    for party in ("host", "collaborator_1"):
        took = found["parties"][party]
        parts = took["compute_s"] + took["waited_s"] + took["wire_s"]
        assert 0 < took["fit_s"] <= took["seconds"] == pytest.approx(parts)
        assert 0 < took["thread_s"] <= took["cpu_s"]
        assert found["memory"][party]["round_1_mb"] > 10
    carried = found["bytes"]
    assert carried["tensors"] == 2 * 1280 * 10 * 4
    assert carried["tensors"] < carried["messages"] < carried["tcp"] < 1.2 * carried["tensors"]


def test_many_parties_take_turns_with_bare_sockets() -> None:
    said, found = run("parties", "--quick", "--rows", "32")

    assert "bare ms" in said
    for kind in ("real", "bare"):
        assert set(found[kind]) == {"1", "2"}
        assert all(each["ms"] > 0 and each["cpu_ms"] > 0 for each in found[kind].values())
        assert 1.9 < found[kind]["2"]["bytes_over_1"] < 2.1
    assert found["bytes_ratio"] == found["real"]["2"]["bytes_over_1"]
    assert found["real"]["1"]["bytes"] > found["bare"]["1"]["bytes"] > 2 * 32 * 10 * 4


@dataclass
class Ended:
    """A process that is over."""

    exitcode: int = 1

    def join(self, timeout: float) -> None:
        return None


def test_a_worker_that_ended_is_named_with_its_last_words(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    log = tmp_path / "floor-host.log"
    log.write_text("began\n\nValueError: no such pictures\n")
    theirs.close()
    worker = Worker("floor-host", Ended(), ours, log)

    worker.tell(go=True)
    with pytest.raises(Failed, match="floor-host ended with exit code 1; its last words:\nbegan\nValueError: no such"):
        worker.hear(1)


def test_a_worker_that_says_nothing_in_time_is_named(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()

    with pytest.raises(Failed, match="floor-host said nothing for 0 s"):
        Worker("floor-host", Ended(), ours, tmp_path / "none").hear(0.01)
    theirs.close()


@pytest.mark.skipif(tcp_bytes() is None, reason="this system does not say what a connection has carried")
def test_bytes_on_tcp_are_those_that_crossed() -> None:
    def carried() -> tuple[int, int]:
        found = tcp_bytes()
        assert found is not None
        return found

    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        before = carried()
        one.sendall(bytes(1000))
        assert len(other.recv(1000, socket.MSG_WAITALL)) == 1000
        deadline = time.monotonic() + 5
        while carried()[0] - before[0] < 1000 and time.monotonic() < deadline:  # an acknowledgement takes its time
            time.sleep(0.001)
        after = carried()

    assert (after[0] - before[0], after[1] - before[1]) == (1000, 1000)  # both ends are in this process


def test_settings_of_a_benchmark_are_the_only_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETEROFED_CHECK_FINITE", "no")

    with settings(psi_protocol="ecdh"):
        inside = settings_in(os.environ)

    assert inside == {"HETEROFED_PSI_PROTOCOL": "ecdh"}
    assert os.environ["HETEROFED_CHECK_FINITE"] == "no"
    assert "HETEROFED_PSI_PROTOCOL" not in os.environ


def test_a_ratio_is_that_of_the_same_repeat() -> None:
    assert median_ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0

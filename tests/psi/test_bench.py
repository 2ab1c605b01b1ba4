"""The measuring of runs: what is measured is right, complete and checked."""

from __future__ import annotations

import json
import multiprocessing
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import pytest

from psi import bench, bench_processes
from psi.bench import Bench, measure, repeat, report
from psi.bench_processes import INITIATOR, RESPONDER, Child
from psi.errors import BadArgument, PsiError
from psi.oprf import ECDH, RSA

SMALL = Bench(protocol=ECDH, n=40, m=30, overlap=0.5, workers=1, engine="cryptography", chunk=8)


def play_here(settings: Bench) -> dict[str, dict[str, Any]]:
    """Both roles in threads of this process: what each says in the end."""
    pipes = {role: multiprocessing.Pipe() for role in (RESPONDER, INITIATOR)}
    threads = [
        threading.Thread(target=bench_processes._guarded, args=(bench_processes.play, theirs, settings, role))
        for role, (_, theirs) in pipes.items()
    ]
    for thread in threads:
        thread.start()
    ours = {role: pipe for role, (pipe, _) in pipes.items()}
    ours[INITIATOR].send_bytes(_heard_bytes(ours[RESPONDER]))
    for pipe in ours.values():
        assert "ready" in json.loads(_heard_bytes(pipe))
    for pipe in ours.values():
        pipe.send_bytes(b"{}")
    for pipe in ours.values():
        assert "finished" in json.loads(_heard_bytes(pipe))
    said = {role: json.loads(_heard_bytes(pipe)) for role, pipe in ours.items()}
    for pipe in ours.values():
        pipe.close()
    for thread in threads:
        thread.join(10)
    return said


def _heard_bytes(pipe: Connection) -> bytes:
    assert pipe.poll(20)
    return pipe.recv_bytes()


@dataclass(frozen=True)
class OneTooFew(Bench):
    """Expects an id less than both find."""

    def expected(self) -> list[str]:
        return super().expected()[1:]


@dataclass(frozen=True)
class AnotherId(Bench):
    """Expects as many ids as both find, but not the same."""

    def expected(self) -> list[str]:
        return [*super().expected()[1:], "id9999999999"]


@pytest.mark.processes
def test_a_run_in_two_processes_is_measured_and_found_correct() -> None:
    result = measure(SMALL, all_floors=True)

    assert result["correct"] is True
    assert result["intersection_size"] == 15
    assert (result["protocol"], result["n"], result["m"], result["engine"]) == (ECDH, 40, 30, "cryptography")
    assert result["elements_per_second"] == pytest.approx(70 / result["seconds"])
    assert result["ratio"] == pytest.approx(result["seconds"] / result["floor_seconds"]) and result["ratio"] > 1
    assert result["floor_seconds"] == pytest.approx(sum(result["floor_range"]) / 2)
    assert result["floors"]["cryptography"] == result["floor_seconds"]
    assert set(result["floors"]) == set(result["engines_available"])
    spots, head, width = 32, 4 + 35, 32
    assert result["bytes_up"] >= (40 + spots) * width + 15 * 12 + 9 * head
    assert result["bytes_down"] >= (40 + spots) * width + 30 * 16 + 13 * head
    assert result["bytes_per_id"] == pytest.approx((result["bytes_up"] + result["bytes_down"]) / 35)
    roles = [result[f"peak_rss_mb_{role}"] for role in (INITIATOR, RESPONDER)]
    assert 10 < min(roles) <= max(roles) == result["peak_rss_mb"] < 500
    assert result["cpu_seconds"] == pytest.approx(sum(result[f"cpu_seconds_{r}"] for r in (INITIATOR, RESPONDER)))
    assert result["cpu_ratio"] > 1
    assert result["cores_used"] == min(2, result["cores"])
    assert json.loads(json.dumps(result)) == result
    assert "15 shared: correct" in report(result)


@pytest.mark.processes
def test_what_a_role_fails_with_reaches_the_parent() -> None:
    with pytest.raises(PsiError, match=r"the process of .*: BadArgument: chunk is 0"):
        measure(replace(SMALL, chunk=0))


@pytest.mark.parametrize(
    ("protocol", "reveal", "size"),
    [(ECDH, "both", 15), (ECDH, "initiator", 15), (ECDH, "cardinality", 15), (RSA, "both", 15)],
)
def test_both_roles_check_what_they_are_to_know(protocol: str, reveal: str, size: int) -> None:
    engine = "gmpy2" if protocol == RSA else "cryptography"

    said = play_here(replace(SMALL, protocol=protocol, reveal=reveal, engine=engine))

    assert [each["correct"] for each in said.values()] == [True, True]
    assert said[INITIATOR]["size"] == size
    assert said[RESPONDER]["size"] == (None if reveal == "initiator" else size)


@pytest.mark.parametrize(
    ("kind", "reveal", "correct"),
    [
        (OneTooFew, "both", {INITIATOR: False, RESPONDER: False}),
        (AnotherId, "both", {INITIATOR: False, RESPONDER: False}),
        (AnotherId, "initiator", {INITIATOR: False, RESPONDER: True}),
        (OneTooFew, "cardinality", {INITIATOR: False, RESPONDER: False}),
    ],
)
def test_another_result_than_the_known_one_is_told(kind: type[Bench], reveal: str, correct: dict[str, bool]) -> None:
    settings = kind(protocol=ECDH, n=40, m=30, workers=1, engine="cryptography", reveal=reveal)

    said = play_here(settings)

    assert {role: each["correct"] for role, each in said.items()} == correct


@pytest.mark.parametrize("wrong", [INITIATOR, RESPONDER])
def test_a_run_is_correct_only_if_both_roles_say_so(wrong: str) -> None:
    said = {"sent": 1, "size": 1, "cpu_seconds": 1.0, "peak_rss_mb": 1.0}
    floor = bench.Floor(1.0, 1.0)

    def summary(**correct: bool) -> dict[str, Any]:
        results = {role: said | {"correct": each} for role, each in correct.items()}
        return bench._summary(SMALL, "cryptography", 1.0, (floor, floor), results)

    assert summary(**{INITIATOR: True, RESPONDER: True})["correct"] is True
    assert summary(**{INITIATOR: True, RESPONDER: True, wrong: False})["correct"] is False


def test_the_made_up_ids_overlap_as_said_and_stand_in_another_order() -> None:
    mine, theirs = SMALL.ids(INITIATOR), SMALL.ids(RESPONDER)

    assert (len(set(mine)), len(set(theirs))) == (40, 30)
    assert sorted(set(mine) & set(theirs)) == SMALL.expected()
    assert len(SMALL.expected()) == 15
    assert mine != sorted(mine) and theirs != sorted(theirs)


@pytest.mark.parametrize(
    ("overlap", "n", "m", "shared"), [(0.0, 10, 20, 0), (1.0, 10, 20, 10), (0.5, 20, 5, 2), (0.3, 10, 10, 3)]
)
def test_the_overlap_is_a_part_of_the_smaller_set(overlap: float, n: int, m: int, shared: int) -> None:
    settings = replace(SMALL, n=n, m=m, overlap=overlap)

    assert len(set(settings.ids(INITIATOR)) & set(settings.ids(RESPONDER))) == shared == len(settings.expected())


def test_the_private_operations_are_counted_as_the_protocols_need_them() -> None:
    assert replace(SMALL, n=10, m=7).operations == 3 * 10 + 7
    assert Bench(protocol=RSA, n=10, m=7, engine="gmpy2").operations == 17


def test_the_cores_are_those_that_both_roles_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "cores", lambda: 8)

    assert replace(SMALL, workers=None).cores == 2
    assert replace(SMALL, workers=3).cores == 6
    assert Bench(protocol=RSA, workers=1).cores == 2
    assert Bench(protocol=RSA).cores == 8


def test_the_floor_adds_what_all_timers_do_at_once() -> None:
    class Timer(Child):
        def __init__(self, rate: float) -> None:
            self._rate = rate

        def tell(self, **what: object) -> None:
            pass

        def hear(self, timeout_s: float) -> dict[str, Any]:
            return {"done": 100, "seconds": 100 / self._rate, "cpu_seconds": 0.5}

    floor = bench._floor([Timer(100), Timer(50)], replace(SMALL, n=400, m=300), "cryptography")

    assert floor.seconds == pytest.approx(1500 / 150)
    assert floor.cpu_seconds == pytest.approx(1500 * 0.005)


def test_a_floor_is_measured_on_no_more_than_the_operations_of_the_run() -> None:
    ours, theirs = multiprocessing.Pipe()
    settings = replace(SMALL, n=50, m=0, workers=1)
    timer = threading.Thread(target=bench_processes._guarded, args=(bench_processes.time_floor, theirs, settings))
    timer.start()
    for word in ("prepare", "measure"):
        ours.send_bytes(json.dumps({"word": word, "engine": "cryptography"}).encode())
        heard = json.loads(_heard_bytes(ours))
    ours.close()
    timer.join(10)

    assert heard["done"] >= -(-settings.operations // settings.cores)
    assert heard["cpu_seconds"] > 0 and 0.3 <= heard["seconds"] < 5
    assert not timer.is_alive()


def test_of_several_runs_the_one_of_median_ratio_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([3.0, 1.0, 2.0])

    def fake(settings: Bench, *, all_floors: bool, party: object) -> dict[str, Any]:
        ratio = next(ratios)
        return {
            "ratio": ratio,
            "seconds": ratio,
            "floor_seconds": 1.0,
            "floor_range": [1.0, 1.0],
            "cpu_ratio": ratio,
            "correct": ratio != 3.0,
        }

    monkeypatch.setattr(bench, "measure", fake)

    result = repeat(SMALL, 3)

    assert result["ratio"] == 2.0
    assert [run["ratio"] for run in result["runs"]] == [3.0, 1.0, 2.0]
    assert result["correct"] is False  # one run was wrong


@pytest.mark.parametrize(
    "wrong",
    [{"n": -1}, {"m": -1}, {"n": 0, "m": 0}, {"overlap": 1.5}, {"overlap": -0.1}, {"engine": "slide rule"}],
)
def test_what_cannot_be_measured_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        replace(SMALL, **wrong)


def test_no_run_at_all_is_refused() -> None:
    with pytest.raises(BadArgument, match="repeat is 0"):
        repeat(SMALL, 0)


def _fall_silent(pipe: Connection) -> None:
    pipe.recv_bytes()


def _fall_over(pipe: Connection) -> None:
    raise SystemExit(7)


@pytest.mark.processes
def test_a_process_that_says_nothing_or_ends_is_named() -> None:
    with bench_processes.child(_fall_silent, "a sleeper") as silent, pytest.raises(TimeoutError, match="a sleeper"):
        silent.hear(0.05)
    with (
        bench_processes.child(_fall_over, "a weakling") as gone,
        pytest.raises(ConnectionError, match=r"a weakling ended \(exit code 7\)"),
    ):
        gone.hear(20)

"""The same bytes wherever the work is done: in the calling thread, in threads, in processes, on a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import psi
from psi import engines, parallel
from psi.messages import Kind
from psi.oprf import PROTOCOLS
from psi.parallel import LEAST_SLICE, Workers
from tests.psi.helpers import carry, finish, initiator, items_of, key, of_kind, responder

OWN = [f"id-{i}" for i in range(300)]
OTHERS = [f"id-{i}" for i in range(150, 400)]
SHARED = sorted(set(OWN) & set(OTHERS))


def square(number: int) -> int:
    return number * number


def where() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


def fail(number: int) -> None:
    if number % 2:
        raise psi.ComputeFault(f"at {number}")


@given(
    count=st.integers(1, 9),
    total=st.one_of(st.integers(0, 3000), st.integers(0, 16384)),
    given_executor=st.booleans(),
    processes=st.booleans(),
)
def test_slices_cover_everything_once_in_order(count: int, total: int, given_executor: bool, processes: bool) -> None:
    executor = _Recording() if given_executor else None
    slices = Workers(count, executor=executor, processes=processes).slices(total)
    assert [place for part in slices for place in range(total)[part]] == list(range(total))
    assert all(part.stop - part.start >= LEAST_SLICE for part in slices[:-1])
    assert all((part.stop - part.start) % 8 == 0 for part in slices[:-1])
    assert len(slices) <= max(1, 4 * count)
    if count > 1 and total >= 4 * LEAST_SLICE:
        assert len(slices) > 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_keep_the_order_of_the_arguments(count: int) -> None:
    workers = Workers(count)
    assert workers.starmap(square, [(i,) for i in range(50)]) == [i * i for i in range(50)]
    assert workers.starmap(square, []) == []
    workers.close()
    workers.close()


def test_one_worker_and_little_work_need_no_thread_and_no_process() -> None:
    here = (os.getpid(), threading.current_thread().name)
    assert Workers(1).slices(100_000) == [slice(0, 100_000)]
    assert Workers(2).slices(2 * LEAST_SLICE - 1) == [slice(0, 2 * LEAST_SLICE - 1)]
    for workers in (Workers(1), Workers(8), Workers(8, processes=True)):
        assert workers.starmap(where, [()]) == [here]
        assert workers._own is None


def test_without_a_number_rsa_takes_every_core_and_ecdh_the_calling_thread() -> None:
    """Processes are started afresh, which a script has to be ready for."""
    assert Workers().count == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert Workers(processes=True).count == 1
    for protocol, processes in (("rsa", False), ("ecdh", True)):
        for run in (initiator(["a"], protocol=protocol), responder(["a"], protocol=protocol)):
            assert run._workers._processes is processes


def test_threads_and_processes_are_other_than_ours() -> None:
    workers = Workers(2)
    seen = workers.starmap(where, [()] * 20)
    assert all(pid == os.getpid() and name.startswith("psi") for pid, name in seen)
    workers.close()
    workers = Workers(2, processes=True)
    try:
        assert os.getpid() not in {pid for pid, _ in workers.starmap(where, [()] * 4)}
        with pytest.raises(psi.ComputeFault, match="at 1"):
            workers.starmap(fail, [(0,), (1,), (2,)])
        assert workers.starmap(square, [(2,), (3,)]) == [4, 9]  # an error ends no worker
    finally:
        workers.close()


def test_threads_release_pythons_lock_inside_powers() -> None:
    """Without this flag of gmpy2 a second thread would not make anything faster."""

    def after_a_power() -> bool:
        engines.rsa_public(key().n, 65537, "gmpy2")(bytes(255) + b"\2")
        return bool(gmpy2.get_context().allow_release_gil)

    workers = Workers(2)
    assert all(workers.starmap(after_a_power, [()] * 4))
    workers.close()


def test_an_error_reaches_the_caller_and_cancels_what_has_not_begun() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise psi.ComputeFault("at 0")
        go_on.wait(10)

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(psi.ComputeFault, match="at 0"):
            Workers(executor=executor).starmap(work, [(number,) for number in range(20)])
        go_on.set()
    assert begun in ([0], [0, 1])


class _Recording(Executor):
    """Runs at once, in the calling thread, and remembers what was given to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ended = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append(getattr(fn, "__name__", str(fn)))
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ended = True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_given_executor_does_all_the_work_and_is_not_shut_down(protocol: str) -> None:
    left_executor, right_executor = _Recording(), _Recording()
    left = initiator(["a", "b"], protocol=protocol, executor=left_executor, workers=None)
    right = responder(["b", "c"], protocol=protocol, executor=right_executor, workers=None)
    carry(left, right, right.start())
    finish(left, right)
    assert right.intersection == ["b"]
    assert set(left_executor.calls) == {"blind", "_outputs"}
    assert set(right_executor.calls) == {"check", "answer", "_outputs"}
    left.close()
    right.close()
    assert not left_executor.ended and not right_executor.ended


class _Stuck(Executor):
    """A cluster that lost its workers: takes work and never does it."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def test_a_cluster_that_does_nothing_does_not_hang_a_party(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_DEADLINE_S", 0.05)
    left = initiator(["a"], executor=_Stuck())
    with pytest.raises(psi.ComputeFault, match="did not finish a piece of work"):
        list(left.receive(next(responder(["a"]).start())))
    with pytest.raises(psi.UsedTwice):
        left.reveal()


def run_bytes(protocol: str, reveal: str = "both", **where_to: Any) -> list[bytes]:
    """Everything that a run of both parties says, with the work done there; the result is checked too."""
    left = initiator(OWN, protocol=protocol, reveal=reveal, chunk=256, **where_to)
    right = responder(OTHERS, protocol=protocol, reveal=reveal, chunk=200, **where_to)
    try:
        said = carry(left, right, right.start())
        said += finish(left, right)
        assert left.cardinality == len(SHARED)
        if reveal == "both":
            assert left.intersection == right.intersection == SHARED
    finally:
        left.close()
        right.close()
    return said


@cache
def expected_bytes(protocol: str, reveal: str = "both") -> list[bytes]:
    """What it says with all the work done in the calling thread."""
    return run_bytes(protocol, reveal)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Starting these takes longer than any test here."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_and_processes_say_the_same_bytes_as_one_thread(protocol: str, processes: Executor) -> None:
    with ThreadPoolExecutor(3) as threads:
        for executor in (threads, processes):
            assert run_bytes(protocol, executor=executor, workers=None) == expected_bytes(protocol)


def test_workers_of_our_own_say_the_same_bytes_as_one_thread() -> None:
    assert run_bytes("rsa", workers=2) == expected_bytes("rsa")  # threads
    left = initiator(OWN, protocol="ecdh", chunk=256, workers=2)  # processes
    right = responder(OTHERS, protocol="ecdh", chunk=200)
    said = [*carry(left, right, right.start()), *finish(left, right)]
    assert said == expected_bytes("ecdh") and left._workers._own is None


def test_processes_say_the_same_bytes_in_a_run_for_a_number(processes: Executor) -> None:
    assert run_bytes("ecdh", "cardinality", executor=processes) == expected_bytes("ecdh", "cardinality")


def test_a_bad_element_is_named_by_its_position_in_the_run_wherever_it_was_checked() -> None:
    left = initiator(OWN, chunk=256)
    with ThreadPoolExecutor(2) as executor:
        right = responder(["a"], executor=executor)
        first, second = left.receive(next(right.start()))
        right.receive(first)
        elements = items_of(second, 256)
        elements[40] = bytes(256)
        with pytest.raises(psi.BadElement, match="element 296 of the peer"):
            right.receive(second[:35] + b"".join(elements))


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_a_dask_cluster_says_the_same_bytes_as_one_thread(processes: bool) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        for protocol in PROTOCOLS:
            assert run_bytes(protocol, executor=client.get_executor(), workers=None) == expected_bytes(protocol)


# Engines: whatever a party computes with, the other one cannot tell


def _engines(protocol: str) -> tuple[str, ...]:
    return engines.available_rsa(2048) if protocol == "rsa" else engines.available_curve()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_engine_says_the_same_bytes(protocol: str) -> None:
    for engine in (*_engines(protocol), None):
        assert run_bytes(protocol, engine=engine) == expected_bytes(protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_two_engines_find_each_others_ids(protocol: str) -> None:
    for one in _engines(protocol):
        for other in _engines(protocol):
            left = initiator(["a", "b", "c"], protocol=protocol, engine=one)
            right = responder(["b", "c", "d"], protocol=protocol, engine=other)
            said = carry(left, right, right.start())
            finish(left, right)
            assert left.intersection == right.intersection == ["b", "c"]
            assert len(of_kind(said, Kind.TAGS)) == 1

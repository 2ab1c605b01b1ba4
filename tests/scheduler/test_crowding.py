"""Parties that share a machine are told when they take more threads than it has cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heterofed import Settings
from heterofed.cores import cores
from heterofed.scheduler import crowding as module
from heterofed.scheduler.crowding import crowding, is_loopback, on_one_machine
from heterofed.tasks.directory import open_directory
from heterofed.training import threads

PARTY = Path(__file__).resolve().parents[1] / "party.py"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "processes" not in request.keywords:
        monkeypatch.setattr(threads, "cores", lambda: 4)
        monkeypatch.setattr(module, "cores", lambda: 4)


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "tcp://127.0.0.1:7000", "tcp://[::1]:7000", "localhost:7000"])
def test_an_address_of_this_machine_alone_is_one(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:7000", "tcp://[::]:7000", "10.0.0.1:7000", "host.example:7000", "", "inproc"]
)
def test_another_address_is_not(address: str) -> None:
    assert not is_loopback(address)


def at(endpoint: str) -> Any:
    return SimpleNamespace(endpoint=endpoint)


def test_parties_are_on_one_machine_where_the_host_can_be_reached_only_there() -> None:
    assert on_one_machine(at("tcp://127.0.0.1:7000"), "")
    assert on_one_machine(at("tcp://127.0.0.1:7000"), "127.0.0.1:9000")
    assert not on_one_machine(at("tcp://127.0.0.1:7000"), "host.example:443")
    assert not on_one_machine(at("tcp://0.0.0.0:7000"), "")


def test_parties_of_one_process_take_turns_and_are_never_crowded() -> None:
    assert not on_one_machine(SimpleNamespace(), "")  # type: ignore[arg-type]  # as the transports of run_locally


def test_too_many_threads_draw_a_line_that_says_who_and_what_to_set() -> None:
    assert crowding({"host": 4, "c1": 4, "c2": 1}) == (
        "the 3 parties on this machine compute with 9 threads together (host 4, c1 4, c2 1), and it has 4 cores: "
        "they hold each other up. Set HETEROFED_THREADS=1 for each of them"
    )
    assert "HETEROFED_THREADS=2 " in (crowding({"host": 4, "c1": 1}) or "")


@pytest.mark.parametrize(
    "fine", [{"host": 2, "c1": 2}, {"host": 3, "c1": 1}, dict.fromkeys("abcdef", 1), {"host": 4, "c1": 0}]
)
def test_enough_cores_and_threads_that_cannot_be_fewer_draw_none(fine: dict[str, int]) -> None:
    assert crowding(fine) is None


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_a_host_warns_once_of_threads_that_a_variable_has_set() -> None:
    task_id = open_directory(Settings.from_env()).store.create("tiny", ["host", "c1"]).id
    processes = {
        what: subprocess.Popen(
            [sys.executable, str(PARTY), what, task_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HETEROFED_THREADS": str(count)},
        )
        for what, count in (("host", 1), ("collaborator", cores() + 1))
    }
    try:
        said = {what: process.communicate(timeout=60)[0] for what, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()

    assert {what: process.returncode for what, process in processes.items()} == {"host": 0, "collaborator": 0}, said
    line = f"compute with {cores() + 2} threads together (host 1, c1 {cores() + 1}), and it has {cores()} cores"
    assert said["host"].count(line) == 1
    assert "threads together" not in said["collaborator"]

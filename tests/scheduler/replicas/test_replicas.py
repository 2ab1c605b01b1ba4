"""A party with several processes: the same training as with one, named errors at all of them, and resuming."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from heterofed import Settings, run_locally
from heterofed.tasks.directory import Directory, open_directory
from heterofed.tasks.model import TaskStatus
from tests.forked import Forked
from tests.scheduler.replicas.replica_runs import FAILURES, RUNS
from tests.tiny import Collaborator, Host

HERE = Path(__file__).resolve().parent
PARTY = HERE / "replica_party.py"
ENDS_WITHIN_S = 120.0
RUNS_WITHIN_S = 200.0

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def places(port: int) -> dict[str, str]:
    """Return where two processes come together, as torchrun tells it."""
    return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw in the runs of `replica_runs`."""
    folder = tmp_path_factory.mktemp("seen")
    place = {**places(free_port()), "OMP_NUM_THREADS": "1", "HETEROFED_HOME": str(folder)}
    outputs = [folder / f"said_{rank}" for rank in range(2)]
    processes = []
    for rank, output in enumerate(outputs):
        with output.open("w") as file:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "replica_runs.py"), str(folder)],
                    env={**os.environ, **place, "RANK": str(rank)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [each.wait(RUNS_WITHIN_S) for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.wait()
    assert codes == [0, 0], "\n".join(each.read_text() for each in outputs)
    return [json.loads((folder / f"seen_{rank}.json").read_text()) for rank in range(2)]


# --- the same as one process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [*RUNS, "resumed"])
def test_a_party_with_two_processes_trains_as_with_one(run: str, seen: list[dict[str, Any]]) -> None:
    found = seen[0][run]

    assert "error" not in found, found["error"]
    # Both round to bfloat16, whose results depend on how many rows are computed at a time.
    assert found["apart"] <= (1e-2 if "mixed precision" in run else 1e-6)
    ours, alone = (pd.DataFrame(each) for each in found["scores"])
    assert len(ours) == len(alone) >= 2
    assert (ours.iloc[:, -1] == alone.iloc[:, -1]).all()  # the accuracy
    frozen = {"a frozen model": "c1", "a frozen model at the host": "host"}.get(run)
    for party, moved in found["moved"].items():
        idle = 2 if "layer" in run and party == "c1" else len(moved) if party == frozen else 0
        if run == "a layer that is never used" and party == "c1":
            idle = 4
        assert moved.count(0.0) == idle, party


def test_a_resumed_run_did_not_begin_anew(seen: list[dict[str, Any]]) -> None:
    found = seen[0]["resumed"]

    assert 0 < found["batches"] < found["batches_alone"]


def test_a_pass_that_is_begun_anew_has_the_weights_and_rows_of_the_new_one(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["cut off"] == {
        "apart": pytest.approx(0, abs=1e-6),
        "apart_when_weights_moved": pytest.approx(0, abs=1e-6),
    }


def test_other_processes_know_the_ids_of_the_first(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["cut off"] == {"ids": [60, 40, 20]}


# --- failures ---------------------------------------------------------------------------------------------------------

TOLD = {
    "rows that cannot be read": (
        "TemplateError: c1, while training: LoadsBadly.load_batch() raised KeyError (in its process 1 of 2). The "
        "traceback is in the output of c1."
    ),
    "rows that cannot be read at first": (
        "TemplateError: c1, while training: LoadsNothing.load_batch() raised KeyError (in its process 1 of 2). The "
        "traceback is in the output of c1."
    ),
    "rows that cannot be read in the second batch": (
        "TemplateError: c1, while training: LoadsOne.load_batch() raised KeyError (in its process 1 of 2). The "
        "traceback is in the output of c1."
    ),
    "another model": (
        "ConfigError: c1, while training: make_feature_model() made another model than in process 0 (in its process 1 "
        "of 2); expected the same layers, shapes, dtypes and kind of device in all processes of a party."
    ),
    "another form": (
        "EmbeddingError: c1, while training: the feature model gave torch.float64 of shape (rows, [4]) at process 1; "
        "expected torch.float32 of shape (rows, [4]), as at process 0."
    ),
    "a model that raises": (
        "TemplateError: c1, while training: the feature model raised KeyError (in its process 1 of 2). The traceback "
        "is in the output of c1."
    ),
    "batches of its own": (
        "ConfigError: c1: OwnCollaborator chooses its own batches, and this party has 2 processes; expected load_batch "
        "in the place of iterate_*, so that batches can be shared. Write load_batch, or start the script without "
        "torchrun."
    ),
    "other parties": (
        "ConfigError: host: process 1 of 2 is c1 (Collaborator) of task some task, and process 0 is host (Host) of "
        "task some task; expected one party in all processes that torchrun starts together. Start each party by "
        "itself, or without RANK and WORLD_SIZE in its environment."
    ),
    "a check that fails": "ConfigError: c1: there is no table here (in its process 1 of 2). Bring one.",
    "two backward passes": (
        "ConfigError: host, while training, gradient due: the embedding of one batch was differentiated twice; "
        "expected one backward() for each batch, where a party has several processes. Add the losses up and call "
        "backward() once."
    ),
    "a step within backward": (
        "TaskFailed: host, while training: the optimizer of the feature model steps before the "
        "gradients of all processes are there; expected its step after backward()."
    ),
    "another process that is slow": (
        "TaskFailed: c1, while training: its process 1 of 2 has not answered for 1 s; expected all processes of a "
        "party until the task ends, counted from 0. Look at the output of that process; then start all parties again "
        "with recover=True."
    ),
}


@pytest.mark.parametrize("failure", TOLD)
def test_what_goes_wrong_in_one_process_ends_the_task_by_name(failure: str, seen: list[dict[str, Any]]) -> None:
    assert seen[0][failure]["error"] == TOLD[failure]


def test_other_parties_do_not_hear_what_torch_says(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["another process that is slow"]["for_peers"] == (
        "c1, while training: its process 1 of 2 is gone or does not answer. The output of c1 says more."
    )


def test_every_failure_is_looked_at() -> None:
    assert TOLD.keys() == {*FAILURES, "batches of its own", "other parties"}


def test_the_other_processes_of_a_party_that_gives_up_say_where_to_look(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["batches of its own"]["error"] == (
        "TaskAborted: c1: process 0 of this party has ended the task. Its output says why."
    )


def test_the_process_that_fails_says_so_too(seen: list[dict[str, Any]]) -> None:
    found = seen[1]["rows that cannot be read"]["error"]

    assert found == "TemplateError: c1: LoadsBadly.load_batch() raised KeyError. The traceback is in the output of c1."


# --- torchrun ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Directory:
    return open_directory(Settings.from_env())


@pytest.fixture
def task_id(directory: Directory) -> str:
    return directory.store.create("tiny", ["host", "c1"]).id


# torchrun and what it starts import torch one after the other, so the host waits for them; on two cores that have
# other work besides for more than the 20 seconds that would do elsewhere.
SURROUNDINGS = {"OMP_NUM_THREADS": "1", "HETEROFED_PROGRESS": "plain", "HETEROFED_GATHER_TIMEOUT_S": "100"}


def end(process: Forked | subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; return its exit code and all it has printed."""
    output, _ = process.communicate(timeout=ENDS_WITHIN_S)
    return process.returncode or 0, output


class Starting:
    """Starts processes of parties, and ends them all."""

    def __init__(self) -> None:
        self._one_by_one: list[Forked] = []
        self._by_torchrun: list[subprocess.Popen[str]] = []

    def one(self, script: Path, *words: str, **environment: str) -> Forked:
        """Start one process."""
        self._one_by_one.append(Forked(script, words, {**os.environ, **SURROUNDINGS, **environment}))
        return self._one_by_one[-1]

    def host(self, task_id: str, *words: str) -> Forked:
        """Start a host, which is one process."""
        return self.one(HERE.parents[1] / "party.py", "host", task_id, *words)

    def two(self, what: str, task_id: str, *words: str) -> subprocess.Popen[str]:
        """Let torchrun start a collaborator that is two processes."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        process = subprocess.Popen(
            [sys.executable, *torchrun, str(PARTY), what, task_id, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **SURROUNDINGS},
            start_new_session=True,
        )
        self._by_torchrun.append(process)
        return process

    def end_all(self) -> None:
        """See that none is left."""
        for forked in self._one_by_one:
            forked.kill()
            forked.wait()
        for process in self._by_torchrun:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def start() -> Iterator[Starting]:
    starting = Starting()
    yield starting
    starting.end_all()


def test_a_killed_process_ends_the_task_by_name_and_the_resumed_task_gives_what_single_processes_do(
    task_id: str, tmp_path: Path, start: Starting
) -> None:
    folders = [f"out_dir={str(tmp_path / name)!r}" for name in ("h", "c")]
    host, other = start.host(task_id, folders[0]), start.two("dying", task_id, folders[1])
    (host_code, host_said), (code, said) = end(host), end(other)

    assert host_code != 0 and code != 0
    assert "TaskFailed: c1, while training: its process 1 of 2 is gone" in said, said
    assert "TaskAborted: c1, while training: " in host_said
    assert "its process 1 of 2 is gone or does not answer. The output of c1 says more." in host_said
    assert said.count("c1 takes part in tiny") == 1, "the second process is silent"

    host = start.host(task_id, folders[0], "recover")
    other = start.two("plain", task_id, folders[1], "recover")
    (host_code, host_said), (code, said) = end(host), end(other)

    assert (host_code, code) == (0, 0), host_said + said
    assert said.count("goes on after round 1") == 1, said
    alone = run_locally(Host(out_dir=tmp_path / "h1"), Collaborator(out_dir=tmp_path / "c1"), seed=1)
    for mine, theirs in (
        (tmp_path / "c" / "feature_model_c1.pt", tmp_path / "c1" / "feature_model_c1.pt"),
        (tmp_path / "h" / "infer_model.pt", tmp_path / "h1" / "infer_model.pt"),
    ):
        state, expected = (torch.load(path, weights_only=True) for path in (mine, theirs))
        assert all(torch.allclose(state[name], each, rtol=0, atol=1e-6) for name, each in expected.items())
    scores = [pd.read_csv(next(folder.glob("scores*.csv"))) for folder in (tmp_path / "h", alone.host.out_dir)]
    assert (scores[0]["accuracy"] == scores[1]["accuracy"]).all()
    results = [json.loads((tmp_path / "c" / f"result_{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    assert results[0]["rounds"] == 2


def test_ctrl_c_ends_all_processes_and_tells_the_other_party(
    task_id: str, directory: Directory, start: Starting
) -> None:
    place = places(free_port())
    host = start.host(task_id, "max_rounds=1000")
    first, second = (start.one(PARTY, "slow", task_id, **place, RANK=str(rank)) for rank in range(2))
    deadline = time.monotonic() + ENDS_WITHIN_S
    while directory.find(task_id).status is not TaskStatus.ONGOING:
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.05)
    for each in (first, second, first, second):  # a terminal sends it to all, and torchrun does so once more
        each.send_signal(signal.SIGINT)

    (host_code, host_said), (code, said), (second_code, second_said) = end(host), end(first), end(second)
    assert 0 not in (host_code, code, second_code)
    assert "TaskAborted: c1, while " in host_said
    assert "its user interrupted it" in host_said
    assert said.endswith("\ninterrupted\n"), said
    message, explained = second_said.splitlines()  # torch puts a rank before each
    assert message.endswith("TaskAborted: c1: process 0 of this party has ended the task. Its output says why.")
    assert explained.endswith("See docs/reference/errors.md#taskaborted")

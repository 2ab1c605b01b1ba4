"""What a task says wins over what its parties' code says, and what its record holds afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from heterofed import ConfigError, HeterofedError, Settings, TaskAborted, UnknownTask, run_locally
from heterofed.scheduler import launch
from heterofed.scheduler.base import Scheduler
from heterofed.scheduler.seat import TaskResult
from heterofed.tasks.directory import open_directory
from heterofed.tasks.model import PartyStatus, TaskStatus
from heterofed.tasks.options import TrainerOptions
from heterofed.tasks.store import TaskStore
from heterofed.training.hooks import HookBase
from heterofed.uncertainty import SwagHook
from tests.scheduler.rejoining import Told
from tests.tiny import Collaborator, Host

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("quick_and_exact")]


@pytest.fixture
def store(home: Path) -> TaskStore:
    return TaskStore(home / "tasks.db")


def launched(task_id: str, *parties: Scheduler, recover: Sequence[str] = ()) -> list[TaskResult]:
    """Launch parties in threads of this process, each over a socket of its own, and return their results."""
    results: dict[str, TaskResult] = {}
    errors: list[BaseException] = []

    def run(party: Any) -> None:
        try:
            results[party.feature_key] = party.launch_task(task_id, recover=party.feature_key in recover)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(party,)) for party in parties]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    if errors:
        raise errors[0]
    return [results[party.feature_key] for party in parties]


def told(store: TaskStore, task_id: str, kind: str, party: str | None = None) -> list[int | None]:
    events = store.events(task_id, limit=1000)
    return [each.round for each in events if each.kind == kind and party in (None, each.party)]


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_a_host_trains_the_rounds_that_its_task_says_and_tells_its_user(
    store: TaskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(launch, "make_progress", lambda form, key: Told(key, said))
    task_id = store.create("t", ["host", "c1"], rounds=3).id

    host, other = launched(task_id, Host(max_rounds=2, out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    assert (host.rounds, other.rounds) == (3, 3)
    assert "the task says 3 rounds, so these are trained; host has max_rounds=2" in said


def test_a_task_without_rounds_leaves_them_to_the_host(store: TaskStore, tmp_path: Path) -> None:
    task_id = store.create("t", ["host", "c1"]).id

    host, _ = launched(task_id, Host(max_rounds=2, out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    assert host.rounds == 2


class Endless(Host):
    """Never has enough."""

    def is_task_finished(self) -> bool:
        return False


def test_the_rounds_of_a_task_end_also_a_host_that_never_has_enough(store: TaskStore, tmp_path: Path) -> None:
    task_id = store.create("t", ["host", "c1"], rounds=2).id
    host = Endless(max_rounds=None, out_dir=tmp_path / "h")

    result, _ = launched(task_id, host, Collaborator(out_dir=tmp_path / "c"))

    assert result.rounds == 2


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "log_rounds", "tested"),
    [
        (None, 2, [1, 2, 3]),  # the host's own: the first, every second, the last
        (TrainerOptions(), 0, [1, 2, 3]),
        (TrainerOptions(skip_model_tests=True), 1, []),
        (TrainerOptions(model_test_after_each_round=False), 1, [3]),
        (TrainerOptions(skip_model_tests=True, model_test_after_each_round=False), 1, []),
    ],
    ids=["none", "each", "skip", "last", "skip wins"],
)
def test_a_running_host_obeys_the_options_of_its_task_about_tests(
    store: TaskStore, tmp_path: Path, options: TrainerOptions | None, log_rounds: int, tested: list[int]
) -> None:
    """Item 47: skip, after each round, last only."""
    task_id = store.create("t", ["host", "c1"], options=options).id
    host = Host(max_rounds=3, log_rounds=log_rounds, out_dir=tmp_path / "h")

    result, _ = launched(task_id, host, Collaborator(out_dir=tmp_path / "c"))

    assert told(store, task_id, "TEST_FINISHED") == tested
    assert len(result.metrics["scores"]) == len(tested)


class Asking(Host):
    """Asks for a test of its own after each round."""

    def build_hooks(self) -> list[HookBase]:
        from heterofed.training.hooks import EvalHook

        return [*super().build_hooks(), EvalHook(1, lambda: self.trainer.evaluate("test"), every="round", name="Mine")]


def test_a_hook_that_asks_for_a_test_gets_none_where_the_task_wants_none(store: TaskStore, tmp_path: Path) -> None:
    task_id = store.create("t", ["host", "c1"], options=TrainerOptions(skip_model_tests=True)).id
    host = Asking(max_rounds=2, log_rounds=0, out_dir=tmp_path / "h")

    result, _ = launched(task_id, host, Collaborator(out_dir=tmp_path / "c"))

    assert told(store, task_id, "TEST_FINISHED") == []
    assert len(result.metrics["scores"]) == 0


@pytest.mark.parametrize("delete", [True, False])
def test_checkpoints_of_earlier_rounds_are_deleted_or_kept_at_every_party_as_the_task_says(
    store: TaskStore, tmp_path: Path, delete: bool
) -> None:
    """Item 50."""
    options = TrainerOptions(delete_local_models_after_aggregation=delete)
    task_id = store.create("t", ["host", "c1"], rounds=5, options=options).id

    launched(task_id, Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    for party in ("h", "c"):
        kept = [each.name for each in (tmp_path / party / "checkpoints").glob("model_0*")]
        assert len(kept) == (2 if delete else 5), kept


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_record_of_a_local_task_holds_every_round_test_measurement_and_result(
    store: TaskStore, tmp_path: Path
) -> None:
    task_id = store.create("t", ["host", "c1"], rounds=3).id

    host, _ = launched(task_id, Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    for party in ("host", "c1"):
        assert told(store, task_id, "ROUND_FINISHED", party) == [1, 2, 3]
    assert told(store, task_id, "TEST_FINISHED") == [1, 2, 3]
    assert store.get(task_id).round == 3
    rows = store.metrics(task_id)
    scores = [dict(each.values) for each in rows if each.set == "scores"]
    assert scores == list(host.metrics["scores"].trace())
    for party, peer in (("host", "c1"), ("c1", "host")):
        progress = [each for each in rows if (each.set, each.party) == ("progress", party)]
        assert [(each.row, each.round, each.values["round"]) for each in progress] == [(0, 1, 1), (1, 2, 2), (2, 3, 3)]
        assert [each.values["samples"] for each in progress] == [48, 96, 144]
        assert all(isinstance(each.values["loss"], float) for each in progress)
        time = [each for each in rows if (each.set, each.party) == ("time", party)]
        assert len(time) == 3
        assert {"seconds", "own_s", "wire_s", f"waiting_s/{peer}", "bytes_sent", "bytes_received"} <= set(
            time[0].values
        )
        spent = [
            sum(float(each.values[name] or 0) for name in ("own_s", "wire_s", f"waiting_s/{peer}")) for each in time
        ]
        assert all(
            abs(total - float(each.values["seconds"] or 0)) < 0.05 for total, each in zip(spent, time, strict=True)
        )
    outputs = {(each.party, each.name) for each in store.outputs(task_id)}
    assert outputs == {("host", "scores.csv"), ("host", "report.zip"), ("c1", "report.zip")}
    assert store.output(task_id, "host", "scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()


class SwagHost(Host):
    def build_hooks(self) -> list[HookBase]:
        return [*super().build_hooks(), SwagHook(from_round=2)]


def test_a_party_that_collects_moments_says_so_after_each_round_that_it_did(store: TaskStore, tmp_path: Path) -> None:
    task_id = store.create("t", ["host", "c1"], rounds=3).id

    launched(task_id, SwagHost(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    assert told(store, task_id, "SWAG_FINISHED") == [2, 3]


def test_what_a_run_that_was_cut_off_kept_to_itself_is_told_when_it_goes_on(store: TaskStore, tmp_path: Path) -> None:
    """The first part ran where nobody heard of it, as with a hub that was away when the process was killed."""
    first = store.create("t", ["host", "c1"], rounds=3).id
    launched(first, SwagHost(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))
    for party in ("h", "c"):
        folder = tmp_path / party / "checkpoints"
        (folder / "last_checkpoint").write_text(max(each.name for each in folder.glob("model_0*")))
    second = store.create("t", ["host", "c1"], rounds=4).id

    parties = (SwagHost(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))
    launched(second, *parties, recover=["host", "c1"])

    for kind, party, rounds in [
        ("ROUND_FINISHED", "host", [1, 2, 3, 4]),
        ("ROUND_FINISHED", "c1", [1, 2, 3, 4]),
        ("TEST_FINISHED", "host", [1, 2, 3, 4]),
        ("SWAG_FINISHED", "host", [2, 3, 4]),
    ]:
        assert told(store, second, kind, party) == rounds, (kind, party)
    rows = store.metrics(second)
    assert [(each.row, each.round) for each in rows if each.set == "scores"] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    before = [dict(each.values) for each in store.metrics(first) if each.set == "time"]
    again = [dict(each.values) for each in rows if each.set == "time"]
    assert all(each in again for each in before)  # the figures of then, not of now


class Failing(Host):
    def train_a_batch(self, feature_projection: Any, labels: Any) -> Any:
        if self.current_round == 2:
            raise KeyError("a bug")
        return super().train_a_batch(feature_projection, labels)


@pytest.mark.parametrize("in_one_process", [False, True])
def test_a_local_task_that_begins_again_has_the_record_of_its_new_run_alone(
    store: TaskStore, tmp_path: Path, in_one_process: bool
) -> None:
    task_id = store.create("t", ["host", "c1"], rounds=3, uncertainty="swag").id

    def run(host: Host) -> None:
        parties = host, Collaborator(out_dir=tmp_path / "c")
        if in_one_process:
            run_locally(*parties, task_id=task_id)
        else:
            launched(task_id, *parties)

    with pytest.raises(HeterofedError):
        run(Failing(out_dir=tmp_path / "h", seed=99))
    assert store.get(task_id).round == 1

    run(Host(out_dir=tmp_path / "h"))

    assert store.get(task_id).round == 3
    for party in ("host", "c1"):
        assert told(store, task_id, "ROUND_FINISHED", party) == [1, 1, 2, 3]
        assert told(store, task_id, "SWAG_FINISHED", party) == [1, 1, 2, 3]
        assert told(store, task_id, "RUN_BEGAN", party) == [None]
    host_rows = [each for each in store.metrics(task_id) if each.set == "scores"]
    csv = (tmp_path / "h" / "scores.csv").read_text().splitlines()
    assert [list(map(str, each.values.values())) for each in host_rows] == [line.split(",") for line in csv[1:]]
    assert store.output(task_id, "host", "scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()


def test_with_upload_of_nothing_the_record_holds_states_only(
    store: TaskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETEROFED_UPLOAD", "nothing")
    task_id = store.create("t", ["host", "c1"], rounds=2).id

    launched(task_id, Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))

    assert store.metrics(task_id) == ()
    assert store.outputs(task_id) == ()
    events = store.events(task_id, limit=1000)
    assert all("loss" not in each.body and "scores" not in each.body for each in events)
    assert told(store, task_id, "ROUND_FINISHED", "host") == [1, 2]


def test_a_run_in_one_process_keeps_the_record_of_its_task_too(store: TaskStore, tmp_path: Path) -> None:
    task_id = store.create("t", ["host", "c1"], rounds=3, options=TrainerOptions(model_test_after_each_round=False)).id

    parties = (Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))
    run = run_locally(*parties, task_id=task_id)

    assert run.host.rounds == 3
    task = store.get(task_id)
    assert (task.status, task.round) == (TaskStatus.COMPLETED, 3)
    assert [each.status for each in task.parties] == [PartyStatus.FINISHED] * 2
    assert told(store, task_id, "ROUND_FINISHED", "c1") == [1, 2, 3]
    assert told(store, task_id, "TEST_FINISHED") == [3]
    assert store.output(task_id, "host", "scores.csv") == (tmp_path / "h" / "scores.csv").read_bytes()
    with pytest.raises(ConfigError, match="is COMPLETED"):
        run_locally(Host(), Collaborator(), task_id=task_id)


def test_a_run_in_one_process_for_other_parties_than_its_task_has_is_refused(store: TaskStore) -> None:
    task_id = store.create("t", ["host", "c2"]).id

    with pytest.raises(ConfigError, match="is for host, c2, not for host, c1"):
        run_locally(Host(), Collaborator(), task_id=task_id)


def test_a_run_in_one_process_that_is_no_task_creates_no_store(home: Path, tmp_path: Path) -> None:
    run_locally(Host(out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"), task_id="mine")

    assert not home.exists()


def test_a_task_that_is_cancelled_ends_also_parties_that_never_wait_long(
    store: TaskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waits look at the record only when they take half a second."""
    task_id = store.create("t", ["host", "c1"], rounds=100_000).id

    class Cancelling(Host):
        def train_a_batch(self, feature_projection: Any, labels: Any) -> Any:
            if self.current_round == 3 and store.get(task_id).status is not TaskStatus.CANCELLED:
                store.move(task_id, TaskStatus.CANCELLED, "wrong table")
            return super().train_a_batch(feature_projection, labels)

    with pytest.raises(TaskAborted, match="was cancelled: wrong table"):
        launched(task_id, Cancelling(log_rounds=0, out_dir=tmp_path / "h"), Collaborator(out_dir=tmp_path / "c"))


# --- who may launch ---------------------------------------------------------------------------------------------------


def test_a_task_that_is_unknown_or_refused_by_a_data_check_is_not_launched(store: TaskStore) -> None:
    """Item 61."""
    with pytest.raises(UnknownTask, match="there is no task 'nosuchtask22'"):
        Host().launch_task("nosuchtask22")
    task_id = store.create("t", ["host", "c1"]).id
    store.verify(task_id, "host", False, "Checker: a column is missing")
    with pytest.raises(ConfigError, match="said no: Checker: a column is missing"):
        Host().launch_task(task_id)

    assert open_directory(Settings.from_env()).find(task_id).party("host").status is PartyStatus.REJECTED

"""`heterofed task …` says the same words on this machine and with a hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from heterofed.config import Settings
from heterofed.errors import ConfigError, HubUnreachable, NotAllowed, UnknownTask
from heterofed.tasks import Measurement, ReportKind, Tasks, TaskStatus, TrainerOptions, open_directory
from heterofed.tasks.client import HubClient
from tests.cli.words import heterofed, well
from tests.hub.running import RunningHub, running_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(params=["here", "hub"])
def tasks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, hub: RunningHub) -> Iterator[Tasks]:
    """Where the commands look."""
    if request.param == "here":
        yield open_directory(Settings.from_env()).store
        return
    monkeypatch.setenv("HETEROFED_HUB", hub.url)
    monkeypatch.setenv("HETEROFED_TOKEN", hub.token)
    client = HubClient(hub.url, hub.token)
    yield client
    client.close()


@pytest.fixture
def task_id(tasks: Tasks) -> str:
    """A task in its second round."""
    task_id = well("task", "create", "--name", "credit [x]", "--parties", "bank,shop", "--rounds", "3").lines[-1]
    tasks.claim_host(task_id, "bank")
    tasks.move(task_id, TaskStatus.GATHERING)
    tasks.move(task_id, TaskStatus.ONGOING)
    tasks.report(task_id, "bank", ReportKind.ROUND_FINISHED, 1)
    rows = [Measurement("test", row, 1, {"auc": 0.5 + row / 100, "note": f"[row] {row}"}) for row in range(12)]
    tasks.put_metrics(task_id, "bank", [*rows, Measurement("other", 0, 1, {"x": math.nan})])
    tasks.put_output(task_id, "bank", "test.csv", b"auc\n0.5\n")
    tasks.put_output(task_id, "bank", "report.zip", b"zip")
    return task_id


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), None),
        (("--tests", "each"), TrainerOptions()),
        (("--tests", "last"), TrainerOptions(model_test_after_each_round=False)),
        (("--tests", "none"), TrainerOptions(skip_model_tests=True)),
        (("--checkpoints", "all"), TrainerOptions(delete_local_models_after_aggregation=False)),
        (("--checkpoints", "new"), TrainerOptions()),
    ],
)
def test_what_is_tested_and_kept_can_be_said_when_a_task_is_created(
    words: tuple[str, ...], options: TrainerOptions | None
) -> None:
    task_id = well("task", "create", "--parties", "a,b", "--rounds", "4", *words).lines[-1]
    task = open_directory(Settings.from_env()).find(task_id)
    assert (task.options, task.rounds) == (options, 4)


def test_moments_are_collected_where_it_is_said_when_a_task_is_created(tasks: Tasks) -> None:
    task_id = well("task", "create", "--parties", "a,b", "--uncertainty", "swag").lines[-1]

    assert tasks.get(task_id).uncertainty == "swag"
    assert "uncertainty by SWAG" in well("task", "show", task_id).out


@pytest.mark.parametrize(
    "words", [("--tests", "some"), ("--checkpoints", "no"), ("--rounds", "0"), ("--uncertainty", "dropout")]
)
def test_what_a_task_cannot_have_is_refused(words: tuple[str, str]) -> None:
    assert heterofed("task", "create", "--parties", "a,b", *words).code != 0
    assert open_directory(Settings.from_env()).store.list() == ()


def test_a_task_is_shown_and_listed_with_how_far_it_is(tasks: Tasks, task_id: str) -> None:
    shown = well("task", "show", task_id).out
    assert "credit [x]" in shown
    assert "round 1 of 3 is finished" in shown
    assert "credit [x]" in well("task", "list").out


def test_events_are_shown_in_order_for_people_and_for_programs(tasks: Tasks, task_id: str) -> None:
    lines = well("task", "events", task_id).lines
    assert lines[0].endswith("TASK_CREATED   created for bank, shop")
    assert lines[-1].endswith("ROUND_FINISHED bank finished round 1")
    said = [json.loads(line) for line in well("task", "events", "--json", task_id).lines]
    assert [each["kind"] for each in said][-1] == "ROUND_FINISHED"
    assert len(well("task", "events", "--after", str(said[-2]["number"]), task_id).lines) == 1


def test_metrics_are_shown_by_set_the_newest_rows_last(tasks: Tasks, task_id: str) -> None:
    shown = well("task", "metrics", task_id).out
    assert "test of bank" in shown and "other of bank" in shown and "nan" in shown
    assert "[row] 11" in shown and "[row] 2" in shown and "[row] 1 " not in shown
    rows = [
        json.loads(line) for line in well("task", "metrics", "--set", "test", "--last", "2", "--json", task_id).lines
    ]
    assert [(row["party"], row["set"], row["row"]) for row in rows] == [("bank", "test", 10), ("bank", "test", 11)]
    assert "nothing was measured" in well("task", "metrics", "--party", "shop", task_id).err
    assert isinstance(heterofed("task", "metrics", "--party", "nobody", task_id).error, ConfigError)


def test_outputs_are_listed_and_downloaded_byte_for_byte(tasks: Tasks, task_id: str, tmp_path: Path) -> None:
    listed = well("task", "outputs", task_id).out
    assert "report.zip" in listed and "test.csv" in listed
    saved = well("task", "download", "--out", "results", task_id).lines
    assert saved == [f"results/{task_id}/bank/report.zip", f"results/{task_id}/bank/test.csv"]
    assert (tmp_path / saved[1]).read_bytes() == b"auc\n0.5\n"
    assert well("task", "download", task_id, "test.csv").lines == [f"{task_id}/bank/test.csv"]
    for words in ((task_id, "nosuch.csv"), ("--party", "shop", task_id)):
        assert "has no such file; expected one of those that" in str(heterofed("task", "download", *words).error)


def test_a_task_is_launched_once_and_cancelled_for_good(tasks: Tasks) -> None:
    task_id = well("task", "create", "--parties", "bank,shop").lines[-1]
    assert f"task {task_id} is launched" in well("task", "start", task_id).err
    assert tasks.get(task_id).launched_at is not None
    assert "is launched already" in str(heterofed("task", "start", task_id).error)
    well("task", "cancel", "--reason", "wrong table", task_id)
    assert tasks.get(task_id).reason == "wrong table"
    assert "launched 20" in well("task", "show", task_id).out


def test_an_unknown_task_is_unknown_to_every_command(tasks: Tasks) -> None:
    for words in (
        *(("show",), ("start",), ("cancel",), ("events",), ("metrics",), ("outputs",), ("download",)),
        *(("invite", "--endpoint", "h:1"),),
    ):
        said = heterofed("task", *words, "nosuchtask", *(("shop",) if words[0] == "invite" else ()))
        assert isinstance(said.error, UnknownTask), words


def test_a_hub_that_is_away_or_does_not_know_the_token_is_told(hub: RunningHub) -> None:
    unknown = "wrong"
    away = heterofed("task", "list", HETEROFED_HUB="http://127.0.0.1:9", HETEROFED_TOKEN=unknown)
    assert isinstance(away.error, HubUnreachable)
    wrong = heterofed("task", "list", HETEROFED_HUB=hub.url, HETEROFED_TOKEN=unknown)
    assert isinstance(wrong.error, NotAllowed)
    assert unknown not in str(wrong.error)


def test_more_events_than_one_call_gives_are_all_shown(
    tasks: Tasks, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = well("task", "events", task_id).lines
    monkeypatch.setattr("heterofed.cli.course._AT_ONCE", 2)
    assert well("task", "events", task_id).lines == whole
    assert len(whole) > 3

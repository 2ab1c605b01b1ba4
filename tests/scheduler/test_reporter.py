"""What a party says about its task: in order, once, without waiting, and also when the hub is away for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heterofed.errors import HubUnreachable, TaskAborted
from heterofed.scheduler import reporter as module
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.reporter import Reporter, Saying
from heterofed.tasks.course import Measurement, ReportKind
from heterofed.tasks.directory import Directory
from heterofed.tasks.guests import GuestList
from heterofed.tasks.model import PartyStatus, TaskStatus
from tests.scheduler.away import Door, door_of, wait_until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_OFF_S", (0.02,))


@pytest.fixture
def place(home: Path) -> tuple[Door, Directory]:
    return door_of(home)


@pytest.fixture
def door(place: tuple[Door, Directory]) -> Door:
    return place[0]


@pytest.fixture
def directory(place: tuple[Door, Directory]) -> Directory:
    return place[1]


@pytest.fixture
def task_id(door: Door) -> str:
    made = door.store.create("t", ["host", "c1"])
    door.store.claim_host(made.id, "host")
    door.store.set_party(made.id, "c1", role="collaborator")
    return made.id


@pytest.fixture
def record(directory: Directory, task_id: str) -> Iterator[StoreRecord]:
    made = StoreRecord(directory, directory.find(task_id), "host")
    made.reporter._tick_s = made.reporter._poll_s = 0.02
    yield made
    made.reporter.close(5.0)


def kinds(door: Door, task_id: str) -> list[tuple[str, int | None]]:
    return [
        (each.kind, each.round)
        for each in door.store.events(task_id, limit=1000)
        if each.kind in {kind.value for kind in ReportKind}
    ]


def test_what_a_party_says_while_the_hub_is_away_arrives_later_in_order_and_once(
    record: StoreRecord, door: Door, task_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that is down for a while stops nothing, and misses nothing."""
    caplog.set_level("INFO")
    record.task_is(TaskStatus.GATHERING)
    wait_until(lambda: door.store.get(task_id).status is TaskStatus.GATHERING)
    door.shut = True
    began = time.perf_counter()
    record.task_is(TaskStatus.ALIGNING)
    record.task_is(TaskStatus.ONGOING)
    for round_ in (1, 2, 3):
        record.measured("scores", round_ - 1, round_, {"accuracy": 0.5})
        record.test_finished(round_, {"scores/accuracy": 0.5})
        record.round_finished(round_, {"loss": 0.1})
        record.log(f"round {round_}")
    assert time.perf_counter() - began < 1.0
    wait_until(lambda: record.reporter.away)
    time.sleep(0.1)
    assert kinds(door, task_id) == []

    door.shut = False
    wait_until(lambda: len(door.store.logs(task_id)) == 3)

    assert kinds(door, task_id) == [
        (kind, round_) for round_ in (1, 2, 3) for kind in ("TEST_FINISHED", "ROUND_FINISHED")
    ]
    assert door.store.get(task_id).status is TaskStatus.ONGOING
    assert [each.row for each in door.store.metrics(task_id)] == [0, 1, 2]
    assert [each.text for each in door.store.logs(task_id)] == ["round 1", "round 2", "round 3"]
    said = [each for each in caplog.messages if "reached" in each]
    assert len(said) == 2
    assert "is not reached; training goes on" in said[0]
    assert "is reached again" in said[1]


def test_what_arrives_and_is_not_answered_counts_once(record: StoreRecord, door: Door, task_id: str) -> None:
    door.deaf = True
    record.task_is(TaskStatus.GATHERING)
    record.measured("scores", 0, 1, {"accuracy": 0.5})
    record.round_finished(1)
    record.log("a line")
    wait_until(lambda: record.reporter.away)
    time.sleep(0.1)

    door.deaf = False
    record.log("another line")
    wait_until(lambda: [each.text for each in door.store.logs(task_id)][-1:] == ["another line"])

    assert kinds(door, task_id) == [("ROUND_FINISHED", 1)]
    assert len(door.store.metrics(task_id)) == 1
    assert [each.text for each in door.store.logs(task_id)] == ["a line", "another line"]


def test_a_line_of_the_log_that_arrived_and_was_not_answered_is_not_written_twice(
    record: StoreRecord, door: Door, task_id: str
) -> None:
    door.deaf = True
    record.log("a line")
    wait_until(lambda: record.reporter.away)
    door.deaf = False
    record.log("another line")

    assert record.reporter.close()
    assert [each.text for each in door.store.logs(task_id)] == ["a line", "another line"]


def test_only_the_reporters_own_thread_talks_to_the_hub(record: StoreRecord, door: Door) -> None:
    """So no call of training can wait for it."""
    door.threads.clear()

    record.party_is(PartyStatus.ONLINE)
    record.task_is(TaskStatus.GATHERING)
    record.round_finished(1)
    record.look()
    record.is_completed()
    record.withdraw()
    record.reporter.close()

    assert door.threads == {"heterofed record host"}


def test_a_row_costs_training_microseconds_and_many_rows_travel_together(
    record: StoreRecord, door: Door, task_id: str
) -> None:
    rows = 2000
    began = time.perf_counter()
    for row in range(rows):
        record.measured("batches", row, 1, {"loss": 0.5})
    each_s = (time.perf_counter() - began) / rows

    assert record.reporter.close()
    assert each_s < 100e-6  # some 3 µs on a quiet machine
    assert len(door.store.metrics(task_id)) == rows
    assert door.calls.count("put_metrics") <= rows / 50


def test_a_hub_that_stays_away_is_waited_for_at_the_end_only_so_long_and_that_is_said(
    record: StoreRecord, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.shut = True
    record.round_finished(1)
    record.round_finished(2)

    began = time.monotonic()
    arrived = record.reporter.close(0.5)

    assert not arrived
    assert 0.4 < time.monotonic() - began < 10
    assert "2 things that host had to say of task" in caplog.text
    assert "did not arrive" in caplog.text


def test_a_queue_that_grows_too_long_leaves_out_rows_and_says_so_but_no_report(
    record: StoreRecord,
    door: Door,
    task_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    door.shut = True
    record.round_finished(1)
    wait_until(lambda: record.reporter.away)
    for row in range(30):
        record.measured("batches", row, 1, {"loss": 0.5})
    record.log("a line")
    record.round_finished(2)
    door.shut = False

    assert record.reporter.close()

    assert kinds(door, task_id) == [("ROUND_FINISHED", 1), ("ROUND_FINISHED", 2)]
    assert 9 <= len(door.store.metrics(task_id)) <= 11
    assert "rows and lines of the log were left out" in caplog.text


@pytest.mark.parametrize("deaf", [False, True])
def test_a_run_that_begins_anew_is_said_before_what_it_tells_and_however_often_it_is_sent_forgets_only_what_was_before(
    directory: Directory, door: Door, task_id: str, deaf: bool
) -> None:
    door.store.put_metrics(task_id, "host", [Measurement("scores", row, 1, {"accuracy": 0.1}) for row in range(3)])
    door.store.report(task_id, "host", ReportKind.ROUND_FINISHED, 1)
    record = StoreRecord(directory, directory.find(task_id), "host")
    record.reporter._tick_s = record.reporter._poll_s = 0.02
    door.deaf = deaf

    record.begins_anew()
    record.measured("scores", 0, 1, {"accuracy": 0.5})
    record.round_finished(1)
    if deaf:
        wait_until(lambda: door.calls.count("begin_anew") > 2)
        door.deaf = False

    assert record.reporter.close()
    assert [each.values for each in door.store.metrics(task_id)] == [{"accuracy": 0.5}]
    assert kinds(door, task_id) == [("ROUND_FINISHED", 1)] * 2
    assert door.store.get(task_id).round == 1


def test_a_run_that_goes_back_to_its_start_in_one_process_tells_everything_again(
    record: StoreRecord, door: Door, task_id: str
) -> None:
    for accuracy in (0.1, 0.2):
        record.begins_anew()
        record.measured("scores", 0, 1, {"accuracy": accuracy})
        record.round_finished(1)

    assert record.reporter.close()
    assert [each.values for each in door.store.metrics(task_id)] == [{"accuracy": 0.2}]
    assert kinds(door, task_id) == [("ROUND_FINISHED", 1)] * 2
    assert door.store.get(task_id).round == 1


def test_what_the_hub_refuses_for_good_is_left_out_with_one_warning_and_the_rest_goes_on(
    record: StoreRecord, door: Door, task_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    record.measured("scores", 0, 1, {"accuracy": 0.5})
    record.reporter.measured(Measurement("no such name!", 0, 1, {"a": 1}))
    record.measured("scores", 1, 2, {"accuracy": 0.6})
    record.task_is(TaskStatus.COMPLETED)  # from CREATED: that is no move
    record.task_is(TaskStatus.COMPLETED)
    record.round_finished(1)

    assert record.reporter.close()

    assert [each.row for each in door.store.metrics(task_id)] == [0, 1]
    assert kinds(door, task_id) == [("ROUND_FINISHED", 1)]
    assert caplog.text.count("the task's record was not updated") == 1


def test_an_error_of_ours_in_the_thread_costs_one_thing_and_not_the_rest(
    record: StoreRecord, door: Door, task_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(tasks: object) -> None:
        raise KeyError("oops")

    record.reporter.say(Saying(wrong, "it"))
    record.round_finished(1)

    assert record.reporter.close()
    assert kinds(door, task_id) == [("ROUND_FINISHED", 1)]
    assert "was left out" in caplog.text


def test_the_end_of_another_party_and_a_cancelled_task_are_seen_by_polling(
    record: StoreRecord, door: Door, task_id: str
) -> None:
    record.look()
    door.store.set_party(task_id, "c1", status=PartyStatus.FAILED, reason="its disk is full")
    wait_until(lambda: record.task().party("c1").status is PartyStatus.FAILED)
    with pytest.raises(TaskAborted, match="its disk is full"):
        record.look()

    door.store.move(task_id, TaskStatus.CANCELLED, "wrong table")
    wait_until(lambda: record.task().status is TaskStatus.CANCELLED)
    with pytest.raises(TaskAborted, match="was cancelled: wrong table"):
        record.look()


def test_a_failure_that_is_older_than_this_party_ends_nothing(directory: Directory, door: Door, task_id: str) -> None:
    door.store.set_party(task_id, "c1", status=PartyStatus.FAILED, reason="yesterday")
    record = StoreRecord(directory, directory.find(task_id), "host")

    record.look()
    door.store.set_party(task_id, "c1", status=PartyStatus.ONLINE)
    wait_until(lambda: record.task().party("c1").status is PartyStatus.ONLINE)
    record.look()
    door.store.set_party(task_id, "c1", status=PartyStatus.FAILED, reason="today")
    wait_until(lambda: record.task().party("c1").status is PartyStatus.FAILED)

    with pytest.raises(TaskAborted, match="today"):
        record.look()
    record.reporter.close()


def test_looking_while_the_hub_is_away_changes_nothing(record: StoreRecord, door: Door) -> None:
    record.look()
    door.shut = True
    wait_until(lambda: record.reporter.away)

    record.look()
    assert not record.is_completed()


def test_what_cannot_be_said_of_a_cancelled_task_is_no_news(
    record: StoreRecord, door: Door, task_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    door.store.move(task_id, TaskStatus.CANCELLED)

    record.task_is(TaskStatus.FAILED, "the task was cancelled")
    record.round_finished(3)

    assert record.reporter.close()
    assert caplog.messages == []
    assert door.store.get(task_id).status is TaskStatus.CANCELLED


def test_a_failure_of_the_host_is_reported_with_its_reason(record: StoreRecord, door: Door, task_id: str) -> None:
    record.task_is(TaskStatus.GATHERING)
    record.round_finished(2)
    record.task_is(TaskStatus.FAILED, "the loss is NaN")

    assert record.reporter.close()
    failed = [each for each in door.store.events(task_id) if each.kind == "TASK_FAILED"]
    assert [(each.round, each.body["reason"]) for each in failed] == [(2, "the loss is NaN")]


def test_a_lost_party_is_reported_by_name(record: StoreRecord, door: Door, task_id: str) -> None:
    record.round_finished(1)
    record.lost("c1", "its link is down")

    assert record.reporter.close()
    lost = [each for each in door.store.events(task_id) if each.kind == "PARTY_LOST"]
    assert [(each.round, each.body["party"]) for each in lost] == [(1, "c1")]


def test_numbers_that_json_cannot_hold_are_left_blank_in_reports(record: StoreRecord, door: Door, task_id: str) -> None:
    record.test_finished(1, {"scores/loss": float("nan"), "scores/accuracy": 0.5})

    assert record.reporter.close()
    [event] = [each for each in door.store.events(task_id) if each.kind == "TEST_FINISHED"]
    assert event.body["scores"] == {"scores/loss": None, "scores/accuracy": 0.5}


@pytest.mark.parametrize(
    ("upload", "host", "given"),
    [
        ("nothing", True, set()),
        ("metrics", True, {"scores.csv", "report.zip"}),
        ("all", True, {"scores.csv", "report.zip", "infer_model.pt", "model.zip"}),
        ("all", False, {"scores.csv", "report.zip"}),
    ],
)
def test_results_are_given_to_the_hub_as_the_settings_say_and_a_collaborators_model_never(
    directory: Directory, door: Door, task_id: str, tmp_path: Path, upload: str, host: bool, given: set[str]
) -> None:
    files = tuple(
        tmp_path / name for name in ("scores.csv", "metrics.json", "infer_model.pt", "report.zip", "model.zip")
    )
    for each in files:
        each.write_bytes(each.name.encode())
    record = StoreRecord(directory, directory.find(task_id), "host", upload=upload)

    record.measured("scores", 0, 1, {"accuracy": 0.5})
    record.test_finished(1, {"scores/accuracy": 0.5})
    record.outputs(files, host=host)

    assert record.reporter.close()
    assert {each.name for each in door.store.outputs(task_id)} == given
    assert all(door.store.output(task_id, "host", name) == name.encode() for name in given)
    assert len(door.store.metrics(task_id)) == (0 if upload == "nothing" else 1)
    [event] = [each for each in door.store.events(task_id) if each.kind == "TEST_FINISHED"]
    assert ("scores" in event.body) is (upload != "nothing")


def test_a_result_that_is_gone_costs_a_warning(
    record: StoreRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record.output(tmp_path / "gone.csv")

    assert record.reporter.close()
    assert caplog.messages == ["gone.csv was not given to the task's record: No such file or directory"]


def test_a_store_of_this_machine_is_read_and_written_at_once_and_not_tried_again(
    home: Path, task_id: str, door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    near = Directory(door.store, home)
    record = StoreRecord(near, near.find(task_id), "host")
    record.task_is(TaskStatus.GATHERING)
    assert door.store.get(task_id).status is TaskStatus.GATHERING
    assert record.task().status is TaskStatus.GATHERING

    for each in home.glob("tasks.db*"):
        each.unlink()
    record.round_finished(1)

    assert record.reporter.close(2.0)
    assert "ROUND_FINISHED of round 1 was not noted" in caplog.text


def test_a_reporter_that_nothing_is_said_to_has_no_thread(directory: Directory, task_id: str) -> None:
    made = Reporter(directory, directory.find(task_id), "host", near=True)

    assert made.close()
    assert made._thread is None


# --- the door of a host whose task is kept by a hub -------------------------------------------------------------------

KEY, OTHER = b"K" * 40, b"O" * 40


def test_a_key_that_was_listed_comes_in_while_the_hub_is_away_and_another_does_not(
    record: StoreRecord, directory: Directory, door: Door, task_id: str
) -> None:
    door.store.set_party(task_id, "c1", public_key=KEY)
    guests = GuestList(directory, task_id, known=record.reporter.known)
    wait_until(lambda: record.task().party("c1").public_key == KEY)
    door.shut = True

    assert guests.party_of(KEY) == "c1"
    with pytest.raises(HubUnreachable):
        guests.party_of(OTHER)


def test_a_hub_that_is_away_is_asked_about_strangers_only_now_and_then(
    record: StoreRecord, directory: Directory, door: Door, task_id: str
) -> None:
    now = [0.0]
    guests = GuestList(directory, task_id, lambda: now[0], known=record.reporter.known)
    record.reporter.close()
    door.shut = True
    door.calls.clear()
    for _ in range(20):
        with pytest.raises(HubUnreachable):
            guests.party_of(OTHER)
    assert len(door.calls) == 1

    door.shut = False
    now[0] = 6.0
    door.store.set_party(task_id, "c1", public_key=OTHER)
    assert guests.party_of(OTHER) == "c1"


def test_a_key_that_is_new_at_the_hub_is_asked_for_at_once(
    record: StoreRecord, directory: Directory, door: Door, task_id: str
) -> None:
    record.reporter._poll_s = 60.0
    guests = GuestList(directory, task_id, known=record.reporter.known)
    record.look()
    door.store.set_party(task_id, "c1", public_key=KEY)

    assert guests.party_of(KEY) == "c1"


def test_a_cancelled_task_lets_nobody_in_that_the_hub_has_listed(
    record: StoreRecord, directory: Directory, door: Door, task_id: str
) -> None:
    door.store.set_party(task_id, "c1", public_key=KEY)
    door.store.move(task_id, TaskStatus.CANCELLED)
    wait_until(lambda: record.task().status is TaskStatus.CANCELLED)

    assert GuestList(directory, task_id, known=record.reporter.known).party_of(KEY) is None


def test_a_wrong_row_among_good_ones_is_named_once(record: StoreRecord, caplog: pytest.LogCaptureFixture) -> None:
    for row in range(3):
        record.reporter.measured(Measurement("bad name!", row, 1, {"a": 1}))

    assert record.reporter.close()
    assert 1 <= len([each for each in caplog.messages if each.startswith("rows of metrics were not kept")]) <= 3

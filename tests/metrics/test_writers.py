from __future__ import annotations

import errno
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heterofed.errors import ConfigError, OutputError
from heterofed.metrics import MetricsTable
from heterofed.metrics.storage import EventStorage
from heterofed.metrics.tensorboard import TensorboardWriter
from heterofed.metrics.writers import (
    CommonMetricPrinter,
    CSVWriter,
    EventWriter,
    JSONWriter,
)
from tests.chaos.smalldisk import CannotMount, small_disk


@pytest.fixture
def storage() -> Iterator[EventStorage]:
    with EventStorage() as storage:
        yield storage


def lines_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def train(
    storage: EventStorage,
    writer: EventWriter,
    iterations: range,
    *,
    period: int = 20,
    batches: int = 1000,
    evaluate_every: int = 0,
) -> None:
    """Put what a run puts, with rounds of so many batches, and write as a hook does."""
    for number in iterations:
        storage.round, storage.iter = number // batches + 1, number
        storage.put_scalar("loss", number)
        storage.put_scalar("lr", number / 10, smoothing_hint=False)
        if evaluate_every and (number + 1) % evaluate_every == 0:
            storage.put_scalar("test/accuracy", number, smoothing_hint=False)
        if (number + 1) % period == 0:
            writer.write()
        if (number + 1) % batches == 0:
            storage.put_scalar("round/loss", storage.round, smoothing_hint=False)


# -- metrics.json ----------------------------------------------------------------------------------------------


def test_metrics_json_has_one_sorted_line_for_each_iteration_with_the_smoothed_values(
    storage: EventStorage, tmp_path: Path
) -> None:
    writer = JSONWriter(tmp_path / "run" / "metrics.json", window_size=5)
    train(storage, writer, range(40))
    writer.close()
    assert (tmp_path / "run" / "metrics.json").read_text().splitlines() == [
        '{"iteration": 19, "loss": 17.0, "lr": 1.9, "round": 1}',
        '{"iteration": 39, "loss": 37.0, "lr": 3.9, "round": 1}',
    ]


def test_what_comes_after_a_write_gets_into_the_line_of_its_iteration(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    train(storage, writer, range(20))
    assert lines_of(path) == [{"iteration": 19, "loss": 9.5, "lr": 1.9, "round": 1}]
    storage.put_scalar("round/loss", 0.5, smoothing_hint=False)
    writer.write()
    storage.step()
    storage.put_scalar("loss", 30)
    writer.write()
    assert lines_of(path) == [
        {"iteration": 19, "loss": 9.5, "lr": 1.9, "round": 1, "round/loss": 0.5},
        {"iteration": 20, "loss": 10.5, "round": 1},
    ]
    storage.put_scalar("test_results/accuracy", 0.75, smoothing_hint=False)  # the final evaluation
    writer.close()
    assert lines_of(path)[1:] == [{"iteration": 20, "loss": 10.5, "round": 1, "test_results/accuracy": 0.75}]


def test_a_last_line_that_gets_shorter_leaves_nothing_of_the_longer_one(storage: EventStorage, tmp_path: Path) -> None:
    writer = JSONWriter(tmp_path / "metrics.json")
    for value in (0.123456789, 2):
        storage.put_scalar("accuracy", value, smoothing_hint=False)
        writer.write()
    writer.close()
    assert lines_of(tmp_path / "metrics.json") == [{"accuracy": 2.0, "iteration": 0, "round": 0}]


def test_what_comes_after_close_gets_into_the_last_line_too(storage: EventStorage, tmp_path: Path) -> None:
    writer = JSONWriter(tmp_path / "metrics.json")
    train(storage, writer, range(20))
    writer.close()
    storage.put_scalar("test_results/accuracy", 0.75, smoothing_hint=False)
    writer.close()
    (line,) = lines_of(tmp_path / "metrics.json")
    assert (line["loss"], line["test_results/accuracy"]) == (9.5, 0.75)


def test_no_line_comes_twice_however_often_it_is_written_and_closed(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    for number in range(3):
        storage.iter = number
        storage.put_scalar("loss", 1)
        writer.write()
        writer.write()
    writer.close()
    writer.close()
    writer.write()
    writer.close()
    assert [line["iteration"] for line in lines_of(path)] == [0, 1, 2]


def test_a_scalar_that_is_not_put_any_more_is_not_written_again(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    storage.put_scalar("once", 1)
    train(storage, writer, range(40))
    writer.close()
    assert [sorted(line) for line in lines_of(path)] == [
        ["iteration", "once", "round"],
        ["iteration", "loss", "lr", "round"],
        ["iteration", "loss", "lr", "round"],
    ]


@pytest.mark.parametrize("batches", [1, 3, 7])
def test_the_results_of_every_round_are_written_when_rounds_are_shorter_than_the_period(
    storage: EventStorage, tmp_path: Path, batches: int
) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    train(storage, writer, range(42), batches=batches)
    writer.close()
    ends = [line for line in lines_of(path) if "round/loss" in line]
    assert [(line["iteration"], line["round"], line["round/loss"]) for line in ends] == [
        (number * batches - 1, number, number) for number in range(1, 42 // batches + 1)
    ]
    # the rate, which comes with every batch, is not written for each but at the end of each round and at writes
    rates = {line["iteration"]: line["lr"] for line in lines_of(path) if "lr" in line}
    assert rates == {number: number / 10 for number in {19, 39, 41} | {end["iteration"] for end in ends}}


def test_every_evaluation_is_written_when_they_come_faster_than_the_period(
    storage: EventStorage, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    train(storage, writer, range(60), evaluate_every=5)
    writer.close()
    found = [(line["iteration"], line["test/accuracy"]) for line in lines_of(path) if "test/accuracy" in line]
    assert found == [(number, float(number)) for number in range(4, 60, 5)]
    assert len([line for line in lines_of(path) if "loss" in line]) == 3


def test_of_two_values_in_one_iteration_the_later_one_is_written(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    for value in (0.1, 0.2):
        storage.put_scalar("accuracy", value, smoothing_hint=False)
    storage.iter = 30
    storage.put_scalar("accuracy", 0.3, smoothing_hint=False)
    writer.write()
    storage.put_scalar("accuracy", 0.4, smoothing_hint=False)
    writer.close()
    assert [(line["iteration"], line["accuracy"]) for line in lines_of(path)] == [(0, 0.2), (30, 0.4)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_becomes_null(storage: EventStorage, tmp_path: Path, value: float) -> None:
    path = tmp_path / "metrics.json"
    storage.put_scalars(loss=value, other=1)
    writer = JSONWriter(path)
    writer.close()
    assert lines_of(path) == [{"iteration": 0, "loss": None, "other": 1.0, "round": 0}]


def test_a_new_run_replaces_the_file_at_its_first_write_and_not_before(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 5}\n')
    JSONWriter(path).close()
    writer = JSONWriter(path)
    assert path.read_text() == '{"iteration": 5}\n'
    writer.write()
    assert path.read_text() == ""
    writer.close()


def test_constructing_a_writer_touches_no_file(tmp_path: Path) -> None:
    JSONWriter(tmp_path / "new" / "metrics.json").close()
    CSVWriter(tmp_path / "new", {"test": MetricsTable(["loss"])}).write()
    TensorboardWriter(tmp_path / "new").close()
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_the_lines_it_will_write_again_and_a_torn_last_one(
    storage: EventStorage, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    kept = '{"iteration": 9, "loss": 1.0, "round": 1}\n{"iteration": 19, "mine": "as it stood"}\n'
    path.write_text(kept + '{"iteration": 20, "loss": 2.0}\n{"iteration": 29}\n{"iteration": 39, "lo')
    storage = EventStorage(start_iter=20)
    writer = JSONWriter(path, start_iter=20)
    with storage:
        train(storage, writer, range(20, 40))
        writer.close()
    assert path.read_text().startswith(kept)
    assert [line["iteration"] for line in lines_of(path)] == [9, 19, 39]


def test_a_last_line_that_only_lacks_its_end_is_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 9}\n\n{"iteration": 19}')
    with EventStorage(start_iter=20) as storage:
        writer = JSONWriter(path, start_iter=20)
        storage.put_scalar("loss", 1)
        writer.close()
    assert [line["iteration"] for line in lines_of(path)] == [9, 19, 20]


def test_a_last_line_that_libai_wrote_with_nan_can_be_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 19, "loss": NaN}\n')
    with EventStorage(start_iter=20) as storage:
        writer = JSONWriter(path, start_iter=20)
        storage.put_scalar("loss", 1)
        writer.close()
    assert [line["loss"] for line in lines_of(path)] == [None, 1.0]


def test_a_line_in_the_middle_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(b'# a note \xff\n[1]\n{"iteration": 19}\n{"iteration": 20}\n')
    with EventStorage(start_iter=20):
        JSONWriter(path, start_iter=20).close()
    assert path.read_bytes().endswith(b'{"iteration": 20}\n')
    with EventStorage(start_iter=20):
        JSONWriter(path, start_iter=20).write()
    assert path.read_bytes() == b'# a note \xff\n[1]\n{"iteration": 19}\n'


def test_a_run_resumed_where_there_is_no_file_starts_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        train(storage, CSVWriter(tmp_path, {}), range(20))
        writer = JSONWriter(path, start_iter=20)
        train(storage, writer, range(20, 40))
        writer.close()
    assert [line["iteration"] for line in lines_of(path)] == [39]


@pytest.mark.parametrize("batches", [1, 7, 20])
@pytest.mark.parametrize("saved", [20, 33, 40])
@pytest.mark.parametrize("killed", [40, 41, 58])
def test_a_run_that_was_killed_and_resumed_leaves_the_lines_of_one_that_was_not(
    tmp_path: Path, batches: int, saved: int, killed: int
) -> None:
    whole, path = tmp_path / "whole.json", tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(whole)
        train(storage, writer, range(80), batches=batches, evaluate_every=6)
        writer.close()
    with EventStorage() as storage:
        writer = JSONWriter(path)
        train(storage, writer, range(saved), batches=batches, evaluate_every=6)
        checkpoint = io.BytesIO()
        torch.save(storage.state_dict(), checkpoint)
        train(storage, writer, range(saved, killed), batches=batches, evaluate_every=6)
    assert writer._file is not None
    writer._file.close()  # as the operating system does; no writer.close()
    with EventStorage(start_iter=saved) as storage:
        checkpoint.seek(0)
        storage.load_state_dict(torch.load(checkpoint, weights_only=True))
        writer = JSONWriter(path, start_iter=saved)
        train(storage, writer, range(saved, 80), batches=batches, evaluate_every=6)
        writer.close()
    assert lines_of(path) == lines_of(whole)


def test_a_writer_takes_the_storage_it_is_given_or_the_active_one(tmp_path: Path) -> None:
    given, active = EventStorage(), EventStorage()
    given.put_scalar("given", 1)
    active.put_scalar("active", 1)
    with active:
        for name, argument in (("given", given), ("active", None)):
            writer = JSONWriter(tmp_path / name)
            writer.write(argument)
            writer.close(argument)
            assert sorted(lines_of(tmp_path / name)[0]) == sorted([name, "iteration", "round"])
    for outside in (JSONWriter(tmp_path / "none"), CommonMetricPrinter(), TensorboardWriter(tmp_path / "none")):
        with pytest.raises(ConfigError, match="no EventStorage"):
            outside.write()
        outside.close()


def test_lines_that_are_held_back_are_written_at_close_also_outside_the_storage(tmp_path: Path) -> None:
    writer = JSONWriter(tmp_path / "metrics.json")
    with EventStorage() as storage:
        storage.put_scalar("loss", 1)
        writer.write()
    writer.close()
    assert [line["iteration"] for line in lines_of(tmp_path / "metrics.json")] == [0]


def test_a_full_disk_is_an_output_error_that_names_the_file(storage: EventStorage) -> None:
    writer = JSONWriter("/dev/full")
    storage.put_scalar("loss", 1)
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left"):
        writer.close()


def test_after_a_full_disk_the_file_ends_with_a_whole_line_and_nothing_is_lost(
    storage: EventStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    train(storage, writer, range(3), period=1)
    before = lines_of(path)

    class FullDisk(io.FileIO):
        size = path.stat().st_size + 7

        def write(self, data: Any, /) -> int:
            room = FullDisk.size - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(data)[:room])

    assert writer._file is not None
    writer._file.close()
    writer._file = FullDisk(path, "r+b")
    storage.put_scalar("accuracy", 1)  # the last line changes from its first key on
    with pytest.raises(OutputError, match="No space left"):
        train(storage, writer, range(3, 4), period=1)
    assert lines_of(path) == before
    FullDisk.size = 10**6
    writer.close()
    assert [line["iteration"] for line in lines_of(path)] == [0, 1, 2, 3]
    assert lines_of(path)[2] == {**before[2], "accuracy": 1.0}


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_disk_that_is_really_full_keeps_the_whole_lines_and_gets_the_others_once_there_is_room(
    tmp_path: Path, free: int
) -> None:
    whole = tmp_path / "whole.json"
    with EventStorage() as storage:
        writer = JSONWriter(whole)
        train(storage, writer, range(250), period=1)
        writer.close()
    try:
        with small_disk(tmp_path / "disk") as disk, EventStorage() as storage:
            path = disk.folder / "metrics.json"
            disk.fill(free)
            writer = JSONWriter(path)
            refusals = 0
            for iteration in range(250):
                before = lines_of(path) if path.exists() else []
                try:
                    train(storage, writer, range(iteration, iteration + 1), period=1)
                except OutputError as error:
                    refusals += 1
                    assert f"cannot write {path}: No space left on device" in str(error)
                    assert lines_of(path) == before
                if refusals == 3:
                    disk.mend()
            writer.close()
            assert refusals == 3
            assert lines_of(path) == lines_of(whole)
    except CannotMount as error:
        pytest.skip(str(error))


def test_a_write_with_nothing_new_does_not_touch_the_file(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    storage.put_scalar("loss", 1)
    writer.write()
    writer.close()
    path.unlink()
    writer.write()
    writer.close()
    assert not path.exists()


def test_a_short_write_is_continued(storage: EventStorage, tmp_path: Path) -> None:
    class OneByOne(io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(bytes(data)[:1])

    path = tmp_path / "metrics.json"
    writer = JSONWriter(path)
    writer.write()
    writer._file = OneByOne(path, "r+b")
    storage.put_scalar("loss", 1)
    writer.close()
    assert lines_of(path) == [{"iteration": 0, "loss": 1.0, "round": 0}]


def test_the_lines_are_on_the_disk_when_close_returns(
    storage: EventStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(path.stat().st_size))
    writer = JSONWriter(path)
    storage.put_scalar("loss", 1)
    writer.write()
    writer.close()
    assert synced == [path.stat().st_size]


def test_a_path_that_cannot_be_written_is_an_output_error_at_the_first_write(
    storage: EventStorage, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("here")
    storage.put_scalar("loss", 1)
    tables = {"test": MetricsTable(["loss"])}
    makers: list[Callable[[Path], EventWriter]] = [
        JSONWriter,
        TensorboardWriter,
        lambda path: CSVWriter(path, tables),
        lambda path: JSONWriter(path, start_iter=3),
    ]
    for make in makers:
        writer = make(tmp_path / "file" / "below")
        with pytest.raises(OutputError, match=r"cannot write .*below"):
            writer.close()
    assert (tmp_path / "file").read_text() == "here"


def test_a_window_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a window of 0 values"):
        JSONWriter(tmp_path / "metrics.json", window_size=0)


# -- tables ----------------------------------------------------------------------------------------------------


def test_each_metric_table_becomes_a_csv_file_when_the_run_ends(tmp_path: Path) -> None:
    tables = {"test": MetricsTable(["loss", "accuracy"])}
    writer = CSVWriter(tmp_path / "run", tables)
    writer.write(EventStorage())
    tables["late"] = MetricsTable(["x"])
    tables["test"].append_metrics_item({"loss": 0.5, "accuracy": 1})
    assert list(tmp_path.iterdir()) == []
    writer.close()
    assert {path.name: path.read_text() for path in (tmp_path / "run").iterdir()} == {
        "test.csv": "loss,accuracy\n0.5,1\n",
        "late.csv": "x\n",
    }


# -- the line for people ---------------------------------------------------------------------------------------


def test_the_printer_shows_time_left_losses_throughput_and_rate(storage: EventStorage) -> None:
    said: list[str] = []
    printer = CommonMetricPrinter(max_iter=1000, window_size=3, say=said.append)
    for number in range(100):
        storage.round, storage.iter, storage.samples = 2, number, 128 * (number + 1)
        storage.put_scalars(loss=number, time=0.5, data_time=0.125, accuracy=1)
        storage.put_scalar("host/aux_loss", number / 1000, smoothing_hint=False)
        storage.put_scalar("lr", 0.1 * 0.9**number, smoothing_hint=False)
    printer.write()
    assert said == [
        "eta 7:30  iteration 100/1000  round 2  samples 12800  host/aux_loss 0.099  loss 98  "
        "time 0.5000 s  data_time 0.1250 s  256 samples/s  lr 2.9513e-06"
    ]
    assert storage.latest()["eta_seconds"] == (450.0, 99)
    assert storage.smoothing_hints()["eta_seconds"] is False


def test_the_time_left_is_the_median_so_one_slow_batch_does_not_matter(storage: EventStorage) -> None:
    said: list[str] = []
    for number in range(9):
        storage.iter = number
        storage.put_scalar("time", 1000 if number == 8 else 1)
    CommonMetricPrinter(max_iter=69, window_size=1, batch_size=500, say=said.append).write()
    assert said == ["eta 1:00  iteration 9/69  round 0  samples 0  time 1000.0000 s  0 samples/s  lr N/A"]


def test_the_printer_has_no_time_left_where_the_end_is_not_known(storage: EventStorage) -> None:
    said: list[str] = []
    printer = CommonMetricPrinter(batch_size=32, say=said.append)
    printer.write()
    storage.step()
    storage.put_scalars(loss=0.123456, time=0.25)
    printer.write()
    assert said == [
        "iteration 1  round 0  samples 0  lr N/A",
        "iteration 2  round 0  samples 0  loss 0.1235  time 0.2500 s  128 samples/s  lr N/A",
    ]
    assert "eta_seconds" not in storage.histories()


@pytest.mark.parametrize("iteration", [9, 10])
def test_the_last_iteration_is_printed_too(storage: EventStorage, iteration: int) -> None:
    said: list[str] = []
    storage.iter = iteration
    storage.put_scalar("time", 1)
    printer = CommonMetricPrinter(max_iter=10, say=said.append)
    printer.write()
    assert [line.split("  ")[:2] for line in said] == [["eta 0:00", "iteration 10/10"]]


def test_a_printer_says_an_iteration_once_and_no_more_often_than_asked_but_always_the_last(
    storage: EventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bounded, unbounded = list[str](), list[str]()
    printers = [
        CommonMetricPrinter(max_iter=10, say=bounded.append, every_s=4),
        CommonMetricPrinter(say=unbounded.append, every_s=4),
    ]
    for number in range(10):
        storage.iter = number
        storage.put_scalar("loss", number)
        for printer in (*printers, *printers):
            printer.write()
        now += 1
    assert bounded[-1].startswith("iteration 10/10 ")
    for printer in (*printers, *printers):
        printer.close()
    assert [line.split("  ")[0] for line in bounded] == [f"iteration {each}/10" for each in (1, 5, 9, 10)]
    assert [line.split("  ")[0] for line in unbounded] == [f"iteration {each}" for each in (1, 5, 9, 10)]
    storage.step()
    for printer in printers:
        printer.close()
    assert unbounded[-1].startswith("iteration 11 ")


def test_the_line_goes_to_the_log_of_heterofed(storage: EventStorage, caplog: pytest.LogCaptureFixture) -> None:
    storage.put_scalar("100%loss", 1)
    with caplog.at_level("INFO", logger="heterofed"):
        CommonMetricPrinter().write()
    assert caplog.messages == ["iteration 1  round 0  samples 0  100%loss 1  lr N/A"]


def test_a_batch_that_took_no_time_has_no_throughput(storage: EventStorage) -> None:
    said: list[str] = []
    storage.put_scalar("time", 0)
    CommonMetricPrinter(batch_size=32, say=said.append).write()
    assert said == ["iteration 1  round 0  samples 0  time 0.0000 s  lr N/A"]


def test_a_loss_that_is_not_finite_is_shown_as_it_is(storage: EventStorage) -> None:
    said: list[str] = []
    storage.put_scalars(loss=math.nan, time=math.nan)
    CommonMetricPrinter(max_iter=10, say=said.append).write()
    assert said == ["iteration 1/10  round 0  samples 0  loss nan  time nan s  lr N/A"]


# -- TensorBoard -----------------------------------------------------------------------------------------------


def events_of(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_gets_new_scalars_images_and_histograms(storage: EventStorage, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writer = TensorboardWriter(tmp_path / "tb", window_size=3)
    storage.put_image("digit", torch.rand(3, 4, 5))
    storage.put_image("mask", np.eye(4, dtype=np.uint8))
    storage.put_histogram("gradient", torch.arange(10.0), bins=4)
    for value in (0.1, 0.2):
        storage.put_scalar("accuracy", value, smoothing_hint=False)
    train(storage, writer, range(40), batches=7)
    assert storage.images == []
    assert storage.histograms == []
    storage.put_image("digit", torch.rand(1, 4, 5))
    writer.close()
    storage.put_scalar("late", 1)
    writer.close()
    writer.close()
    events = events_of(tmp_path / "tb")
    assert [(each.step, each.value) for each in events.Scalars("loss")] == [(19, 18), (39, 38)]
    assert [(each.step, each.value) for each in events.Scalars("accuracy")] == [(0, pytest.approx(0.2))]
    assert [each.step for each in events.Scalars("late")] == [39]
    assert [(each.step, each.value) for each in events.Scalars("round/loss")] == [
        (6, 1), (13, 2), (20, 3), (27, 4), (34, 5),
    ]  # fmt: skip
    assert [(each.step, each.width, each.height) for each in events.Images("digit")] == [(0, 5, 4), (39, 5, 4)]
    assert [each.step for each in events.Images("mask")] == [0]
    (histogram,) = events.Histograms("gradient")
    assert (histogram.step, histogram.histogram_value.bucket) == (0, [3, 2, 2, 3])
    assert histogram.histogram_value.bucket_limit == [2.25, 4.5, 6.75, 9]
    assert (histogram.histogram_value.min, histogram.histogram_value.max, histogram.histogram_value.num) == (0, 9, 10)
    assert (histogram.histogram_value.sum, histogram.histogram_value.sum_squares) == (45, 285)


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with EventStorage() as storage:
        writer = TensorboardWriter(tmp_path)
        for number in range(4):
            storage.iter = number
            storage.put_scalar("loss", number)
            writer.write()
            if number == 1:
                state = storage.state_dict()
        writer.close()
    with EventStorage(start_iter=2) as storage:
        storage.load_state_dict(state)
        writer = TensorboardWriter(tmp_path, window_size=1, start_iter=2)
        storage.iter = 2
        writer.write()
        storage.put_scalar("loss", 20)
        writer.close()
    assert [(each.step, each.value) for each in events_of(tmp_path).Scalars("loss")] == [(0, 0), (1, 0.5), (2, 20)]


def test_without_tensorboard_its_writer_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r'pip install "heterofed\[tensorboard\]"'):
        TensorboardWriter(tmp_path)

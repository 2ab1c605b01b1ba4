"""What a running party shows, and that showing it never gets in the way."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heterofed.metrics import progress
from heterofed.metrics.progress import (
    SHOW_EVERY_S,
    BarProgress,
    JsonProgress,
    NoProgress,
    PlainProgress,
    Progress,
    Snapshot,
    clock,
    logger,
    make_progress,
    show_logs,
)


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock_ = Time()
    monkeypatch.setattr(progress, "time", clock_)
    return clock_


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Everything that is logged, as it comes."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    with caplog.at_level(logging.INFO, logger="heterofed"):
        logger.addHandler(handler)
        yield lines
        logger.removeHandler(handler)


class Kept(Progress):
    """Keeps what it would draw."""

    every_s = 5.0

    def __init__(self) -> None:
        super().__init__("hospital")
        self.drawn: list[tuple[str, int, bool]] = []

    def draw(self, force: bool) -> None:
        self.drawn.append((self.now.phase, self.now.batch, force))


def run_a_task(view: Progress, time: Time) -> None:
    """Walk a view through everything that a scheduler tells it; a batch takes 2 s."""
    view.phase("matching ids")
    for done in (0, 50, 100):
        view.matched(done, 100)
        time.now += 10
    for round_ in (1, 2):
        view.begin_round(round_, 2, 32)
        for batch in range(4):
            time.now += 2
            view.advance(8, 1.0 / (batch + 1))
            view.show()
        view.end_round()
        view.phase("testing")
        view.say("accuracy 0.9")
    view.phase("completing the task")
    view.close()


# --- what a snapshot says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (6.6, "0:07"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
        (360000, "100:00:00"),
    ],
)
def test_seconds_are_shown_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_snapshot_is_one_line_for_people() -> None:
    snapshot = Snapshot("hospital", "training", 2, 5, 3, 96, 1000, 0.12345, 250.4, 75.0)

    assert snapshot.line() == (
        "training: round 2/5, batch 3, 96/1000 rows, loss 0.1235, 250 rows/s, 1:15 left"  # rounded to four digits
    )


def test_a_snapshot_leaves_out_what_is_not_known() -> None:
    assert Snapshot("hospital", "training", 1, None, 1, 8, 32).line() == (
        "training: round 1, batch 1, 8/32 rows, 0 rows/s"
    )


# --- what is counted --------------------------------------------------------------------------------------------------


def test_batches_rows_and_loss_are_counted_in_each_round(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 3, 20)
    view.advance(8, 2.0)
    view.advance(8, None)

    assert (view.now.batch, view.now.rows, view.now.loss) == (2, 16, 2.0)

    view.begin_round(2, 3, 20)

    assert (view.now.round, view.now.batch, view.now.rows, view.now.loss) == (2, 0, 0, None)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_not_shown(loss: float) -> None:
    view = Kept()
    view.begin_round(1, 3, 20)
    view.advance(8, 2.0)
    view.advance(8, loss)

    assert view.now.loss == 2.0


def test_the_time_left_is_that_of_all_rounds_still_to_come(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 3, 100)
    time.now += 10
    view.advance(50, None)

    assert view.now.rows_per_s == 5.0
    assert view.now.left_s == 50.0  # 50 rows of this round and 200 of the next two


def test_the_time_left_is_that_of_the_round_where_the_number_of_rounds_is_open(time: Time) -> None:
    view = Kept()
    view.begin_round(1, None, 100)
    time.now += 10
    view.advance(50, None)

    assert view.now.left_s == 10.0


def test_the_speed_is_the_mean_over_all_training_so_far(time: Time) -> None:
    view = Kept()
    for seconds in (10.0, 40.0):
        view.begin_round(view.now.round + 1, 4, 100)
        time.now += seconds
        view.advance(100, None)
        view.end_round()

    assert view.now.rows_per_s == 200 / 50
    assert view.now.left_s == 200 / 4.0


def test_time_between_rounds_does_not_count_as_training(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 2, 100)
    time.now += 10
    view.advance(100, None)
    view.end_round()
    view.phase("testing")
    time.now += 1000
    view.phase("between rounds")
    view.begin_round(2, 2, 100)
    view.show()

    assert view.now.rows_per_s == 10.0
    assert view.now.left_s == 10.0


def test_no_time_is_left_at_the_end(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 1, 100)
    time.now += 10
    view.advance(100, None)
    view.end_round()

    assert view.now.left_s == 0.0


def test_more_rows_than_announced_leave_no_negative_time(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 1, 100)
    time.now += 10
    view.advance(150, None)

    assert view.now.left_s == 0.0


def test_a_clock_that_stands_still_divides_nothing_by_zero(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 1, 100)
    view.advance(50, None)
    view.end_round()

    assert view.now.left_s is None


def test_a_view_is_redrawn_at_its_own_pace_and_always_at_the_ends(time: Time) -> None:
    view = Kept()
    view.begin_round(1, 1, 100)
    for _ in range(10):
        time.now += 1
        view.advance(10, None)
    view.end_round()
    view.phase("testing")

    assert view.drawn == [
        ("training", 5, False),
        ("training", 10, False),
        ("training", 10, True),
        ("testing", 10, True),
    ]


# --- the views --------------------------------------------------------------------------------------------------------


def test_the_plain_view_writes_lines(time: Time, said: list[str]) -> None:
    run_a_task(PlainProgress("hospital"), time)

    assert said[:4] == [
        "hospital: matching ids",
        "hospital: matching ids, 50 of 100 elements, 5 a second, 0:10 left",
        "hospital: matching ids, 100 of 100 elements, 5 a second, 0:00 left",
        "hospital: training: round 1/2, batch 1, 8/32 rows, loss 1.0000, 4 rows/s, 0:14 left",
    ]
    assert said[-2:] == ["accuracy 0.9", "hospital: completing the task"]
    assert all("\n" not in line for line in said)


def test_the_json_view_writes_one_object_a_line(time: Time) -> None:
    stream = io.StringIO()

    run_a_task(JsonProgress("hospital", stream), time)

    lines: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["kind"] for line in lines} == {"progress", "matching"}
    assert [line["done"] for line in lines if line["kind"] == "matching"] == [50, 100]
    last = [line for line in lines if line["kind"] == "progress" and line["phase"] == "training"][-1]
    assert last == {
        "kind": "progress",
        "party": "hospital",
        "phase": "training",
        "round": 2,
        "rounds": 2,
        "batch": 4,
        "rows": 32,
        "rows_total": 32,
        "loss": 0.25,
        "rows_per_s": 4.0,
        "left_s": 0.0,
    }


def test_the_json_view_is_json_for_strict_readers_whatever_loss_a_peer_tells(time: Time) -> None:
    stream = io.StringIO()
    view = JsonProgress("hospital", stream)
    view.begin_round(1, None, 8)
    view.advance(8, float("nan"))
    view.end_round()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    for line in stream.getvalue().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_the_json_view_goes_on_where_nothing_can_be_written(time: Time) -> None:
    with Path("/dev/full").open("wb", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, write_through=True)
        view = JsonProgress("hospital", stream)
        run_a_task(view, time)
        view.phase("matching ids")
        view.show_matching(1, 2, 1.0, None)

        assert view.now.phase == "matching ids"
        with pytest.raises(OSError, match="No space left"):
            stream.write("x")


def test_the_bar_is_drawn_to_stderr(time: Time, capsys: pytest.CaptureFixture[str], said: list[str]) -> None:
    run_a_task(BarProgress("hospital"), time)

    shown = capsys.readouterr().err
    assert "hospital round 1/2" in shown
    assert "hospital round 2/2" in shown
    assert "32/32" in shown
    assert "loss=0.2500" in shown
    assert "task_left=0:06" in shown
    assert shown.count("\n") == 3  # the matching and two rounds, each of which stays where it ended
    assert "hospital: testing" in said


def test_a_rate_of_the_matching_is_shown_only_after_a_while(time: Time, said: list[str]) -> None:
    view = PlainProgress("hospital")
    for done, moment in ((0, 0.0), (5, 0.1), (8, 10.0)):
        time.now += moment
        view.matched(done, 10)

    assert said == ["hospital: matching ids, 8 of 10 elements, 1 a second, 0:03 left"]


def test_the_bar_shows_the_matching_without_a_log_line_for_every_look(
    time: Time, capsys: pytest.CaptureFixture[str], said: list[str]
) -> None:
    view = BarProgress("hospital")
    view.phase("matching ids")
    for done in range(100):
        time.now += 1
        view.matched(done, 100)
    view.phase("comparing the splits")

    assert said == ["hospital: matching ids", "hospital: comparing the splits"]
    assert "hospital matching ids" in capsys.readouterr().err


def test_what_is_said_while_a_bar_is_there_stands_on_a_line_of_its_own(
    time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    view = BarProgress("hospital")
    view.begin_round(1, 1, 8)
    view.advance(8, None)
    view.show()
    view.say("waiting for c1")
    view.close()

    assert "waiting for c1\n" in capsys.readouterr().out


def test_a_bar_can_be_closed_twice_and_before_it_is_drawn() -> None:
    view = BarProgress("hospital")
    view.close()
    view.close()


def test_rows_beyond_the_announced_do_not_break_the_bar(time: Time, capsys: pytest.CaptureFixture[str]) -> None:
    view = BarProgress("hospital")
    view.begin_round(1, 1, 8)
    view.advance(16, None)
    view.end_round()

    assert "8/8" in capsys.readouterr().err


def test_the_silent_view_shows_nothing_but_what_is_said(
    time: Time, capsys: pytest.CaptureFixture[str], said: list[str]
) -> None:
    run_a_task(NoProgress("hospital"), time)

    assert said == ["accuracy 0.9", "accuracy 0.9"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("form", "view"), [("bar", BarProgress), ("plain", PlainProgress), ("json", JsonProgress), ("off", NoProgress)]
)
def test_every_form_has_its_view(form: str, view: type[Progress]) -> None:
    made = make_progress(form, "hospital")

    assert type(made) is view
    assert made.now.party == "hospital"
    assert made.every_s == SHOW_EVERY_S.get(form, made.every_s)


def test_auto_is_plain_without_a_terminal_and_a_bar_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_progress("auto", "hospital")) is PlainProgress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(make_progress("auto", "hospital")) is BarProgress


def test_auto_is_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    ipython: Any = type("IPython", (), {"get_ipython": staticmethod(lambda: shell)})
    monkeypatch.setitem(sys.modules, "IPython", ipython)

    assert type(make_progress("auto", "hospital")) is BarProgress


# --- log lines --------------------------------------------------------------------------------------------------------


@contextmanager
def no_handlers() -> Iterator[None]:
    """Logging as a program finds it that has not set it up; pytest has."""
    loggers = (logging.getLogger(), logger)
    before = [(each, each.handlers, each.level) for each in loggers]
    for each in loggers:
        each.handlers = []
    try:
        yield
    finally:
        for each, handlers, level in before:
            each.handlers = handlers
            each.setLevel(level)


def test_log_lines_reach_the_user_once_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    with no_handlers():
        for _ in range(2):
            show_logs("plain")
        logger.info('say "%s"', "hello")

    shown = capsys.readouterr()
    assert re.fullmatch(r'\d\d:\d\d:\d\d say "hello"\n', shown.out)
    assert shown.err == ""


def test_log_lines_are_json_beside_json_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with no_handlers():
        show_logs("json")
        logger.warning('say "%s"', "hello")

    assert json.loads(capsys.readouterr().out) == {"kind": "log", "level": "warning", "text": 'say "hello"'}


def test_a_program_that_has_set_up_logging_keeps_its_own() -> None:
    with no_handlers():
        logging.getLogger().addHandler(logging.NullHandler())

        show_logs("plain")

        assert logger.handlers == []

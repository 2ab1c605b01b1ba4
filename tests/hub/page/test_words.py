"""What the page says about a task, and what its charts draw: without a browser."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from heterofed.hub.page.charts import _latest, _spoken
from heterofed.hub.page.course import MOST_POINTS, Course, Line, colour_of, model_files, shown
from heterofed.hub.page.new_task import options_of
from heterofed.hub.page.task import options_in_words
from heterofed.hub.page.words import chip, duration, listed, missing, part_done, party_now, rounds_done, situation, size
from heterofed.tasks import Party, PartyStatus, Task, TaskStatus
from heterofed.tasks.course import RUN_BEGAN, Event, Measured, Output, Value
from heterofed.tasks.options import TrainerOptions

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
P = PartyStatus


def a_task(status: TaskStatus, *parties: Party, **values: object) -> Task:
    task = Task(id="abc", name="A task", status=status, created_at=NOW, reason=None, parties=parties)
    return replace(task, **values)  # type: ignore[arg-type]  # fields of Task


def bank(status: PartyStatus = P.INVITED, reason: str | None = None) -> Party:
    return Party("bank", status, reason, role="host")


def shop(status: PartyStatus = P.INVITED, reason: str | None = None) -> Party:
    return Party("shop", status, reason)


@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("party", PartyStatus)
def test_every_state_of_a_task_and_of_a_party_has_words_and_says_more_than_the_state(
    status: TaskStatus, party: PartyStatus
) -> None:
    task = a_task(status, bank(party), shop(P.INVITED))

    said = situation(task)
    assert said.endswith(".")
    assert said.count(" ") >= 2
    assert chip(status)["text"].upper() == status.value
    assert chip(party)["text"].upper() == party.value
    for each in task.parties:
        party_now(task, each)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (a_task(TaskStatus.CREATED, bank(), shop()), "Waiting for bank and shop to check the data."),
        (a_task(TaskStatus.VERIFYING, bank(P.VERIFIED), shop()), "Waiting for shop to check the data."),
        (a_task(TaskStatus.VERIFIED, bank(P.VERIFIED), shop(P.VERIFIED)), "Launch the task when all are ready."),
        (a_task(TaskStatus.VERIFYING, bank(), shop(P.REJECTED, "no age")), "The data check at shop said no: no age."),
        (a_task(TaskStatus.GATHERING, bank(P.ONLINE), shop()), "Waiting for shop to come in"),
        (a_task(TaskStatus.ONGOING, bank(), shop(), rounds=9, round=3), "Training round 4 of 9."),
        (a_task(TaskStatus.TESTING, bank(), shop(), rounds=9, round=3), "Testing the model of round 3 of 9."),
        (a_task(TaskStatus.ONGOING, bank(), shop(), round=3), "Training round 4."),
        (a_task(TaskStatus.ONGOING, bank(), shop(), rounds=9, round=9), "Training round 9 of 9."),
        (a_task(TaskStatus.FAILED, bank(), shop(), reason="shop is gone"), "shop is gone. Once the cause is mended"),
        (a_task(TaskStatus.CANCELLED, bank(), shop(), reason="enough"), "enough. A cancelled task stays so"),
        (a_task(TaskStatus.CREATED, bank(), shop(), expires_at=NOW), "This task expired at 2026-01-01 00:00 UTC"),
    ],
)
def test_a_task_says_where_it_stands_and_what_to_do(task: Task, said: str) -> None:
    assert said in situation(task)


def test_after_a_launch_the_page_does_not_ask_for_another_one() -> None:
    verified = a_task(TaskStatus.VERIFIED, bank(P.VERIFIED), shop(P.VERIFIED))

    assert situation(verified, launched=True).startswith("Launched")


def test_a_party_says_whom_it_waits_for() -> None:
    task = a_task(TaskStatus.GATHERING, bank(P.ONLINE), shop(P.INVITED), Party("insurer"))

    assert missing(task) == ("shop", "insurer")
    assert party_now(task, task.parties[0]) == "waits for shop and insurer"
    assert party_now(task, task.parties[1]) == "is awaited"
    assert party_now(a_task(TaskStatus.ONGOING, bank(P.ONLINE), shop(P.ONLINE)), bank(P.ONLINE)) == "trains"


def test_small_words() -> None:
    assert listed(("a",)) == "a"
    assert listed(("a", "b", "c")) == "a, b and c"
    assert [duration(each) for each in (0.2, 45, 600, 9000)] == ["1 s", "45 s", "10 min", "2.5 h"]
    assert [size(each) for each in (7, 1500, 2_500_000, 7 * 10**12)] == ["7 B", "1.5 kB", "2.5 MB", "7000.0 GB"]
    assert [shown(each) for each in (3.0, 144000.0, 0.123456, 1e-7)] == ["3", "144 000", "0.1235", "1e-07"]


def test_the_part_that_is_done_is_known_only_with_a_last_round() -> None:
    assert part_done(a_task(TaskStatus.ONGOING, rounds=4, round=1)) == 0.25
    assert part_done(a_task(TaskStatus.ONGOING, rounds=4, round=5)) == 1
    assert part_done(a_task(TaskStatus.ONGOING, round=5)) is None
    assert rounds_done(a_task(TaskStatus.ONGOING, rounds=4, round=1)) == "Round 1 of 4"
    assert rounds_done(a_task(TaskStatus.ONGOING, round=5)) == "Round 5"


@pytest.mark.parametrize(
    ("tests", "keep", "options"),
    [
        ("host", False, None),
        ("host", True, TrainerOptions(delete_local_models_after_aggregation=False)),
        ("each", False, TrainerOptions()),
        ("last", False, TrainerOptions(model_test_after_each_round=False)),
        ("never", True, TrainerOptions(True, False, False)),
    ],
)
def test_the_form_s_choices_are_the_options_that_they_say(
    tests: str, keep: bool, options: TrainerOptions | None
) -> None:
    assert options_of(tests, keep) == options
    assert options_in_words(options)


# --- charts -------------------------------------------------------------------------------------------------------


def measured(number: int, party: str, set_: str, row: int, round_: int | None, **values: Value) -> Measured:
    at = NOW + timedelta(seconds=2 * number)
    return Measured(set=set_, row=row, round=round_, values=values, number=number, at=at, party=party)


def test_a_column_is_a_line_for_each_party_over_rounds() -> None:
    course = Course()
    assert course.add([measured(1, "bank", "scores", 0, 2, loss=0.5), measured(2, "bank", "scores", 1, 4, loss=0.25)])
    assert course.add([measured(3, "shop", "scores", 0, 2, loss=0.75, note="text", flag=True)])
    assert not course.add([])

    assert course.newest == 3
    assert course.columns("scores") == ["loss"]
    assert course.lines("scores", "loss", ["bank", "shop"]) == [
        Line("bank", [(2, 0.5), (4, 0.25)]),
        Line("shop", [(2, 0.75)]),
    ]


def test_rows_that_share_a_round_are_drawn_by_row() -> None:
    course = Course()
    course.add([measured(number, "bank", "batches", number, 1, loss=number) for number in range(3)])

    assert course.lines("batches", "loss", ["bank", "shop"])[0].points == [(0, 0), (1, 1), (2, 2)]


def test_a_value_that_is_no_number_leaves_a_gap_and_breaks_nothing() -> None:
    course = Course()
    losses = [1.0, math.nan, math.inf, None, 0.5]
    course.add([measured(number, "bank", "progress", number, number, loss=loss) for number, loss in enumerate(losses)])

    assert course.lines("progress", "loss", ["bank", "shop"])[0].points == [(0, 1.0), (4, 0.5)]


def test_a_long_line_keeps_its_ends_and_stays_short() -> None:
    course = Course()
    course.add([measured(number, "bank", "progress", number, number, loss=number) for number in range(5000)])
    points = course.lines("progress", "loss", ["bank", "shop"])[0].points

    assert len(points) == MOST_POINTS
    assert (points[0], points[-1]) == ((0, 0), (4999, 4999))


def test_the_progress_comes_first_and_the_time_has_a_chart_of_its_own() -> None:
    course = Course()
    for number, name in enumerate(["zeta", "time", "progress", "alpha"]):
        course.add([measured(number, "bank", name, 0, 1, value=1.0)])

    assert course.names() == ["progress", "alpha", "zeta"]


def test_time_is_summed_over_the_rounds_by_what_it_went_into() -> None:
    course = Course()
    values: dict[str, Value] = {
        "own_s": 2.0,
        "wire_s": 0.5,
        "waiting_s/shop": 1.0,
        "bytes_sent": 10,
        "bytes_received": 3,
    }
    course.add([measured(number, "bank", "time", number, number, **values) for number in (1, 2)])
    (share,) = course.shares(["bank", "shop"])

    assert (share.own_s, share.wire_s, share.waiting_s) == (4.0, 1.0, {"shop": 2.0})
    assert (share.bytes_sent, share.bytes_received) == (20, 6)


def again(number: int, party: str, up_to: int) -> Event:
    return Event(number, NOW, RUN_BEGAN, party, None, "begins again", {"up_to": up_to})


def test_a_party_that_begins_again_has_only_its_new_points() -> None:
    course = Course()
    task = a_task(TaskStatus.ONGOING, rounds=10, round=1)
    old = [measured(number, "bank", "progress", number, number, loss=number) for number in (1, 2, 3)]
    course.add([*old, measured(4, "shop", "progress", 0, 1, loss=0.5), measured(5, "bank", "gone", 0, 1, x=1)])
    fresh = [measured(9, "bank", "progress", 1, 1, loss=9.0), measured(10, "bank", "progress", 2, 2, loss=8.0)]
    course.add(fresh[:1])  # a row of the new run may be seen before the word that it has begun

    assert course.forget([again(7, "bank", 5)])
    course.add(fresh[1:])

    assert course.lines("progress", "loss", ["bank", "shop"]) == [
        Line("bank", [(1, 9.0), (2, 8.0)]),
        Line("shop", [(1, 0.5)]),
    ]
    assert course.names() == ["progress"]
    assert course.time_left_s(task) == 9 * 2.0
    assert not course.forget([again(7, "bank", 5)])


def test_a_task_whose_only_party_began_again_has_no_point_and_no_estimate() -> None:
    course = Course()
    course.add([measured(number, "bank", "progress", number, number, loss=number) for number in (1, 2, 3)])

    assert course.forget([again(4, "bank", 3)])

    assert course.names() == []
    assert course.shares(["bank"]) == []
    assert course.time_left_s(a_task(TaskStatus.ONGOING, rounds=10, round=0)) is None


def test_the_time_left_is_what_the_last_rounds_took() -> None:
    course = Course()
    task = a_task(TaskStatus.ONGOING, rounds=10, round=3)
    assert course.time_left_s(task) is None
    course.add([measured(number, "bank", "progress", number, number) for number in (1, 2, 3)])

    assert course.time_left_s(task) == 7 * 2.0
    assert course.time_left_s(replace(task, rounds=None)) is None


def test_a_chart_can_be_heard() -> None:
    lines = [Line("bank", [(1, 0.5), (2, 0.25)]), Line("shop", [(1, 0.5)])]

    assert _spoken("scores", "loss", lines) == "loss of scores over 2 rounds; newest: bank 0.25 at 2, shop 0.5 at 1"
    assert _latest(lines) == "0.25 / 0.5"
    assert "no number yet" in _spoken("scores", "loss", [])


def test_every_party_keeps_its_colour() -> None:
    task = a_task(TaskStatus.ONGOING, *(Party(f"p{number}") for number in range(9)))

    assert [colour_of(task, each) for each in task.feature_keys] == [f"c{number}" for number in range(1, 10)]
    assert colour_of(task, "stranger")


def an_output(party: str, name: str) -> Output:
    return Output(party, name, 10, "0" * 64, NOW)


def test_the_model_is_the_host_s_one_file_or_its_parts_and_otherwise_there_is_a_reason() -> None:
    task = a_task(TaskStatus.COMPLETED, bank(), shop())
    whole, part = an_output("bank", "model.zip"), an_output("bank", "infer_model.pt")

    assert model_files(task, [part, whole])[0] == [whole]
    assert model_files(task, [part, an_output("shop", "model.zip")])[0] == [part]
    assert "HETEROFED_UPLOAD=all" in model_files(task, [])[1]
    assert "when the task is completed" in model_files(a_task(TaskStatus.ONGOING, bank()), [])[1]
    assert model_files(a_task(TaskStatus.CREATED, shop()), [])[1] == "there is no host yet"

"""The contract of `heterofed.tasks.Tasks` as tests; each place where tasks are kept subclasses `Contract`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from heterofed.errors import ConfigError, HeterofedError, UnknownTask
from heterofed.tasks import (
    Measurement,
    PartyStatus,
    ReportKind,
    Task,
    Tasks,
    TaskStatus,
    TrainerOptions,
)
from heterofed.tasks.course import PARTY_STATUS, RUN_BEGAN, TASK_CREATED, TASK_STATUS, TRAINING_START, Value

KEY, OTHER_KEY = b"k" * 40, b"l" * 40


def ask_for(tasks: Tasks, task_id: str) -> list[Callable[[], object]]:
    """Every call about one task."""
    row = Measurement("progress", 0, 1, {"loss": 0.5})
    return [
        lambda: tasks.get(task_id),
        lambda: tasks.move(task_id, TaskStatus.GATHERING),
        lambda: tasks.move(task_id, TaskStatus.CANCELLED),
        lambda: tasks.set_party(task_id, "bank", reason="x"),
        lambda: tasks.claim_host(task_id, "bank"),
        lambda: tasks.verify(task_id, "bank", True),
        lambda: tasks.trust(task_id, "bank", KEY),
        lambda: tasks.log(task_id, "bank", "text"),
        lambda: tasks.logs(task_id),
        lambda: tasks.start(task_id),
        lambda: tasks.report(task_id, "bank", ReportKind.ROUND_FINISHED, 1),
        lambda: tasks.begin_anew(task_id, "bank", "one"),
        lambda: tasks.events(task_id),
        lambda: tasks.put_metrics(task_id, "bank", [row]),
        lambda: tasks.metrics(task_id),
        lambda: tasks.put_output(task_id, "bank", "report.zip", b"x"),
        lambda: tasks.outputs(task_id),
        lambda: tasks.output(task_id, "bank", "report.zip"),
    ]


def ask_of(tasks: Tasks, task_id: str, party: str) -> list[Callable[[], object]]:
    """Every call about one party of a task."""
    row = Measurement("progress", 0, 1, {"loss": 0.5})
    return [
        lambda: tasks.set_party(task_id, party, reason="x"),
        lambda: tasks.claim_host(task_id, party),
        lambda: tasks.verify(task_id, party, True),
        lambda: tasks.trust(task_id, party, KEY),
        lambda: tasks.log(task_id, party, "text"),
        lambda: tasks.report(task_id, party, ReportKind.ROUND_FINISHED, 1),
        lambda: tasks.begin_anew(task_id, party, "one"),
        lambda: tasks.put_metrics(task_id, party, [row]),
        lambda: tasks.put_output(task_id, party, "report.zip", b"x"),
        lambda: tasks.output(task_id, party, "report.zip"),
    ]


class Contract:
    """What every implementation does; a subclass gives `tasks`, opened by somebody who may do everything."""

    @pytest.fixture
    def tasks(self) -> Iterator[Tasks]:
        raise NotImplementedError

    @pytest.fixture
    def task(self, tasks: Tasks) -> Task:
        return tasks.create("credit", ["bank", "shop"], rounds=3)

    @pytest.fixture
    def running(self, tasks: Tasks, task: Task) -> Task:
        """A task whose two parties are in, `bank` as the host."""
        tasks.set_party(task.id, "bank", role="host", public_key=KEY)
        tasks.set_party(task.id, "shop", role="collaborator", public_key=OTHER_KEY)
        tasks.move(task.id, TaskStatus.GATHERING)
        return tasks.move(task.id, TaskStatus.ONGOING)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def test_a_created_task_is_found_by_its_id_and_listed_newest_first(self, tasks: Tasks) -> None:
        first = tasks.create("one", ["bank", "shop"])
        second = tasks.create("two", ["c", "b", "a"])

        assert tasks.get(first.id) == first
        assert tasks.list() == (second, first)
        assert (first.status, first.feature_keys) == (TaskStatus.CREATED, ("bank", "shop"))
        assert (first.rounds, first.options, first.launched_at, first.round, first.expires_at) == (
            *(None, None, None, 0, None),
        )
        assert abs(first.created_at - datetime.now(timezone.utc)) < timedelta(seconds=30)

    def test_a_task_keeps_its_rounds_its_options_and_its_end(self, tasks: Tasks) -> None:
        options = TrainerOptions(skip_model_tests=True, delete_local_models_after_aggregation=False)
        task = tasks.create(
            "t", ["a", "b"], rounds=7, options=options, lives_for=timedelta(hours=2), uncertainty="swag"
        )

        assert tasks.get(task.id) == task
        assert (task.rounds, task.options, task.uncertainty) == (7, options, "swag")
        assert tasks.create("t", ["a", "b"]).uncertainty is None
        assert task.expires_at is not None
        assert abs(task.expires_at - task.created_at - timedelta(hours=2)) < timedelta(milliseconds=1)

    @pytest.mark.parametrize(
        ("name", "parties", "rounds", "text"),
        [
            ("", ["a", "b"], None, "printable"),
            ("t", ["a", "a"], None, "more than once"),
            ("t", ["a"], None, "1 parties"),
            ("t", ["a", "b"], 0, "number of rounds is wrong; expected 1 to"),
            ("t", ["a", "b"], True, "number of rounds is wrong"),
        ],
    )
    def test_what_can_be_no_task_creates_none(
        self, tasks: Tasks, name: str, parties: list[str], rounds: int, text: str
    ) -> None:
        with pytest.raises(ConfigError, match=text):
            tasks.create(name, parties, rounds=rounds)
        with pytest.raises(ConfigError, match="expire before it begins"):
            tasks.create("t", ["a", "b"], lives_for=timedelta())
        with pytest.raises(ConfigError, match=r"uncertainty method of a task is wrong; expected swag or None"):
            tasks.create("t", ["a", "b"], uncertainty="SWAG")  # type: ignore[arg-type]  # the fault under test
        assert tasks.list() == ()

    @pytest.mark.parametrize("task_id", ["nosuchtask", "", "../x", "a/b", None, "ü", "x" * 500])
    def test_a_task_that_is_not_there_is_unknown_to_every_call(self, tasks: Tasks, task_id: str) -> None:
        for call in ask_for(tasks, task_id):
            with pytest.raises(UnknownTask, match="there is no task"):
                call()

    @pytest.mark.parametrize("party", ["c", "", "../a", None, "ü"])
    def test_a_party_that_is_not_of_the_task_is_refused_by_every_call(
        self, tasks: Tasks, running: Task, party: str
    ) -> None:
        before = tasks.get(running.id)
        for call in ask_of(tasks, running.id, party):
            with pytest.raises(ConfigError, match=r"has no party .*; expected one of bank, shop"):
                call()
        assert tasks.get(running.id) == before

    def test_a_move_keeps_its_reason_and_an_illegal_one_changes_nothing(self, tasks: Tasks, task: Task) -> None:
        tasks.claim_host(task.id, "bank")
        tasks.move(task.id, TaskStatus.GATHERING)
        failed = tasks.move(task.id, TaskStatus.FAILED, "shop vanished")

        assert (failed.status, failed.reason) == (TaskStatus.FAILED, "shop vanished")
        assert tasks.move(task.id, TaskStatus.FAILED, "said again") == failed
        with pytest.raises(ConfigError, match="a task that is FAILED cannot become ONGOING; expected GATHERING or"):
            tasks.move(task.id, TaskStatus.ONGOING)
        assert tasks.get(task.id) == failed

    def test_a_cancelled_task_stays_cancelled_with_its_reason(self, tasks: Tasks, task: Task) -> None:
        assert tasks.move(task.id, TaskStatus.CANCELLED, "wrong table").reason == "wrong table"
        assert tasks.move(task.id, TaskStatus.CANCELLED, "again").reason == "wrong table"
        tasks.claim_host(task.id, "bank")
        with pytest.raises(ConfigError, match="CANCELLED cannot become"):
            tasks.move(task.id, TaskStatus.GATHERING)

    # -- parties -------------------------------------------------------------------------------------------------

    def test_only_what_is_given_of_a_party_changes_and_none_clears(self, tasks: Tasks, task: Task) -> None:
        tasks.set_party(task.id, "bank", status=PartyStatus.REJECTED, reason="no rows")
        tasks.set_party(task.id, "bank", role="host", public_key=KEY, endpoint="tcp://127.0.0.1:1")
        party = tasks.get(task.id).party("bank")
        assert (party.status, party.reason, party.role) == (PartyStatus.REJECTED, "no rows", "host")
        assert (party.public_key, party.endpoint) == (KEY, "tcp://127.0.0.1:1")

        cleared = tasks.set_party(task.id, "bank", reason=None, role=None, public_key=None, endpoint=None)

        party = cleared.party("bank")
        assert (party.status, party.reason, party.role) == (PartyStatus.REJECTED, None, None)
        assert (party.public_key, party.endpoint) == (None, None)
        assert tasks.get(task.id) == cleared

    def test_values_that_a_party_cannot_have_are_refused(self, tasks: Tasks, task: Task) -> None:
        with pytest.raises(ConfigError, match="public_key is wrong"):
            tasks.set_party(task.id, "bank", public_key="text")  # type: ignore[arg-type]  # the fault under test
        with pytest.raises(ConfigError, match="public_key is wrong"):
            tasks.set_party(task.id, "bank", public_key=b"\xff" * 40)
        with pytest.raises(ConfigError, match="endpoint is wrong"):
            tasks.set_party(task.id, "bank", endpoint="x" * 1001)
        with pytest.raises(ConfigError, match="role is wrong"):
            tasks.set_party(task.id, "bank", role="guest")  # type: ignore[arg-type]  # the fault under test
        with pytest.raises(ConfigError, match="status is wrong"):
            tasks.set_party(task.id, "bank", status="ONLINE")  # type: ignore[arg-type]  # the fault under test
        assert tasks.get(task.id) == task

    def test_a_second_host_and_a_key_of_another_are_refused(self, tasks: Tasks, task: Task) -> None:
        tasks.claim_host(task.id, "bank")
        tasks.claim_host(task.id, "bank")
        tasks.set_party(task.id, "bank", public_key=KEY)

        with pytest.raises(ConfigError, match=r"shop cannot be the host .*: bank is; expected one host"):
            tasks.claim_host(task.id, "shop")
        with pytest.raises(ConfigError, match=r"shop and bank of task .* have the same public key"):
            tasks.set_party(task.id, "shop", public_key=KEY)

        assert [party.role for party in tasks.get(task.id).parties] == ["host", None]

    def test_a_trusted_key_is_the_only_one_that_the_party_can_have(self, tasks: Tasks, task: Task) -> None:
        trusted = tasks.trust(task.id, "shop", KEY)

        assert (trusted.party("shop").public_key, trusted.party("shop").key_trusted) == (KEY, True)
        assert trusted.owner_of(KEY) == "shop"
        with pytest.raises(ConfigError, match=r"shop comes with another key than the one that task .* trusts"):
            tasks.set_party(task.id, "shop", public_key=OTHER_KEY)
        assert tasks.trust(task.id, "shop", OTHER_KEY).owner_of(OTHER_KEY) == "shop"

    def test_a_task_is_verified_when_every_party_is(self, tasks: Tasks, task: Task) -> None:
        assert tasks.verify(task.id, "bank", True).status is TaskStatus.VERIFYING
        refused = tasks.verify(task.id, "shop", False, "no column id")
        assert (refused.status, refused.party("shop").status) == (TaskStatus.VERIFYING, PartyStatus.REJECTED)
        assert refused.party("shop").reason == "no column id"

        verified = tasks.verify(task.id, "shop", True)

        assert (verified.status, verified.party("shop").reason) == (TaskStatus.VERIFIED, None)

    # -- the log -------------------------------------------------------------------------------------------------

    def test_the_log_gives_the_last_lines_oldest_first(self, tasks: Tasks, task: Task) -> None:
        for number in range(4):
            tasks.log(task.id, ("bank", "shop")[number % 2], f"line {number}")

        lines = tasks.logs(task.id, limit=2)

        assert [(line.party, line.text) for line in lines] == [("bank", "line 2"), ("shop", "line 3")]
        assert lines[0].at <= lines[1].at <= datetime.now(timezone.utc) + timedelta(seconds=1)
        assert len(tasks.logs(task.id)) == 4
        assert tasks.logs(task.id, limit=0) == ()
        with pytest.raises(ConfigError, match="empty"):
            tasks.log(task.id, "bank", "")

    # -- the launch ----------------------------------------------------------------------------------------------

    def test_a_launch_is_noted_with_its_time_and_a_second_one_refused(self, tasks: Tasks, task: Task) -> None:
        launched = tasks.start(task.id)

        assert launched.launched_at is not None
        assert abs(launched.launched_at - datetime.now(timezone.utc)) < timedelta(seconds=30)
        assert tasks.get(task.id) == launched
        assert TRAINING_START in [event.kind for event in tasks.events(task.id)]
        with pytest.raises(ConfigError, match="is launched already"):
            tasks.start(task.id)

    def test_a_task_that_failed_may_be_launched_again(self, tasks: Tasks, task: Task) -> None:
        tasks.claim_host(task.id, "bank")
        tasks.start(task.id)
        tasks.move(task.id, TaskStatus.FAILED, "shop vanished")

        tasks.start(task.id)

        assert [event.kind for event in tasks.events(task.id)].count(TRAINING_START) == 2

    def test_a_task_with_refused_data_or_that_is_over_cannot_be_launched(self, tasks: Tasks, task: Task) -> None:
        tasks.verify(task.id, "shop", False, "no column id")
        with pytest.raises(ConfigError, match="the data check of shop said no: no column id"):
            tasks.start(task.id)
        tasks.move(task.id, TaskStatus.CANCELLED, "wrong table")
        with pytest.raises(ConfigError, match="is CANCELLED: wrong table, and cannot be launched"):
            tasks.start(task.id)
        assert tasks.get(task.id).launched_at is None

    # -- reports -------------------------------------------------------------------------------------------------

    def test_a_report_counts_once_however_often_it_comes(self, tasks: Tasks, running: Task) -> None:
        # item 56: a duplicate is refused; 46: one for each party and round
        for expected in (True, False, False):
            assert tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1, {"loss": 0.5}) is expected
        assert tasks.report(running.id, "shop", ReportKind.ROUND_FINISHED, 1) is True
        assert tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 2) is True
        assert tasks.report(running.id, "bank", ReportKind.TEST_FINISHED, 1, {"scores": {"auc": 0.7}}) is True

        told = [event for event in tasks.events(running.id) if event.kind in set(ReportKind)]
        assert [(event.kind, event.party, event.round) for event in told] == [
            ("ROUND_FINISHED", "bank", 1),
            ("ROUND_FINISHED", "shop", 1),
            ("ROUND_FINISHED", "bank", 2),
            ("TEST_FINISHED", "bank", 1),
        ]
        assert told[0].body == {"loss": 0.5}
        assert told[3].body == {"scores": {"auc": 0.7}}

    def test_the_host_says_how_far_a_task_is(self, tasks: Tasks, running: Task) -> None:
        tasks.report(running.id, "shop", ReportKind.ROUND_FINISHED, 1)
        assert tasks.get(running.id).round == 0
        tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 2)
        tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1)
        assert tasks.get(running.id).round == 2

    @pytest.mark.parametrize(
        ("kind", "round"),
        [
            (ReportKind.ROUND_FINISHED, 0),
            (ReportKind.ROUND_FINISHED, -1),
            (ReportKind.ROUND_FINISHED, 4),
            (ReportKind.ROUND_FINISHED, True),
            (ReportKind.ROUND_FINISHED, 1.0),
            (ReportKind.ROUND_FINISHED, 10**20),
            (ReportKind.TASK_FAILED, -1),
        ],
    )
    def test_a_report_of_a_round_that_cannot_be_is_refused(
        self, tasks: Tasks, running: Task, kind: ReportKind, round: int
    ) -> None:  # item 56: wrong round
        with pytest.raises(ConfigError, match="names a wrong round"):
            tasks.report(running.id, "bank", kind, round)
        assert tasks.get(running.id).round == 0

    def test_a_report_of_a_party_that_never_came_in_is_refused(self, tasks: Tasks, task: Task) -> None:
        with pytest.raises(ConfigError, match="never came in"):
            tasks.report(task.id, "bank", ReportKind.ROUND_FINISHED, 1)

    def test_a_cancelled_task_takes_no_report_and_a_completed_one_those_that_are_late(
        self, tasks: Tasks, running: Task
    ) -> None:  # item 56: wrong state
        tasks.move(running.id, TaskStatus.COMPLETED)
        assert tasks.report(running.id, "shop", ReportKind.ROUND_FINISHED, 1) is True
        other = tasks.create("t", ["bank", "shop"])
        tasks.set_party(other.id, "bank", role="host", public_key=KEY)
        tasks.move(other.id, TaskStatus.CANCELLED)
        with pytest.raises(ConfigError, match="is CANCELLED, and takes no report"):
            tasks.report(other.id, "bank", ReportKind.ROUND_FINISHED, 1)

    @pytest.mark.parametrize("kind", [ReportKind.TEST_FINISHED, ReportKind.PARTY_LOST, ReportKind.TASK_FAILED])
    def test_only_the_host_reports_what_is_the_hosts(self, tasks: Tasks, running: Task, kind: ReportKind) -> None:
        with pytest.raises(ConfigError, match=rf"shop reports {kind.value} .*expected the host"):
            tasks.report(running.id, "shop", kind, 1)
        assert tasks.report(running.id, "bank", kind, 1, {"reason": "x", "party": "shop"}) is True

    def test_a_body_may_hold_numbers_that_json_has_not(self, tasks: Tasks, running: Task) -> None:
        body = {"scores": {"auc": math.nan}, "most": math.inf, "list": (1, 2)}
        assert tasks.report(running.id, "bank", ReportKind.TEST_FINISHED, 1, body) is True
        assert tasks.events(running.id)[-1].body == {"scores": {"auc": "nan"}, "most": "inf", "list": [1, 2]}

    def test_a_body_that_is_too_large_too_deep_or_no_json_is_refused(self, tasks: Tasks, running: Task) -> None:
        deep: dict[str, object] = {}
        for _ in range(40):
            deep = {"x": deep}
        for body in ({"x": "y" * 70_000}, deep, {"x": b"bytes"}, {1: 2}, {"x": 10**30}):
            with pytest.raises(ConfigError, match="the body of a report"):
                tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1, body)  # type: ignore[arg-type]  # faults
        assert tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1) is True

    # -- a run that begins again ---------------------------------------------------------------------------------

    def told(self, tasks: Tasks, task: Task, party: str) -> None:
        """Have a party tell of two rounds."""
        for round in (1, 2):
            tasks.report(task.id, party, ReportKind.ROUND_FINISHED, round)
            tasks.report(task.id, party, ReportKind.SWAG_FINISHED, round)
        tasks.put_metrics(task.id, party, [Measurement("scores", row, row + 1, {"auc": 0.5}) for row in range(2)])
        tasks.put_output(task.id, party, "scores.csv", party.encode())

    def test_a_party_that_begins_again_is_listened_to_again_and_the_host_starts_the_count(
        self, tasks: Tasks, running: Task
    ) -> None:
        for party in ("bank", "shop"):
            assert tasks.begin_anew(running.id, party, "one") is True
            self.told(tasks, running, party)
        tasks.report(running.id, "bank", ReportKind.TEST_FINISHED, 1, {"scores": {}})
        tasks.report(running.id, "bank", ReportKind.PARTY_LOST, 1, {"party": "shop"})
        assert tasks.get(running.id).round == 2
        before = tasks.metrics(running.id)

        assert tasks.begin_anew(running.id, "bank", "two") is True

        assert tasks.get(running.id).round == 0
        assert [each.party for each in tasks.metrics(running.id)] == ["shop"] * 2
        assert [each.party for each in tasks.outputs(running.id)] == ["shop"]
        assert tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1) is True
        assert tasks.report(running.id, "bank", ReportKind.TEST_FINISHED, 1) is True
        assert tasks.report(running.id, "bank", ReportKind.SWAG_FINISHED, 1) is True
        # That a party was lost is of the launch, and what another party said is its own to take back.
        assert tasks.report(running.id, "bank", ReportKind.PARTY_LOST, 1, {"party": "shop"}) is False
        assert tasks.report(running.id, "shop", ReportKind.ROUND_FINISHED, 1) is False
        assert tasks.get(running.id).round == 1
        assert tasks.put_metrics(running.id, "bank", [Measurement("scores", 0, 1, {"auc": 0.75})]) == 1
        [fresh] = tasks.metrics(running.id, after=before[-1].number)
        assert (fresh.party, fresh.values) == ("bank", {"auc": 0.75})

        assert tasks.begin_anew(running.id, "shop", "two") is True
        assert tasks.get(running.id).round == 1
        assert [each.party for each in tasks.metrics(running.id)] == ["bank"]
        assert tasks.report(running.id, "shop", ReportKind.ROUND_FINISHED, 1) is True

    def test_rows_that_come_after_those_that_were_forgotten_have_numbers_of_their_own(
        self, tasks: Tasks, running: Task
    ) -> None:
        tasks.put_metrics(running.id, "bank", [Measurement("scores", 0, 1, {"auc": 0.5})])
        [old] = tasks.metrics(running.id)
        tasks.begin_anew(running.id, "bank", "one")
        assert tasks.metrics(running.id) == ()

        tasks.put_metrics(running.id, "bank", [Measurement("scores", 0, 1, {"auc": 0.5})])

        assert [each.number > old.number for each in tasks.metrics(running.id, after=old.number)] == [True]
        [event] = [each for each in tasks.events(running.id) if each.kind == RUN_BEGAN]
        assert (event.party, event.body) == ("bank", {"up_to": old.number})

    def test_a_beginning_that_is_said_twice_forgets_nothing_of_what_came_after_it(
        self, tasks: Tasks, running: Task
    ) -> None:
        tasks.begin_anew(running.id, "bank", "one")
        self.told(tasks, running, "bank")
        events = tasks.events(running.id)

        assert tasks.begin_anew(running.id, "bank", "one") is False

        assert tasks.get(running.id).round == 2
        assert len(tasks.metrics(running.id)) == 2
        assert len(tasks.outputs(running.id)) == 1
        assert tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 2) is False
        assert tasks.events(running.id) == events

    def test_a_first_run_begins_without_a_word(self, tasks: Tasks, running: Task) -> None:
        events = tasks.events(running.id)

        assert tasks.begin_anew(running.id, "bank", "one") is True

        assert tasks.events(running.id) == events

    def test_who_never_came_in_or_comes_too_late_cannot_begin_a_run_again(self, tasks: Tasks, task: Task) -> None:
        with pytest.raises(ConfigError, match="bank never came in"):
            tasks.begin_anew(task.id, "bank", "one")
        for launch in ("", "x" * 65, "a b", None, "ü"):
            with pytest.raises(ConfigError, match="the name of a launch is wrong"):
                tasks.begin_anew(task.id, "bank", launch)  # type: ignore[arg-type]  # the fault under test
        tasks.set_party(task.id, "bank", role="host")
        tasks.set_party(task.id, "shop", role="collaborator")
        for status in (TaskStatus.GATHERING, TaskStatus.ONGOING):
            tasks.move(task.id, status)
        self.told(tasks, task, "bank")
        tasks.move(task.id, TaskStatus.COMPLETED)
        with pytest.raises(ConfigError, match="is COMPLETED, so bank cannot begin it anew"):
            tasks.begin_anew(task.id, "bank", "one")
        assert tasks.begin_anew(task.id, "shop", "one") is True  # what it says comes when it can
        other = tasks.create("t", ["bank", "shop"])
        tasks.set_party(other.id, "shop", role="collaborator")
        tasks.move(other.id, TaskStatus.CANCELLED)
        with pytest.raises(ConfigError, match="is CANCELLED, so shop cannot begin it anew"):
            tasks.begin_anew(other.id, "shop", "one")
        assert tasks.get(task.id).round == 2

    # -- events --------------------------------------------------------------------------------------------------

    def test_events_tell_the_course_in_order_and_can_be_read_on_from_any(self, tasks: Tasks, running: Task) -> None:
        tasks.set_party(running.id, "shop", status=PartyStatus.ONLINE)
        tasks.set_party(running.id, "shop", status=PartyStatus.ONLINE)
        tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1)
        tasks.move(running.id, TaskStatus.FAILED, "shop vanished")

        events = tasks.events(running.id)

        own = events
        assert [event.kind for event in own] == [
            *(TASK_CREATED, TASK_STATUS, TASK_STATUS, PARTY_STATUS, "ROUND_FINISHED", TASK_STATUS),
        ]
        assert own[-1].text == "the task is FAILED: shop vanished"
        assert own[-1].body == {"status": "FAILED", "reason": "shop vanished"}
        assert (own[3].party, own[3].text) == ("shop", "shop is ONLINE")
        numbers = [event.number for event in events]
        assert numbers == sorted(set(numbers))
        assert tasks.events(running.id, after=numbers[1], limit=2) == events[2:4]
        assert tasks.events(running.id, after=numbers[-1]) == ()

    # -- metric rows ---------------------------------------------------------------------------------------------

    def test_rows_come_back_as_they_were_in_order_and_a_second_time_they_change_nothing(
        self, tasks: Tasks, task: Task
    ) -> None:
        values: dict[str, Value] = {"loss": 0.1 + 0.2, "rows": 7, "name": "é", "best": True, "none": None}
        values["tiny"] = 5e-324
        rows = [Measurement("test", number, number + 1, {**values, "x": number}) for number in range(3)]

        assert tasks.put_metrics(task.id, "bank", rows[:2]) == 2
        assert tasks.put_metrics(task.id, "bank", rows) == 1
        assert tasks.put_metrics(task.id, "bank", [Measurement("test", 0, 9, {"other": 1})]) == 0
        assert tasks.put_metrics(task.id, "shop", rows[:1]) == 1
        assert tasks.put_metrics(task.id, "bank", []) == 0

        found = tasks.metrics(task.id)
        assert [(each.party, each.set, each.row, each.round) for each in found] == [
            *(("bank", "test", 0, 1), ("bank", "test", 1, 2), ("bank", "test", 2, 3), ("shop", "test", 0, 1)),
        ]
        assert found[0].values == {**values, "x": 0}
        assert {type(value) for value in found[0].values.values()} == {float, int, str, bool, type(None)}
        assert tasks.metrics(task.id, after=found[1].number) == found[2:]

    def test_a_row_twice_in_one_call_counts_once(self, tasks: Tasks, task: Task) -> None:
        rows = [Measurement("test", 0, None, {"x": 1}), Measurement("test", 0, None, {"x": 2})]
        assert tasks.put_metrics(task.id, "bank", rows) == 1
        assert tasks.metrics(task.id)[0].values == {"x": 1}

    def test_nan_and_infinity_are_measurements_too(self, tasks: Tasks, task: Task) -> None:
        row = Measurement("test", 0, 1, {"a": math.nan, "b": math.inf, "c": -math.inf})
        tasks.put_metrics(task.id, "bank", [row])
        values = tasks.metrics(task.id)[0].values
        assert (repr(values["a"]), values["b"], values["c"]) == ("nan", math.inf, -math.inf)

    @pytest.mark.parametrize(
        ("name", "row", "round", "values", "text"),
        [
            ("", 0, 1, {}, "name of a metric set"),
            ("../x", 0, 1, {}, "name of a metric set"),
            ("x", -1, 1, {}, "wrong place"),
            ("x", True, 1, {}, "wrong place"),
            ("x", 0, -1, {}, "wrong round"),
            ("x", 0, 1, {"a": []}, "a value of the metric set x is wrong"),
            ("x", 0, 1, {"a": 2**63}, "a value of the metric set x is wrong"),
            ("x", 0, 1, {"a": "y" * 1001}, "a value of the metric set x is wrong"),
            ("x", 0, 1, {1: 2}, "a column of the metric set x is wrong"),
            ("x", 0, 1, {str(number): 1 for number in range(201)}, "at most 200"),
        ],
    )
    def test_what_is_no_row_is_refused_and_the_rows_beside_it_too(
        self, tasks: Tasks, task: Task, name: str, row: int, round: int, values: dict[str, float], text: str
    ) -> None:
        with pytest.raises(ConfigError, match=text):
            tasks.put_metrics(
                task.id, "bank", [Measurement("fine", 0, 1, {"a": 1}), Measurement(name, row, round, values)]
            )
        assert tasks.metrics(task.id) == ()

    def test_thousands_of_rows_come_back_whole(self, tasks: Tasks, task: Task) -> None:
        rows = [Measurement("long", number, None, {"x": number}) for number in range(2500)]
        assert tasks.put_metrics(task.id, "bank", rows) == 2500
        assert [each.row for each in tasks.metrics(task.id)] == list(range(2500))

    # -- files ---------------------------------------------------------------------------------------------------

    def test_a_file_comes_back_byte_for_byte_and_a_second_one_replaces_it(self, tasks: Tasks, task: Task) -> None:
        tasks.put_output(task.id, "bank", "test.csv", b"old")
        tasks.put_output(task.id, "bank", "test.csv", bytes(range(256)) * 100)
        tasks.put_output(task.id, "shop", "test.csv", b"")

        assert tasks.output(task.id, "bank", "test.csv") == bytes(range(256)) * 100
        assert tasks.output(task.id, "shop", "test.csv") == b""
        outputs = tasks.outputs(task.id)
        assert [(each.party, each.name, each.size) for each in outputs] == [
            *(("bank", "test.csv", 25600), ("shop", "test.csv", 0)),
        ]
        assert outputs[1].sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    @pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "x" * 121, "ü.csv", None])
    def test_a_name_that_could_lead_elsewhere_is_refused(self, tasks: Tasks, task: Task, name: str) -> None:
        with pytest.raises(ConfigError, match="the name of an output is wrong"):
            tasks.put_output(task.id, "bank", name, b"x")
        with pytest.raises(ConfigError, match="the name of an output is wrong"):
            tasks.output(task.id, "bank", name)

    def test_a_file_that_is_not_there_is_named(self, tasks: Tasks, task: Task) -> None:
        with pytest.raises(ConfigError, match=r"bank gave no model\.zip to task"):
            tasks.output(task.id, "bank", "model.zip")

    # -- following -----------------------------------------------------------------------------------------------

    def test_who_follows_hears_of_each_launch_once_and_can_go_on_behind_it(self, tasks: Tasks) -> None:
        first = tasks.create("one", ["bank", "shop"])
        tasks.start(first.id)
        stop = threading.Event()
        heard: list[tuple[str, str | None]] = []
        for told in tasks.follow(stop=stop):
            if told.notification_type == "TRAINING_START":
                assert told.as_json().keys() == {"notification_type", "body", "training_uuid"}  # item 51
                heard.append((told.training_uuid, told.party))
                if told.training_uuid == first.id and len(heard) == 1:
                    second = tasks.create("two", ["bank", "shop"])
                    tasks.start(second.id)
                elif told.training_uuid == second.id:
                    stop.set()
        assert len(set(heard)) == len(heard)  # a hub tells each party, a store everybody at once
        assert {task_id for task_id, _ in heard} == {first.id, second.id}

        third, stop = tasks.create("three", ["bank", "shop"]), threading.Event()
        tasks.start(third.id)
        for again in tasks.follow(after=told.number, stop=stop):
            assert again.number > told.number
            assert again.training_uuid != first.id
            if again.training_uuid == third.id:
                stop.set()

    def test_a_follower_ends_soon_after_it_is_told_to(self, tasks: Tasks) -> None:
        stop = threading.Event()
        ended = threading.Event()

        def listen() -> None:
            for _ in tasks.follow(stop=stop):
                pass
            ended.set()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert not ended.wait(0.5)
        stop.set()
        assert ended.wait(5)
        thread.join(timeout=5)

    # -- many at once --------------------------------------------------------------------------------------------

    def test_of_many_who_report_the_same_at_once_one_counts(self, tasks: Tasks, running: Task) -> None:
        barrier = threading.Barrier(6)
        counted: list[bool] = []
        failures: list[HeterofedError] = []

        def report() -> None:
            barrier.wait(timeout=10)
            try:
                counted.append(tasks.report(running.id, "bank", ReportKind.ROUND_FINISHED, 1))
            except HeterofedError as error:
                failures.append(error)

        threads = [threading.Thread(target=report) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert failures == []
        assert sorted(counted) == [False] * 5 + [True]

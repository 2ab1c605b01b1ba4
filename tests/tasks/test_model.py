from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest

from heterofed.errors import ConfigError
from heterofed.tasks import Party, Task, TaskStatus, check_feature_key, check_feature_keys, check_move
from heterofed.tasks.model import MOVES, parse_duration

S = TaskStatus
LIVE = set(S) - {S.COMPLETED, S.FAILED, S.CANCELLED}
LEGAL = {
    (S.CREATED, S.VERIFYING),
    (S.CREATED, S.GATHERING),
    (S.VERIFYING, S.VERIFIED),
    (S.VERIFYING, S.GATHERING),
    (S.VERIFIED, S.VERIFYING),
    (S.VERIFIED, S.GATHERING),
    (S.GATHERING, S.ALIGNING),
    (S.GATHERING, S.ONGOING),
    (S.ALIGNING, S.ONGOING),
    (S.ALIGNING, S.GATHERING),
    (S.ONGOING, S.TESTING),
    (S.ONGOING, S.COMPLETED),
    (S.ONGOING, S.GATHERING),
    (S.TESTING, S.ONGOING),
    (S.TESTING, S.COMPLETED),
    (S.TESTING, S.GATHERING),
    (S.FAILED, S.GATHERING),
    (S.FAILED, S.CANCELLED),
    *product(LIVE, {S.FAILED, S.CANCELLED}),
}


@pytest.mark.parametrize(("current", "new"), list(product(S, S)))
def test_a_task_moves_as_the_table_says_and_in_no_other_way(current: S, new: S) -> None:
    if (current, new) in LEGAL:
        check_move(current, new)
    else:
        with pytest.raises(ConfigError, match=f"{current.value} cannot become {new.value}"):
            check_move(current, new)


def test_every_status_has_its_moves_and_can_be_reached() -> None:
    assert set(MOVES) == set(S)
    assert set().union(*MOVES.values()) == set(S) - {S.CREATED}


def test_a_refused_move_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="expected VERIFYING or GATHERING or FAILED or CANCELLED"):
        check_move(S.CREATED, S.ONGOING)
    with pytest.raises(ConfigError, match=r"no further move\. Create a new task"):
        check_move(S.COMPLETED, S.GATHERING)


@pytest.mark.parametrize("text", ["a", "demo_host", "9", "A-b.c_D", "x" * 64])
def test_a_feature_key_is_returned(text: str) -> None:
    assert check_feature_key(text) == text


@pytest.mark.parametrize(
    "text", ["", "_a", ".a", "-a", "a b", "a/b", "a\n", "ä", "方", "x" * 65, None, 3, b"a", ["a"], "a\x00"]
)
def test_what_cannot_be_a_feature_key_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 64 letters"):
        check_feature_key(text)


def test_the_error_for_a_long_feature_key_stays_short() -> None:
    with pytest.raises(ConfigError) as caught:
        check_feature_key("x" * 10_000)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "0 parties"),
        (["a"], "1 parties"),
        ([str(i) for i in range(10)], "10 parties"),
        (["a", "b", "a"], "a named more than once"),
        ("ab", "a list"),
        (3, "a list"),
        (["a", ""], "feature_key"),
    ],
)
def test_wrong_parties_are_refused(keys: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_feature_keys(keys)


def test_two_to_nine_parties_keep_their_order() -> None:
    assert check_feature_keys(["b", "a"]) == ("b", "a")
    assert len(check_feature_keys(str(i) for i in range(9))) == 9


def test_a_party_is_found_by_its_name_or_the_error_names_the_others() -> None:
    task = Task("id1", "t", S.CREATED, datetime.now(timezone.utc), None, (Party("a"), Party("b")))
    assert task.party("b") is task.parties[1]
    assert task.feature_keys == ("a", "b")
    with pytest.raises(ConfigError, match=r"task id1 has no party 'c'; expected one of a, b\. Use the feature_key"):
        task.party("c")


def test_a_task_knows_its_host_once_it_is_launched() -> None:
    task = Task("id1", "t", S.CREATED, datetime.now(timezone.utc), None, (Party("a", role="collaborator"), Party("b")))
    assert task.host is None
    launched = replace(task, parties=(task.parties[0], Party("b", role="host")))
    assert launched.host is launched.parties[1]


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("3650d", timedelta(3650)),
    ],
)
def test_a_duration_is_a_number_of_minutes_hours_or_days(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0m", "-1d", "1.5h", "7w", "7D", "7 d", "3651d", "9999999d", "٧d", "7d\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match="is no duration; expected minutes, hours or days up to 3650d, for example 90m"
    ):
        parse_duration(text)


def test_a_task_says_why_it_is_over() -> None:
    now = datetime(2026, 5, 17, 12, 0, tzinfo=timezone.utc)

    def over(status: S, reason: str | None = None, expires_at: datetime | None = None) -> str | None:
        return Task("id1", "t", status, now, reason, (Party("a"), Party("b")), expires_at).why_over(now)

    assert over(S.COMPLETED) == "is COMPLETED"
    assert over(S.CANCELLED) == "is CANCELLED"
    assert over(S.CANCELLED, "wrong table") == "is CANCELLED: wrong table"
    assert over(S.ONGOING, None, now) == "expired at 2026-05-17 12:00 UTC"
    assert over(S.ONGOING, None, now + timedelta(seconds=1)) is None
    assert over(S.FAILED, "shop never came") is None

"""How a party's part in a task is framed: its record, and what the others are told of the way it ended."""

from __future__ import annotations

import pytest

from heterofed import ConfigError, HeterofedError, Settings, TaskFailed
from heterofed.scheduler.seat import TERMINATED, Seat, as_failure, presence
from heterofed.tasks.model import PartyStatus
from heterofed.wire.memory import MemoryHub
from tests.scheduler.rejoining import PartyRecord, Record, Told


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def seat(record: Record) -> Seat:
    return Seat(
        task_id="task",
        task_name="task",
        feature_key="c1",
        parties=("host", "c1"),
        connect=lambda: ("host", MemoryHub(host="host").transport("c1")),
        settings=Settings(),
        progress=Told("c1", []),
        record=PartyRecord(record, "c1"),
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(TERMINATED), "its process was told to end (SIGTERM)."),
        (SystemExit(1), "its own code ended the process."),
        (SystemExit(), "its own code ended the process."),
        (KeyboardInterrupt(), "its user interrupted it."),
        (KeyError("secret-person"), "stopped by an unexpected KeyError. Please report it with the traceback."),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_what_ended_a_party_is_told_in_a_few_words_without_data(error: BaseException, text: str) -> None:
    failure = as_failure(error)

    assert type(failure) is TaskFailed
    assert str(failure) == text
    assert "secret" not in failure.for_peers()


def test_an_error_of_ours_is_told_as_it_is() -> None:
    error = ConfigError("no such thing")

    assert as_failure(error) is error


def test_a_party_that_was_told_to_end_ends_so_and_the_others_hear_why(seat: Seat, record: Record) -> None:
    told: list[HeterofedError] = []

    with pytest.raises(SystemExit) as caught, presence(seat, told.append):
        raise SystemExit(TERMINATED)

    assert caught.value.code == 143
    assert [str(each) for each in told] == ["its process was told to end (SIGTERM)."]
    assert record.parties == {"c1": [PartyStatus.ONLINE]}


def test_a_party_that_comes_to_its_end_is_finished(seat: Seat, record: Record) -> None:
    with presence(seat, lambda error: None):
        assert record.parties == {"c1": [PartyStatus.ONLINE]}

    assert record.parties == {"c1": [PartyStatus.ONLINE, PartyStatus.FINISHED]}

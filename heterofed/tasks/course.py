"""What happens in a task's course, as values: reports of parties, events, measurements, files, notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

Value = float | int | str | bool | None
"""One cell of a metric set."""


class ReportKind(str, Enum):
    """What a party reports about a round; each (task, party, kind, round) counts once in each run."""

    ROUND_FINISHED = "ROUND_FINISHED"
    """Every party says it when it has closed a round."""
    TEST_FINISHED = "TEST_FINISHED"
    """The host has tested the model of a round; its body has {"scores": {...}}."""
    SWAG_FINISHED = "SWAG_FINISHED"
    """Every party says it when it has collected the moments of a round."""
    PARTY_LOST = "PARTY_LOST"
    """The host waits for a party that is gone; its body has {"party": ..., "reason": ...}."""
    TASK_FAILED = "TASK_FAILED"
    """The host gave up; its body has {"reason": ...}."""


OF_THE_HOST = frozenset({ReportKind.TEST_FINISHED, ReportKind.PARTY_LOST, ReportKind.TASK_FAILED})
"""What only the host reports."""

TASK_CREATED = "TASK_CREATED"
TASK_STATUS = "TASK_STATUS"
"""Kind of the event of a task's move; its body has {"status", "reason"}."""
PARTY_STATUS = "PARTY_STATUS"
"""Kind of the event of a party's new status; its body has {"status", "reason"}."""
TRAINING_START = "TRAINING_START"
"""Kind of the event of a launch, and type of the notification about it."""
RUN_BEGAN = "RUN_BEGAN"
"""Kind of the event of a party that begins with the first round again, so that what it reported, measured and gave is
forgotten; its body has {"up_to": the highest number of a metric row that went with that, or of any before it}."""


class NotificationType(str, Enum):
    """What a notification is about."""

    TRAINING_START = "TRAINING_START"
    UPDATE_ROUND_START = "UPDATE_ROUND_START"
    SWAG_ROUND_START = "SWAG_ROUND_START"
    MODEL_TEST_ROUND = "MODEL_TEST_ROUND"
    TRAINING_FINISHED = "TRAINING_FINISHED"
    CLIENT_REMOVED = "CLIENT_REMOVED"
    TASK_FAILED = "TASK_FAILED"


@dataclass(frozen=True)
class LogEntry:
    """One line of a task's log."""

    at: datetime
    """With its time zone, UTC."""

    party: str
    """Feature key of the party that said it."""

    text: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a task."""

    number: int
    """Grows from event to event of a task; those of one task are in order, with gaps."""

    at: datetime
    """With its time zone, UTC."""

    kind: str
    """TASK_CREATED, TASK_STATUS, PARTY_STATUS, TRAINING_START, RUN_BEGAN, or the value of a `ReportKind`."""

    party: str | None
    round: int | None
    text: str
    """For people."""

    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One row of a metric set of one party."""

    set: str
    """Name of the metric set, as `register_metrics` has it; 1 to 100 letters, digits, `_`, `.` or `-`."""

    row: int
    """Its place in the set, from 0."""

    round: int | None
    values: Mapping[str, Value]
    """Column -> value. A float may be NaN or infinite."""


@dataclass(frozen=True)
class Measured(Measurement):
    """A measurement as the record holds it."""

    number: int
    """Grows with the order of arrival."""

    at: datetime
    """When it arrived, with its time zone, UTC."""

    party: str


@dataclass(frozen=True)
class Output:
    """A file that a party gave to the record."""

    party: str
    name: str
    size: int
    """In bytes."""

    sha256: str
    """64 hexadecimal digits."""

    at: datetime
    """With its time zone, UTC."""


@dataclass(frozen=True)
class Notification:
    """What everybody who listens is told."""

    number: int
    """Grows; `follow(after=number)` goes on behind it."""

    notification_type: str
    body: Mapping[str, Any]
    training_uuid: str
    """The task's id."""

    party: str | None
    """Whom it is for; None: every party of the task."""

    at: datetime
    """With its time zone, UTC."""

    def as_json(self) -> dict[str, Any]:
        """Return what is sent of it."""
        return {
            "notification_type": self.notification_type,
            "body": dict(self.body),
            "training_uuid": self.training_uuid,
        }

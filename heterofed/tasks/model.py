"""A task and its parties as values, and the one table of moves that a task may make in its life."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Literal

from heterofed.errors import ConfigError
from heterofed.tasks.options import TrainerOptions, UncertaintyName

Role = Literal["host", "collaborator"]
"""What a party is in a task; known once it is launched."""

MIN_PARTIES = 2
MAX_PARTIES = 9


class TaskStatus(str, Enum):
    """Where a task is in its life; the values are what people see and what is stored."""

    CREATED = "CREATED"
    """It has an id and its parties are invited."""
    VERIFYING = "VERIFYING"
    """Some party has checked its data."""
    VERIFIED = "VERIFIED"
    """Every party's data check said yes."""
    GATHERING = "GATHERING"
    """The host is up and waits for every party to be there."""
    ALIGNING = "ALIGNING"
    """The parties find the samples that all of them hold."""
    ONGOING = "ONGOING"
    """A round is being trained."""
    TESTING = "TESTING"
    """The model of a finished round is being tested."""
    COMPLETED = "COMPLETED"
    """Every round is done. For good."""
    FAILED = "FAILED"
    """A party gave up; the task may be launched again, or cancelled."""
    CANCELLED = "CANCELLED"
    """Somebody decided to stop it. For good."""


_S = TaskStatus
_BREAKS = frozenset({_S.FAILED, _S.CANCELLED})

MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    # The data check is optional: a task that was created, or is only partly verified, may be launched.
    _S.CREATED: _BREAKS | {_S.VERIFYING, _S.GATHERING},
    _S.VERIFYING: _BREAKS | {_S.VERIFIED, _S.GATHERING},
    _S.VERIFIED: _BREAKS | {_S.VERIFYING, _S.GATHERING},
    # A recovered task is aligned already. And a process that was killed could not say FAILED: from every live status
    # a host may come back and gather its parties again.
    _S.GATHERING: _BREAKS | {_S.ALIGNING, _S.ONGOING},
    _S.ALIGNING: _BREAKS | {_S.ONGOING, _S.GATHERING},
    _S.ONGOING: _BREAKS | {_S.TESTING, _S.COMPLETED, _S.GATHERING},
    _S.TESTING: _BREAKS | {_S.ONGOING, _S.COMPLETED, _S.GATHERING},
    _S.FAILED: frozenset({_S.GATHERING, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""status -> the statuses that may follow it."""


class PartyStatus(str, Enum):
    """How far one party of a task is."""

    INVITED = "INVITED"
    VERIFIED = "VERIFIED"
    """Its data check said yes."""
    REJECTED = "REJECTED"
    """Its data check said no; the reason says why."""
    ONLINE = "ONLINE"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Party:
    """One party of a task, as everybody may see it."""

    feature_key: str
    """Its name in the task, and the name of its embedding."""

    status: PartyStatus = PartyStatus.INVITED

    reason: str | None = None
    """Why the status is what it is, for people."""

    role: Role | None = None
    """None until it is launched."""

    public_key: bytes | None = None
    """Its CURVE key, Z85-encoded; None until it is launched."""

    endpoint: str | None = None
    """Where it listens, for example tcp://127.0.0.1:40123; only a running host has one."""

    key_trusted: bool = False
    """Whether somebody said that this public key, and no other, is this party."""


@dataclass(frozen=True)
class Task:
    """One training job."""

    id: str
    name: str
    status: TaskStatus
    created_at: datetime
    """With its time zone, UTC."""

    reason: str | None
    """Why the status is what it is, for people."""

    parties: tuple[Party, ...]
    """In the order they were named when the task was created."""

    expires_at: datetime | None = None
    """From then on nobody new comes in; None: never. With its time zone, UTC."""

    rounds: int | None = None
    """How many rounds the host trains; None: as many as its own code says."""

    options: TrainerOptions | None = None
    """They win over the host's own; None: the host's."""

    launched_at: datetime | None = None
    """When everybody was last told to start, with its time zone, UTC; None: never."""

    round: int = 0
    """Rounds that the host has finished."""

    uncertainty: UncertaintyName | None = None
    """What the parties collect to say later how sure the network is; None: as their own code says."""

    def owner_of(self, public_key: bytes) -> str | None:
        """Return the feature key of the party that has this public key, or None."""
        for party in self.parties:
            if party.public_key is not None and party.public_key == public_key:
                return party.feature_key
        return None

    def why_over(self, now: datetime | None = None) -> str | None:
        """Return why no party may come in any more, or None; completes "task ID …"."""
        if self.status in (TaskStatus.COMPLETED, TaskStatus.CANCELLED):
            because = f": {self.reason}" if self.status is TaskStatus.CANCELLED and self.reason else ""
            return f"is {self.status.value}{because}"
        if self.expires_at is not None and (now or datetime.now(timezone.utc)) >= self.expires_at:
            return f"expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return None

    @property
    def feature_keys(self) -> tuple[str, ...]:
        """The names of the parties."""
        return tuple(party.feature_key for party in self.parties)

    @property
    def host(self) -> Party | None:
        """The party that is the host; None until it is launched."""
        return next((party for party in self.parties if party.role == "host"), None)

    def party(self, feature_key: str) -> Party:
        """Return the party of this name.

        Raises:
            ConfigError: the task has no such party.
        """
        for party in self.parties:
            if party.feature_key == feature_key:
                return party
        raise no_such_party(self.id, feature_key, self.feature_keys)


def check_move(current: TaskStatus, new: TaskStatus) -> None:
    """Do nothing if `current` may be followed by `new`.

    Raises:
        ConfigError: it may not; the text names both and what is allowed.
    """
    if new not in MOVES[current]:
        allowed = [status.value for status in TaskStatus if status in MOVES[current]]
        raise ConfigError(
            f"a task that is {current.value} cannot become {new.value}",
            expected=" or ".join(allowed) if allowed else "no further move",
            advice=None if allowed else "Create a new task with `heterofed task create`.",
        )


FEATURE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What can name a party."""

_SHOWN = 70  # of a wrong text, so that an error stays a line


def check_feature_key(text: object) -> str:
    """Return `text` if it can name a party.

    Raises:
        ConfigError: it is not 1 to 64 letters, digits, `_`, `-` or `.` that begin with a letter or digit.
    """
    if not isinstance(text, str) or not FEATURE_KEY.fullmatch(text):
        shown = repr(text[:_SHOWN]) if isinstance(text, str) else type(text).__name__
        raise ConfigError(
            f"a feature_key is {shown}",
            expected="1 to 64 letters, digits, '_', '-' or '.', the first one a letter or digit",
            advice="Rename the party.",
        )
    return text


def check_feature_keys(texts: Iterable[object]) -> tuple[str, ...]:
    """Return the names of a task's parties, in their order, if they can be those.

    Raises:
        ConfigError: one of them cannot name a party, two are equal, or there are too few or too many.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise ConfigError(f"the parties are {type(texts).__name__}", expected="a list of feature keys")
    keys = tuple(check_feature_key(text) for text in texts)
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} named more than once", expected="a feature_key of its own for every party"
        )
    if not MIN_PARTIES <= len(keys) <= MAX_PARTIES:
        raise ConfigError(f"a task of {len(keys)} parties", expected=f"{MIN_PARTIES} to {MAX_PARTIES} feature keys")
    return keys


_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"([0-9]{1,6})([mhd])")
LONGEST_LIFE = timedelta(days=3650)


def parse_duration(text: str) -> timedelta:
    """Return how long "90m", "12h" or "7d" is.

    Raises:
        ConfigError: it is none of these, nothing, or more than ten years.
    """
    match = _DURATION.fullmatch(text)
    duration = int(match[1]) * _UNITS[match[2]] if match else timedelta()
    if not timedelta() < duration <= LONGEST_LIFE:
        raise ConfigError(
            f"{text[:_SHOWN]!r} is no duration",
            expected="minutes, hours or days up to 3650d, for example 90m, 12h or 7d",
        )
    return duration


def no_such_party(task_id: str, feature_key: object, known: Iterable[str]) -> ConfigError:
    """The error for a feature key that is none of the task's."""
    shown = repr(feature_key[:_SHOWN]) if isinstance(feature_key, str) else type(feature_key).__name__
    return ConfigError(
        f"task {task_id} has no party {shown}",
        expected="one of " + ", ".join(known),
        advice="Use the feature_key that the task was created with.",
    )

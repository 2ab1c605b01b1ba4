"""Tasks and their course as plain JSON, and back: what the hub's REST layer says and its clients read.

Times are ISO 8601 in UTC, enums their values, a public key its text. JSON has no NaN and no infinity, so such a float
in a metric row travels as one of the texts "nan", "inf" and "-inf", and is a float again afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from datetime import datetime, timezone
from types import UnionType
from typing import Any, TypeVar, get_args

from heterofed.errors import ConfigError
from heterofed.tasks.course import Event, LogEntry, Measured, Measurement, Notification, Output, Value
from heterofed.tasks.model import Party, PartyStatus, Role, Task, TaskStatus
from heterofed.tasks.options import TrainerOptions, read_uncertainty

Form = dict[str, Any]
T = TypeVar("T")
NOT_FINITE: Mapping[str, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def time_form(at: datetime) -> str:
    """Return a time as text, in UTC, to the microsecond."""
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds")


def read_time(text: object) -> datetime:
    """Return the time of a text of ISO 8601 that names its zone.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(text, str):
        try:
            at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(timezone.utc)
    raise ConfigError("a time is none", expected="ISO 8601 with its zone, for example 2026-01-31T12:00:00+00:00")


def _optional_time(at: datetime | None) -> str | None:
    return None if at is None else time_form(at)


def read_field(form: object, name: str, kind: type[Any] | UnionType, default: Any = ...) -> Any:
    """Return one field of an object of JSON.

    Args:
        form: the object.
        name: the field.
        kind: what it has to be; a bool is no number.
        default: what is returned where it is missing; without it, it has to be there.

    Raises:
        ConfigError: `form` is no object, or the field is missing or of another type.
    """
    if not isinstance(form, Mapping):
        raise ConfigError(f"what was sent is {type(form).__name__}", expected="an object of JSON")
    value = form.get(name, default)
    if value is ...:
        raise ConfigError(f"{name} is missing", expected=_kind_name(kind))
    if value is default and name not in form:
        return value
    mistaken = isinstance(value, bool) and kind is not bool and bool not in get_args(kind)
    if kind is float and isinstance(value, int) and not mistaken:
        return float(value)
    if mistaken or not isinstance(value, kind):
        raise ConfigError(f"{name} is {type(value).__name__}", expected=_kind_name(kind))
    return value


def _kind_name(kind: type[Any] | UnionType) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def read_enum(form: object, name: str, kind: Callable[[str], T]) -> T:
    """Return one field that is the value of an enum.

    Raises:
        ConfigError: it is missing or none of its values.
    """
    text = read_field(form, name, str)
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(each.value for each in kind) if isinstance(kind, Iterable) else "a known word"
        raise ConfigError(f"{name} is {text[:40]!r}", expected=f"one of {known}") from None


def options_form(options: TrainerOptions | None) -> Form | None:
    """Return a task's options as an object of JSON, or None."""
    return None if options is None else asdict(options)


def read_options(form: object) -> TrainerOptions | None:
    """Return the options of an object of JSON, or None for null; what is not named has its default.

    Raises:
        ConfigError: it names an option that there is not, or one is no bool.
    """
    if form is None:
        return None
    known = [each.name for each in fields(TrainerOptions)]
    if not isinstance(form, Mapping) or not form.keys() <= set(known):
        raise ConfigError("the options are wrong", expected="an object with some of " + ", ".join(known))
    return TrainerOptions(**form)


def party_form(party: Party) -> Form:
    """Return a party as an object of JSON."""
    key = party.public_key
    return {
        "feature_key": party.feature_key,
        "status": party.status.value,
        "reason": party.reason,
        "role": party.role,
        "public_key": None if key is None else key.decode("ascii", errors="replace"),
        "endpoint": party.endpoint,
        "key_trusted": party.key_trusted,
    }


def read_role(role: object) -> Role | None:
    """Return a role, or None for null.

    Raises:
        ConfigError: it is none.
    """
    for known in get_args(Role):
        if role == known:
            return known  # type: ignore[no-any-return]  # get_args gives Any
    if role is None:
        return None
    raise ConfigError("a party's role is wrong", expected="host, collaborator or null")


def read_key(text: object) -> bytes | None:
    """Return a public key, or None for null.

    Raises:
        ConfigError: it is no text of ASCII.
    """
    if text is None:
        return None
    if isinstance(text, str) and text.isascii():
        return text.encode("ascii")
    raise ConfigError("a party's public_key is wrong", expected="text of ASCII, or null")


def read_party(form: object) -> Party:
    """Return the party of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    return Party(
        feature_key=read_field(form, "feature_key", str),
        status=read_enum(form, "status", PartyStatus),
        reason=read_field(form, "reason", str | None, None),
        role=read_role(read_field(form, "role", str | None, None)),
        public_key=read_key(read_field(form, "public_key", str | None, None)),
        endpoint=read_field(form, "endpoint", str | None, None),
        key_trusted=read_field(form, "key_trusted", bool, False),
    )


def task_form(task: Task) -> Form:
    """Return a task as an object of JSON."""
    return {
        "id": task.id,
        "name": task.name,
        "status": task.status.value,
        "reason": task.reason,
        "created_at": time_form(task.created_at),
        "expires_at": _optional_time(task.expires_at),
        "launched_at": _optional_time(task.launched_at),
        "rounds": task.rounds,
        "round": task.round,
        "options": options_form(task.options),
        "uncertainty": task.uncertainty,
        "parties": [party_form(each) for each in task.parties],
    }


def read_task(form: object) -> Task:
    """Return the task of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    expires_at = read_field(form, "expires_at", str | None, None)
    launched_at = read_field(form, "launched_at", str | None, None)
    return Task(
        id=read_field(form, "id", str),
        name=read_field(form, "name", str),
        status=read_enum(form, "status", TaskStatus),
        created_at=read_time(read_field(form, "created_at", str)),
        reason=read_field(form, "reason", str | None, None),
        parties=tuple(read_party(each) for each in read_field(form, "parties", list)),
        expires_at=None if expires_at is None else read_time(expires_at),
        rounds=read_field(form, "rounds", int | None, None),
        options=read_options(read_field(form, "options", dict | None, None)),
        launched_at=None if launched_at is None else read_time(launched_at),
        round=read_field(form, "round", int, 0),
        uncertainty=read_uncertainty(read_field(form, "uncertainty", str | None, None)),
    )


def log_form(entry: LogEntry) -> Form:
    """Return a line of a log as an object of JSON."""
    return {"at": time_form(entry.at), "party": entry.party, "text": entry.text}


def read_log(form: object) -> LogEntry:
    """Return the line of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    at = read_time(read_field(form, "at", str))
    return LogEntry(at, read_field(form, "party", str), read_field(form, "text", str))


def event_form(event: Event) -> Form:
    """Return an event as an object of JSON."""
    return {**asdict(event), "at": time_form(event.at)}


def read_event(form: object) -> Event:
    """Return the event of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    return Event(
        number=read_field(form, "number", int),
        at=read_time(read_field(form, "at", str)),
        kind=read_field(form, "kind", str),
        party=read_field(form, "party", str | None, None),
        round=read_field(form, "round", int | None, None),
        text=read_field(form, "text", str),
        body=read_field(form, "body", dict, {}),
    )


def values_form(values: Mapping[str, Value]) -> Form:
    """Return a metric row's values as an object that JSON can hold."""
    return {
        name: repr(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def read_values(form: Mapping[str, Any]) -> dict[str, Value]:
    """Return a metric row's values, which `values_form` made or a client wrote."""
    return {name: NOT_FINITE.get(value, value) if isinstance(value, str) else value for name, value in form.items()}


def measurement_form(row: Measurement) -> Form:
    """Return a metric row as an object of JSON; one that was kept with its number, time and party."""
    form: Form = {"set": row.set, "row": row.row, "round": row.round, "values": values_form(row.values)}
    if isinstance(row, Measured):
        form |= {"number": row.number, "at": time_form(row.at), "party": row.party}
    return form


def read_measurement(form: object) -> Measurement:
    """Return the metric row of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    return Measurement(
        set=read_field(form, "set", str),
        row=read_field(form, "row", int),
        round=read_field(form, "round", int | None, None),
        values=read_values(read_field(form, "values", dict)),
    )


def read_measured(form: object) -> Measured:
    """Return the kept metric row of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    row = read_measurement(form)
    return Measured(
        set=row.set,
        row=row.row,
        round=row.round,
        values=row.values,
        number=read_field(form, "number", int),
        at=read_time(read_field(form, "at", str)),
        party=read_field(form, "party", str),
    )


def output_form(output: Output) -> Form:
    """Return what is known of a file as an object of JSON."""
    return {**asdict(output), "at": time_form(output.at)}


def read_output(form: object) -> Output:
    """Return what an object of JSON says of a file.

    Raises:
        ConfigError: it is none.
    """
    return Output(
        party=read_field(form, "party", str),
        name=read_field(form, "name", str),
        size=read_field(form, "size", int),
        sha256=read_field(form, "sha256", str),
        at=read_time(read_field(form, "at", str)),
    )


def notification_form(notification: Notification) -> Form:
    """Return a notification as an object of JSON, with what its receiver needs to go on behind it."""
    return {
        **notification.as_json(),
        "number": notification.number,
        "party": notification.party,
        "at": time_form(notification.at),
    }


def read_notification(form: object) -> Notification:
    """Return the notification of an object of JSON.

    Raises:
        ConfigError: it is none.
    """
    return Notification(
        number=read_field(form, "number", int),
        notification_type=read_field(form, "notification_type", str),
        body=read_field(form, "body", dict),
        training_uuid=read_field(form, "training_uuid", str),
        party=read_field(form, "party", str | None, None),
        at=read_time(read_field(form, "at", str)),
    )

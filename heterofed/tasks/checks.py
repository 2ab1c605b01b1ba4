"""What may be said of a task's course: rounds, bodies, metric rows, names of files; checked wherever they come in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, get_args
from urllib.parse import urlsplit

from heterofed.errors import ConfigError
from heterofed.tasks.course import Measurement, ReportKind, Value
from heterofed.tasks.interface import KEEP
from heterofed.tasks.model import PartyStatus, Role, check_feature_keys
from heterofed.tasks.options import TrainerOptions, read_uncertainty

LONGEST_NAME = 200
"""Of a task, in characters."""
LONGEST_VALUE = 1000
"""Of an endpoint or a public key, in characters or bytes; real ones have some dozens."""
ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that reads like something else, nothing to escape
ID_LENGTH = 12  # 59 bits: nobody guesses one

LONGEST_LAUNCH = 64
"""Of what a party calls its launch, in characters."""
MOST_ROUNDS = 1_000_000_000
LONGEST_BODY = 1 << 16
"""Of a report, in bytes of JSON."""
MOST_COLUMNS = 200
LONGEST_CELL = 1000
"""Of a text in a metric row, in characters."""
MOST_ROWS = 10_000
"""Of one `put_metrics`."""
LONGEST_TEXT = 4000
"""Of a reason or a line of a log; what is longer is cut."""
MAX_OUTPUT_BYTES = 64 << 20
_DEEPEST = 16
_SET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LAUNCH = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_LAUNCH}}}")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,119}")  # no leading dot: "..", hidden files


def check_task_id(task_id: object) -> str:
    """Return an id if a store could have made it.

    Raises:
        ConfigError: it could not.
    """
    if not isinstance(task_id, str) or len(task_id) != ID_LENGTH or not set(task_id) <= set(ID_ALPHABET):
        raise ConfigError("a task id is wrong", expected=f"{ID_LENGTH} characters, as `heterofed task create` prints")
    return task_id


def check_hub_url(url: str) -> str:
    """Return the URL of a hub, without a slash at its end.

    Raises:
        ConfigError: it is none.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or parts.username or parts.password or parts.query or parts.fragment or not url.isprintable():
        shown = "one with a password" if "@" in url else repr(url[:100])
        raise ConfigError(f"the hub's URL is {shown}", expected="http:// or https://, a name and a port")
    return url.rstrip("/")


def check_new_task(
    name: object,
    parties: Iterable[object],
    lives_for: timedelta | None,
    rounds: object,
    options: object,
    uncertainty: object = None,
) -> tuple[str, ...]:
    """Return the feature keys of a task that somebody wants to create.

    Raises:
        ConfigError: one of the values cannot be, or the task would have expired already.
    """
    if lives_for is not None and lives_for <= timedelta():
        raise ConfigError("a task would expire before it begins", expected="a time to live of more than nothing")
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigError("the name of a task is wrong", expected=f"1 to {LONGEST_NAME} printable characters")
    if options is not None and not isinstance(options, TrainerOptions):
        raise ConfigError("the options of a task are wrong", expected="TrainerOptions, or None")
    check_rounds(rounds)
    read_uncertainty(uncertainty)
    return check_feature_keys(parties)


def check_launch(launch: object) -> str:
    """Return what a party calls its launch.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(launch, str) or not _LAUNCH.fullmatch(launch):
        allowed = f"1 to {LONGEST_LAUNCH} letters, digits, '_' or '-'"
        raise ConfigError("the name of a launch is wrong", expected=allowed)
    return launch


def check_party_changes(
    status: object, reason: object, role: object, public_key: object, endpoint: object
) -> dict[str, Any]:
    """Return what of a party is to be changed, by name; what is KEEP is not.

    Raises:
        ConfigError: a value is of the wrong type or too long.
    """
    if status is not KEEP and not isinstance(status, PartyStatus):
        raise ConfigError("a party's status is wrong", expected="a PartyStatus")
    if role is not KEEP and role is not None and role not in get_args(Role):
        raise ConfigError("a party's role is wrong", expected="host, collaborator or None")
    if reason is not KEEP and reason is not None and not isinstance(reason, str):
        raise ConfigError("a party's reason is wrong", expected="a text or None")
    if public_key is not KEEP and public_key is not None:
        check_public_key_bytes(public_key)
    right = isinstance(endpoint, str) and 1 <= len(endpoint) <= LONGEST_VALUE and endpoint.isprintable()
    if endpoint is not KEEP and endpoint is not None and not right:
        raise ConfigError("a party's endpoint is wrong", expected=f"1 to {LONGEST_VALUE} str or None")
    given = {
        "status": status,
        "reason": short(reason) if isinstance(reason, str) else reason,
        "role": role,
        "public_key": public_key,
        "endpoint": endpoint,
    }
    return {name: value for name, value in given.items() if value is not KEEP}


def check_public_key_bytes(public_key: object) -> bytes:
    """Return a party's public key.

    Raises:
        ConfigError: it is no printable ASCII, or too long.
    """
    if not isinstance(public_key, bytes) or not 1 <= len(public_key) <= LONGEST_VALUE:
        raise ConfigError("a party's public_key is wrong", expected=f"1 to {LONGEST_VALUE} bytes or None")
    if not all(32 < each < 127 for each in public_key):
        raise ConfigError("a party's public_key is wrong", expected="characters of Z85")
    return public_key


def is_count(value: object, least: int, most: int = MOST_ROUNDS) -> bool:
    """Return whether a value is an int, and no bool, from `least` to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def check_rounds(rounds: object) -> int | None:
    """Return how many rounds a task has, or None.

    Raises:
        ConfigError: it is no number of rounds.
    """
    if rounds is None or is_count(rounds, 1):
        return rounds  # type: ignore[return-value]  # is_count has looked at its type
    raise ConfigError("the number of rounds is wrong", expected=f"1 to {MOST_ROUNDS}, or None")


def check_report_round(kind: object, round: object, rounds: int | None) -> tuple[ReportKind, int]:
    """Return what is reported, and of which round.

    Raises:
        ConfigError: there is no such kind, or such a task has no such round.
    """
    if not isinstance(kind, ReportKind):
        raise ConfigError("the kind of a report is wrong", expected="a ReportKind")
    least = 0 if kind in (ReportKind.PARTY_LOST, ReportKind.TASK_FAILED) else 1
    most = rounds or MOST_ROUNDS
    if not is_count(round, least, most):
        raise ConfigError(f"a report of {kind.value} names a wrong round", expected=f"{least} to {most}")
    return kind, round  # type: ignore[return-value]  # is_count has looked at its type


def check_body(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a report's body as JSON can hold it; NaN and infinity become the texts "nan", "inf", "-inf".

    Raises:
        ConfigError: it holds what JSON cannot, is nested too deeply or too large.
    """
    if body is None:
        return {}
    if not isinstance(body, Mapping):
        raise ConfigError(f"the body of a report is {type(body).__name__}", expected="a dict")
    plain: dict[str, Any] = _plain(body, 0)
    if len(json.dumps(plain)) > LONGEST_BODY:
        raise ConfigError("the body of a report is too large", expected=f"at most {LONGEST_BODY} bytes of JSON")
    return plain


def _plain(value: object, depth: int) -> Any:
    if depth <= _DEEPEST:
        if value is None or isinstance(value, str | bool) or is_count(value, -(2**63), 2**63 - 1):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else repr(float(value))
        if isinstance(value, list | tuple):
            return [_plain(each, depth + 1) for each in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _plain(each, depth + 1) for key, each in value.items()}
    raise ConfigError(
        f"the body of a report holds {type(value).__name__}",
        expected=f"texts, numbers of 64 bits, bools, None, and lists and dicts of them, {_DEEPEST} deep at most",
    )


def check_measurement(row: object) -> Measurement:
    """Return a metric row.

    Raises:
        ConfigError: its set, place, round or a value cannot be one.
    """
    if not isinstance(row, Measurement):
        raise ConfigError(f"a metric row is {type(row).__name__}", expected="a Measurement")
    if not isinstance(row.set, str) or not _SET_NAME.fullmatch(row.set):
        raise ConfigError(
            "the name of a metric set is wrong", expected="1 to 100 letters, digits, '_', '.' or '-', no dot first"
        )
    if not is_count(row.row, 0):
        raise ConfigError(f"a row of the metric set {row.set} has a wrong place", expected=f"0 to {MOST_ROUNDS}")
    if row.round is not None and not is_count(row.round, 0):
        raise ConfigError(f"a row of the metric set {row.set} has a wrong round", expected=f"0 to {MOST_ROUNDS}")
    if not isinstance(row.values, Mapping) or len(row.values) > MOST_COLUMNS:
        raise ConfigError(f"a row of the metric set {row.set} is wrong", expected=f"at most {MOST_COLUMNS} values")
    if not all(isinstance(name, str) and len(name) <= LONGEST_CELL for name in row.values):
        raise ConfigError(
            f"a column of the metric set {row.set} is wrong", expected=f"a text of at most {LONGEST_CELL} characters"
        )
    if not all(_is_cell(value) for value in row.values.values()):
        raise ConfigError(
            f"a value of the metric set {row.set} is wrong",
            expected=f"a number of 64 bits, a text of at most {LONGEST_CELL} characters, a bool or None",
        )
    return row


def _is_cell(value: Value) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_CELL
    return value is None or isinstance(value, bool | float) or is_count(value, -(2**63), 2**63 - 1)


def check_rows(rows: object) -> tuple[Measurement, ...]:
    """Return metric rows.

    Raises:
        ConfigError: one of them is none, or they are too many.
    """
    if not isinstance(rows, list | tuple) or len(rows) > MOST_ROWS:
        raise ConfigError("the metric rows are wrong", expected=f"a list of at most {MOST_ROWS}")
    return tuple(check_measurement(row) for row in rows)


def check_output_name(name: object) -> str:
    """Return the name of a file that a party gives to the record.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, str) or not _OUTPUT_NAME.fullmatch(name):
        raise ConfigError(
            "the name of an output is wrong", expected="1 to 120 letters, digits, '_', '.' or '-', no dot first"
        )
    return name


def check_output(data: object, most: int) -> bytes:
    """Return the bytes of a file that a party gives to the record.

    Raises:
        ConfigError: they are none, or too many.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigError(f"an output is {type(data).__name__}", expected="bytes")
    if len(data) > most:
        raise ConfigError(f"an output of {len(data)} bytes is too large", expected=f"at most {most} bytes")
    return bytes(data)


def short(text: str | None) -> str | None:
    """Return a text as every database takes it: with no NUL and no half characters, and cut where it is too long."""
    if text is None:
        return None
    text = text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"

"""Errors as plain JSON, `{"error", "message", "advice"}`, and back as the same named classes."""

from __future__ import annotations

from typing import Any

from heterofed import errors
from heterofed.errors import (
    ConfigError,
    DataError,
    HeterofedError,
    HubUnreachable,
    NotAllowed,
    OutputError,
    TaskFailed,
    UnknownTask,
)

KNOWN: dict[str, type[HeterofedError]] = {
    each.__name__: each
    for each in (ConfigError, UnknownTask, DataError, NotAllowed, OutputError, HubUnreachable, TaskFailed)
}
"""What a hub may say that it raised."""


def error_form(error: HeterofedError) -> dict[str, Any]:
    """Return an error as an object of JSON; of one that names files of its machine, only the public text."""
    name = next(each.__name__ for each in type(error).__mro__ if each.__name__ in KNOWN or each is HeterofedError)
    public = error.for_peers()
    if public != str(error):
        return {"error": name, "message": public, "advice": None}
    bare = HeterofedError(error.what, party=error.party, phase=error.phase, expected=error.expected)
    return {"error": name, "message": str(bare), "advice": error.advice}


def read_error(form: object) -> HeterofedError | None:
    """Return the error of an object of JSON, or None where it is none."""
    if not isinstance(form, dict):
        return None
    name, message, advice = form.get("error"), form.get("message"), form.get("advice")
    if not isinstance(name, str) or not isinstance(message, str) or not isinstance(advice, str | None):
        return None
    return KNOWN.get(name, errors.HeterofedError)(message[:_LONGEST], advice=advice and advice[:_LONGEST])


_LONGEST = 4000

"""What a text "package.module:name" means: an object of the user's own code, imported by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from heterofed.errors import ConfigError


def find(thing: str, *, expected: str) -> Any:
    """Return the object that a text names; its module is imported, which runs it.

    Args:
        thing: "package.module:name"; the name may have points.
        expected: what errors say would have been right.

    Raises:
        ConfigError: it has another form, there is no such module or name in it, or the module raises.
    """
    module, _, name = thing.partition(":")
    if not module or not name:
        raise ConfigError(f"{thing!r} names nothing that can be imported", expected=f"package.module:name, {expected}")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f"{thing} cannot be imported: {type(error).__name__}: {error}",
            expected=f"{expected} in a module that Python finds from this folder",
            advice=f"Try `python -c 'import {module}'` here.",
        ) from error
    return found


def find_callable(thing: str, *, expected: str) -> Callable[..., Any]:
    """Return a function or class that a text names.

    Args:
        thing: as for `find`.
        expected: what it should be.

    Raises:
        ConfigError: as `find`, or it is nothing to call.
    """
    found = find(thing, expected=expected)
    if not callable(found):
        raise ConfigError(f"{thing} is a {type(found).__name__}", expected=expected)
    function: Callable[..., Any] = found
    return function

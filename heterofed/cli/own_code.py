"""What a user names on the command line as `package.module:name`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heterofed.errors import ConfigError


def find_own_modules() -> None:
    """Let Python find modules of the folder in which the command was typed, as `python script.py` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def own_function(thing: str) -> Callable[..., Any]:
    """Return the function that `package.module:name` means.

    Raises:
        ConfigError: it has another form, cannot be imported, or is nothing to call.
    """
    find_own_modules()
    module, _, name = thing.partition(":")
    if not module or not name:
        raise ConfigError(f"{thing!r} names no function", expected="package.module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f"{thing} cannot be imported: {type(error).__name__}: {error}",
            expected="a function in a module that Python finds from this folder",
            advice=f"Try `python -c 'import {module}'` here.",
        ) from error
    if not callable(found):
        raise ConfigError(f"{thing} is a {type(found).__name__}", expected="a function that returns a torch.nn.Module")
    function: Callable[..., Any] = found
    return function

"""What a user names on the command line as `package.module:name`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heterofed.named import find_callable


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
    return find_callable(thing, expected="a function that returns a torch.nn.Module")

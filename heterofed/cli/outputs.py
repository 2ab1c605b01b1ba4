"""What goes for commands that only read a run, where what they write cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heterofed.errors import OutputError


@contextmanager
def nothing_to_recover() -> Iterator[None]:
    """Let an OutputError of the body advise what helps here: no task was under way that could go on where it was.

    Raises:
        OutputError: the body did.
    """
    try:
        yield
    except OutputError as error:
        error.advice = "Mend that, or name another place (--out), and give the command again. The run is as it was."
        raise

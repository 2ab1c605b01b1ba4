"""How an error of ours ends a command, a script or a notebook's cell.

As one message and the place where the documentation explains it, with a traceback only of the user's code.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from heterofed import errors
from heterofed.errors import HeterofedError, TaskFailed, TemplateError

PAGE = "docs/reference/errors.md"
"""Has a section for every class of error: what it means, and what to do. A part of the site too."""

_INTERRUPTED = "interrupted"

_LIBRARY = str(Path(__file__).resolve().parents[1])


def print_errors_plainly() -> None:
    """Let uncaught errors of ours print without the frames of this library. Other errors print as before."""
    _tell_ipython()
    previous = sys.excepthook
    if getattr(previous, "prints_heterofed_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(f"{_INTERRUPTED}\n")
            return
        if not isinstance(error, HeterofedError):
            previous(kind, error, trace)
            return
        sys.stderr.write("".join(f"{line}\n" for line in plain_lines(error)))

    hook.prints_heterofed_errors = True  # type: ignore[attr-defined]  # marks our own hook
    sys.excepthook = hook


@contextmanager
def interrupts_plainly() -> Iterator[None]:
    """Let Ctrl-C in the body end a notebook's cell with one line, as it does a script."""
    try:
        yield
    except KeyboardInterrupt as error:
        # of this one alone: the user's own code may be interrupted too
        error._render_traceback_ = lambda: [_INTERRUPTED]  # type: ignore[attr-defined]  # the name is IPython's
        raise


def plain_lines(error: HeterofedError) -> list[str]:
    """Return what is printed of an error: the traceback of the user's code if that raised, the message, its place."""
    message = [f"{type(error).__name__}: {error}", explained_at(error)]
    cause = error.__cause__
    if cause is None or not (isinstance(error, TemplateError) or type(error) is TaskFailed):
        return message
    frames = traceback.format_exception(type(cause), cause, _of_the_user(cause.__traceback__))
    return [*"".join(frames).splitlines(), "", *message]


def explained_at(error: HeterofedError) -> str:
    """Return the line that says where errors of this kind are explained; of a class of the user's, its base."""
    kinds = (each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return f"See {PAGE}#{next(kinds).lower()}"


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of ours that led to the user's; the whole of it where all are ours."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_LIBRARY):
        found = found.tb_next
    return found or trace


def _tell_ipython() -> None:
    """Let IPython, and with it notebooks, print the same: they go by this method and not by `sys.excepthook`."""
    HeterofedError._render_traceback_ = plain_lines  # type: ignore[attr-defined]  # the name is IPython's

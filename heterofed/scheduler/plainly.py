"""How an error of ours ends a script or a notebook's cell: as one message, with a traceback only of the user's code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

from heterofed.errors import HeterofedError, TaskFailed, TemplateError

_LIBRARY = str(Path(__file__).resolve().parents[1])


def print_errors_plainly() -> None:
    """Let uncaught errors of ours print without the frames of this library. Other errors print as before."""
    _tell_ipython()
    previous = sys.excepthook
    if getattr(previous, "prints_heterofed_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
            return
        if not isinstance(error, HeterofedError):
            previous(kind, error, trace)
            return
        sys.stderr.write("".join(f"{line}\n" for line in plain_lines(error)))

    hook.prints_heterofed_errors = True  # type: ignore[attr-defined]  # marks our own hook
    sys.excepthook = hook


def plain_lines(error: HeterofedError) -> list[str]:
    """Return what is printed of an error: the traceback of the user's code where that raised, and the message."""
    message = f"{type(error).__name__}: {error}"
    cause = error.__cause__
    if cause is None or not (isinstance(error, TemplateError) or type(error) is TaskFailed):
        return [message]
    frames = traceback.format_exception(type(cause), cause, _of_the_user(cause.__traceback__))
    return [*"".join(frames).splitlines(), "", message]


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of ours that led to the user's; the whole of it where all are ours."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_LIBRARY):
        found = found.tb_next
    return found or trace


def _tell_ipython() -> None:
    """Let IPython, and with it notebooks, print the same: they go by this method and not by `sys.excepthook`."""
    HeterofedError._render_traceback_ = plain_lines  # type: ignore[attr-defined]  # the name is IPython's

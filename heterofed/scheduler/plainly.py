"""How an error of ours ends a script: as one message, with a traceback only of the user's own code."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from heterofed.errors import HeterofedError, TaskFailed, TemplateError


def print_errors_plainly() -> None:
    """Let uncaught errors of ours print without the frames of this library. Other errors print as before."""
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
        if error.__cause__ is not None and (isinstance(error, TemplateError) or type(error) is TaskFailed):
            traceback.print_exception(error.__cause__)
            sys.stderr.write("\n")
        sys.stderr.write(f"{kind.__name__}: {error}\n")

    hook.prints_heterofed_errors = True  # type: ignore[attr-defined]  # marks our own hook
    sys.excepthook = hook

"""Private set intersection: which sample ids two parties share, and nothing about the others.

Bytes in, bytes out: an `Initiator` and a `Responder` each take the other's messages and give their own; carrying
them is the caller's. `intersect` runs both in one process. How it works and who learns what: docs/psi.md.
"""

from __future__ import annotations

from psi.errors import (
    BadArgument,
    BadElement,
    BadIds,
    BadMessage,
    ComputeFault,
    NotYet,
    PsiError,
    UsedTwice,
    WeakKey,
    WrongRole,
)
from psi.initiator import Initiator
from psi.local import intersect
from psi.responder import Responder
from psi.run import Progress

__all__ = [
    "BadArgument",
    "BadElement",
    "BadIds",
    "BadMessage",
    "ComputeFault",
    "Initiator",
    "NotYet",
    "Progress",
    "PsiError",
    "Responder",
    "UsedTwice",
    "WeakKey",
    "WrongRole",
    "intersect",
]

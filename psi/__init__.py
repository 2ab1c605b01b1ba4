"""Private set intersection: which sample ids parties share, and nothing about the others.

Bytes in, bytes out: an `Initiator` and a `Responder` each take the other's messages and give their own; carrying
them is the caller's. `intersect` runs all of them in one process. How to use it: docs/guides/psi.md; who learns what:
docs/explanation/psi.md.
"""

from __future__ import annotations

from psi.errors import (
    BadArgument,
    BadElement,
    BadIds,
    BadMessage,
    ComputeFault,
    NotRevealed,
    NotYet,
    PsiError,
    ResultMismatch,
    UsedTwice,
    WeakKey,
    WrongRole,
)
from psi.initiator import Initiator
from psi.joining import join
from psi.local import intersect
from psi.messages import Reveal, Terms
from psi.normalise import normalise_ids
from psi.pairing import PairKey
from psi.responder import Responder
from psi.run import Progress

__all__ = [
    "BadArgument",
    "BadElement",
    "BadIds",
    "BadMessage",
    "ComputeFault",
    "Initiator",
    "NotRevealed",
    "NotYet",
    "PairKey",
    "Progress",
    "PsiError",
    "Responder",
    "ResultMismatch",
    "Reveal",
    "Terms",
    "UsedTwice",
    "WeakKey",
    "WrongRole",
    "intersect",
    "join",
    "normalise_ids",
]

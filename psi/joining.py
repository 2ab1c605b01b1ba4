"""Bringing the runs of one initiator with many responders together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from psi.errors import BadArgument
from psi.initiator import Initiator

__all__ = ["join"]


def join(runs: Sequence[Initiator]) -> list[str]:
    """The ids that the initiator and all responders have; each run can then `reveal` them.

    Args:
        runs: the initiator's joint runs, one with each responder, all matched and all of the same ids.

    Returns:
        The shared ids, sorted; empty if there is none.

    Raises:
        BadArgument: there is no run, one is not joint or comes twice, or they are not of the same ids.
        NotYet: one of them is not matched.
    """
    if not runs or not all(run.terms.joint for run in runs):
        raise BadArgument("only joint runs can be joined, and at least one; expected Initiator(..., joint=True).")
    if not all(run.has_same_ids(runs[0]) for run in runs):
        raise BadArgument("the runs are not of the same ids; expected one list of ids for all of them.")
    if len({id(run) for run in runs}) < len(runs):
        raise BadArgument("a run comes twice and would cancel itself; expected one run with each responder.")
    total = np.bitwise_xor.reduce([run.shares.values for run in runs])
    shared = np.flatnonzero((total == 0).all(axis=1))
    for run in runs:
        run.settle(shared)
    return runs[0].intersection

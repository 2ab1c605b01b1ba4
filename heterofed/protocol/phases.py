"""Who may say what, when: one table. Everything that moves a session from phase to phase is in this file.

The table knows no "us" and "them": a session at either end uses the same rows, so the two cannot disagree about what is
legal. `docs/reference/protocol.md` shows it as a diagram that `diagram()` draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from heterofed.frames.messages import (
    Abort,
    Ask,
    BatchesEnd,
    BatchPlan,
    CheckIn,
    CloseRound,
    Completed,
    CompleteTask,
    Dismissed,
    Embedding,
    Gradient,
    Message,
    PairingKey,
    PairingKeys,
    Paused,
    Proceed,
    PsiPart,
    RoundClosed,
    RoundReady,
    Split,
    StartTest,
    StillMatching,
    Welcome,
)


class Role(Enum):
    """Which end of a link said something."""

    HOST = "host"
    COLLABORATOR = "collaborator"

    __hash__ = object.__hash__  # an Enum's own is slow, and every message looks its row up


class Phase(Enum):
    """Where a host and one collaborator are; the value completes "while …" in an error."""

    GATHERING = "gathering the parties"
    CHECKED_IN = "waiting for all parties"
    MATCHING = "matching ids"
    ALIGNING = "comparing the splits"
    READY = "between rounds"
    STARTING_ROUND = "starting a round"
    TRAINING = "training"
    AWAITING_GRADIENT = "training, gradient due"
    TRAINED = "ending a round's batches"
    TESTING = "testing"
    AWAITING_PROCEED = "testing, answer due"
    TESTED = "ending a test"
    PREDICTING = "predicting"
    AWAITING_MORE = "predicting, answer due"
    CLOSING_ROUND = "closing a round"
    COMPLETING = "completing the task"
    LEAVING = "waiting until all parties are done"
    COMPLETED = "after completion"
    ABORTED = "after an abort"

    __hash__ = object.__hash__  # as Role's


H, C = Role.HOST, Role.COLLABORATOR

TRANSITIONS: Mapping[Phase, Mapping[tuple[Role, type[Message]], Phase]] = {
    Phase.GATHERING: {(C, CheckIn): Phase.CHECKED_IN},
    Phase.CHECKED_IN: {(C, CheckIn): Phase.CHECKED_IN, (H, Welcome): Phase.MATCHING},
    Phase.MATCHING: {
        (C, PairingKey): Phase.MATCHING,
        (H, PairingKeys): Phase.MATCHING,
        (H, PsiPart): Phase.MATCHING,
        (C, PsiPart): Phase.MATCHING,
        (H, StillMatching): Phase.MATCHING,
        (C, StillMatching): Phase.MATCHING,
        (C, Split): Phase.ALIGNING,  # at once where the shared ids are known from before a restart
        (H, CompleteTask): Phase.COMPLETING,  # people who want only the intersection
    },
    Phase.ALIGNING: {(H, Split): Phase.READY},
    Phase.READY: {
        (H, BatchPlan): Phase.STARTING_ROUND,
        (H, Ask): Phase.PREDICTING,
        (H, CompleteTask): Phase.COMPLETING,
    },
    Phase.STARTING_ROUND: {(C, RoundReady): Phase.TRAINING},
    Phase.TRAINING: {(C, Embedding): Phase.AWAITING_GRADIENT, (C, BatchesEnd): Phase.TRAINED},
    Phase.AWAITING_GRADIENT: {
        (C, Embedding): Phase.AWAITING_GRADIENT,  # of a batch ahead, where the session lets it run ahead
        (H, Gradient): Phase.TRAINING,
        (H, Proceed): Phase.TRAINING,
    },
    Phase.TRAINED: {(H, StartTest): Phase.TESTING, (H, CloseRound): Phase.CLOSING_ROUND},
    Phase.TESTING: {(C, Embedding): Phase.AWAITING_PROCEED, (C, BatchesEnd): Phase.TESTED},
    Phase.AWAITING_PROCEED: {(C, Embedding): Phase.AWAITING_PROCEED, (H, Proceed): Phase.TESTING},
    Phase.TESTED: {(H, CloseRound): Phase.CLOSING_ROUND},
    Phase.PREDICTING: {(C, Embedding): Phase.AWAITING_MORE, (C, BatchesEnd): Phase.READY},
    Phase.AWAITING_MORE: {
        (C, Embedding): Phase.AWAITING_MORE,
        (H, Proceed): Phase.PREDICTING,
        (C, BatchesEnd): Phase.READY,  # the last embeddings are not answered: one trip there and back is all it takes
    },
    Phase.CLOSING_ROUND: {(C, RoundClosed): Phase.READY},
    Phase.COMPLETING: {(C, Completed): Phase.LEAVING},
    Phase.LEAVING: {(H, Dismissed): Phase.COMPLETED},
    Phase.COMPLETED: {},
    Phase.ABORTED: {},
}
"""phase -> (who says, what) -> the phase after it; an answer while others are due leaves the phase as it is.

In every phase but the last two `Abort` is legal for both, and `Paused`, which moves nothing, for the host.
"""

FINAL = frozenset({Phase.COMPLETED, Phase.ABORTED})
"""Nothing may be said after these."""

AWAITING: Mapping[Phase, Phase] = {
    Phase.TRAINING: Phase.AWAITING_GRADIENT,
    Phase.TESTING: Phase.AWAITING_PROCEED,
    Phase.PREDICTING: Phase.AWAITING_MORE,
}
"""Where no answer is due -> where one is."""

WITHOUT_LEARNING = frozenset({Phase.TESTING, Phase.AWAITING_PROCEED, Phase.PREDICTING, Phase.AWAITING_MORE})
"""No weights move in these, so up to `TEST_AHEAD` embeddings, besides the first, may be unanswered."""

TEST_AHEAD = 3
"""So many batches of a test, or of an answer to `Ask`, may be in flight besides the first; no result depends on it."""


def next_phase(phase: Phase, sender: Role, message: type[Message]) -> Phase | None:
    """Return the phase after this message, or None when this phase does not allow it from this sender."""
    if message is Abort:
        return None if phase in FINAL else Phase.ABORTED
    if message is Paused:
        return None if phase in FINAL or sender is not Role.HOST else phase
    return TRANSITIONS[phase].get((sender, message))


def allowed(phase: Phase, sender: Role) -> list[str]:
    """Return the names of the messages that this sender may say now, besides Abort and Paused."""
    return [message.__name__ for role, message in TRANSITIONS[phase] if role is sender]


def diagram() -> str:
    """Return the table as a Mermaid state diagram.

    `Abort`, which goes to ABORTED from everywhere, and `Paused`, which goes nowhere, are left out.
    """
    lines = ["stateDiagram-v2", "    [*] --> GATHERING"]
    for phase, row in TRANSITIONS.items():
        for (role, message), after in row.items():
            lines.append(f"    {phase.name} --> {after.name}: {role.value} says {message.__name__}")
    lines.append("    COMPLETED --> [*]")
    return "\n".join(lines)

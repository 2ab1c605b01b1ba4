"""One host and one collaborator, seen from either end: the phase they are in and the round and batch they are at.

A session does no input or output. Its owner calls `sending` before a message leaves and `receiving` when one has
come; both move the session on, or raise and move nothing.
"""

from __future__ import annotations

from collections import deque

from heterofed.errors import LocalProtocolError, RemoteProtocolError
from heterofed.frames.messages import (
    AnyMessage,
    BatchesEnd,
    BatchPlan,
    Embedding,
    Gradient,
    Proceed,
    StartTest,
)
from heterofed.protocol.phases import FINAL, Phase, Role, allowed, next_phase


class Session:
    """The protocol state of one link.

    Args:
        role: which end we are.
        peer: feature key of the other end, for the texts of errors.
    """

    def __init__(self, role: Role, peer: str) -> None:
        self.role = role
        self.peer = peer
        self.phase = Phase.GATHERING
        self.round = 0
        """Number of the round in progress, or of the last one; 0 before the first."""
        self.batch = 0
        """Number of the batch that is due or under way."""
        self.story: deque[str] = deque(maxlen=12)
        """The last moves, newest last, for debugging."""

    @property
    def over(self) -> bool:
        """True when nothing more may be said."""
        return self.phase in FINAL

    def sending(self, message: AnyMessage) -> None:
        """Move on for a message of ours.

        Raises:
            LocalProtocolError: this phase does not allow it.
        """
        problem = self._move(self.role, message)
        if problem:
            error = LocalProtocolError(
                f"tried to send {problem} to {self.peer}",
                phase=self.phase.value,
                advice="This is a bug in heterofed.",
            )
            error.story = tuple(self.story)
            raise error

    def receiving(self, message: AnyMessage) -> None:
        """Move on for a message of the peer.

        Raises:
            RemoteProtocolError: this phase does not allow it.
        """
        other = Role.COLLABORATOR if self.role is Role.HOST else Role.HOST
        problem = self._move(other, message)
        if problem:
            may = allowed(self.phase, other)
            error = RemoteProtocolError(
                f"sent {problem}",
                party=self.peer,
                phase=self.phase.value,
                expected=" or ".join(may) if may else "nothing before our answer",
                advice="Check that all parties run the same version of heterofed and were started once each.",
            )
            error.story = tuple(self.story)
            raise error

    def _move(self, sender: Role, message: AnyMessage) -> str | None:
        """Move on and return None, or say what is wrong with the message and stay."""
        name = type(message).__name__
        after = next_phase(self.phase, sender, type(message))
        if after is None:
            return name
        round_, batch = self._cursor_after(message)
        said_round = getattr(message, "round", round_)
        if said_round != round_:
            return f"{name} of round {said_round} in round {round_}"
        if isinstance(message, Embedding | Gradient | Proceed) and message.batch != self.batch:
            return f"{name} of batch {message.batch} at batch {self.batch}"
        if isinstance(message, BatchesEnd) and message.batches != self.batch:
            return f"{name} after {message.batches} batches at batch {self.batch}"
        self.story.append(f"{self.phase.name} --{sender.value} {name}--> {after.name}")
        self.phase, self.round, self.batch = after, round_, batch
        return None

    def _cursor_after(self, message: AnyMessage) -> tuple[int, int]:
        """Return the round and the batch as they are once this message is said."""
        match message:
            case BatchPlan():
                # A session may begin with any round: that after the checkpoint from which the parties go on.
                return (self.round + 1 if self.round else message.round), message.first
            case StartTest():
                return self.round, 0
            case Gradient() | Proceed():
                return self.round, self.batch + 1
            case _:
                return self.round, self.batch

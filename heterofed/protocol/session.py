"""One host and one collaborator, seen from either end: the phase they are in and the round and batch they are at.

A session does no input or output. Its owner calls `sending` before a message leaves and `receiving` when one has
come; both move the session on, or raise and move nothing.
"""

from __future__ import annotations

from collections import deque

from heterofed.errors import LocalProtocolError, RemoteProtocolError
from heterofed.frames.messages import (
    AnyMessage,
    Ask,
    BatchesEnd,
    BatchPlan,
    Embedding,
    Gradient,
    Proceed,
    StartTest,
    Welcome,
)
from heterofed.protocol.phases import (
    AWAITING,
    FINAL,
    TEST_AHEAD,
    WITHOUT_LEARNING,
    Phase,
    Role,
    allowed,
    next_phase,
)


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
        """Number of the batch that is due or under way; of several, the first that is not answered."""
        self.unanswered = 0
        """How many embeddings were said whose answers are due."""
        self.max_staleness = 0
        """How many embeddings, besides the first, may be unanswered in training."""
        self._moves: deque[tuple[Phase, Role, str, Phase]] = deque(maxlen=12)

    @property
    def story(self) -> tuple[str, ...]:
        """The last moves, newest last, for debugging."""
        return tuple(f"{phase.name} --{who.value} {what}--> {after.name}" for phase, who, what, after in self._moves)

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
            error.story = self.story
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
            if self.unanswered > self.ahead:
                may = [each for each in may if each != Embedding.__name__]
            error = RemoteProtocolError(
                f"sent {problem}",
                party=self.peer,
                phase=self.phase.value,
                expected=" or ".join(may) if may else "nothing before our answer",
                advice="Check that all parties run the same version of heterofed and were started once each.",
            )
            error.story = self.story
            raise error

    def _move(self, sender: Role, message: AnyMessage) -> str | None:
        """Move on and return None, or say what is wrong with the message and stay."""
        kind = type(message)
        after = next_phase(self.phase, sender, kind)
        if after is None:
            return kind.__name__
        round_, batch, unanswered = self.round, self.batch, self.unanswered
        if isinstance(message, BatchPlan):
            # A session may begin with any round: that after the checkpoint from which the parties go on.
            round_ = round_ + 1 if round_ else message.round
        elif isinstance(message, Ask):
            round_ = round_ or message.round  # a session for predictions trains none
        said_round = getattr(message, "round", round_)
        if said_round != round_:
            return f"{kind.__name__} of round {said_round} in round {round_}"
        if isinstance(message, Embedding):
            if message.batch != batch + unanswered:
                return f"{kind.__name__} of batch {message.batch} at batch {batch + unanswered}"
            if unanswered > self.ahead:
                return f"{kind.__name__} before the answer to batch {batch}"
            unanswered += 1
        elif isinstance(message, Gradient | Proceed):
            if message.batch != batch:
                return f"{kind.__name__} of batch {message.batch} at batch {batch}"
            batch, unanswered = batch + 1, max(0, unanswered - 1)
        elif isinstance(message, BatchesEnd):
            sent = batch + unanswered
            if message.batches != sent:
                return f"{kind.__name__} after {message.batches} batches at batch {sent}"
            batch, unanswered = sent, 0  # more than none where it ends an answer, whose last batches want no word
        elif isinstance(message, BatchPlan):
            batch, unanswered = message.first, 0
        elif isinstance(message, StartTest | Ask):
            batch = unanswered = 0
        elif isinstance(message, Welcome):
            self.max_staleness = message.terms.max_staleness
        if unanswered:
            after = AWAITING.get(after, after)
        self._moves.append((self.phase, sender, kind.__name__, after))  # words take longer than all the rest
        self.phase, self.round, self.batch, self.unanswered = after, round_, batch, unanswered
        return None

    @property
    def ahead(self) -> int:
        """How many embeddings, besides the first, may be unanswered in this phase."""
        return TEST_AHEAD if self.phase in WITHOUT_LEARNING else self.max_staleness

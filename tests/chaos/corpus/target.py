"""What is fuzzed: a codec and, in any phase that a conversation reaches, the sessions of both ends.

Free of torch and of the tests' examples, so that a fuzzer that instruments imports sees only our own modules.
"""

from __future__ import annotations

import copy
import hashlib
import resource
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from heterofed.errors import FrameError, RemoteProtocolError
from heterofed.frames.codec import Codec, Frame
from heterofed.frames.messages import AnyMessage
from heterofed.protocol.phases import Role
from heterofed.protocol.session import Session
from tests.chaos.corpus.mutations import Frames, Mutator

Sequence_ = Sequence[Sequence[Frame]]
"""Messages as they come, each a list of frames."""

GROWTH_BYTES = 64 << 20
"""How much a process may grow over a whole run; it holds one sequence at a time, of a few MiB at most."""


class Broken(Exception):
    """Hostile bytes did what they must not."""


@dataclass(frozen=True)
class Moment:
    """A point of a conversation: both ends, in step, and what comes next."""

    host: Session
    collaborator: Session
    coming: list[list[bytes]]


class Target:
    """Takes mutated sequences at any moment of these conversations.

    Args:
        packed: conversations as `conversations.packed` gives them.
    """

    def __init__(self, packed: bytes) -> None:
        self.codec = Codec()
        self.decoded = 0
        """Messages that the codec took."""
        self.accepted = 0
        """Messages that a session took."""
        self.messages: list[list[bytes]] = []
        """Every different message of the conversations, as frames."""
        by_phase: dict[str, list[Moment]] = defaultdict(list)
        for talk in msgspec.msgpack.decode(packed, type=list[list[tuple[str, list[bytes]]]]):
            for moment in self._moments(talk):
                by_phase[moment.host.phase.name].append(moment)
        self.moments = [by_phase[name] for name in sorted(by_phase)]
        """Moments of each phase."""

    def _moments(self, talk: list[tuple[str, list[bytes]]]) -> Iterable[Moment]:
        ends = {"host": Session(Role.HOST, "c1"), "collaborator": Session(Role.COLLABORATOR, "host")}
        frames_only = [frames for _, frames in talk]
        for at, (sender, frames) in enumerate(talk):
            yield Moment(clone(ends["host"]), clone(ends["collaborator"]), frames_only[at : at + 3])
            if frames not in self.messages:
                self.messages.append(frames)
            message = self.codec.decode(frames)
            for name, end in ends.items():
                if name == sender:
                    end.sending(message)
                else:
                    end.receiving(message)
        # Past the last word there is nothing valid to come: the first messages of the conversation, once more.
        yield Moment(clone(ends["host"]), clone(ends["collaborator"]), frames_only[:3])

    def feed(self, moment: Moment, sequence: Sequence_) -> None:
        """Let both ends of this moment receive a sequence; a refused message does not end it.

        Raises:
            Broken: a refused message moved a session, or an error's text is not fit for a terminal.
            Exception: whatever else came out but FrameError from the codec and RemoteProtocolError from a session.
        """
        ends = clone(moment.host), clone(moment.collaborator)
        for frames in sequence:
            try:
                message = self.codec.decode(frames)
            except FrameError as error:
                if not str(error).isprintable():
                    raise Broken("the text of a FrameError holds what may steer a terminal") from None
                continue
            self.decoded += 1
            for end in ends:
                self._receive(end, message)

    def feed_next(self, makes: Mutator) -> tuple[list[Frames], Exception | None]:
        """Feed the next sequence that a mutator makes; return it, and what came out of it that must not."""
        moment = makes.moment(self.moments)
        sequence = makes.sequence(moment.coming)
        try:
            self.feed(moment, sequence)
        except Exception as error:
            return sequence, error
        return sequence, None

    def _receive(self, end: Session, message: AnyMessage) -> None:
        before = end.phase, end.round, end.batch, len(end._moves)
        try:
            end.receiving(message)
        except RemoteProtocolError:
            if before != (end.phase, end.round, end.batch, len(end._moves)):
                raise Broken("a refused message moved the session") from None
        else:
            self.accepted += 1


def peak_bytes() -> int:
    """Return the most memory that this process ever had, in bytes."""
    try:
        # Linux counts a parent's memory towards ru_maxrss of the processes that it starts; VmHWM is our own.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_growth(since: int) -> int:
    """Return by how much this process grew since it had `since` bytes.

    Raises:
        Broken: by more than `GROWTH_BYTES`.
    """
    growth = peak_bytes() - since
    if growth > GROWTH_BYTES:
        raise Broken(f"memory grew by {growth} bytes; expected {GROWTH_BYTES} at most")
    return growth


def clone(session: Session) -> Session:
    """Return a session in the same state that moves on its own."""
    twin = copy.copy(session)
    twin._moves = deque(maxlen=session._moves.maxlen)
    return twin


def hash_of(sequence: Sequence_) -> str:
    """Return the name of a sequence's bytes: the start of their SHA-256, each frame preceded by its length."""
    state = hashlib.sha256()
    for frames in sequence:
        state.update(len(frames).to_bytes(4, "big"))
        for frame in frames:
            data = bytes(frame)
            state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:16]

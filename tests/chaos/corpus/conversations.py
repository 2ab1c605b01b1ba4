"""Valid conversations of a host and a collaborator, made from the phase table and one example of every message.

Nothing is written down here that the table does not say, so a new message or phase is in the corpus by itself.
"""

from __future__ import annotations

import copy
import random

import msgspec

from heterofed.errors import ProtocolError
from heterofed.frames.codec import Codec
from heterofed.frames.messages import AnyMessage, Embedding, Gradient
from heterofed.protocol.phases import Phase, Role
from heterofed.protocol.session import Session
from tests.frames.examples import in_other_forms, one_of_each

LONGEST = 40
"""Messages of a conversation; a whole task with two rounds is shorter."""

Said = tuple[str, list[bytes]]
"""Who says it (the value of a Role), and its frames."""


def conversations(seed: int, walks: int) -> list[list[Said]]:
    """Return conversations that are legal to the last message: the shortest way to each phase, then random ones."""
    dice = random.Random(seed)
    found = [*_ways(), *(_walk(dice) for _ in range(walks))]
    return [[(role.value, [bytes(frame) for frame in Codec().encode(said)]) for role, said in each] for each in found]


def packed(many: list[list[Said]]) -> bytes:
    """Return conversations as bytes, for another process."""
    return msgspec.msgpack.encode(many)


def _ways() -> list[list[tuple[Role, AnyMessage]]]:
    """The shortest conversation to each phase, with every message that may be said there as its last word."""
    seen: set[Phase] = set()
    found: list[list[tuple[Role, AnyMessage]]] = []
    queue: list[tuple[Session, list[tuple[Role, AnyMessage]]]] = [(Session(Role.HOST, "c1"), [])]
    while queue:
        session, said = queue.pop(0)
        if session.phase in seen:
            continue
        seen.add(session.phase)
        for after, step in _steps(session):
            found.extend([*said, each] for each in (step, *_in_other_forms(*step)))
            queue.append((after, [*said, step]))
    missing = set(Phase) - seen
    if missing:
        raise LookupError(f"no conversation leads to {', '.join(sorted(each.name for each in missing))}")
    return found


def _in_other_forms(role: Role, message: AnyMessage) -> list[tuple[Role, AnyMessage]]:
    if not isinstance(message, Embedding | Gradient):
        return []
    others = in_other_forms(message.round, message.batch)
    return [(role, each) for each in others if type(each) is type(message)]


def _walk(dice: random.Random) -> list[tuple[Role, AnyMessage]]:
    session, said = Session(Role.HOST, "c1"), list[tuple[Role, AnyMessage]]()
    while len(said) < LONGEST:
        steps = [each for each in _steps(session) if each[0].phase is not Phase.ABORTED]
        if not steps:
            break
        session, step = dice.choice(steps)
        said.append(step)
    return said


def _steps(session: Session) -> list[tuple[Session, tuple[Role, AnyMessage]]]:
    """Everything that may be said next, by either end, and the session after it; of each kind of message one."""
    found = []
    for role in Role:
        done: set[type[AnyMessage]] = set()
        for round_ in (session.round, session.round + 1):
            for message in one_of_each(max(1, round_), session.batch):
                if type(message) in done:
                    continue
                after = copy.deepcopy(session)
                after.role = role
                try:
                    after.sending(message)
                except ProtocolError:
                    continue
                done.add(type(message))
                found.append((after, (role, message)))
    return found

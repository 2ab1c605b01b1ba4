"""All roles in one process: for tests, demos and tables that are in one place anyway."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from psi.initiator import Initiator
from psi.responder import Responder
from psi.rsa import MIN_KEY_BITS

__all__ = ["intersect"]


def intersect(
    a: Sequence[str],
    b: Sequence[str],
    *more: Sequence[str],
    key_bits: int = MIN_KEY_BITS,
    chunk: int = 512,
    workers: int | None = None,
) -> list[str]:
    """Run the whole protocol between `a`, as the initiator, and each of the others; returns the ids that all have.

    The bytes are those that parties on different machines would exchange. It shows what a run does and costs; to
    intersect lists that you hold anyway, Python sets are quicker.

    Args:
        a: ids of the initiator.
        b: ids of the first responder.
        more: ids of further responders.
        key_bits: size of each responder's key.
        chunk: ids per message.
        workers: threads of each responder; None takes one for each core.

    Returns:
        The shared ids, sorted; empty if there is none.

    Raises:
        BadIds: a list is empty or holds something that is not text, is empty or repeats another.
        BadArgument: a setting cannot be used.
    """
    pairs = []
    for ids in (b, *more):
        session = secrets.token_bytes(16)
        initiator = Initiator(a, task="local", session=session, chunk=chunk)
        responder = Responder(ids, task="local", session=session, key_bits=key_bits, chunk=chunk, workers=workers)
        pairs.append((initiator, responder))
    for initiator, responder in pairs:
        exchange(initiator, responder)
    shared = sorted(set.intersection(*(set(initiator.intersection) for initiator, _ in pairs)))
    for initiator, responder in pairs:
        for message in initiator.reveal(shared):
            for _ in responder.receive(message):
                pass  # a reveal has no answer
    return shared


def exchange(initiator: Initiator, responder: Responder) -> None:
    """Carry messages between two runs until the initiator has matched; holds one chunk at a time."""
    for offer in responder.start():
        for blinded in initiator.receive(offer):
            for answer in responder.receive(blinded):
                for _ in initiator.receive(answer):
                    pass  # signatures and tags have no answer

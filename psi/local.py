"""All roles in one process: for tests, demos and tables that are in one place anyway."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from psi.initiator import Initiator
from psi.joining import join
from psi.oprf import RSA
from psi.pairing import PairKey
from psi.responder import Responder
from psi.rsa import MIN_KEY_BITS

__all__ = ["intersect"]

_TASK = "local"


def intersect(
    a: Sequence[str],
    b: Sequence[str],
    *more: Sequence[str],
    protocol: str = RSA,
    pairwise: bool = False,
    key_bits: int = MIN_KEY_BITS,
    chunk: int | None = None,
    workers: int | None = None,
    engine: str | None = None,
) -> list[str]:
    """Run the whole protocol between `a`, as the initiator, and each of the others; returns the ids that all have.

    The bytes are those that parties on different machines would exchange. It shows what a run does and costs; to
    intersect lists that you hold anyway, Python sets are quicker.

    Args:
        a: ids of the initiator.
        b: ids of the first responder.
        more: ids of further responders.
        protocol: "rsa" or "ecdh".
        pairwise: with three and more parties: the plain star, in which the initiator learns what it shares with each
            responder. Otherwise it learns only what all share.
        key_bits: size of each responder's key, with `rsa`.
        chunk: ids per message; None takes the usual number.
        workers: threads or processes of each run; None: see `parallel`.
        engine: the arithmetic; None takes the fastest.

    Returns:
        The shared ids, sorted; empty if there is none.

    Raises:
        BadIds: a list holds something that is not text, is empty or repeats another.
        BadArgument: a setting cannot be used.
    """
    others = (b, *more)
    joint = len(others) > 1 and not pairwise
    keys = _pair_keys(len(others)) if joint else [None] * len(others)
    pairs = []
    for ids, agreed in zip(others, keys, strict=True):
        session = secrets.token_bytes(16)
        initiator = Initiator(
            a, task=_TASK, session=session, protocol=protocol, joint=joint, chunk=chunk, workers=workers, engine=engine
        )
        responder = Responder(
            ids,
            task=_TASK,
            session=session,
            protocol=protocol,
            joint=agreed,
            key_bits=key_bits,
            chunk=chunk,
            workers=workers,
            engine=engine,
        )
        pairs.append((initiator, responder))
    try:
        for initiator, responder in pairs:
            exchange(initiator, responder)
        initiators = [initiator for initiator, _ in pairs]
        if joint:
            shared = join(initiators)
        else:
            shared = sorted(set.intersection(*(set(initiator.intersection) for initiator in initiators)))
        for initiator, responder in pairs:
            for message in initiator.reveal(shared):
                for answer in responder.receive(message):
                    _drain(initiator, answer)
    finally:
        for pair in pairs:
            for run in pair:
                run.close()
    return shared


def exchange(initiator: Initiator, responder: Responder) -> None:
    """Carry messages between two runs until the initiator has matched; holds a few chunks at a time."""
    waiting = list(responder.start())
    while waiting:
        for message in initiator.receive(waiting.pop(0)):
            waiting.extend(responder.receive(message))


def _drain(initiator: Initiator, message: bytes) -> None:
    for _ in initiator.receive(message):
        pass  # the last word has no answer


def _pair_keys(count: int) -> list[list[bytes]]:
    session = secrets.token_bytes(16)
    own = [PairKey() for _ in range(count)]
    return [[key.shared(other.public, task=_TASK, session=session) for other in own if other is not key] for key in own]

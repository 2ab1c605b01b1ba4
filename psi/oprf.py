"""What both protocols are: an oblivious pseudorandom function F, evaluated on chunks.

The responder holds the key of F. The initiator learns F of its own ids and of nothing else; the responder does not
learn what it was asked. `rsa` and `ecdh` are the two ways; `run`, `initiator` and `responder` see only these classes.
(Freedman, Ishai, Pinkas and Reingold, "Keyword search and oblivious pseudorandom functions", 2005; an intersection
from one: Jarecki and Liu, 2010.)

All work is done by pure functions of bytes, on objects that can be sent to other threads, processes and machines of
the same party: see `parallel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from psi.errors import BadArgument
from psi.hashing import Context

RSA = "rsa"
ECDH = "ecdh"
PROTOCOLS = (RSA, ECDH)


class Asker(Protocol):
    """The initiator's side of F, under one responder's public part."""

    @property
    def context(self) -> Context:
        """What separates this run's hashes from others'."""

    @property
    def width(self) -> int:
        """Bytes of one element."""

    @property
    def entropy(self) -> int:
        """Random bytes that blinding one id takes."""

    @property
    def spot_checks(self) -> Sequence[tuple[bytes, bytes]]:
        """(an element to ask, the answer it must get): asked among the ids, so that a wrong key shows."""

    def blind(self, ids: Sequence[str], randomness: bytes) -> tuple[bytes, bytes]:
        """Hide the ids.

        Args:
            ids: k of them.
            randomness: k · `entropy` fresh random bytes.

        Returns:
            (k elements for the responder, what `unblind` needs of each), end to end.

        Raises:
            WeakKey: an id has no good element under this key.
        """

    def check_answers(self, answers: bytes, first: int) -> None:
        """Refuse answers that are no group elements.

        Args:
            answers: k elements.
            first: position of the first of them in the run, for the text of an error.

        Raises:
            BadElement: one of them is not.
        """

    def unblind(self, elements: bytes, secrets: bytes, answers: bytes, first: int) -> bytes:
        """The group elements u = F(id), from what `blind` gave and the responder's answers, in the same order.

        Raises:
            BadElement: an answer does not belong to the element in its place.
        """


class Holder(Protocol):
    """The responder's side of F: holds its key."""

    @property
    def context(self) -> Context:
        """What separates this run's hashes from others'; its public part is what the offer carries."""

    @property
    def width(self) -> int:
        """Bytes of one element."""

    @property
    def spot_checks(self) -> int:
        """How many elements an initiator asks beyond its ids."""

    def check(self, elements: bytes, first: int) -> None:
        """Refuse elements that must not meet the key; as `Asker.check_answers`.

        Raises:
            BadElement: one of them must not.
        """

    def answer(self, elements: bytes) -> bytes:
        """Apply the key to checked elements.

        Raises:
            BadElement, ComputeFault: a result must not leave this machine.
        """

    def powers(self, ids: Sequence[str]) -> bytes:
        """u = F(id) for own ids, in their order."""


def check_protocol(protocol: str) -> None:
    """Refuse a protocol that does not exist.

    Raises:
        BadArgument: it is neither "rsa" nor "ecdh".
    """
    if protocol not in PROTOCOLS:
        raise BadArgument(f"protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}.")

"""The mathematics of the run with `protocol="ecdh"`: Diffie and Hellman's exchange as an oblivious function.

The responder holds a scalar k, the initiator a scalar a; both are fresh for each run, and multiples of 8 as X25519
has them. H maps an id to a point (see `curve25519`), T hashes a point to a tag (see `hashing`), G is the base point;
x is an id of the initiator, z one of the responder.

    initiator                                   responder
                                       <---     K = k·G
    K on the curve ?
    y = a·H(x), in random order        --->     y < p, on the curve, never seen before, k·y not 0 ?
                                       <---     s = k·y
    s < p, on the curve, never seen ?
    u = (1/a)·s = k·H(x)               <---     T(k·H(z)) for each z, in random order
    x is shared  if  T(u) is among them

    hidden among the y: 32 times c·G with random c, whose answer must be c·K

It is the exchange of Meadows (1986) and of Huberman, Franklin and Hogg (1999), with tags as in Jarecki and Liu,
"Fast secure computation of set intersection", 2010. The responder sees a·H(x) for one unknown a: that it tells nothing
about x is the decisional Diffie-Hellman assumption on Curve25519, not a certainty as with `rsa`. That T(u) is
unpredictable without k is its one-more variant.

The group is that of the points of Curve25519; its order is 8·L with a prime L. A peer's point may have a component of
order 2, 4 or 8: as k, a and 1/a are multiples of 8 the component vanishes, and the result says nothing about the
scalar; a point that has nothing else gives 0 and is refused. Points of the twist are refused by test, although its
order, 4 times a prime, would not give the scalar away either.

An answer cannot be verified by itself, as a signature can. A responder that answers under another key fails the 32
spot checks, one that moves answers among ids fails the check that goes with each tag. One that spoils single
answers makes ids seem unshared, which it could do as well by leaving them out of its own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from psi import engines
from psi.curve25519 import BASE_POINT, ORDER, POINT_BYTES, check_points, points_of
from psi.entropy import Source
from psi.errors import BadElement, WeakKey
from psi.hashing import Context

SPOT_CHECKS = 32
"""Elements of known answer in a run. A responder that answers one in ten under another key passes with 3 %."""

_DST = b"HETEROFED-PSI-V2-CS-curve25519_XMD:SHA-512_ELL2_NU_"


def scalar_from(source: Source) -> bytes:
    """A secret scalar as RFC 7748 has them: a random multiple of 8 from 2^254 to 2^255, 32 bytes, little-endian."""
    value = int.from_bytes(source(POINT_BYTES), "little")
    return ((value & ~7 & (1 << 254) - 1) | 1 << 254).to_bytes(POINT_BYTES, "little")


def scalar_and_inverse(source: Source) -> tuple[bytes, bytes]:
    """A scalar a and one that undoes it: both of the form above, their product is 1 modulo L.

    Half of all a have an inverse of that form; others are drawn again.
    """
    while True:
        scalar = scalar_from(source)
        inverse = pow(int.from_bytes(scalar, "little"), -1, ORDER)
        inverse += ORDER * (-inverse * pow(ORDER, -1, 8) % 8)  # the one multiple of 8 below 8·L of this class
        if inverse >> 254 == 1:
            return scalar, inverse.to_bytes(POINT_BYTES, "little")


@dataclass(frozen=True)
class EcdhHolder:
    """The responder's side.

    Args:
        context: of this run; its public part is K.
        scalar: k.
        engine: which arithmetic; None takes the fastest.
    """

    width: ClassVar[int] = POINT_BYTES
    spot_checks: ClassVar[int] = SPOT_CHECKS

    context: Context
    scalar: bytes = field(repr=False)
    engine: str | None = None

    @classmethod
    def fresh(cls, task: str, session: bytes, *, source: Source, engine: str | None = None) -> EcdhHolder:
        """A holder of a new key."""
        scalar = scalar_from(source)
        public = engines.curve(engine)(scalar, BASE_POINT)
        return cls(Context("ecdh", task, session, public), scalar, engine)

    def check(self, elements: bytes, first: int) -> None:
        """See `Holder`."""
        check_points(elements, first)

    def answer(self, elements: bytes) -> bytes:
        """See `Holder`."""
        return engines.curve(self.engine)(self.scalar, elements)

    def powers(self, ids: Sequence[str]) -> bytes:
        """See `Holder`."""
        return engines.curve(self.engine)(self.scalar, points_of(ids, self.context.derive("element"), _DST))


@dataclass(frozen=True)
class EcdhAsker:
    """The initiator's side.

    Args:
        context: of this run.
        scalar: a.
        inverse: 1/a.
        spot_checks: (c·G, c·K) pairs.
        engine: which arithmetic; None takes the fastest.
    """

    width: ClassVar[int] = POINT_BYTES
    entropy: ClassVar[int] = 0

    context: Context
    scalar: bytes = field(repr=False)
    inverse: bytes = field(repr=False)
    spot_checks: Sequence[tuple[bytes, bytes]] = field(repr=False)
    engine: str | None = None

    @classmethod
    def fresh(
        cls,
        public: bytes,
        task: str,
        session: bytes,
        *,
        source: Source,
        engine: str | None = None,
    ) -> EcdhAsker:
        """Take the responder's K and draw the secrets of this run.

        Raises:
            WeakKey: K is not a point of the curve, or of small order.
        """
        multiply = engines.curve(engine)
        try:
            if len(public) != POINT_BYTES:
                raise BadElement("its length is not that of a point")
            check_points(public, 0)
            probes = [scalar_from(source) for _ in range(SPOT_CHECKS)]
            spots = [(multiply(each, BASE_POINT), multiply(each, public)) for each in probes]
        except BadElement:
            raise WeakKey(
                "the responder's key cannot be used: it is not a point of the large group; expected one on Curve25519. "
                "Do not go on with this peer before it says how its key was made."
            ) from None
        scalar, inverse = scalar_and_inverse(source)
        return cls(Context("ecdh", task, session, public), scalar, inverse, spots, engine)

    def blind(self, ids: Sequence[str], randomness: bytes) -> tuple[bytes, bytes]:
        """See `Asker`; the same scalar hides every id."""
        points = points_of(ids, self.context.derive("element"), _DST)
        return engines.curve(self.engine)(self.scalar, points), b""

    def check_answers(self, answers: bytes, first: int) -> None:
        """See `Asker`."""
        check_points(answers, first)

    def unblind(self, elements: bytes, secrets: bytes, answers: bytes, first: int) -> bytes:
        """See `Asker`; nothing of the element is needed."""
        return engines.curve(self.engine)(self.inverse, answers)

"""What an engine does: many powers, or many multiplications on the curve, from bytes to bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from psi.errors import BadArgument, BadElement

POINT_WIDTH = 32
"""Bytes of a u-coordinate and of a scalar of Curve25519."""


@dataclass(frozen=True)
class RsaNumbers:
    """The numbers of a private RSA key. All but n and e are secret and stay out of `repr`.

    Attributes:
        n: p · q.
        d_p: the private exponent modulo p - 1.
        d_q: the private exponent modulo q - 1.
        q_inverse: 1 / q modulo p.
    """

    n: int
    e: int
    p: int = field(repr=False)
    q: int = field(repr=False)
    d_p: int = field(repr=False)
    d_q: int = field(repr=False)
    q_inverse: int = field(repr=False)

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return (self.n.bit_length() + 7) // 8


class RsaPower(Protocol):
    """x -> x^d or x -> x^e modulo n, for many numbers at once. May be called from several threads at the same time.

    Attributes:
        name: the engine's name, one of `RSA_ENGINES`.
        releases_lock: whether other Python threads run meanwhile, so that threads make it quicker.
        verifies: whether the engine itself checks each power with the public exponent before it gives it out. One
            wrong private power can give the key away, so the caller has to check those of an engine that does not.
    """

    name: str
    releases_lock: bool
    verifies: bool

    def __call__(self, elements: bytes) -> bytes:
        """The powers of the elements, in the same form and order.

        Args:
            elements: k numbers, each big-endian in exactly the width of n. The caller has checked that each is < n;
                an engine may refuse one that is not, or give any result for it.

        Raises:
            BadArgument: the bytes are not a whole number of elements.
            ComputeFault: the engine reports a failure, or found its own result wrong.
        """
        ...


class CurveMultiply(Protocol):
    """X25519 (RFC 7748) of one scalar with many points. May be called from several threads at the same time.

    Attributes:
        name: the engine's name, one of `CURVE_ENGINES`.
        releases_lock: whether other Python threads run meanwhile, so that threads make it quicker.
    """

    name: str
    releases_lock: bool

    def __call__(self, scalar: bytes, points: bytes) -> bytes:
        """The u-coordinates of scalar · P for each point P, in the same form and order.

        Args:
            scalar: 32 bytes, clamped here as RFC 7748 says.
            points: k u-coordinates of 32 bytes each, little-endian; the top bit of each is ignored.

        Raises:
            BadArgument: the scalar does not have 32 bytes, or the points are not a whole number of them.
            BadElement: a result is zero, so the point has small order; names the position of the first one.
            ComputeFault: the engine reports a failure.
        """
        ...


def count_of(numbers: bytes, width: int) -> int:
    """How many numbers of this width the bytes hold.

    Raises:
        BadArgument: not a whole number of them.
    """
    count, rest = divmod(len(numbers), width)
    if rest:
        raise BadArgument(
            f"an engine was given {len(numbers)} bytes; expected a multiple of {width}, the width of one."
        )
    return count


def check_scalar(scalar: bytes) -> None:
    """Refuse a scalar of another length.

    Raises:
        BadArgument: it does not have 32 bytes.
    """
    if len(scalar) != POINT_WIDTH:
        raise BadArgument(f"scalar has {len(scalar)} bytes; expected {POINT_WIDTH}.")


def small_order(position: int) -> BadElement:
    """The error for a point whose multiple is zero."""
    return BadElement(
        f"the point at position {position} of this call has small order, so its multiple is zero; expected a point of "
        "the large subgroup. Do not go on with this peer."
    )

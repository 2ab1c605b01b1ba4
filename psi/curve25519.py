"""Where ids enter Curve25519, and which of a peer's points may meet our scalar.

The curve is v² = u³ + 486662·u² + u modulo p = 2^255 - 19 (RFC 7748), a point is its u alone, 32 bytes, little-endian.
It has 8·L points, L prime (cofactor 8); the u that are on no point of it belong to its twist, which has 4·L' points.

An id becomes a field element by expand_message_xmd with SHA-512 and a point by Elligator 2: the suite
`curve25519_XMD:SHA-512_ELL2_NU_` of RFC 9380, sections 5.3.1 and 6.7.1, up to the sign of v, which X25519 ignores.
Every id lands on the curve. Were a hash itself taken for u, half of the ids would lie on the twist and stay there under
any scalar: each blinded id would tell one bit of whose it is.

The arithmetic of points is X25519 from a library (`engines`); here are only the map and the test of membership, with
gmpy2's numbers. Neither is constant-time: the test is of public numbers, the map of our own ids on our own machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import gmpy2
from gmpy2 import mpz

from psi.errors import BadElement

POINT_BYTES = 32
BASE_POINT = (9).to_bytes(POINT_BYTES, "little")
ORDER = 2**252 + 27742317777372353535851937790883648493
"""L, the order of the base point."""

P = mpz(2) ** 255 - 19
_J = mpz(486662)
_FIELD_BYTES = 48
"""ceil((255 + 128) / 8): within 2^-128 of uniform after reduction."""
_BLOCK_BYTES = 128
"""Of SHA-512."""


def points_of(ids: Sequence[str], context: bytes, dst: bytes) -> bytes:
    """The ids' points, 32 bytes each, in their order.

    Args:
        ids: k sample ids.
        context: what stands before each id in the hashed message; of one length for all runs.
        dst: the domain separation tag of RFC 9380, up to 255 bytes.
    """
    return map_to_curve(hash_to_field(ids, context, dst))


def hash_to_field(ids: Sequence[str], context: bytes, dst: bytes) -> list[mpz]:
    """The ids' field elements: expand_message_xmd to 48 bytes of `context` followed by the id, modulo p."""
    suffix = dst + bytes([len(dst)])
    first = hashlib.sha512(bytes(_BLOCK_BYTES) + context)  # Z_pad, then the message begins
    first_end = _FIELD_BYTES.to_bytes(2, "big") + b"\0" + suffix
    second_end = b"\1" + suffix
    sha512, from_bytes = hashlib.sha512, mpz.from_bytes
    elements = []
    for sample_id in ids:
        state = first.copy()
        state.update(sample_id.encode() + first_end)
        wide = sha512(state.digest() + second_end).digest()
        elements.append(from_bytes(wide[:_FIELD_BYTES], "big") % P)
    return elements


def map_to_curve(elements: Sequence[mpz]) -> bytes:
    """Elligator 2 (RFC 9380, section 6.7.1): for each field element r the u of a point, 32 bytes each.

    u = -J / (1 + 2r²) if that is on the curve, else -u - J, which then is. One inversion serves all (Montgomery, 1987).
    """
    divisors = [(1 + 2 * each * each) % P for each in elements]  # never 0: -1/2 is no square modulo p
    products = [mpz(1)]
    for divisor in divisors:
        products.append(products[-1] * divisor % P)
    inverse = gmpy2.invert(products.pop(), P)
    jacobi = gmpy2.jacobi
    points: list[bytes] = []
    for divisor in reversed(divisors):
        u = -_J * inverse * products.pop() % P
        inverse = inverse * divisor % P
        if jacobi(((u + _J) * u + 1) * u % P, P) < 0:
            u = (-u - _J) % P
        points.append(u.to_bytes(POINT_BYTES, "little"))
    points.reverse()
    return b"".join(points)


def check_points(points: bytes, first: int) -> None:
    """Refuse what is not the one spelling of a point on the curve.

    Args:
        points: k times 32 bytes.
        first: position of the first of them in the run, for the text of an error.

    Raises:
        BadElement: a number is p or more, or lies on the twist. Points of small order are refused where they are
            multiplied: the result is 0.
    """
    jacobi, from_bytes = gmpy2.jacobi, mpz.from_bytes
    for position, start in enumerate(range(0, len(points), POINT_BYTES), first):
        u = from_bytes(points[start : start + POINT_BYTES], "little")
        if u >= P:
            raise BadElement(
                f"element {position} of the peer is out of range; expected a number below 2^255 - 19. "
                "End the run: the peer is faulty."
            )
        if jacobi(((u + _J) * u + 1) * u % P, P) < 0:
            raise BadElement(
                f"element {position} of the peer is not on Curve25519; expected a point of the curve. "
                "End the run: the peer is faulty."
            )

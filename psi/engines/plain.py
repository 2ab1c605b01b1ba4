"""Powers by gmpy2 and X25519 by `cryptography`: the two libraries that psi always has.

Constant time. GMP documents for `mpz_powm_sec`, on which `gmpy2.powmod_sec` rests, that time and memory accesses
depend only on the sizes of the arguments. The reductions modulo p and q, the recombination and the conversions around
it are ordinary arithmetic and are not constant-time. RFC 7748 asks for a constant-time X25519, and OpenSSL, which
`cryptography` carries, implements it that way; `cryptography` itself documents nothing about it.

Secrets in memory. Python's and GMP's numbers and `bytes` cannot be wiped; dropping the last reference is all we can do.

Measured on a 2-core AMD EPYC (Zen 5), µs for each item with one thread and with two (the figure for two is what both
together need for each item):

    power            2048 bits      3072 bits      4096 bits
    private          811 / 407     2360 / 1190    6240 / 3610
    public            22 / 12        44 / 22        79 / 52
    X25519            28 / 29
"""

from __future__ import annotations

from collections.abc import Callable

import gmpy2
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from gmpy2 import mpz

from psi.engines.interface import POINT_WIDTH, RsaNumbers, check_scalar, count_of, small_order


class PlainPrivate:
    """x^d modulo n by the Chinese remainder theorem, with GMP's constant-time power modulo p and q."""

    name = "gmpy2"
    releases_lock = True
    verifies = False

    def __init__(self, numbers: RsaNumbers) -> None:
        self._width = numbers.width
        self._p, self._q = mpz(numbers.p), mpz(numbers.q)
        self._d_p, self._d_q = mpz(numbers.d_p), mpz(numbers.d_q)
        self._q_inverse = mpz(numbers.q_inverse)

    def __call__(self, elements: bytes) -> bytes:
        """See `RsaPower`."""
        _share_the_lock()
        width = self._width
        count_of(elements, width)
        parts = []
        for start in range(0, len(elements), width):
            element = mpz.from_bytes(elements[start : start + width], "big")
            power_p = gmpy2.powmod_sec(element % self._p, self._d_p, self._p)
            power_q = gmpy2.powmod_sec(element % self._q, self._d_q, self._q)
            power = power_q + self._q * ((power_p - power_q) * self._q_inverse % self._p)
            parts.append(power.to_bytes(width, "big"))
        return b"".join(parts)


class PlainPublic:
    """x^e modulo n with GMP's fastest power; nothing here is secret."""

    name = "gmpy2"
    releases_lock = True
    verifies = False

    def __init__(self, n: int, e: int) -> None:
        self._width = (n.bit_length() + 7) // 8
        self._n, self._e = mpz(n), mpz(e)

    def __call__(self, elements: bytes) -> bytes:
        """See `RsaPower`."""
        _share_the_lock()
        width = self._width
        count_of(elements, width)
        return b"".join(
            gmpy2.powmod(mpz.from_bytes(elements[start : start + width], "big"), self._e, self._n).to_bytes(
                width, "big"
            )
            for start in range(0, len(elements), width)
        )


class PlainCurve:
    """X25519 by `cryptography`, one point at a time. It holds Python's lock, so threads do not make it quicker."""

    name = "cryptography"
    releases_lock = False

    def __call__(self, scalar: bytes, points: bytes) -> bytes:
        """See `CurveMultiply`."""
        count_of(points, POINT_WIDTH)
        multiply = multiplier(scalar)
        parts = []
        for start in range(0, len(points), POINT_WIDTH):
            product = multiply(points[start : start + POINT_WIDTH])
            if product is None:
                raise small_order(start // POINT_WIDTH)
            parts.append(product)
        return b"".join(parts)


def multiplier(scalar: bytes) -> Callable[[bytes], bytes | None]:
    """X25519 of this scalar with one point; gives None where the product is zero."""
    check_scalar(scalar)
    exchange = X25519PrivateKey.from_private_bytes(scalar).exchange

    def multiply(point: bytes) -> bytes | None:
        try:
            return exchange(X25519PublicKey.from_public_bytes(point))
        except ValueError:  # what `cryptography` says of an all-zero result
            return None

    return multiply


def _share_the_lock() -> None:
    # A gmpy2 context belongs to a thread, and this runs in threads that somebody else made.
    gmpy2.get_context().allow_release_gil = True

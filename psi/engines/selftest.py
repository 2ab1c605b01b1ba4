"""Known answers that an engine has to give before it is used.

The keys are made from hashed labels, so everybody knows them; they serve for nothing else. The RSA answers cost
little: choose y, then y^e is the element whose private power must be y.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

from psi.engines.interface import CurveMultiply, RsaNumbers, RsaPower
from psi.errors import BadElement, PsiError

_EXPONENT = 65537
_PRIME_OFFSETS = {2048: (484, 40), 3072: (566, 466), 4096: (5088, 942)}
"""What to add to the hashed number of each size to come to the next prime, for p and for q."""
_ITEMS = 9
"""One more than a full batch of `multibuffer`."""

_SCALAR = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
_POINT = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
_PRODUCT = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
"""The first test vector of RFC 7748, section 5.2."""
_BASE = (9).to_bytes(32, "little")


class Wrong(PsiError):
    """An engine gave another answer than the known one, or took what it has to refuse."""


@cache
def key_of(bits: int) -> RsaNumbers:
    """The test key of this size, or the one of 2048 bits where there is none."""
    size = bits if bits in _PRIME_OFFSETS else min(_PRIME_OFFSETS)
    p, q = (_prime(size, label, offset) for label, offset in zip("pq", _PRIME_OFFSETS[size], strict=True))
    d_p, d_q = pow(_EXPONENT, -1, p - 1), pow(_EXPONENT, -1, q - 1)
    return RsaNumbers(p * q, _EXPONENT, p, q, d_p, d_q, pow(q, -1, p))


def passes(check: Callable[[], None]) -> bool:
    """Whether the check ends without an error of psi or of the system (a library that does not load)."""
    try:
        check()
    except (PsiError, OSError):
        return False
    return True


def check_rsa(private: RsaPower, public: RsaPower, numbers: RsaNumbers) -> None:
    """Compare both powers with known ones.

    Raises:
        Wrong: they differ.
    """
    roots = [2, numbers.n - 2, *(_hashed(f"root {index}", numbers.n) for index in range(_ITEMS - 2))]
    powers = [pow(root, numbers.e, numbers.n) for root in roots]
    packed_roots, packed_powers = (
        b"".join(number.to_bytes(numbers.width, "big") for number in some) for some in (roots, powers)
    )
    if private(packed_powers) != packed_roots or public(packed_roots) != packed_powers:
        raise Wrong("an RSA engine does not compute the known powers.")


def check_curve(multiply: CurveMultiply) -> None:
    """Compare with RFC 7748, and see that scalars commute and that a point of small order is refused.

    Raises:
        Wrong: they differ, or the point was taken.
    """
    if multiply(_SCALAR, _POINT * _ITEMS) != _PRODUCT * _ITEMS:
        raise Wrong("a curve engine does not compute the known product.")
    first, second = (hashlib.sha256(label).digest() for label in (b"first", b"second"))
    if multiply(first, multiply(second, _BASE + _POINT)) != multiply(second, multiply(first, _BASE + _POINT)):
        raise Wrong("the products of a curve engine do not commute.")
    try:
        multiply(_SCALAR, _BASE + bytes(32))
    except BadElement:
        return
    raise Wrong("a curve engine takes a point of small order.")


def _prime(size: int, label: str, offset: int) -> int:
    half = size // 2
    digest = hashlib.shake_256(f"psi self-test {size} {label}".encode()).digest(half // 8)
    return (int.from_bytes(digest, "big") | 3 << (half - 2) | 1) + offset  # top two bits set: the product is full


def _hashed(label: str, bound: int) -> int:
    return int.from_bytes(hashlib.shake_256(label.encode()).digest(bound.bit_length() // 8 + 16), "big") % bound

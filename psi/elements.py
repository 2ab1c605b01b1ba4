"""Group elements as bytes: each one as a big-endian number of exactly the modulus' width, end to end.

Accepted are only numbers of 2..n-2 (0, 1 and n-1 keep their value under any odd power; from n on a number would have
two spellings). Where asked, only units: a number that shares a factor with n would show that somebody knows one.
"""

from __future__ import annotations

from collections.abc import Iterable

import gmpy2
from gmpy2 import mpz

from psi.errors import BadElement
from psi.hashing import element_digest, width_of


def pack(elements: Iterable[mpz], modulus: mpz) -> bytes:
    """Elements of 0..n-1 to their bytes, in the same order."""
    width = width_of(modulus)
    return b"".join(bytes(each.to_bytes(width, "big")) for each in elements)


def unpack(data: bytes, modulus: mpz, *, first: int = 0, units: bool = False) -> list[mpz]:
    """Bytes of whole elements back to numbers, in the same order.

    Args:
        data: a whole number of elements; the length was checked by whoever split the message.
        modulus: n.
        first: position of the first of them in the run, for the text of an error.
        units: refuse also what shares a factor with n (about 10 µs each at 2048 bits).

    Raises:
        BadElement: a number is not in 2..n-2, or, with `units`, shares a factor with n.
    """
    width = width_of(modulus)
    elements = []
    for position, start in enumerate(range(0, len(data), width), first):
        element = mpz.from_bytes(data[start : start + width], "big")
        if not 2 <= element <= modulus - 2:
            raise BadElement(
                f"element {position} of the peer is out of range; expected 2..n-2. End the run: the peer is faulty."
            )
        if units and gmpy2.gcd(element, modulus) != 1:
            raise BadElement(
                f"element {position} of the peer shares a factor with the modulus; expected a unit. "
                "End the run: the peer is faulty or holds part of the key."
            )
        elements.append(element)
    return elements


class SeenElements:
    """Remembers which elements came in a run and refuses a repeat; keeps 16 bytes of each."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, data: bytes, width: int) -> None:
        """Take the bytes of whole elements.

        Raises:
            BadElement: one of them came before.
        """
        for start in range(0, len(data), width):
            digest = element_digest(data[start : start + width])
            if digest in self._digests:
                # Honest blinding repeats an element with probability 2^-2000: the peer's randomness is broken.
                raise BadElement(
                    f"element {len(self._digests)} of the peer came before in this run; expected fresh blinding of "
                    "each id. End the run: the peer's randomness is broken, or it asks twice."
                )
            self._digests.add(digest)

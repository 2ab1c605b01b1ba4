"""Exact sums of floats, so that a mean is the same bits however the rows are cut into chunks and in whatever order.

Every float64 is a whole number of 53 bits times a power of two. The whole numbers are added up as such, apart for each
power: nothing is rounded before the end.

References:
    The idea of a long accumulator: U. Kulisch, "Computer Arithmetic and Validity", 2008, chapter 8.
    The square as a float plus its rounding error: T. J. Dekker, "A floating-point technique for extending the
        available precision", Numerische Mathematik 18, 1971.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from heterofed.tables.values import Floats

_LOWEST = -1074
"""The exponent of the smallest float above zero."""

_LOW_BITS = 26
_AT_ONCE = 1 << 35
"""Numbers of 27 bits that an int64 can take the sum of."""

_SPLIT = float(2**27 + 1)


class ExactSum:
    """A sum of finite floats that is rounded once, when it is read."""

    def __init__(self) -> None:
        self._total = 0  # in units of 2^_LOWEST

    def add(self, values: Floats) -> None:
        """Add values, all finite and fewer than 2^35 at a time."""
        if values.size == 0:
            return
        if values.size > _AT_ONCE or not np.isfinite(values).all():
            raise ValueError("only so many finite numbers can be added at once")
        parts, exponents = np.frexp(values)
        whole = np.ldexp(parts, 53).astype(np.int64)  # exact: a float has 53 bits
        places = exponents.astype(np.int64) - 53 - _LOWEST
        first = int(places.min())
        size = int(places.max()) - first + 1
        high, low = np.zeros(size, np.int64), np.zeros(size, np.int64)
        np.add.at(high, places - first, whole >> _LOW_BITS)
        np.add.at(low, places - first, whole & ((1 << _LOW_BITS) - 1))
        for place in np.flatnonzero(high | low):
            amount = (int(high[place]) << _LOW_BITS) + int(low[place])
            shift = int(place) + first
            # below the smallest float the last bits of a number are zero
            self._total += amount << shift if shift >= 0 else amount >> -shift

    @property
    def exact(self) -> Fraction:
        """The sum."""
        return Fraction(self._total) * Fraction(2) ** _LOWEST


class Moments:
    """Mean and standard deviation of numbers that come in any order and in any parts.

    Numbers have to be within `values.LARGEST`. Both results are the exact ones, rounded once (the deviation twice),
    but for squares below 1e-300.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = ExactSum()
        self._squares = ExactSum()

    def add(self, values: Floats) -> None:
        """Add numbers, none of them NaN."""
        self.count += values.size
        self._sum.add(values)
        square = values * values
        wide = values * _SPLIT
        high = wide - (wide - values)
        low = values - high
        self._squares.add(square)
        self._squares.add(((high * high - square) + 2 * high * low) + low * low)

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return float(self._sum.exact / self.count) if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation over all (not over all but one); 0 of nothing."""
        if not self.count:
            return 0.0
        mean = self._sum.exact / self.count
        return math.sqrt(max(Fraction(0), self._squares.exact / self.count - mean * mean))

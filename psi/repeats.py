"""A memory of everything that a peer sent, small enough for 10^7 elements: which item came before?

Each item is kept as a digest of 96 bits. The digests lie in sorted runs, each at least twice as long as the next; a new
chunk is one more run, and runs of like length are merged (the logarithmic method: Bentley and Saxe, "Decomposable
searching problems I", 1980). So an item is moved O(log n) times in its life, and a question costs one binary search in
each of O(log n) runs.

The digest is multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2014, and the sources
there). With 32-bit words x_1..x_w of the item and secret uniform 64-bit numbers k_0..k_w,

    h(x) = ((k_0 + k_1 x_1 + ... + k_w x_w) mod 2^64) div 2^32

takes any two different items to independent uniform 32-bit numbers, whatever the items are. Three such functions with
keys of their own make 96 bits: two given items collide with probability 2^-96, some two of n honest items with less
than n^2/2^97, which is 2^-50 at n = 10^7. This needs no cryptographic hash and no item that looks random: only that
items are chosen without the keys, and they never leave this object. All that a peer hears is whether an alarm ended the
run.

A collision could only raise a false alarm. Equal items have equal digests, so no repeat is ever missed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psi.errors import BadArgument

BLOCK = 1 << 16
"""Digests that are merged at a time: small enough for the processor's cache and for the promise on memory."""


@dataclass
class _Run:
    """Digests in the order of their heads, so 12 bytes each."""

    heads: NDArray[np.uint64]
    """The first 64 bits, sorted."""
    tails: NDArray[np.uint32]
    """The other 32 bits, in the order of the heads."""

    def __len__(self) -> int:
        return len(self.heads)

    def holds(self, head: np.uint64, tail: np.uint32) -> bool:
        first, last = (int(np.searchsorted(self.heads, head, side)) for side in ("left", "right"))
        return bool(np.any(self.tails[first:last] == tail))

    def cut(self, length: int) -> None:
        """Give the memory behind `length` back. No view of the arrays may be alive."""
        self.heads.resize(length, refcheck=False)
        self.tails.resize(length, refcheck=False)


class Repeats:
    """Says which item of a stream came before; 12 bytes per item, and the items of one chunk while it is added.

    Args:
        width: bytes of an item, 1 or more.

    Raises:
        BadArgument: the width is not a positive int.
    """

    def __init__(self, width: int) -> None:
        if type(width) is not int or width < 1:
            raise BadArgument(f"width is {width!r}; expected the bytes of an item, 1 or more.")
        self._width = width
        self._words = -(-width // 4)
        keys = np.frombuffer(secrets.token_bytes(24 * (self._words + 1)), np.uint64).reshape(self._words + 1, 3)
        self._keys, self._offset = keys[1:], keys[0]
        self._runs: list[_Run] = []
        self._count = 0

    def __len__(self) -> int:
        """How many items were added, repeats included."""
        return self._count

    def add(self, data: bytes | memoryview) -> int | None:
        """Take the next items, one behind the other, and say where the first repeat is.

        Args:
            data: any number of items; one call with thousands is far cheaper than thousands of calls.

        Returns:
            The position, counted from 0 over everything added so far, of the first item of `data` that equals an
            earlier one (of this call or any before); None if there is none.

        Raises:
            BadArgument: the data is not a whole number of items.
        """
        if len(data) % self._width:
            raise BadArgument(f"{len(data)} bytes are no whole number of items; expected a multiple of {self._width}.")
        count = len(data) // self._width
        if not count:
            return None
        heads, tails = self._digests(data, count)
        order = np.argsort(heads, kind="stable")
        chunk = _Run(heads[order], tails[order])
        known = self._known_in_runs(chunk) + _known_in_itself(chunk)
        first = min((int(order[each]) for each in known), default=None)
        position = None if first is None else self._count + first
        self._count += count
        self._keep(chunk)
        return position

    def _digests(self, data: bytes | memoryview, count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        items = np.frombuffer(data, np.uint8).reshape(count, self._width)
        padded = 4 * self._words
        if padded != self._width:  # zeros behind items of one width keep different items different
            items = np.pad(items, ((0, 0), (0, padded - self._width)))
        words = items.view(np.uint32).astype(np.uint64)
        sums = words @ self._keys + self._offset  # modulo 2^64
        sums >>= np.uint64(32)
        return sums[:, 0] << np.uint64(32) | sums[:, 1], sums[:, 2].astype(np.uint32)

    def _known_in_runs(self, chunk: _Run) -> list[int]:
        """Places in the chunk whose digest an earlier chunk had."""
        known: list[int] = []
        for run in self._runs:
            places = np.searchsorted(run.heads, chunk.heads)
            found = np.flatnonzero(run.heads.take(places, mode="clip") == chunk.heads)
            known += [int(each) for each in found if run.holds(chunk.heads[each], chunk.tails[each])]
        return known

    def _keep(self, run: _Run) -> None:
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_merged(older, newer))


def _known_in_itself(chunk: _Run) -> list[int]:
    """Places in the chunk whose digest stands there before (equal heads are in the order in which they came)."""
    twins = np.flatnonzero(chunk.heads[1:] == chunk.heads[:-1])
    if not len(twins):
        return []  # nearly always; union1d takes 20 ms at its first use, as it imports numpy.ma
    known, seen = [], set()
    for each in np.union1d(twins, twins + 1):
        digest = int(chunk.heads[each]), int(chunk.tails[each])
        if digest in seen:
            known.append(int(each))
        seen.add(digest)
    return known


def _merged(left: _Run, right: _Run) -> _Run:
    """One run of both, which are empty afterwards.

    It works from the top down and cuts what it has taken off both, while the system gives the pages of the new arrays
    only as they are written. So a merge needs hardly more memory than the two runs had.
    """
    end = len(left) + len(right)
    both = _Run(np.empty(end, np.uint64), np.empty(end, np.uint32))
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    while end:
        a = max(0, len(longer) - BLOCK)
        b = int(np.searchsorted(shorter.heads, longer.heads[a])) if a else 0
        _merge_tops(longer, a, shorter, b, both, end)
        longer.cut(a)
        shorter.cut(b)
        end = a + b
    return both


def _merge_tops(longer: _Run, a: int, shorter: _Run, b: int, both: _Run, end: int) -> None:
    """Write what is above a and b into both[a + b : end]. A function, so that no view outlives it."""
    places = np.searchsorted(longer.heads[a:], shorter.heads[b:])
    places += np.arange(len(places))
    others = np.ones(end - a - b, np.bool_)
    others[places] = False
    for source, addition, target in (
        (longer.heads, shorter.heads, both.heads),
        (longer.tails, shorter.tails, both.tails),
    ):
        part = target[a + b : end]
        part[places] = addition[b:]
        part[others] = source[a:]

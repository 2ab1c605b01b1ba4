"""Finding tags among many: a sorted index over rows of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psi.errors import BadElement
from psi.hashing import CHECK_BYTES, TAG_BYTES

Rows = NDArray[np.uint8]
"""(count, width) bytes."""

_BATCH = 1 << 16
"""Rows that are looked up at a time: what a look-up needs meanwhile stays small."""


def rows(data: bytes | bytearray, width: int) -> Rows:
    """Bytes of whole items as rows, without a copy."""
    return np.frombuffer(data, np.uint8).reshape(-1, width)


def as_texts(tags: Rows) -> NDArray[np.bytes_]:
    """Rows as one byte string each, which numpy compares like Python: all are equally long."""
    return np.ascontiguousarray(tags).view(f"S{tags.shape[1]}").ravel()


class TagIndex:
    """Looks up the first 12 bytes of rows; 12 or 16 bytes of memory for each row, which stay where they are.

    Args:
        outputs: (count, width) bytes; the tag comes first in each row.
    """

    def __init__(self, outputs: Rows) -> None:
        self._outputs = outputs
        heads = _heads(outputs)
        self._order = np.argsort(heads).astype(np.uint32 if len(heads) < 1 << 32 else np.int64, copy=False)
        self._sorted = heads[self._order]

    def find(self, wanted: Rows) -> NDArray[np.int64]:
        """The number of the row with this tag, for each wanted row; -1 where there is none."""
        found = np.full(len(wanted), -1, np.int64)
        for start in range(0, len(wanted), _BATCH):
            found[start : start + _BATCH] = self._find(wanted[start : start + _BATCH])
        return found

    def _find(self, wanted: Rows) -> NDArray[np.int64]:
        found = np.full(len(wanted), -1, np.int64)
        heads = _heads(wanted)
        at = np.searchsorted(self._sorted, heads)
        left = np.arange(len(wanted))
        while len(left):  # once, unless two tags begin with the same 8 bytes
            left = left[at[left] < len(self._sorted)]
            left = left[self._sorted[at[left]] == heads[left]]
            candidates = self._order[at[left]]
            same = (self._outputs[candidates, :TAG_BYTES] == wanted[left, :TAG_BYTES]).all(axis=1)
            found[left[same]] = candidates[same]
            left = left[~same]
            at[left] += 1
        return found


def matches(outputs: Rows, items: Rows) -> NDArray[np.int64]:
    """The numbers of our rows whose tag is among the peer's items.

    Raises:
        BadElement: a tag is there with a check that does not fit: the answer to another element led to it.
    """
    found = TagIndex(outputs).find(items)
    hit = np.flatnonzero(found >= 0)
    mine = found[hit]
    check = slice(TAG_BYTES, TAG_BYTES + CHECK_BYTES)
    if not (outputs[mine, check] == items[hit, check]).all():
        raise BadElement(
            "a tag of the responder matches an id that its check does not fit; expected an answer to each element "
            "in its place. End the run: the responder moves answers, or its messages are changed on the way."
        )
    return mine


def _heads(outputs: Rows) -> NDArray[np.uint64]:
    return np.ascontiguousarray(outputs[:, :8]).view(">u8").ravel().astype(np.uint64)

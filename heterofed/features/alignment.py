"""The same people in the same order at every party: ordered ids, splits, and the digests that prove them.

Ids never leave a party here; what travels are counts and keyed digests of the ordered ids.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Set, Sized
from typing import Any, overload

import numpy as np

from heterofed.errors import AlignmentError, ConfigError

DIGEST_BYTES = 16
"""128 bits: two different orders agree by chance with probability 2^-128."""

TEST_FRACTION = 0.2
"""Share of the ids that `default_split` keeps for the test."""


class OrderedIds(Sequence[str], Set[str]):
    """Ids in a fixed order that also answer to set operations, which give sets in that order.

    `ids[0]`, `ids[:100]`, `"a" in ids`, `ids & other`, `ids - other`, `set(ids)` and `list(ids)` all work.
    """

    __slots__ = ("_ids", "_known")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._known = dict.fromkeys(ids)
        self._ids = tuple(self._known)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return list(self._ids[index]) if isinstance(index, slice) else self._ids[index]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, item: object) -> bool:
        return item in self._known

    def __and__(self, other: Iterable[object]) -> OrderedIds:
        # Set's own way would give the order of `other`: that of a Python set differs from process to process.
        known = other if isinstance(other, Set) else frozenset(other)
        return OrderedIds(each for each in self._ids if each in known)

    __rand__ = __and__

    def __repr__(self) -> str:
        return f"OrderedIds({len(self)} ids)"  # the ids themselves stay out of logs


def checked_ids(ids: object, source: str) -> list[str]:
    """Return the ids as a list, or refuse them.

    Args:
        ids: what the user's method returned.
        source: the method, for the text of errors.

    Raises:
        AlignmentError: not a non-empty collection of unique, non-empty str in Unicode normal form C. The text has
            counts, never ids.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise AlignmentError(f"{source} returned {type(ids).__name__}", expected="a list of str")
    found = list(ids)
    if not found:
        raise AlignmentError(f"{source} returned no ids", expected="at least one", advice="Check this party's data.")
    wrong = [each for each in found if not isinstance(each, str)]
    if wrong:
        raise AlignmentError(
            f"{source} returned {len(wrong)} of {len(found)} ids that are no str but {type(wrong[0]).__name__}",
            expected="only str, written alike at every party",
            advice="Convert them, for example with str(); 7 and '7' would never meet.",
        )
    unwritable = sum(1 for each in found if not _is_encodable(each))
    if unwritable:
        raise AlignmentError(
            f"{source} returned {unwritable} of {len(found)} ids with characters that UTF-8 cannot write",
            expected="none",
            advice="Read the table with its right encoding.",
        )
    # PSI compares and returns normal forms: of another form it would give back a text that the user's table lacks
    unlike = sum(1 for each in found if not each.isascii() and not unicodedata.is_normalized("NFC", each))
    if unlike:
        raise AlignmentError(
            f"{source} returned {unlike} of {len(found)} ids that are not in Unicode normal form C",
            expected="none: an accented letter written as two characters would not meet the same letter written as one",
            advice="Apply psi.normalise_ids to the id column, in the table too.",
        )
    empty = sum(1 for each in found if not each)
    if empty:
        raise AlignmentError(f"{source} returned {empty} empty ids", expected="none", advice="Drop or name these rows.")
    repeated = len(found) - len(set(found))
    if repeated:
        raise AlignmentError(
            f"{source} returned {len(found)} ids of which {repeated} repeat an earlier one",
            expected="every id once",
            advice="Drop or merge the rows that share an id.",
        )
    return found


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def default_split(id_intersection: Iterable[str], test_fraction: float = TEST_FRACTION) -> tuple[list[str], list[str]]:
    """Split ids into train and test, each sorted, in a way that depends on nothing but the ids.

    The ids with the smallest SHA-256 are the test ids, so every party comes to the same split without a word.

    Args:
        id_intersection: the shared ids.
        test_fraction: share of test ids, 0 <= share < 1; at least one when there are two ids or more.

    Raises:
        ConfigError: `test_fraction` is out of range.
    """
    if not 0 <= test_fraction < 1:
        raise ConfigError(f"test_fraction is {test_fraction}", expected="0 <= test_fraction < 1")
    by_hash = sorted(id_intersection, key=lambda each: hashlib.sha256(each.encode()).digest())
    tests = int(len(by_hash) * test_fraction)
    if test_fraction and not tests and len(by_hash) > 1:
        tests = 1
    return sorted(by_hash[tests:]), sorted(by_hash[:tests])


def ordered(ids: object, source: str) -> list[str]:
    """Return a split as a list: a set is sorted (its own order means nothing), any other order is kept.

    Raises:
        AlignmentError: as `checked_ids`, but an empty split is allowed.
    """
    if isinstance(ids, Sized) and not isinstance(ids, str | bytes) and len(ids) == 0:
        return []
    checked = checked_ids(ids, source)
    return sorted(checked) if isinstance(ids, Set) and not isinstance(ids, OrderedIds) else checked


def digest_of(ids: Iterable[str], key: bytes) -> bytes:
    """Return a keyed digest (BLAKE2b, `DIGEST_BYTES` bytes) of ids and their order.

    The lengths of the ids come first, so that ("ab", "c") and ("a", "bc") differ. The session's random key makes
    digests of different sessions incomparable.
    """
    given = list(ids)
    state = hashlib.blake2b(digest_size=DIGEST_BYTES, key=key, person=b"heterofed-order")
    # All at once: one by one, 60,000 ids take five times as long, 15 ms of every round.
    state.update(np.fromiter(map(len, given), "<i8", len(given)).tobytes())
    state.update("".join(given).encode())
    return state.digest()


def digest_of_places(places: np.ndarray[Any, np.dtype[np.int64]], key: bytes) -> bytes:
    """Return a keyed digest, as `digest_of`, of where the rows of a batch stand among ids that were compared before."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES, key=key, person=b"heterofed-rows")
    state.update(places.astype("<i8", copy=False).tobytes())
    return state.digest()


def same(ours: bytes, theirs: bytes) -> bool:
    """Compare digests in constant time."""
    return hmac.compare_digest(ours, theirs)


def check_same_ids(
    what: str, *, party: str, theirs: int, their_digest: bytes, our_name: str, ours: int, our_digest: bytes
) -> None:
    """Check that a peer has the same ids in the same order as we have.

    Args:
        what: "train" or "test".
        party: the peer.
        theirs: how many it has.
        their_digest: its keyed digest of them.
        our_name: this party.
        ours: how many we have.
        our_digest: our keyed digest.

    Raises:
        AlignmentError: they differ; the text names both parties and both counts.
    """
    if theirs != ours:
        problem = f"has {theirs} {what} ids where {our_name} has {ours}"
    elif not same(our_digest, their_digest):
        problem = f"has other {what} ids, or another order of them, than {our_name} ({ours} each)"
    else:
        return
    raise AlignmentError(
        problem,
        party=party,
        phase="comparing the splits",
        expected="the same ids in the same order everywhere",
        advice="split_dataset must be the same function of the ids at every party; of tables, fractions and salt must "
        "be the same.",
    )

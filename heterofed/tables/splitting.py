"""Which ids train, which validate, which test: the same at every party without a word about it.

`hash_split` is the default. An id's part depends on the id and a salt that all parties know, and on nothing else, so
every party comes to the same split by itself, and the digests that the parties compare before training agree. People
who come later, or leave, move nobody from one part to another.

`stratified_split` gives every part the same mix of labels. Only the host can compute it, and it says nothing of it:
the other parties' `split_dataset` must return the same ids, so they have to be told which ids are in which part. That
is why it is not the default. It takes a key that only the host has: with a public salt, whoever is told the split could
tell from an id near the border of a part which label moved it there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heterofed.errors import ConfigError

FRACTIONS = (0.7, 0.1, 0.2)
"""Shares of train, valid and test."""

SALT = "heterofed"
"""Another one gives another split."""

BINS = 10
"""Parts that numbers are cut into, each of as many rows, when a split is to have the same mix of them."""


@dataclass(frozen=True)
class Split:
    """Ids of three parts, each sorted."""

    train: list[str]
    valid: list[str]
    test: list[str]

    def __repr__(self) -> str:
        return f"Split({len(self.train)} train, {len(self.valid)} valid, {len(self.test)} test ids)"


def hash_split(ids: Iterable[str], *, salt: str | bytes = SALT, fractions: Sequence[float] = FRACTIONS) -> Split:
    """Split ids by a hash of each: a function of the id and the salt.

    The parts come near the fractions, as if by lot. Where one that should have ids would be empty, as with a handful
    of ids, the ids are cut in the order of their hashes instead, one at least for each part, as far as there are ids.

    Args:
        ids: unique; their order does not matter.
        salt: public, the same at every party.
        fractions: of train, valid and test; they are 0 or more, the first is above 0, and their sum is 1.

    Raises:
        ConfigError: the fractions are not such.
    """
    bounds = _bounds(fractions)
    hashed = _hashed(ids, salt)
    parts: list[list[str]] = [[], [], []]
    for number, each in hashed:
        parts[sum(number >= bound for bound in bounds)].append(each)
    wanted = sum(each > 0 for each in fractions)
    if len(hashed) >= wanted and any(share > 0 and not part for share, part in zip(fractions, parts, strict=True)):
        parts = _cut([each for _, each in hashed], fractions)
    return Split(*(sorted(part) for part in parts))


def stratified_split(
    ids: Sequence[str], labels: Sequence[Any] | npt.NDArray[Any], *, key: bytes, fractions: Sequence[float] = FRACTIONS
) -> Split:
    """Split ids so that every part has nearly the same mix of labels; for the host alone, see this module's header.

    Args:
        ids: unique; their order does not matter.
        labels: one for each id: classes, rows of 0 and 1, or numbers that are not all whole, which are cut into tenths.
        key: secret, of 16 bytes or more, for example `secrets.token_bytes(16)`; keep it with the run.
        fractions: as for `hash_split`.

    Raises:
        ConfigError: the fractions are not such, the key is short, or there is not one label for each id.
    """
    _bounds(fractions)
    if len(key) < 16:
        raise ConfigError(f"the key of a stratified split has {len(key)} bytes", expected="16 or more, secret")
    if len(ids) != len(labels):
        raise ConfigError(f"there are {len(labels)} labels for {len(ids)} ids", expected="one for each")
    strata = dict(zip(ids, _strata(labels), strict=True))
    groups: dict[Any, list[str]] = {}
    for _, each in _hashed(ids, key):
        groups.setdefault(strata[each], []).append(each)
    # One after the other, so that the parts are as large as they should be even where every group is small.
    lined_up = [each for group in groups.values() for each in group]
    parts: list[list[str]] = [[], [], []]
    wanted = [part for part in range(3) if fractions[part] > 0]
    for number, each in enumerate(lined_up, start=1):
        lacking = [fractions[part] * number - len(parts[part]) for part in wanted]
        parts[wanted[lacking.index(max(lacking))]].append(each)
    return Split(*(sorted(part) for part in parts))


def _bounds(fractions: Sequence[float]) -> tuple[int, int]:
    """Return the hashes from which on an id is no train id, and no valid id."""
    if (
        len(fractions) != 3
        or not all(0 <= each <= 1 for each in fractions)
        or not fractions[0]
        or abs(math.fsum(fractions) - 1) > 1e-9
    ):
        shown = ", ".join(f"{each:g}" for each in fractions)
        raise ConfigError(
            f"the fractions of the split are {shown}",
            expected="three numbers from 0 to 1 for train, valid and test that make 1 together, the first above 0",
        )
    # float64 arithmetic on three numbers is the same everywhere
    first = int(fractions[0] * 2.0**64)
    return first, 2**64 if fractions[2] == 0 else max(first, int((fractions[0] + fractions[1]) * 2.0**64))


def _hashed(ids: Iterable[str], salt: str | bytes) -> list[tuple[int, str]]:
    """Return (hash below 2^64, id), sorted."""
    key = hashlib.sha256(salt.encode() if isinstance(salt, str) else salt).digest()

    def of(each: str) -> int:
        digest = hashlib.blake2b(each.encode(), key=key, digest_size=8, person=b"heterofed-split").digest()
        return int.from_bytes(digest, "big")

    return sorted((of(each), each) for each in ids)


def _cut(ids: list[str], fractions: Sequence[float]) -> list[list[str]]:
    """Cut a list in three, one id at least for each part that should have some."""
    sizes = [max(round(len(ids) * share), 1) if share > 0 else 0 for share in fractions[1:]]
    while sum(sizes) >= len(ids):
        sizes[sizes.index(max(sizes))] -= 1
    last = len(ids) - sizes[1]
    return [ids[: last - sizes[0]], ids[last - sizes[0] : last], ids[last:]]


def _strata(labels: Sequence[Any] | npt.NDArray[Any]) -> list[Any]:
    """Return what ids must share to be in one group."""
    values = np.asarray(labels)
    if values.ndim > 1:
        return [row.tobytes() for row in np.ascontiguousarray(values.reshape(len(values), -1))]
    if values.dtype.kind == "f" and len(values) and (values != np.floor(values)).any():
        ranks = np.empty(len(values), dtype=np.int64)
        ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
        return [int(each) for each in ranks * BINS // len(values)]
    return [str(each) for each in values.tolist()]

"""A result in the order in which all parties have it, and a digest of it to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from psi.errors import BadIds
from psi.hashing import COMPANION_BYTES
from psi.ids import check_ids


def text_order(ids: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that sorts the ids of these numbers by their text, as positions in `numbers`."""
    texts = np.empty(len(numbers), object)  # pointers only; a list of numbers would cost 40 bytes each
    texts[:] = [ids[number] for number in numbers]
    return np.argsort(texts, kind="stable").astype(np.int64, copy=False)


def chosen_among(ids: Sequence[str], shared: NDArray[np.int64], given: Iterable[str]) -> NDArray[np.int64]:
    """The numbers of some shared ids, in the order of their text.

    Args:
        ids: all of ours.
        shared: the numbers of the shared ones.
        given: which of these; each once.

    Raises:
        BadIds: one is not shared, or comes twice.
    """
    chosen = check_ids(given if isinstance(given, str | bytes) else list(given))
    numbers = {ids[number]: number for number in shared}
    unknown = sum(each not in numbers for each in chosen)
    if unknown:
        raise BadIds(
            f"of {len(chosen)} ids to reveal {unknown} are not in the intersection; "
            "expected some of `intersection`, each once."
        )
    return np.array([numbers[each] for each in sorted(chosen)], np.int64)


def result_digest(rows: Iterable[tuple[str, bytes]]) -> bytes:
    """Digest of a result.

    Args:
        rows: its ids in sorted order, each with its output, which ends in the companion that only those know who
            evaluated the id.
    """
    digest = hashlib.blake2b()
    for sample_id, output in rows:
        spelled = sample_id.encode()
        digest.update(len(spelled).to_bytes(8, "big"))
        digest.update(spelled)
        digest.update(output[-COMPANION_BYTES:])
    return digest.digest()

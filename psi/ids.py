"""The check of a party's own list of sample ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from psi.errors import BadIds


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids as a list of plain strings in Unicode normal form C if a run can use them.

    Two ids are the same if their normal forms have the same UTF-8: no case folding, no trimming. Normal form C (NFC)
    matters because one letter can be one character or two (a base and its accent), and the two look alike. A list
    without ids is fine: nothing is shared then. Besides the new list this takes about 8 bytes per id for a moment.

    Args:
        ids: a list, or anything that gives its ids one by one: a tuple, a set, a numpy array, a pandas Series.

    Raises:
        BadIds: the ids are one string or no column of ids at all, or some are not text, are empty, cannot be written as
            UTF-8 or repeat others (in normal form C); the text counts them. `psi.normalise_ids` makes text of
            numbers, dates and bytes.
    """
    given = as_list(ids)
    not_text = unwritable = changed = 0
    if not all(kind is str for kind in set(map(type, given))) or not all(map(str.isascii, given)):
        for position, each in enumerate(given):
            if not isinstance(each, str):
                not_text += 1
                continue
            # str.__str__ turns a subclass (numpy.str_, a str Enum) into the plain text that is compared and returned
            text = str.__str__(each)
            if not text.isascii():
                unwritable += not is_encodable(text)
                if not unicodedata.is_normalized("NFC", text):
                    changed += 1
                    text = unicodedata.normalize("NFC", text)
            given[position] = text
    total = len(given)
    plain = [each for each in given if isinstance(each, str)] if not_text else given
    faults = {
        "are not text": not_text,
        "are empty": len(plain) - sum(map(bool, plain)),
        "hold characters that UTF-8 cannot write": unwritable,
        "repeat another" + (" once they are in Unicode normal form C" if changed else ""): _repeats(plain),
    }
    if any(faults.values()):
        counts = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
        raise BadIds(f"of {total} ids {counts}; expected non-empty strings, each once. {_advice(not_text)}")
    return plain


def as_list(ids: object) -> list[str]:
    """The items of a column as a new list, whatever they are: check_ids and normalise_ids say which of them may stay.

    Raises:
        BadIds: it is one string, or no column at all.
    """
    if isinstance(ids, str | bytes | bytearray):
        raise BadIds("the ids are one string; expected a list of strings. Put them into a list.")
    dimensions = getattr(ids, "ndim", 1)
    if not isinstance(ids, Iterable) or dimensions != 1:
        what = f"of {dimensions} dimensions" if isinstance(ids, Iterable) else "no collection"
        raise BadIds(f"the ids are a {type(ids).__name__}, {what}; expected one column. Give the column of ids alone.")
    return ids.tolist() if type(ids) is np.ndarray else list(ids)  # tolist: str in place of numpy.str_


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can write the text; it cannot write half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _repeats(plain: list[str]) -> int:
    """How many of the ids repeat another.

    A set of 10^7 strings would take half a gigabyte. Sorted 64-bit hashes take 8 bytes each and nearly always prove
    that all differ; only ids with equal hashes are compared as text.
    """
    hashes = _hashes(plain)
    hashes.sort()
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    if not len(twice):
        return 0
    hashes = _hashes(plain)
    suspects = np.flatnonzero(np.isin(hashes, twice))
    suspects = suspects[np.argsort(hashes[suspects])]
    groups = (list(group) for _, group in groupby((plain[position] for position in suspects), key=hash))
    return sum(len(group) - len(set(group)) for group in groups)


def _hashes(plain: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(map(hash, plain), np.int64, len(plain))


def _advice(not_text: int) -> str:
    if not_text:
        return "psi.normalise_ids makes text of numbers, dates and bytes."
    return "Clean the table they are read from."

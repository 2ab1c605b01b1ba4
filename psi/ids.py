"""The check of a party's own list of sample ids."""

from __future__ import annotations

from collections.abc import Sequence

from psi.errors import BadIds


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids as a list of plain strings if a run can use them.

    An id is compared as the exact UTF-8 of its text: no case folding, no trimming, no Unicode normalisation.

    Raises:
        BadIds: the list is empty or one string, or some ids are not text, are empty, cannot be written as UTF-8 or
            repeat others; the text counts them.
    """
    if isinstance(ids, str | bytes):
        raise BadIds("the ids are one string; expected a list of strings. Put them into a list.")
    given = list(ids)
    if not given:
        raise BadIds("the list of ids is empty; expected at least one. Check the table they are read from.")
    not_text = sum(not isinstance(each, str) for each in given)
    # str.__str__ turns a subclass (numpy.str_, a str Enum) into the plain text that is compared and returned
    plain = [str.__str__(each) for each in given if isinstance(each, str)]
    faults = {
        "are not text": not_text,
        "are empty": sum(not each for each in plain),
        "hold characters that UTF-8 cannot write": sum(not _is_encodable(each) for each in plain),
        "repeat another": len(plain) - len(set(plain)),
    }
    if any(faults.values()):
        counts = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
        raise BadIds(
            f"of {len(given)} ids {counts}; expected non-empty strings, each once. Clean the table they are read from."
        )
    return plain


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

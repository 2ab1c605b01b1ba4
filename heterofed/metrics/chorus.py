"""What several parties of one process say: each line with the name of whose it is, and what all say once."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

LINES_KEPT = 200
"""So many different lines are remembered; parties in one process are never further apart."""

_SHOWN = ""


class Chorus:
    """Words the lines of parties that share a terminal.

    A line that another party has said in the same words a moment ago is not shown again: "200 ids are common to all
    parties" is news once. What a party says for the second time is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: OrderedDict[str, Counter[str]] = OrderedDict()
        """Of the lines said last: who has said each how often; under no name, how often it was shown."""

    def worded(self, party: str, text: str) -> str | None:
        """Return a party's line as it is to be shown; None: another one has said it already."""
        with self._lock:
            said = self._said.setdefault(text, Counter())
            self._said.move_to_end(text)
            if len(self._said) > LINES_KEPT:
                self._said.popitem(last=False)
            said[party] += 1
            if said[party] <= said[_SHOWN]:
                return None
            said[_SHOWN] += 1
        return text if text.startswith(f"{party} ") else f"{party}: {text}"

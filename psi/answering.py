"""The responder's answers: the peer's elements in, their powers out, and those that may have to be said again."""

from __future__ import annotations

from collections import deque

import numpy as np

from psi.entropy import Source, order
from psi.errors import BadElement, BadMessage
from psi.messages import chunk_ranges
from psi.oprf import Holder
from psi.parallel import Workers
from psi.repeats import Repeats
from psi.run import WINDOW
from psi.tags import Rows, rows


class Answers:
    """Checks elements, applies the key to them in their order, and keeps the answers that may have to be repeated.

    Args:
        holder: the protocol's side, with the key.
        workers: where the work is done.
    """

    def __init__(self, holder: Holder, workers: Workers) -> None:
        self._holder: Holder | None = holder
        self._workers = workers
        self._width = holder.width
        self._seen = Repeats(holder.width)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._given: deque[tuple[int, bytes]] = deque(maxlen=WINDOW)
        self.computed = 0
        """Elements that are answered."""
        self._next = 0
        """The same, but 1 once a run of none is answered: where a resumed run may go on."""

    def drop_key(self) -> None:
        """Everything is answered."""
        self._holder = None
        self._seen = Repeats(self._width)

    @property
    def waiting(self) -> bool:
        """Whether elements are left to answer."""
        return bool(self._waiting)

    def take(self, position: int, elements: bytes) -> None:
        """Accept elements.

        Raises:
            BadElement: one of them must not meet the key, or came before.
        """
        width = self._width
        count = len(elements) // width
        self._workers.starmap(
            self._key_holder().check,
            [
                (elements[part.start * width : part.stop * width], position + part.start)
                for part in self._workers.slices(count)
            ],
        )
        repeat = self._seen.add(elements)
        if repeat is not None:
            # Honest blinding repeats an element with probability below 2^-200: the peer's randomness is broken.
            raise BadElement(
                f"element {repeat} of the peer came before in this run; expected fresh blinding of "
                "each id. End the run: the peer's randomness is broken, or it asks twice."
            )
        self._waiting.append((position, elements))

    def compute(self) -> tuple[int, bytes]:
        """Answer the oldest waiting chunk: (position, answers)."""
        position, elements = self._waiting[0]
        width = self._width
        parts = self._workers.starmap(
            self._key_holder().answer,
            [
                (elements[part.start * width : part.stop * width],)
                for part in self._workers.slices(len(elements) // width)
            ],
        )
        self._waiting.popleft()
        answers = b"".join(parts)
        self._given.append((position, answers))
        self.computed += len(answers) // width
        self._next = self.computed or 1
        return position, answers

    def again(self, position: int) -> list[tuple[int, bytes]]:
        """The answers from this position on that were given already.

        Raises:
            BadMessage: they are not kept any more, or the position is not the start of some.
        """
        again = [each for each in self._given if each[0] >= position]
        if (again[0][0] if again else self._next) != position:
            raise BadMessage("the initiator asks for answers that it must have; expected the last ones. It is faulty.")
        return again

    def _key_holder(self) -> Holder:
        if self._holder is None:
            raise BadMessage("elements came after the last one; expected nothing more. The peer is faulty.")
        return self._holder


class ShuffledAnswers:
    """All answers of a run in random order, for a run that reveals a number only.

    Args:
        width: bytes of an answer.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._parts: list[bytes] = []
        self._all: Rows | None = None
        self.sent = 0
        """How many were sent in this attempt."""
        self._told = 0

    def add(self, answers: bytes) -> None:
        """Keep some more."""
        self._parts.append(answers)

    def shuffle(self, source: Source) -> bytes:
        """All have come: put them into their order; returns them."""
        together = rows(b"".join(self._parts), self._width)
        self._parts = []
        self._all = together[order(len(together), source)]
        return self._all.tobytes()

    def next(self, count: int) -> tuple[int, bytes] | None:
        """(position, answers) of the next `count`, if all have come and some are left."""
        if self._all is None:
            return None
        part = next(chunk_ranges(len(self._all), count, self.sent), None)
        if part is None:
            return None
        self.sent = part.stop
        self._told = max(self._told, part.stop)
        return part.start, np.ascontiguousarray(self._all[part.start : part.stop]).tobytes()

    def rewind(self, position: int) -> None:
        """The link was lost; the initiator has this many.

        Raises:
            BadMessage: it cannot have that many.
        """
        if position > self._told:
            raise BadMessage("the initiator has answers that were not sent; expected no more. It is faulty.")
        self.sent = position

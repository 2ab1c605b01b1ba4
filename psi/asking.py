"""The initiator's questions: its ids in random order with spot checks among them, chunk by chunk, and their answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psi.entropy import Source, order
from psi.errors import BadElement, BadMessage
from psi.hashing import ITEM_BYTES, OUTPUT_BYTES
from psi.oprf import Asker
from psi.parallel import Workers
from psi.repeats import Repeats
from psi.tags import Rows, rows


@dataclass(frozen=True)
class _Asked:
    """One chunk that is blinded and not yet answered."""

    position: int
    numbers: NDArray[np.int64]
    """Which id each element is; from the number of ids on, a spot check."""
    elements: bytes
    secrets: bytes

    @property
    def end(self) -> int:
        return self.position + len(self.numbers)


class Questions:
    """Blinds, remembers what is under way, and takes answers.

    Args:
        asker: the protocol's side.
        ids: our ids.
        workers: where the work is done.
        source: randomness.
        in_order: whether answers come in the order of the questions; otherwise nobody may know which is whose.
    """

    def __init__(self, asker: Asker, ids: Sequence[str], workers: Workers, source: Source, *, in_order: bool) -> None:
        self._asker = asker
        self._ids = ids
        self._workers = workers
        self._source = source
        self._in_order = in_order
        self._spots = asker.spot_checks
        self.total = len(ids) + len(self._spots)
        """Elements of the whole run."""
        self._order = order(self.total, source)
        self._pending: deque[_Asked] = deque()
        self.blinded = 0
        """Elements that are blinded."""
        self.answered = 0
        """Elements whose answer has come."""
        width = OUTPUT_BYTES if in_order else ITEM_BYTES
        self.outputs: Rows = np.zeros((len(ids) if in_order else self.total, width), np.uint8)
        """What we know of each id, in the order of the ids; without order, of each answer."""
        # An answer that comes twice: with `rsa` it cannot, as each is verified.
        self._seen = Repeats(asker.width) if self._spots else None
        self._due = {answer for _, answer in self._spots}

    @property
    def element_bytes(self) -> int:
        """Bytes of one element or answer."""
        return self._asker.width

    def blind(self, count: int) -> bytes:
        """The next `count` elements, or as many as there are."""
        numbers = self._order[self.blinded : self.blinded + count]
        own = numbers < len(self._ids)
        ids = [self._ids[number] for number in numbers[own]]
        entropy = self._asker.entropy
        randomness = self._source(len(ids) * entropy) if entropy else b""
        parts = self._workers.starmap(
            self._asker.blind,
            [
                (ids[part], randomness[part.start * entropy : part.stop * entropy])
                for part in self._workers.slices(len(ids))
            ],
        )
        elements = b"".join(part[0] for part in parts)
        if not own.all():
            mixed = np.empty((len(numbers), self._asker.width), np.uint8)
            mixed[own] = rows(elements, self._asker.width)
            for at in np.flatnonzero(~own):
                mixed[at] = rows(self._spots[numbers[at] - len(self._ids)][0], self._asker.width)
            elements = mixed.tobytes()
        self._pending.append(_Asked(self.blinded, numbers, elements, b"".join(part[1] for part in parts)))
        self.blinded += len(numbers)
        return elements

    def under_way(self, position: int) -> bytes:
        """The elements of the unanswered chunk at this position, again."""
        for asked in self._pending:
            if asked.position == position:
                return asked.elements
        raise BadMessage(
            f"the peer says that it has {position} elements, which ends no chunk that is under way; "
            "expected the end of one. End the run: the peer is faulty."
        )

    def received(self, count: int) -> None:
        """The peer has `count` elements and will answer later, in an order of its own: forget what we kept of them."""
        while self._pending and self._pending[0].end <= count:
            self._pending.popleft()

    def answer(self, position: int, answers: bytes) -> None:
        """Take the answers to the oldest chunk under way (without order: any number of answers).

        Raises:
            BadElement: an answer is not in the group, comes twice, or is not the one to its element.
            BadMessage: they are not as many as were asked.
        """
        width = self._asker.width
        count = len(answers) // width
        if self._seen is not None:
            repeat = self._seen.add(answers)
            if repeat is not None:
                raise BadElement(
                    f"answer {repeat} of the responder came before in this run; expected a different one for each "
                    "element. End the run: the responder is faulty."
                )
        if self._in_order:
            self._answer_in_order(position, answers, count)
        else:
            if self.blinded < self.total:
                raise BadMessage(
                    "answers came before everything was asked; expected only that elements have come. "
                    "End the run: the peer is faulty."
                )
            parts = self._workers.starmap(
                _bare,
                [
                    (self._asker, answers[part.start * width : part.stop * width], position + part.start)
                    for part in self._workers.slices(count)
                ],
            )
            self.outputs[position : position + count] = rows(b"".join(parts), ITEM_BYTES)
            self._due -= {answers[at : at + width] for at in range(0, len(answers), width)}
        self.answered += count
        if self.answered == self.total:  # what is left is to be matched; that takes memory of its own
            self._seen = None
            self._order = self._order[:0]
        if self.answered == self.total and not self._in_order and self._due:
            raise _wrong_key()

    def _answer_in_order(self, position: int, answers: bytes, count: int) -> None:
        if not self._pending or count != len(self._pending[0].numbers):
            raise BadMessage(
                f"{count} answers came; expected those to one whole chunk that was asked. "
                "End the run: the peer is faulty."
            )
        asked = self._pending[0]
        width, own = self._asker.width, asked.numbers < len(self._ids)
        if not own.all():
            given = rows(answers, width)
            for at in np.flatnonzero(~own):
                if given[at].tobytes() != self._spots[asked.numbers[at] - len(self._ids)][1]:
                    raise _wrong_key()
            answers = given[own].tobytes()
            elements = rows(asked.elements, width)[own].tobytes()
        else:
            elements = asked.elements
        numbers = asked.numbers[own]
        ids = [self._ids[number] for number in numbers]
        kept = len(asked.secrets) // len(ids) if ids else 0
        parts = self._workers.starmap(
            _outputs,
            [
                (
                    self._asker,
                    ids[part],
                    elements[part.start * width : part.stop * width],
                    asked.secrets[part.start * kept : part.stop * kept],
                    answers[part.start * width : part.stop * width],
                    position + part.start,
                )
                for part in self._workers.slices(len(ids))
            ],
        )
        self.outputs[numbers] = rows(b"".join(parts), OUTPUT_BYTES)
        self._pending.popleft()


def _outputs(asker: Asker, ids: Sequence[str], elements: bytes, secrets: bytes, answers: bytes, first: int) -> bytes:
    asker.check_answers(answers, first)
    return asker.context.outputs(ids, asker.unblind(elements, secrets, answers, first), asker.width)


def _bare(asker: Asker, answers: bytes, first: int) -> bytes:
    asker.check_answers(answers, first)
    return asker.context.bare_tags(asker.unblind(b"", b"", answers, first), asker.width)


def _wrong_key() -> BadElement:
    return BadElement(
        "a spot check failed: an element whose answer is known got another one; expected answers under the "
        "offered key. End the run: the responder answers under another key, or its messages are changed on the way."
    )

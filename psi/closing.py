"""The initiator's last words: which tags are shared, and a keyed digest of the whole run to compare."""

from __future__ import annotations

from psi.errors import BadMessage, ResultMismatch
from psi.hashing import TAG_BYTES
from psi.messages import Kind, Writer


class Closing:
    """What is said at the end, as often as the link makes it necessary.

    Args:
        tags: the revealed tags, ascending, end to end; None where the terms reveal none.
        count: how many ids are shared, as far as the responder is to know.
        mine: our digest.
        theirs: the digest that the responder has to answer.
        chunk: tags per message.
    """

    def __init__(self, tags: bytes | None, count: int, *, mine: bytes, theirs: bytes, chunk: int) -> None:
        self._tags = tags or b""
        self._total = len(self._tags) // TAG_BYTES
        self._count = count
        self._mine = mine
        self._theirs = theirs
        self._chunk = chunk
        # A reveal of nothing is one empty message, which counts as one.
        self._due = 0 if tags is None else max(1, self._total)
        self._sent = 0
        self._confirmed = False

    def next(self, writer: Writer) -> bytes | None:
        """The next message, if one is left."""
        if self._sent < self._due:
            start = self._sent
            self._sent = min(start + self._chunk, self._due)
            items = self._tags[start * TAG_BYTES : self._sent * TAG_BYTES]
            return writer.chunk(Kind.REVEAL, start, self._total, items)
        if self._confirmed:
            return None
        self._confirmed = True
        return writer.confirm(self._count, self._mine)

    def rewind(self, received: int) -> None:
        """The link was lost; the responder has this many tags of ours.

        Raises:
            BadMessage: it cannot have that many.
        """
        if received > self._due:
            raise BadMessage("the peer has more tags than were revealed; expected no more. It is faulty.")
        self._sent = received
        self._confirmed = False

    def check(self, count: int, digest: bytes) -> None:
        """Compare the responder's word with ours.

        Raises:
            ResultMismatch: they differ.
        """
        check_digest(self._theirs, digest)
        if count != self._count:
            raise mismatch()


def check_digest(expected: bytes, given: bytes) -> None:
    """Compare two digests of a run.

    Raises:
        ResultMismatch: they differ.
    """
    if expected != given:
        raise mismatch()


def mismatch() -> ResultMismatch:
    """The error to raise when the parties hold different results."""
    return ResultMismatch(
        "the parties' results differ: an id was lost, added or altered on the way, or the peer is faulty; "
        "expected equal digests. Use neither result; start a new run."
    )

"""The hashes of a run: sample ids towards group elements, results to tags, and the run's own name.

Everything begins with a context: 32 bytes of SHAKE-256 (FIPS 202) over a label, the protocol, the task, the session and
the responder's public part, each behind its length. What is hashed for one purpose, protocol, task, session or key can
never equal what is hashed for another.

An id's result is 32 bytes, from the group element u = F(id) that only the responder's key can make:

    tag         12 bytes   BLAKE2b(u)         the responder sends those of its ids; what the parties compare
    check        4 bytes   BLAKE2b(u, id)     goes with the tag: an answer that was moved to another id does not fit
    companion   16 bytes   BLAKE2b(u, id)     never sent; whoever knows it has evaluated F on this very id

BLAKE2b is RFC 7693. With 10^7 ids on each side two different ids share a tag with probability under 2^-49.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from psi.errors import BadArgument

TAG_BYTES = 12
CHECK_BYTES = 4
COMPANION_BYTES = 16
ITEM_BYTES = TAG_BYTES + CHECK_BYTES
"""What the responder says of one of its ids."""
OUTPUT_BYTES = ITEM_BYTES + COMPANION_BYTES
"""What a party keeps of one of its ids."""

RUN_BYTES = 16
"""Bytes of a run id, and of the nonce in it."""
CONTEXT_BYTES = 32

_LABEL = b"heterofed psi 2"


@dataclass(frozen=True)
class Context:
    """What separates the hashes of one run from those of any other.

    Args:
        protocol: "rsa" or "ecdh".
        task: what the parties call the job.
        session: bytes that both parties hold and no other run of this task uses.
        public: the responder's public part, as it was offered.
    """

    protocol: str
    task: str
    session: bytes
    public: bytes

    def derive(self, purpose: str) -> bytes:
        """32 bytes that begin everything which is hashed for this purpose."""
        fields = (_LABEL, purpose.encode(), self.protocol.encode(), self.task.encode(), self.session, self.public)
        return hashlib.shake_256(b"".join(map(_framed, fields))).digest(CONTEXT_BYTES)

    def outputs(self, ids: Iterable[str], powers: bytes, width: int) -> bytes:
        """The 32 bytes of each id, end to end.

        Args:
            ids: in the order of `powers`.
            powers: for each id its u, `width` bytes.
            width: bytes of a group element.
        """
        tags = hashlib.blake2b(self.derive("tag"), digest_size=TAG_BYTES)
        bonds = hashlib.blake2b(self.derive("bond"), digest_size=CHECK_BYTES + COMPANION_BYTES)
        results = []
        for start, sample_id in zip(range(0, len(powers), width), ids, strict=True):
            power = powers[start : start + width]
            tag = tags.copy()
            tag.update(power)
            bond = bonds.copy()
            bond.update(power)  # of fixed width, so the id after it needs no length
            bond.update(sample_id.encode())
            results += [tag.digest(), bond.digest()]
        return b"".join(results)

    def bare_tags(self, powers: bytes, width: int) -> bytes:
        """A tag and four more bytes of each power, bound to no id: for runs in which nobody may know whose they are."""
        tags = hashlib.blake2b(self.derive("bare tag"), digest_size=ITEM_BYTES)
        results = []
        for start in range(0, len(powers), width):
            tag = tags.copy()
            tag.update(powers[start : start + width])
            results.append(tag.digest())
        return b"".join(results)


def run_id(protocol: str, task: str, session: bytes, nonce: bytes) -> bytes:
    """The 16 bytes that every message of one run carries: bound to task, session and the responder's fresh nonce."""
    return Context(protocol, task, session, nonce).derive("run")[:RUN_BYTES]


def check_context(task: str, session: bytes) -> None:
    """Refuse a task or a session that cannot separate one run from another.

    Raises:
        BadArgument: the task is not a non-empty text, or the session is not non-empty bytes.
    """
    try:
        usable = isinstance(task, str) and len(task.encode()) > 0
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise BadArgument("the task cannot name a run; expected a non-empty text. Give the task id of the job.")
    if not isinstance(session, bytes) or not session:
        raise BadArgument(
            "the session cannot separate runs; expected non-empty bytes, the same at both parties and new for each run."
        )


def _framed(part: bytes) -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    return len(part).to_bytes(8, "big") + part

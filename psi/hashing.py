"""Sample ids to group elements, results to tags, and the two other hashes of a run.

All are SHAKE-256 (FIPS 202) over a label, then the task, the session and, once it is known, the modulus, each behind
its length: what is hashed for one purpose, task, session or key can never equal what is hashed for another.

The hash of an id is a full-domain hash: as many bits as the modulus has and 128 more, reduced modulo n, which is
within 2^-128 of uniform (Bellare and Rogaway, "The exact security of digital signatures", 1996; 128 surplus bits as in
RFC 9380, section 5.1). A short hash such as plain SHA-256 would let signatures of small numbers be multiplied together.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from gmpy2 import mpz

from psi.errors import BadArgument

TAG_BYTES = 16
"""Bytes of a tag. With 10^7 ids on each side two different ids share a tag with probability under 2^-80."""

RUN_BYTES = 16
"""Bytes of a run id, and of the nonce in it."""

_PROTOCOL = b"heterofed psi rsa 1"
_SURPLUS_BITS = 128


class _Xof(Protocol):
    """What we use of a SHAKE state; hashlib's own name for its type differs between releases of the stubs."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self, length: int, /) -> bytes: ...
    def copy(self) -> _Xof: ...


class RunHash:
    """The hashes of one run under one modulus.

    Args:
        task: what the parties call the job.
        session: bytes that both parties hold and no other run of this task uses.
        modulus: the responder's n.
    """

    def __init__(self, task: str, session: bytes, modulus: mpz) -> None:
        self._modulus = modulus
        self._wide_bytes = (modulus.bit_length() + _SURPLUS_BITS + 7) // 8
        self._width = width_of(modulus)
        context = (*_context(task, session), bytes(modulus.to_bytes(self._width, "big")))
        # Hash states that have swallowed everything but the last field, so that an id costs one copy.
        self._element = _start(b"element", *context)
        self._tag = _start(b"tag", *context)
        self._proof = _start(b"key proof", *context)

    def element(self, sample_id: str) -> mpz:
        """The id's group element, uniform in 0..n-1."""
        return self._wide(self._element, sample_id.encode())

    def proof_element(self, index: int) -> mpz:
        """Element number `index` of those whose roots a key offer has to show, uniform in 0..n-1."""
        return self._wide(self._proof, index.to_bytes(4, "big"))

    def tag(self, power: mpz) -> bytes:
        """The 16 bytes that stand for the private power of an id's element; what the parties compare."""
        state = self._tag.copy()
        _add(state, bytes(power.to_bytes(self._width, "big")))
        return state.digest(TAG_BYTES)

    def _wide(self, prefix: _Xof, field: bytes) -> mpz:
        state = prefix.copy()
        _add(state, field)
        return mpz.from_bytes(state.digest(self._wide_bytes), "big") % self._modulus


def run_id(task: str, session: bytes, nonce: bytes) -> bytes:
    """The 16 bytes that every message of one run carries: bound to task, session and the responder's fresh nonce."""
    return _start(b"run", *_context(task, session), nonce).digest(RUN_BYTES)


def element_digest(element: bytes) -> bytes:
    """16 bytes in place of an element of 256 or more, to notice a repeat without keeping it whole."""
    return hashlib.shake_256(element).digest(16)


def width_of(modulus: mpz) -> int:
    """Bytes that hold any element modulo n."""
    return (int(modulus.bit_length()) + 7) // 8


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


def _context(task: str, session: bytes) -> tuple[bytes, bytes]:
    return task.encode(), session


def _start(label: bytes, *parts: bytes) -> _Xof:
    state = hashlib.shake_256()
    for part in (_PROTOCOL, label, *parts):
        _add(state, part)
    return state


def _add(state: _Xof, part: bytes) -> None:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    state.update(len(part).to_bytes(8, "big"))
    state.update(part)

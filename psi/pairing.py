"""Shares that cancel: how responders mark, for each of their ids, that they hold it, so that only all of them count.

From Kolesnikov, Matania, Pinkas, Rosulek and Trieu, "Practical multi-party private set intersection from
symmetric-key techniques" (CCS 2017), the protocol for augmented semi-honest parties.

The mathematics of all parties. Responders 1..m hold sets X_1..X_m, the initiator X_0; H is a keyed hash, F_j the
oblivious pseudorandom function of responder j.

    responders i and j    agree on a key k_ij = k_ji, fresh for the run; it is all that they ever say to each other
    responder j           s_j(x) = XOR over i != j of H(k_ij, x)        for each x of X_j
                          puts s_j(x), masked with bytes of F_j(x), into a store at the key F_j(x) (psi/okvs.py)
    initiator             learns F_j(x) for its own ids and takes each s_j(x) out of the stores;
                          x is in the intersection if their XOR over j is zero

For an x that all hold, each H(k_ij, x) stands in s_i and in s_j and cancels. If responder j lacks x, its store gives
16 random bytes, and the sum is zero with probability 2^-128.

What the initiator learns beyond the intersection: how many ids each responder holds. If some responders lack x, each
share of a responder that holds x has a hash under its own key with one that does not; no other share has that hash,
so all m values are independent and look random, whoever lacks x. Responders learn nothing from each other.

Coalitions. An initiator together with some responders knows every k_ij that has one of these at an end, and can take
these hashes away. What is left at the honest responders are shares under the keys among themselves.

* Two or more honest: the coalition learns which of the initiator's ids all the honest ones hold. What any smaller
  group of them shares with the initiator stays hidden behind the key of two honest responders.
* One honest: no unknown key is left; the coalition learns the intersection of the initiator's set with its set.
  Parties that may choose their own sets can always do that (the others claim to hold everything), which is what
  "augmented" allows.
* Responders without the initiator see public keys only.

The keys travel through the initiator, the only one that all responders are linked to, and nothing here proves whose a
public key is. One that follows the protocol learns nothing from it; a dishonest initiator could offer each responder
keys of its own and then knows all shares, as in a coalition with all others. Against that the responders have to
authenticate the keys among themselves: by signing them, or by comparing them over another channel. Two equal keys,
whose hashes would cancel within one responder's share, are refused in any case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy.typing import NDArray

from psi.errors import BadArgument, BadElement

PUBLIC_BYTES = 32
"""Bytes of a public key: a u-coordinate of Curve25519, little-endian (RFC 7748)."""

KEY_BYTES = 32
"""Bytes of the key of two responders."""

_PROTOCOL = b"heterofed psi pairing 1"
_PERSON = b"psi zero share 1"  # 16 bytes, all that blake2b takes
_PRIME = (1 << 255) - 19
_SHARE_BYTES = 16
_BATCH = 1 << 16  # ids hashed between two additions, to keep their digests out of memory


class PairKey:
    """One responder's half of its keys with the other responders; fresh from the system's randomness, for one run."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return "PairKey()"

    def __reduce__(self) -> NoReturn:
        raise BadArgument("a PairKey cannot be copied to another process; its secret stays where it was made.")

    @property
    def public(self) -> bytes:
        """The 32 bytes that the other responders get."""
        return self._public

    def shared(self, peer_public: bytes, *, task: str, session: bytes) -> bytes:
        """The 32 bytes that only we and the holder of `peer_public` can compute, for this task and session.

        X25519 (RFC 7748), then HKDF-SHA256 (RFC 5869) bound to both public keys, the task and the session.

        Args:
            peer_public: the other responder's `public`.
            task: what the parties call the job.
            session: bytes that all parties hold and no other run of this task uses.

        Raises:
            BadElement: the key is not 32 bytes, not below the field's prime, of small order, or our own.
        """
        _check_public(peer_public)
        if peer_public == self._public:
            raise BadElement(
                "a responder's pairing key is our own; expected another party's. End the run: our messages "
                "are sent back to us, or two responders share one key."
            )
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            # cryptography refuses the all-zero result, which the points of order 1, 2, 4 and 8 of curve and twist give.
            raise BadElement(
                "a responder's pairing key has small order, so that anybody knows the shared key; expected a fresh "
                "X25519 key. End the run: the peer is faulty."
            ) from None
        first, second = sorted((self._public, peer_public))
        info = b"".join(_field(part) for part in (_PROTOCOL, first, second, task.encode(), session))
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def shares(ids: Sequence[str], keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """One responder's share of zero for each of its ids.

    Args:
        ids: normalised ids, at all responders in the same form.
        keys: the key with each other responder, 32 bytes each, all different; none if there is no other.

    Returns:
        (n, 2): the XOR over the keys of a 16-byte keyed hash of the id. With no keys: zeros.

    Raises:
        BadArgument: a key is not 32 bytes.
        BadElement: two keys are equal: their hashes would cancel and leave the id unprotected.
    """
    if any(len(key) != KEY_BYTES for key in keys):
        raise BadArgument(
            f"a pair key is not {KEY_BYTES} bytes; expected what PairKey.shared gives, one for each responder."
        )
    if len(set(keys)) < len(keys):
        raise BadElement(
            f"two of the {len(keys)} pair keys are equal; expected another one for each responder. End the run: "
            "somebody offers one public key under two names."
        )
    total = np.zeros((len(ids), 2), np.uint64)
    if not keys:
        return total
    # A keyed state copied for each id takes two thirds of the time of a new one.
    keyed = [hashlib.blake2b(digest_size=_SHARE_BYTES, key=key, person=_PERSON) for key in keys]
    for start in range(0, len(ids), _BATCH):
        texts = [each.encode() for each in ids[start : start + _BATCH]]
        for base in keyed:
            digests = []
            for text in texts:
                state = base.copy()
                state.update(text)
                digests.append(state.digest())
            total[start : start + _BATCH] ^= np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return total


def _check_public(key: bytes) -> None:
    if len(key) != PUBLIC_BYTES:
        raise BadElement(
            f"a responder's pairing key has {len(key)} bytes; expected {PUBLIC_BYTES}. End the run: the peer "
            "is faulty, or a version differs."
        )
    if int.from_bytes(key, "little") >= _PRIME:
        # X25519 would reduce it, and one point would have two spellings: our own key could come back in disguise.
        raise BadElement(
            "a responder's pairing key is out of range; expected a number below 2^255 - 19. End the run: "
            "the peer is faulty."
        )


def _field(part: bytes) -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    return len(part).to_bytes(8, "big") + part

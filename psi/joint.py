"""The intersection of many parties, without those of pairs.

One initiator runs with each of several responders, with `joint=True`. Responder j has F_j with its key, the pair keys
that it agreed with each other responder (see `pairing`) and so, for any id, its share S_j(id); the shares of all
responders for one id cancel: S_1(id) ^ S_2(id) ^ … = 0.

    responder j     programs a store (see `okvs`): at F_j(z) it puts S_j(z), for each of its ids z
    initiator       asks for F_j(x) as ever, reads each store there: S_j(x) if j has x, else 16 random bytes
                    x is shared by all  if  the values of all stores cancel

An id that even one responder lacks gives random bytes, so the initiator cannot tell how many others have it, and
which. It is the protocol of Kolesnikov, Matania, Pinkas, Rosulek and Trieu, "Practical multi-party private set
intersection from symmetric-key techniques", 2017, for parties that are curious but follow the protocol. An id that is
not shared by all passes with probability 2^-128.

A store is read at words, and its values masked with other bytes, that are both hashed out of F_j(id), so they are
random to whoever did not ask for the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psi.entropy import Source
from psi.errors import BadArgument, BadMessage
from psi.hashing import ITEM_BYTES, Context
from psi.okvs import CELL_BYTES, KEY_WORDS, SEEDS, cells_for, decode, encode
from psi.pairing import shares
from psi.tags import Rows

_WORD_BYTES = 8


@dataclass(frozen=True)
class Shares:
    """What one run tells about each of the initiator's ids: (ids, 2) words, in the order of the ids."""

    values: NDArray[np.uint64]


def store_items(count: int) -> int:
    """Items of 16 bytes in which a store of `count` ids travels: its seed, then its cells."""
    return 1 + cells_for(count)


def offered_items(count: int) -> int:
    """The same, for the count that a peer offers.

    Raises:
        BadMessage: no store can hold that many.
    """
    try:
        return store_items(count)
    except BadArgument:
        raise BadMessage(
            f"the responder offers a store of {count} ids, more than a store can hold. It is faulty."
        ) from None


def store(outputs: Rows, ids: Sequence[str], pair_keys: Sequence[bytes], context: Context, source: Source) -> bytes:
    """The responder's store, ready to travel.

    Args:
        outputs: the function's output for each id.
        ids: in the same order.
        pair_keys: one for each other responder.
        context: of the run.
        source: random bytes for what the store leaves free.
    """
    words, masks = _words_and_masks(outputs, context)
    seed, cells = encode(words, shares(ids, pair_keys) ^ masks, source=source)
    head = seed.to_bytes(_WORD_BYTES, "big") + bytes(CELL_BYTES - _WORD_BYTES)
    return head + cells.astype(">u8").tobytes()


def unmask(outputs: Rows, context: Context, items: bytes) -> Shares:
    """What the initiator reads out of a store.

    Args:
        outputs: the function's output for each of its ids.
        context: of the run.
        items: the store as it travelled; as many as `store_items` says.

    Raises:
        BadMessage: its seed is none.
    """
    seed = int.from_bytes(items[:_WORD_BYTES], "big")
    if seed >= SEEDS or any(items[_WORD_BYTES:CELL_BYTES]):
        raise BadMessage("the responder's store has no seed that could be; expected 0 to 63. The peer is faulty.")
    cells = np.frombuffer(items[CELL_BYTES:], ">u8").reshape(-1, 2).astype(np.uint64)
    words, masks = _words_and_masks(outputs, context)
    return Shares(decode(words, seed, cells) ^ masks)


def _words_and_masks(outputs: Rows, context: Context) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Where an id's entry is, (ids, 3), and what hides it, (ids, 2)."""
    width = KEY_WORDS * _WORD_BYTES + ITEM_BYTES
    prefix = hashlib.blake2b(context.derive("cells"), digest_size=width)
    digests = []
    for row in outputs:
        state = prefix.copy()
        state.update(row.tobytes())
        digests.append(state.digest())
    table = np.frombuffer(b"".join(digests), ">u8").reshape(-1, width // _WORD_BYTES).astype(np.uint64)
    return table[:, :KEY_WORDS].copy(), table[:, KEY_WORDS:].copy()

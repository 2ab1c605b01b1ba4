"""What the responder tells of its own ids: their tags in random order, or a store only their holders can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psi.entropy import Source, order
from psi.errors import BadMessage
from psi.hashing import ITEM_BYTES, OUTPUT_BYTES, TAG_BYTES
from psi.joint import store, store_items
from psi.messages import Reveal, Terms
from psi.oprf import Holder
from psi.parallel import Workers
from psi.result import result_digest, text_order
from psi.tags import Rows, TagIndex, as_texts, rows


class OwnItems:
    """Evaluates the function for our ids, chunk by chunk, and says the result; finds revealed tags again.

    Args:
        holder: the protocol's side, with the key.
        ids: our ids.
        terms: whether tags or a store are told.
        pair_keys: with a store: one key for each other responder.
        workers: where the work is done.
        source: randomness.
    """

    def __init__(
        self,
        holder: Holder,
        ids: Sequence[str],
        terms: Terms,
        pair_keys: Sequence[bytes],
        workers: Workers,
        source: Source,
    ) -> None:
        self._holder: Holder | None = holder
        self._context = holder.context
        self._ids = ids
        self._terms = terms
        self._pair_keys = pair_keys
        self._workers = workers
        self._source = source
        self._order = order(len(ids), source)
        self._bare = terms.reveal is Reveal.CARDINALITY
        self._outputs: Rows = np.zeros((len(ids), ITEM_BYTES if self._bare else OUTPUT_BYTES), np.uint8)
        self._store: bytes | None = None
        self._index: TagIndex | None = None
        self._last = b""
        self.computed = 0
        """Ids that are evaluated."""
        self.sent = 0
        """Items that were sent in this attempt."""
        self.total = store_items(len(ids)) if terms.joint else len(ids)
        """Items of the whole run."""

    def drop_key(self) -> None:
        """Everything is evaluated."""
        self._holder = None

    def step(self, count: int) -> tuple[int, bytes]:
        """Work on the next `count` ids, or say what is ready: (position, items); no items where nothing is ready."""
        if self._terms.joint and self._store is None:
            self._evaluate(count)
            if self.computed == len(self._ids):
                self._build_store()
            return 0, b""
        if self._store is None and self.sent == self.computed:
            self._evaluate(count)
        start = self.sent
        self.sent = min(start + count, self.computed if self._store is None else self.total)
        if self._store is not None:
            return start, self._store[start * ITEM_BYTES : self.sent * ITEM_BYTES]
        return start, self._outputs[start : self.sent, :ITEM_BYTES].tobytes()

    def _evaluate(self, count: int) -> None:
        numbers = self._order[self.computed : self.computed + count]
        ids = [self._ids[number] for number in numbers]
        parts: list[bytes] = self._workers.starmap(
            _outputs, [(self._holder, ids[part], self._bare) for part in self._workers.slices(len(ids))]
        )
        if ids:
            self._outputs[self.computed : self.computed + len(ids)] = rows(b"".join(parts), self._outputs.shape[1])
        self.computed += len(ids)

    def _build_store(self) -> None:
        ids = [self._ids[number] for number in self._order]
        self._store = store(self._outputs, ids, self._pair_keys, self._context, self._source)

    def find(self, tags: bytes) -> NDArray[np.int64]:
        """Where among our items revealed tags are.

        Raises:
            BadMessage: a tag is not one of ours, or they do not ascend.
        """
        if self._index is None:
            self._index = TagIndex(self._outputs)
        places = self._index.find(rows(tags, TAG_BYTES))
        if (places < 0).any():
            raise BadMessage(
                "a revealed tag is not one of ours; expected some of the tags we sent. The peer is faulty."
            )
        together = as_texts(np.frombuffer(self._last + tags, np.uint8).reshape(-1, TAG_BYTES))
        if not (together[1:] > together[:-1]).all():
            raise BadMessage("a revealed tag is repeated or out of order; expected ascending tags. The peer is faulty.")
        self._last = tags[-TAG_BYTES:] or self._last
        return places

    def revealed(self, places: NDArray[np.int64]) -> tuple[list[str], bytes]:
        """The ids at these places, sorted, and their digest."""
        numbers = self._order[places]
        sequence = text_order(self._ids, numbers)
        ids = [self._ids[number] for number in numbers[sequence]]
        outputs = (self._outputs[place].tobytes() for place in places[sequence])
        return ids, result_digest(zip(ids, outputs, strict=True))


def _outputs(holder: Holder, ids: Sequence[str], bare: bool) -> bytes:
    powers = holder.powers(ids)
    if bare:
        return holder.context.bare_tags(powers, holder.width)
    return holder.context.outputs(ids, powers, holder.width)

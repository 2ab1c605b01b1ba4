"""Where a party's time goes, and how many bytes it sends and receives."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace

SEEN_COMING_S = 0.0005
"""A shorter wait may be for a message that had come before."""


@dataclass
class Meter:
    """Sums since a party's link was opened.

    Time that is neither waiting nor wire is the party's own computing.
    """

    waited_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Feature key of a peer -> seconds in which this party could do nothing until that peer's message came."""

    wire_s: float = 0.0
    """Seconds spent on turning messages into bytes and back, and on handing bytes to the transport."""

    bytes_sent: int = 0
    """Of messages, before encryption."""

    bytes_received: int = 0
    """Of messages, after decryption."""

    tensors_sent: int = 0
    """Bytes of the embeddings or gradients sent, as they crossed."""

    tensors_whole: int = 0
    """Bytes of the same tensors as they are."""

    answers: int = 0
    """How many gradients were waited for while other batches were in flight."""

    shortest_trip_s: float = math.inf
    """Of these, the shortest time from the embedding's leaving to the gradient's coming, in seconds."""

    @property
    def saved_s(self) -> float:
        """Seconds that waiting for one batch after the other would have taken besides; an estimate from below."""
        if not self.answers or self.shortest_trip_s == math.inf:
            return 0.0
        return max(0.0, self.answers * self.shortest_trip_s - sum(self.waited_s.values()))

    def note_trip(self, trip_s: float, waited_s: float) -> None:
        """Note how long an answer took that was waited for for `waited_s` seconds: only then is its coming seen."""
        self.answers += 1
        if waited_s > SEEN_COMING_S:
            self.shortest_trip_s = min(self.shortest_trip_s, trip_s)

    def copy(self) -> Meter:
        """Return the sums as they are now."""
        return replace(self, waited_s=defaultdict(float, self.waited_s))

    def since(self, earlier: Meter) -> Meter:
        """Return what has been added since an earlier copy."""
        waited = {peer: total - earlier.waited_s.get(peer, 0.0) for peer, total in self.waited_s.items()}
        sums = {name: getattr(self, name) - getattr(earlier, name) for name in _SUMS}
        return Meter(waited, shortest_trip_s=self.shortest_trip_s, **sums)


_SUMS = tuple(each.name for each in fields(Meter) if each.name not in ("waited_s", "shortest_trip_s"))

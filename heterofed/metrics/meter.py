"""Where a party's time goes, and how many bytes it sends and receives."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


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

    def copy(self) -> Meter:
        """Return the sums as they are now."""
        return Meter(defaultdict(float, self.waited_s), self.wire_s, self.bytes_sent, self.bytes_received)

    def since(self, earlier: Meter) -> Meter:
        """Return what has been added since an earlier copy."""
        waited = {peer: total - earlier.waited_s.get(peer, 0.0) for peer, total in self.waited_s.items()}
        return Meter(
            waited,
            self.wire_s - earlier.wire_s,
            self.bytes_sent - earlier.bytes_sent,
            self.bytes_received - earlier.bytes_received,
        )

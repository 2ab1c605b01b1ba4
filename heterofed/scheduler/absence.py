"""Parties that are away: noticed, told to the user and to the other parties, waited for, and given up on in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from heterofed.errors import PeerGone
from heterofed.wire.transport import Transport

AWAY_AFTER_S = 1.5
"""A link that is down for so long is told to the user, and to the parties that wait meanwhile."""

PAUSE_EVERY_S = 3.0
"""How often the host tells the others that it waits for a party that is away."""

PAUSE_HOLDS_S = 15.0
"""For how long a collaborator takes the host's word that it waits for another."""


class Absences:
    """Which peers are away.

    Args:
        transport: knows which links are down.
        rejoin_timeout_s: how long a link may be down, in seconds; 0: for ever.
        say: shown to the user; gets one line.
    """

    def __init__(self, transport: Transport, rejoin_timeout_s: float, say: Callable[[str], None]) -> None:
        self.away: set[str] = set()
        """Feature keys of the peers whose links are down for a while already."""
        self.lost: Callable[[str, str], None] = lambda party, reason: None
        """Told of each peer that goes away: its feature key, and what is the matter."""
        self._transport = transport
        self._limit_s = rejoin_timeout_s
        self._say = say
        self._paused_since = self._paused_until = self._pause_due = 0.0

    def excuse(self, awaited: Collection[str]) -> bool:
        """Whether a wait for these peers does not count now."""
        return self.paused or any(self._transport.down_for(peer) for peer in awaited)

    # --- as the host --------------------------------------------------------------------------------------------------

    def look(self, peers: Iterable[str], awaited: Collection[str], waiting_for: str) -> None:
        """Look after these peers: tell the user who goes away and who is back.

        Raises:
            PeerGone: one is away for too long.
        """
        for peer in peers:
            down_s = self._transport.down_for(peer)
            if self._limit_s and down_s > self._limit_s:
                what = f"its link is down for {down_s:.0f} s"
                if peer in awaited:
                    what += f" while {self._transport.party} waits for its {waiting_for}"
                raise PeerGone(
                    what,
                    party=peer,
                    expected=f"a link, or one that is back within {self._limit_s:g} s",
                    advice="Its process ended or its network is cut: look at its output, then start all parties again "
                    "with recover=True.",
                )
            if not down_s and peer in self.away:
                self.away.discard(peer)
                self._say(f"{peer} is back")
            elif down_s > AWAY_AFTER_S and peer not in self.away:
                self.away.add(peer)
                self.lost(peer, "its link is down")
                limit = f"up to {self._limit_s:.0f} s" if self._limit_s else "as long as it takes"
                self._say(
                    f"the link of {peer} is down; waiting {limit} for it (if its process has ended, start it again "
                    f"with recover=True)"
                )

    def pause_is_due(self) -> bool:
        """Whether the others should be told now that we wait; at most one True every few seconds."""
        if not self.away or time.monotonic() < self._pause_due:
            return False
        self._pause_due = time.monotonic() + PAUSE_EVERY_S
        return True

    # --- as a collaborator --------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether the host has said of late that it waits for another party."""
        return time.monotonic() < self._paused_until

    def hear_pause(self, party: str, host: str) -> None:
        """Take the host's word that it waits for a party.

        Raises:
            PeerGone: it has been waiting for too long.
        """
        now = time.monotonic()
        if not self.paused:
            self._say(f"{party} is away; {host} waits for it")
        if not self._paused_since:
            self._paused_since = now
        if self._limit_s and now - self._paused_since > self._limit_s + PAUSE_HOLDS_S:
            raise PeerGone(
                f"{host} waits for it for {now - self._paused_since:.0f} s",
                party=party,
                expected=f"it to be back within {self._limit_s:g} s",
                advice="Start all parties again with recover=True.",
            )
        self._paused_until = now + PAUSE_HOLDS_S

    def hear(self) -> None:
        """The host goes on: nobody is waited for any more."""
        self._paused_since = self._paused_until = 0.0

    def forget(self) -> None:
        """Begin a new session: nobody is away yet."""
        self.away.clear()
        self.hear()

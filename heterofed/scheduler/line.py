"""One party's line to its peers: one session with each, over one transport. Says and hears one message at a time.

Every message passes its peer's `Session` before it leaves and when it comes. An `Abort` that comes is raised at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec

from heterofed.errors import (
    FrameError,
    HeterofedError,
    PeerGone,
    PeerRefused,
    PeerRestarted,
    PeerTimeout,
    RemoteProtocolError,
    TaskAborted,
)
from heterofed.frames.codec import Codec, Frame, size_of
from heterofed.frames.messages import Abort, AnyMessage
from heterofed.frames.together import split
from heterofed.metrics.meter import Meter
from heterofed.protocol.phases import Phase, Role
from heterofed.protocol.session import Session
from heterofed.wire.reliable import ReliableTransport
from heterofed.wire.transport import Transport

TELL_IN_S = 2.0
"""How long to wait for room in the queues of all peers together, to tell them that the task cannot go on."""

FIRST_PROBE_S = 0.5
"""How long an acknowledgement may take before the line asks what has come: a break may be too short to be noticed."""

AT_ONCE_S = 0.001
"""Enough for a send that does not have to wait for room."""

HEARD_WITHIN_S = 2.0
"""How long a host that has given up stays for its peers to hear why."""

BETWEEN_SESSIONS = (Phase.GATHERING, Phase.CHECKED_IN)
"""Phases in which a peer may leave and come back as it likes; gathering.py looks after that."""


class Line:
    """A party's end of its sessions.

    Args:
        transport: moves the bytes; `close` closes it too.
        role: which end this is; a host has several peers, a collaborator has the host.
        peers: feature keys at the other ends.
        max_message_bytes: larger messages are refused.
    """

    def __init__(self, transport: Transport, role: Role, peers: Collection[str], max_message_bytes: int) -> None:
        self.party = transport.party
        self.sessions = {peer: Session(role, peer) for peer in peers}
        self.meter = Meter()
        self._role = role
        self._transport = ReliableTransport(transport, first_probe_s=FIRST_PROBE_S, max_message_bytes=max_message_bytes)
        self._codec = Codec(max_message_bytes)
        self._abort: Abort | None = None
        self._told: list[str] = []
        self._apart: deque[tuple[str, Sequence[Frame]]] = deque()
        """What came in one message with another and is not looked at yet."""
        self._restarted: set[str] = set()
        self._left_out: dict[str, str] = {}
        """Peers that came too late for the session -> what they are told."""

    @property
    def peers(self) -> list[str]:
        """Feature keys at the other ends."""
        return list(self.sessions)

    def phase(self, peer: str | None = None) -> Phase:
        """Return the phase with a peer, or with the first one; that of no peer is over."""
        first = peer or next(iter(self.sessions), "")
        return self.sessions[first].phase if first else Phase.COMPLETED

    def expect_soon(self, soon: bool) -> None:
        """Say whether what is awaited from now on is likely to come within a millisecond or two."""
        self._transport.expect_soon(soon)

    # --- giving up ----------------------------------------------------------------------------------------------------

    def abort(self, error: HeterofedError) -> None:
        """Tell every peer that can still hear it that the task cannot go on, and why. Never raises.

        An error that came from a peer's own abort goes on to the others under that peer's name.

        Args:
            error: what happened; its text goes to the peers, so it holds no data.
        """
        # The text may quote bytes that are no text.
        reason = error.for_peers()[:2000].encode(errors="replace").decode()
        message = self._abort or Abort(party=self.party, error=type(error).__name__, reason=reason)
        for peer in self.peers:
            self._give_up_on(peer, message)

    def refuse(self, peer: str, why: str) -> None:
        """Turn one peer away; the others are not concerned. It may come again. Never raises.

        Args:
            peer: feature key.
            why: goes to the peer, so it holds no data.
        """
        self._give_up_on(peer, Abort(party=self.party, error=PeerRefused.__name__, reason=why[:2000]))
        self._forget(peer)

    def leave_out(self, peers: Collection[str], why: str) -> None:
        """Go on without these peers; who comes later is turned away.

        Args:
            peers: feature keys.
            why: goes to a peer that comes, so it holds no data.
        """
        for peer in peers:
            self._forget(peer)
            del self.sessions[peer]
            self._left_out[peer] = why

    def _turn_away(self, peer: str) -> None:
        """Tell a peer that was left out, if that is possible at once: the others do not wait for it.

        Raises:
            PeerRestarted: a peer was started anew, which the transport says only once.
        """
        word = Abort(party=self.party, error=PeerRefused.__name__, reason=self._left_out[peer][:2000])
        with suppress(PeerTimeout, PeerGone):
            self._transport.send(peer, self._codec.encode(word), AT_ONCE_S)

    def _give_up_on(self, peer: str, message: Abort) -> None:
        if not self.sessions[peer].over and self.tell(peer, message, TELL_IN_S / len(self.sessions)):
            self._told.append(peer)

    def tell(self, peer: str, message: AnyMessage, timeout_s: float) -> bool:
        """Send a last word to a peer, whatever happens to the others; return whether it is on its way. Never raises.

        Args:
            peer: feature key.
            message: what to say.
            timeout_s: how long to wait for room in the peer's queue, in seconds.
        """
        try:
            frames = self._codec.encode(message)
            self.sessions[peer].sending(message)
            while True:
                try:
                    self._transport.send(peer, frames, timeout_s)
                    break
                except PeerRestarted as restarted:  # nothing was sent; each restart is raised once
                    self._restarted.add(restarted.party or "")
        except HeterofedError:
            return False  # it is gone or deaf: its own deadlines end it
        self.meter.bytes_sent += size_of(frames)
        return True

    def stay_until_heard(self) -> None:
        """After an abort, stay until every peer that was told has read it or hung up, for a short while. Never raises.

        When a host's socket closes, libzmq throws away what collaborators have received from it and not yet read.
        """
        deadline = time.monotonic() + HEARD_WITHIN_S
        try:
            while time.monotonic() < deadline:
                here = [peer for peer in self._told if not self._transport.down_for(peer)]
                if not here or self._transport.flush(0.05, here):
                    return
                self._transport.receive(0.01)  # raises where a flush only stops
        except HeterofedError:
            return

    # --- sessions that end before the task does -----------------------------------------------------------------------

    def reopen(self) -> None:
        """As the host, end every session: whatever was said in them is void, and each peer is told to check in anew."""
        self._transport.restart()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be ready for a new session with every peer."""
        for peer in self.peers:
            self._forget(peer)
        self._restarted.clear()

    def restarted(self) -> set[str]:
        """Return the peers whose processes were started anew, while the parties gather, since this was last asked."""
        found, self._restarted = self._restarted, set()
        return found

    def down_for(self, peer: str) -> float:
        """Seconds since the link to a peer broke; 0.0 while it is up."""
        return self._transport.down_for(peer)

    def close(self, linger_s: float = 2.0) -> None:
        """Close the transport; for up to `linger_s` seconds stay until the peers have what was sent."""
        self._transport.close(linger_s)

    def _forget(self, peer: str) -> None:
        """Begin a new session with a peer."""
        self._apart = deque(each for each in self._apart if each[0] != peer)
        self.sessions[peer] = Session(self._role, peer)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _receive(self, timeout_s: float) -> tuple[str, AnyMessage] | None:
        if self._apart:
            return self._heard(*self._apart.popleft())
        try:
            delivery = self._transport.receive(timeout_s)
            if delivery is not None and delivery.sender in self._left_out:
                self._turn_away(delivery.sender)
                return None
        except PeerRestarted as restarted:
            peer = restarted.party or ""
            if peer in self._left_out:
                return None
            if peer in self.sessions and self.sessions[peer].phase in BETWEEN_SESSIONS and self._role is Role.HOST:
                self._forget(peer)  # it will check in again
                self._restarted.add(peer)
                return None
            raise
        if delivery is None:
            return None
        peer = delivery.sender
        session = self.sessions.get(peer)
        if session is None:
            raise RemoteProtocolError("is not a party of this session", party=peer)
        self.meter.bytes_received += size_of(delivery.frames)
        try:
            messages = split(delivery.frames)
        except FrameError as error:
            raise error.located(party=peer, phase=session.phase.value) from None
        if len(messages) > 1:
            self._apart.extend((peer, each) for each in messages[1:])
        return self._heard(peer, messages[0])

    def _heard(self, peer: str, frames: Sequence[Frame]) -> tuple[str, AnyMessage]:
        """Return the message that these frames are, once it has passed the peer's session."""
        session = self.sessions[peer]
        began = time.perf_counter()
        try:
            message = self._codec.decode(frames)
        except FrameError as error:
            raise error.located(party=peer, phase=session.phase.value) from None
        self.meter.wire_s += time.perf_counter() - began
        phase = session.phase
        session.receiving(message)
        if isinstance(message, Abort):
            if self._role is Role.HOST:
                message = msgspec.structs.replace(message, party=peer)  # nobody gives up in another's name
            if message.error == PeerRefused.__name__ and self._role is Role.COLLABORATOR:
                raise PeerRefused(f"turned this party away: {printable(message.reason)}", party=peer, phase=phase.value)
            self._abort = message
            if message.error == TaskAborted.__name__:  # the peer has it from the task's record
                raise TaskAborted(printable(message.reason))
            raise TaskAborted(
                f"ended the task ({printable(message.error)}): {printable(message.reason)}",
                party=printable(message.party),
                phase=phase.value,
            )
        return peer, message


def printable(text: str) -> str:
    """Return a peer's text without what could steer our terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)

"""One party's mailbox: messages out, awaited messages in, a deadline on every wait.

Every message passes its peer's `Session` before it leaves and when it comes. A message that the current wait does not
ask for stays in the mailbox; an `Abort` is never left there: it ends every wait at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, TypeVar, overload

import msgspec

from heterofed.config import Settings
from heterofed.errors import (
    FrameError,
    HeterofedError,
    PeerGone,
    PeerTimeout,
    RemoteProtocolError,
    TaskAborted,
    WireError,
)
from heterofed.frames.codec import Codec, size_of
from heterofed.frames.messages import Abort, AnyMessage
from heterofed.metrics.meter import Meter
from heterofed.protocol.phases import Phase, Role
from heterofed.protocol.session import Session
from heterofed.wire.transport import Transport

M = TypeVar("M", bound=AnyMessage)
N = TypeVar("N", bound=AnyMessage)

LOOK_AROUND_S = 0.5
"""How often a wait looks at the links, the deadline and the task's record."""

HEARD_WITHIN_S = 2.0
"""How long a host that has given up stays for its peers to hear why."""

LAST_WORD_S = 0.5
"""How long to wait for the Abort of a peer whose link has just broken; it may still be on its way."""


class Deadline:
    """Time left of a limit that several waits share.

    Args:
        timeout_s: the limit in seconds from now; 0: none.
        clock: what it is measured by.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + timeout_s if timeout_s else None

    def left_s(self) -> float:
        """Seconds left, as a timeout: 0 where there is no limit, else at least a moment."""
        return 0.0 if self._until is None else max(0.001, self._until - self._clock())


class Link:
    """A party's end of its sessions: one session with each peer, over one transport.

    Args:
        transport: moves the bytes; closed by whoever made it.
        role: which end this is; a host has several peers, a collaborator has the host.
        peers: feature keys at the other ends.
        settings: grace time, notices and size limits.
        say: shown to the user while waiting; gets one line.
        look: called about twice a second while waiting; may raise to end the wait (a failed task's record, say).
        clock: what deadlines are measured by, in seconds.
    """

    def __init__(
        self,
        transport: Transport,
        role: Role,
        peers: Collection[str],
        settings: Settings,
        *,
        say: Callable[[str], None],
        look: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.party = transport.party
        self.sessions = {peer: Session(role, peer) for peer in peers}
        self.look = look
        self.clock = clock
        self.meter = Meter()
        self._role = role
        self._transport = transport
        self._settings = settings
        self._codec = Codec(settings.max_message_bytes)
        self._mailbox: dict[str, deque[AnyMessage]] = {peer: deque() for peer in peers}
        self._say = say
        self._abort: Abort | None = None
        self._told: list[str] = []
        self._next_look = time.monotonic() + LOOK_AROUND_S

    @property
    def peers(self) -> list[str]:
        """Feature keys at the other ends."""
        return list(self.sessions)

    def phase(self, peer: str | None = None) -> Phase:
        """Return the phase with a peer, or with the first one."""
        return self.sessions[peer or self.peers[0]].phase

    def send(self, to: str, message: AnyMessage, timeout_s: float = 0.0) -> None:
        """Send a message to a peer.

        Raises:
            LocalProtocolError: this phase does not allow it; nothing was sent.
            PeerGone, PeerTimeout: the link is down, or its queue stayed full for `timeout_s` seconds (0: for ever).
            TaskAborted: the link is down because the peer gave up, and its word of that has come.
        """
        began = time.perf_counter()
        frames = self._codec.encode(message)
        self.sessions[to].sending(message)
        try:
            self._transport.send(to, frames, timeout_s)
        except WireError as error:
            self._hear_why()
            if isinstance(error, PeerGone):
                raise self._gone(to, f"its link broke before {self.party} could send to it") from None
            raise
        self.meter.wire_s += time.perf_counter() - began
        self.meter.bytes_sent += size_of(frames)

    def broadcast(self, message: AnyMessage, timeout_s: float = 0.0) -> None:
        """Send a message to every peer, as `send` does."""
        for peer in self.peers:
            self.send(peer, message, timeout_s)

    @overload
    def expect(
        self, kinds: type[M], *, from_: Collection[str], waiting_for: str, timeout_s: float
    ) -> tuple[str, M]: ...
    @overload
    def expect(
        self, kinds: tuple[type[M], type[N]], *, from_: Collection[str], waiting_for: str, timeout_s: float
    ) -> tuple[str, M | N]: ...
    def expect(
        self,
        kinds: type[Any] | tuple[type[Any], ...],
        *,
        from_: Collection[str],
        waiting_for: str,
        timeout_s: float,
    ) -> tuple[str, AnyMessage]:
        """Return the next message of these kinds from one of these peers, with its sender.

        Args:
            kinds: message classes wanted.
            from_: feature keys of the peers wanted.
            waiting_for: completes "waiting for <party>: …" in notices and errors.
            timeout_s: deadline in seconds from now; 0 waits for ever.

        Raises:
            PeerTimeout: the deadline passed; the text names the parties that were awaited.
            PeerGone: the link to any peer is down for longer than the grace time.
            TaskAborted: a party gave up.
            RemoteProtocolError, FrameError: a peer said something that its phase does not allow, or gibberish.
        """
        for peer in from_:
            for message in self._mailbox[peer]:
                if isinstance(message, kinds):
                    self._mailbox[peer].remove(message)
                    return peer, message
        began, seconds = self.clock(), time.perf_counter()
        on_wire = self.meter.wire_s
        next_notice = time.monotonic() + self._settings.notice_every_s
        while True:
            left = began + timeout_s - self.clock() if timeout_s else float("inf")
            arrived = self._receive(max(0.0, min(LOOK_AROUND_S, left)))
            if arrived is not None:
                peer, message = arrived
                if peer in from_ and isinstance(message, kinds):
                    waited = time.perf_counter() - seconds - (self.meter.wire_s - on_wire)
                    self.meter.waited_s[peer] += waited
                    return peer, message
                self._mailbox[peer].append(message)
                if left > 0 and time.monotonic() < self._next_look:
                    continue  # others that keep talking do not keep us from looking at the clock
            if left <= 0:
                raise self._late(from_, waiting_for, self.clock() - began)
            self._next_look = time.monotonic() + LOOK_AROUND_S
            self._look_around(from_, waiting_for)
            if time.monotonic() >= next_notice:
                self._notice(from_, waiting_for, began, timeout_s)
                next_notice += self._settings.notice_every_s

    def poll(self, kinds: tuple[type[AnyMessage], ...], *, from_: str, waiting_for: str) -> AnyMessage | None:
        """Return a message of these kinds from this peer if one is there now; for a party that has work meanwhile.

        Raises:
            as `expect`, but for PeerTimeout.
        """
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_AROUND_S
            self._look_around([from_], waiting_for)
        while (arrived := self._receive(0.0)) is not None:
            self._mailbox[arrived[0]].append(arrived[1])
        for message in self._mailbox[from_]:
            if isinstance(message, kinds):
                self._mailbox[from_].remove(message)
                return message
        return None

    def abort(self, error: HeterofedError) -> None:
        """Tell every peer that can still hear it that the task cannot go on, and why. Never raises.

        An error that came from a peer's own abort goes on to the others under that peer's name.

        Args:
            error: what happened; its text goes to the peers, so it holds no data.
        """
        # The text may quote bytes that are no text.
        reason = error.for_peers()[:2000].encode(errors="replace").decode()
        message = self._abort or Abort(party=self.party, error=type(error).__name__, reason=reason)
        for peer, session in self.sessions.items():
            if session.over:
                continue
            try:
                self.send(peer, message, timeout_s=1.0)
            except HeterofedError:
                continue  # it is gone or deaf: its own deadlines end it
            self._told.append(peer)

    def stay_until_heard(self) -> None:
        """After an abort, stay until every peer that was told has hung up, for a short while. Never raises.

        When a host's socket closes, libzmq throws away what collaborators have received from it and not yet read.
        """
        deadline = time.monotonic() + HEARD_WITHIN_S
        try:
            while time.monotonic() < deadline and any(not self._transport.down_for(peer) for peer in self._told):
                self._transport.receive(0.02)
        except HeterofedError:
            return

    def _receive(self, timeout_s: float) -> tuple[str, AnyMessage] | None:
        delivery = self._transport.receive(timeout_s)
        if delivery is None:
            return None
        peer = delivery.sender
        session = self.sessions.get(peer)
        if session is None:
            raise RemoteProtocolError("is not a party of this session", party=peer)
        began = time.perf_counter()
        try:
            message = self._codec.decode(delivery.frames)
        except FrameError as error:
            raise error.located(party=peer, phase=session.phase.value) from None
        self.meter.wire_s += time.perf_counter() - began
        self.meter.bytes_received += size_of(delivery.frames)
        phase = session.phase
        session.receiving(message)
        if isinstance(message, Abort):
            if self._role is Role.HOST:
                message = msgspec.structs.replace(message, party=peer)  # nobody gives up in another's name
            self._abort = message
            raise TaskAborted(
                f"ended the task ({printable(message.error)}): {printable(message.reason)}",
                party=printable(message.party),
                phase=phase.value,
            )
        return peer, message

    def _hear_why(self) -> None:
        """A peer is gone: if its last word was an Abort, raise that, for it says more than a broken link."""
        deadline = time.monotonic() + LAST_WORD_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                arrived = self._receive(left)
            except WireError:
                return
            if arrived is not None:
                self._mailbox[arrived[0]].append(arrived[1])

    def _look_around(self, awaited: Collection[str], waiting_for: str) -> None:
        self.look()
        for peer, session in self.sessions.items():
            # While the parties gather, a peer may still leave and come back; gathering.py looks after that.
            if session.over or session.phase in (Phase.GATHERING, Phase.CHECKED_IN):
                continue
            down_s = self._transport.down_for(peer)
            if down_s > self._settings.link_grace_s:
                what = f"its link is down for {down_s:.0f} s"
                if peer in awaited:
                    what += f" while {self.party} waits for its {waiting_for}"
                raise self._gone(peer, what)

    def _gone(self, peer: str, what: str) -> PeerGone:
        return PeerGone(
            what,
            party=peer,
            phase=self.phase(peer).value,
            expected=f"a link, or one that is back within {self._settings.link_grace_s:g} s",
            advice="Its process ended or its network is cut: look at its output, then start the task again.",
        )

    def _late(self, awaited: Collection[str], waiting_for: str, waited_s: float) -> PeerTimeout:
        names = ", ".join(awaited)
        return PeerTimeout(
            f"no {waiting_for} within {waited_s:.0f} s",
            party=names,
            phase=self.phase(next(iter(awaited))).value,
            expected=f"it from {names}",
            advice="Is it running, with this task id? If it needs longer, raise the timeout (0 waits for ever).",
        )

    def _notice(self, awaited: Collection[str], waiting_for: str, began: float, timeout_s: float) -> None:
        waited_s = self.clock() - began
        limit = f" of {timeout_s:.0f} s" if timeout_s else ""
        self._say(f"waiting for {', '.join(awaited)}: {waiting_for} ({waited_s:.0f}{limit})")


def printable(text: str) -> str:
    """Return a peer's text without what could steer our terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)

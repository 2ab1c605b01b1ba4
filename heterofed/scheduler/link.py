"""One party's mailbox: messages out, awaited messages in, a deadline on every wait.

A message that the current wait does not ask for stays in the mailbox; an `Abort` ends every wait at once.

A peer whose link is down is waited for. If its connection comes back, the transport below goes on with the message that
was due, and nobody above notices. If its process was started anew, `PeerRestarted` ends the wait: this session is over,
and the parties open another one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, overload

from heterofed.config import Settings
from heterofed.errors import (
    PeerGone,
    PeerTimeout,
    RemoteProtocolError,
)
from heterofed.frames.codec import Frame, size_of
from heterofed.frames.messages import AnyMessage, Paused, StillMatching
from heterofed.frames.together import join
from heterofed.protocol.phases import Role
from heterofed.scheduler.absence import Absences
from heterofed.scheduler.line import AT_ONCE_S, BETWEEN_SESSIONS, Line, printable
from heterofed.scheduler.waits import Deadline
from heterofed.wire.transport import Transport

M = TypeVar("M", bound=AnyMessage)
N = TypeVar("N", bound=AnyMessage)
P = TypeVar("P", bound=AnyMessage)

LOOK_AROUND_S = 0.5
"""How often a wait looks at the links, the deadline and the task's record."""

MAILBOX_MESSAGES = 64
"""More than a peer can have said before it waits for us."""


class Link(Line):
    """A party's line with a mailbox, and with an eye on who is away.

    Args:
        transport: moves the bytes; `close` closes it too.
        role: which end this is; a host has several peers, a collaborator has the host.
        peers: feature keys at the other ends.
        settings: notices and size limits.
        rejoin_timeout_s: how long a peer's link may be down, in seconds; 0: for ever. By default as the settings say.
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
        rejoin_timeout_s: float | None = None,
    ) -> None:
        super().__init__(transport, role, peers, settings.max_message_bytes)
        self.look = look
        self.clock = clock
        self.rejoin_timeout_s = settings.rejoin_timeout_s if rejoin_timeout_s is None else rejoin_timeout_s
        self._absences = Absences(self._transport, self.rejoin_timeout_s, say)
        self._settings = settings
        self._mailbox: dict[str, deque[AnyMessage]] = {peer: deque() for peer in peers}
        self._say = say
        self._next_look = time.monotonic() + LOOK_AROUND_S

    def tell_of_the_lost(self, lost: Callable[[str, str], None]) -> None:
        """Have a function called with each peer whose link goes down, and with what is the matter."""
        self._absences.lost = lost

    def send(self, to: str, message: AnyMessage, timeout_s: float = 0.0) -> None:
        """Send a message to a peer.

        It leaves now, or when the link is up again.

        Args:
            to: feature key of the peer.
            message: what to send.
            timeout_s: how long to wait for room in the peer's queue, in seconds; 0: for ever. The time in which the
                peer's link is down does not count.

        Raises:
            LocalProtocolError: this phase does not allow it; nothing was sent.
            PeerTimeout: the peer's queue stayed full.
            PeerGone, PeerRestarted, TaskAborted, RemoteProtocolError, FrameError: as `expect`.
        """
        began = time.perf_counter()
        frames = self._codec.encode(message)
        self.sessions[to].sending(message)
        self._post(to, frames, timeout_s, began)

    def send_together(self, to: str, messages: Sequence[AnyMessage], timeout_s: float = 0.0) -> None:
        """Send 1 to `MOST_AHEAD` messages to a peer as one, as `send` does."""
        if len(messages) == 1:
            self.send(to, messages[0], timeout_s)
            return
        began = time.perf_counter()
        frames = join([self._codec.encode(each) for each in messages])
        for each in messages:
            self.sessions[to].sending(each)
        self._post(to, frames, timeout_s, began)

    def _post(self, to: str, frames: Sequence[Frame], timeout_s: float, began: float) -> None:
        limit = Deadline(timeout_s, self.clock)
        while True:
            try:
                self._transport.send(to, frames, min(LOOK_AROUND_S, max(AT_ONCE_S, limit.left_s())))
                break
            except PeerTimeout:
                self._take_in()  # an Abort may be there
                limit.excuse(self._excused([to]))
                if limit.left_s() <= 0:
                    raise self._late([to], "room in its queue", limit.waited_s()) from None
                self._look_around([to], "room in its queue")
        self.meter.wire_s += time.perf_counter() - began
        self.meter.bytes_sent += size_of(frames)

    def broadcast(self, message: AnyMessage, timeout_s: float = 0.0) -> None:
        """Send a message to every peer, as `send` does."""
        for peer in self.peers:
            self.send(peer, message, timeout_s)

    @overload
    def expect(
        self,
        kinds: type[M],
        *,
        from_: Collection[str],
        waiting_for: str,
        timeout_s: float | Deadline,
        missing: Collection[str] | None = None,
    ) -> tuple[str, M]: ...
    @overload
    def expect(
        self,
        kinds: tuple[type[M], type[N]],
        *,
        from_: Collection[str],
        waiting_for: str,
        timeout_s: float | Deadline,
        missing: Collection[str] | None = None,
    ) -> tuple[str, M | N]: ...
    @overload
    def expect(
        self,
        kinds: tuple[type[M], type[N], type[P]],
        *,
        from_: Collection[str],
        waiting_for: str,
        timeout_s: float | Deadline,
        missing: Collection[str] | None = None,
    ) -> tuple[str, M | N | P]: ...
    def expect(
        self,
        kinds: type[Any] | tuple[type[Any], ...],
        *,
        from_: Collection[str],
        waiting_for: str,
        timeout_s: float | Deadline,
        missing: Collection[str] | None = None,
    ) -> tuple[str, AnyMessage]:
        """Return the next message of these kinds from one of these peers, with its sender.

        Args:
            kinds: message classes wanted.
            from_: feature keys of the peers wanted.
            waiting_for: completes "waiting for <party>: …" in notices and errors.
            timeout_s: deadline in seconds from now; 0 waits for ever; or one that several waits share. The time in
                which the link of an awaited peer is down does not count, nor that in which the host says that it waits
                for another party.
            missing: whom notices name, where not all of `from_` are awaited.

        Raises:
            PeerTimeout: the deadline passed; the text names the parties that were awaited.
            PeerGone: the link to any peer is down for longer than `rejoin_timeout_s`.
            PeerRestarted: a peer's process was started anew; this session is over.
            TaskAborted: a party gave up.
            PeerRefused: the host does not let this party in.
            RemoteProtocolError, FrameError: a peer said something that its phase does not allow, or gibberish.
        """
        for peer in from_:
            for message in self._mailbox[peer]:
                if isinstance(message, kinds):
                    self._mailbox[peer].remove(message)
                    return peer, message
        limit = timeout_s if isinstance(timeout_s, Deadline) else Deadline(timeout_s, self.clock)
        limit.resume()
        seconds = time.perf_counter()
        on_wire = self.meter.wire_s
        next_notice = time.monotonic() + self._settings.notice_every_s
        while True:
            left = limit.left_s()
            arrived = self._receive(max(0.0, min(LOOK_AROUND_S, left)))
            if arrived is not None:
                peer, message = arrived
                if peer in from_ and isinstance(message, kinds):
                    waited = time.perf_counter() - seconds - (self.meter.wire_s - on_wire)
                    self.meter.waited_s[peer] += waited
                    return peer, message
                self._keep(peer, message)
                if left > 0 and time.monotonic() < self._next_look:
                    continue  # others that keep talking do not keep us from looking at the clock
            limit.excuse(self._excused(from_))
            if left <= 0 and limit.left_s() <= 0:
                raise self._late(from_, waiting_for, limit.waited_s())
            self._next_look = time.monotonic() + LOOK_AROUND_S
            self._look_around(from_, waiting_for)
            if time.monotonic() >= next_notice:
                self._notice(missing or from_, waiting_for, limit)
                next_notice += self._settings.notice_every_s

    def collect(self, kind: type[M], waiting_for: str, timeout_s: float) -> dict[str, M]:
        """Return one message of this kind from every peer, in the order of `peers`; the deadline is one for all.

        Raises:
            as `expect`.
        """
        limit = Deadline(timeout_s, self.clock)
        found: dict[str, M] = {}
        while missing := [peer for peer in self.peers if peer not in found]:
            peer, message = self.expect(kind, from_=missing, waiting_for=waiting_for, timeout_s=limit)
            found[peer] = message
        return {peer: found[peer] for peer in self.peers}

    def poll(self, kinds: tuple[type[AnyMessage], ...], *, from_: str, waiting_for: str) -> AnyMessage | None:
        """Return a message of these kinds from this peer if one is there now; for a party that has work meanwhile.

        Raises:
            as `expect`, but for PeerTimeout.
        """
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_AROUND_S
            self._look_around([from_], waiting_for)
        for fresh in (False, True):
            if fresh:
                self._take_in()
            for message in self._mailbox[from_]:
                if isinstance(message, kinds):
                    self._mailbox[from_].remove(message)
                    return message
        return None

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Put what has come into the mailbox; while it is full, what comes stays below, and the peers wait."""
        while all(len(each) < MAILBOX_MESSAGES for each in self._mailbox.values()):
            arrived = self._receive(0.0)
            if arrived is None:
                return
            self._keep(*arrived)

    def _keep(self, peer: str, message: AnyMessage) -> None:
        """Put a message that is not awaited now into the mailbox.

        Raises:
            RemoteProtocolError: the peer has said more than anybody asked it for.
        """
        box = self._mailbox[peer]
        if box and isinstance(message, StillMatching) and isinstance(box[-1], StillMatching):
            return
        if len(box) >= MAILBOX_MESSAGES:
            raise RemoteProtocolError(
                f"sent {len(box)} messages that nobody asked for",
                party=peer,
                phase=self.phase(peer).value,
                expected="answers to ours",
            )
        box.append(message)

    def _receive(self, timeout_s: float) -> tuple[str, AnyMessage] | None:
        arrived = super()._receive(timeout_s)
        if arrived is None:
            return None
        if isinstance(arrived[1], Paused):
            self._absences.hear_pause(printable(arrived[1].party), arrived[0])
            return None
        self._absences.hear()
        return arrived

    def leave_out(self, peers: Collection[str], why: str) -> None:
        """Go on without these peers, as in `Line`; nobody waits for their links any more."""
        super().leave_out(peers, why)
        self._absences.away.difference_update(peers)

    def _forget(self, peer: str) -> None:
        super()._forget(peer)
        self._mailbox[peer].clear()

    def begin_anew(self) -> None:
        """Be ready for a new session with every peer."""
        super().begin_anew()
        self._absences.forget()

    # --- peers that are away ------------------------------------------------------------------------------------------

    def _excused(self, awaited: Collection[str]) -> bool:
        """Whether a wait for these peers does not count now; between sessions it always does."""
        return self._absences.excuse([each for each in awaited if self.sessions[each].phase not in BETWEEN_SESSIONS])

    def _look_around(self, awaited: Collection[str], waiting_for: str) -> None:
        self.look()
        present = [
            peer
            for peer, session in self.sessions.items()
            if not session.over and session.phase not in BETWEEN_SESSIONS
        ]
        try:
            self._absences.look(present, awaited, waiting_for)
        except PeerGone as gone:
            raise gone.located(phase=self.phase(gone.party).value) from None
        if self._role is Role.HOST and self._absences.pause_is_due():
            self._pause(peer for peer in present if peer not in self._absences.away)

    def _pause(self, others: Iterable[str]) -> None:
        word = Paused(sorted(self._absences.away)[0])
        for peer in others:
            self.sessions[peer].sending(word)
            with suppress(PeerTimeout):  # it has enough to read
                self._transport.send(peer, self._codec.encode(word), AT_ONCE_S)

    def _late(self, awaited: Collection[str], waiting_for: str, waited_s: float) -> PeerTimeout:
        names = ", ".join(awaited)
        return PeerTimeout(
            f"no {waiting_for} within {waited_s:.0f} s",
            party=names,
            phase=self.phase(next(iter(awaited))).value,
            expected=f"it from {names}",
            advice="Is it running, with this task id? If it needs longer, raise the timeout (0 waits for ever).",
        )

    def _notice(self, awaited: Collection[str], waiting_for: str, limit: Deadline) -> None:
        of = f" of {limit.timeout_s:.0f} s" if limit.timeout_s else ""
        self._say(f"waiting for {', '.join(awaited)}: {waiting_for} ({limit.waited_s():.0f}{of})")

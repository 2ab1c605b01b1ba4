"""What a collaborator that answers requests allows, and its count of what was asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from heterofed.checks import check_count
from heterofed.errors import NotAllowed
from heterofed.frames.messages import MOST_ASKED
from heterofed.scheduler.checks import check_seconds
from heterofed.words import counted

WINDOW_S = 60.0


@dataclass(frozen=True)
class ServeLimits:
    """What one collaborator lets hosts ask. What goes beyond ends that session, with the reason, at both ends.

    Raises:
        ConfigError: a limit is none.
    """

    sessions_per_minute: int | None = None
    """Each session matches ids, so it tells the host which of those that it asks about are here. None: any number."""
    ids_per_session: int | None = None
    """How many ids a host may ask about in one session, found here or not; a session of more is refused before any of
    them is answered. Together with `sessions_per_minute` it bounds how many in a minute. With the `ecdh` protocol a
    host that cheats can ask about up to 32 more, in the place of its spot checks. None: any number."""
    rows_per_minute: int | None = None
    """Over all sessions; None: any number."""
    rows_per_session: int | None = None
    """None: any number."""
    batch_rows: int = MOST_ASKED
    """How many rows of one batch a host may have this party load and embed, which takes memory; up to four batches are
    in memory at a time. Hosts ask in batches of the size of the training unless they say otherwise."""
    idle_s: float = 600.0
    """How long a host may say nothing while its session is open, in seconds; 0: for ever."""
    all_parties: bool = False
    """Whether a session without one of the task's other collaborators is refused: with three parties and more the host
    learns only which ids all share, and from a session of two which ids these two do."""

    def __post_init__(self) -> None:
        for name in ("sessions_per_minute", "ids_per_session", "rows_per_minute", "rows_per_session"):
            check_count(name, getattr(self, name), 1, or_none="any number")
        check_count("batch_rows", self.batch_rows, 1)
        check_seconds("idle_s", self.idle_s)


DEFAULT_LIMITS = ServeLimits()


class Allowance:
    """Counts against limits.

    Args:
        limits: which.
        clock: in seconds.
    """

    def __init__(self, limits: ServeLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._sessions: deque[float] = deque()
        self._rows: deque[tuple[float, int]] = deque()
        self._rows_now = 0
        self.rows = 0
        """Rows of the session at hand."""

    def begin_session(self) -> None:
        """Count a session.

        Raises:
            NotAllowed: there were too many of late.
        """
        self.rows = 0
        now = self._clock()
        while self._sessions and self._sessions[0] <= now - WINDOW_S:
            self._sessions.popleft()
        most = self.limits.sessions_per_minute
        if most is not None and len(self._sessions) >= most:
            raise NotAllowed(
                f"the host opens more than {counted(most, 'session')} in a minute",
                expected=f"at most {most}",
                advice="Wait a minute; ask for all rows in one session.",
            )
        self._sessions.append(now)

    def match(self, ids: int) -> None:
        """Look at how many ids a session asks about.

        Raises:
            NotAllowed: they are too many.
        """
        most = self.limits.ids_per_session
        if most is not None and ids > most:
            raise NotAllowed(
                f"the session asks about {counted(ids, 'id')}",
                expected=f"at most {most}",
                advice="Open it for fewer ids (`ids`, --ids), and the next ones in another session.",
            )

    def ask(self, rows: int, at_once: int) -> None:
        """Count rows that are asked for.

        Args:
            rows: how many.
            at_once: in batches of how many.

        Raises:
            NotAllowed: they are too many.
        """
        limits, now = self.limits, self._clock()
        while self._rows and self._rows[0][0] <= now - WINDOW_S:
            self._rows_now -= self._rows.popleft()[1]
        if at_once > limits.batch_rows:
            raise NotAllowed(
                f"the host asks for {at_once} rows in one batch",
                expected=f"at most {limits.batch_rows}",
                advice=f"Ask with batch_size={limits.batch_rows} (--batch-size), or less.",
            )
        if limits.rows_per_session is not None and self.rows + rows > limits.rows_per_session:
            raise NotAllowed(
                f"the host asks for more than {counted(limits.rows_per_session, 'row')} in a session",
                expected=f"at most {limits.rows_per_session}",
                advice="Ask for the others in another session.",
            )
        if limits.rows_per_minute is not None and self._rows_now + rows > limits.rows_per_minute:
            raise NotAllowed(
                f"the host asks for more than {counted(limits.rows_per_minute, 'row')} in a minute",
                expected=f"at most {limits.rows_per_minute}",
                advice="Wait a minute, or ask for fewer at a time.",
            )
        self.rows += rows
        self._rows_now += rows
        self._rows.append((now, rows))

"""What a collaborator that answers requests allows, and its count of what was asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from heterofed.errors import NotAllowed
from heterofed.scheduler.checks import check_count, check_seconds

WINDOW_S = 60.0


@dataclass(frozen=True)
class ServeLimits:
    """What one collaborator lets hosts ask. What goes beyond ends that session, with the reason, at both ends.

    Raises:
        ConfigError: a limit is none.
    """

    sessions_per_minute: int | None = None
    """Each session matches ids, so it tells the host which of those that it asks about are here. None: any number."""
    rows_per_minute: int | None = None
    """Over all sessions; None: any number."""
    rows_per_session: int | None = None
    """None: any number."""
    idle_s: float = 600.0
    """How long a host may say nothing while its session is open, in seconds; 0: for ever."""
    all_parties: bool = False
    """Whether a session without one of the task's other collaborators is refused: with three parties and more the host
    learns only which ids all share, and from a session of two which ids these two do."""

    def __post_init__(self) -> None:
        for name in ("sessions_per_minute", "rows_per_minute", "rows_per_session"):
            check_count(name, getattr(self, name), 1, or_none="any number")
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
                f"more than {most} sessions were opened in a minute",
                expected=f"at most {most}",
                advice="Wait a minute; ask for all rows in one session.",
            )
        self._sessions.append(now)

    def ask(self, rows: int) -> None:
        """Count rows that are asked for.

        Raises:
            NotAllowed: they are too many.
        """
        limits, now = self.limits, self._clock()
        while self._rows and self._rows[0][0] <= now - WINDOW_S:
            self._rows_now -= self._rows.popleft()[1]
        if limits.rows_per_session is not None and self.rows + rows > limits.rows_per_session:
            raise NotAllowed(
                f"more than {limits.rows_per_session} rows were asked for in a session",
                expected=f"at most {limits.rows_per_session}",
            )
        if limits.rows_per_minute is not None and self._rows_now + rows > limits.rows_per_minute:
            raise NotAllowed(
                f"more than {limits.rows_per_minute} rows were asked for in a minute",
                expected=f"at most {limits.rows_per_minute}",
                advice="Wait a minute, or ask for fewer at a time.",
            )
        self.rows += rows
        self._rows_now += rows
        self._rows.append((now, rows))

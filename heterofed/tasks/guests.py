"""A host's doorkeeper: which keys may come in, asked of the task's record without letting strangers wear that out."""

from __future__ import annotations

import time
from collections.abc import Callable

from heterofed.errors import HubUnreachable
from heterofed.tasks.directory import Directory
from heterofed.tasks.model import Task, TaskStatus

LOOKUPS_PER_S = 20.0
"""How often the record is read at most, in the long run; a reading costs about a millisecond of the gate's thread."""


ASK_AGAIN_S = 5.0
"""How long a hub that was away is not asked again: its silence must not keep others waiting at the door."""


class GuestList:
    """Answers whose key it is for one task, as `heterofed.wire.Doorkeeper`. For one thread.

    Each question reads the record, so that a key that was listed a moment ago is known; but only as long as they are
    few. In a flood of them, the answer may be 1/20 s old. So strangers, each with a new key, cannot keep a party
    waiting at the door while the gate's thread reads the database for them.

    A key that is inside may come in again, when its line broke, though the task expired or was completed meanwhile.
    A cancelled task admits nobody.

    Where a hub keeps the task, keys that were listed a moment ago may come in without its being asked, also while it is
    away. Others have to wait until it answers.

    Args:
        directory: where the task is.
        task_id: its id.
        clock: in seconds.
        known: gives the task as a hub lately had it; None where the record is near and is read at every question.
        when_completed: whether parties come in when the task is completed: for predictions with what it has trained.
    """

    def __init__(
        self,
        directory: Directory,
        task_id: str,
        clock: Callable[[], float] = time.monotonic,
        known: Callable[[], Task | None] = lambda: None,
        when_completed: bool = False,
    ) -> None:
        self._when_completed = when_completed
        self._directory = directory
        self._known = known
        self._away_until = float("-inf")
        self._away = HubUnreachable("the hub was not reached")
        self._task_id = task_id
        self._clock = clock
        self._inside: set[bytes] = set()
        self._task: Task | None = None
        self._lookups_left = LOOKUPS_PER_S
        self._counted_at = clock()

    def party_of(self, public_key: bytes) -> str | None:
        """Return the feature key of the party that may come in with this key, or None.

        Raises:
            HeterofedError: the record cannot be read; the key must stay out for now.
        """
        task = self._look(public_key)
        party = task.owner_of(public_key)
        if party is None or task.status is TaskStatus.CANCELLED:
            return None
        over = task.why_over() is not None and not (self._when_completed and task.status is TaskStatus.COMPLETED)
        if over and public_key not in self._inside:
            return None
        self._inside.add(public_key)
        return party

    def _look(self, public_key: bytes) -> Task:
        now, known = self._clock(), self._known()
        if known is not None and known.owner_of(public_key) is not None:
            return known
        if now < self._away_until:
            raise self._away
        self._lookups_left = min(LOOKUPS_PER_S, self._lookups_left + (now - self._counted_at) * LOOKUPS_PER_S)
        self._counted_at = now
        if self._task is None or self._lookups_left >= 1:
            self._lookups_left -= 1
            self._task = None  # if the reading fails, the old answer is not used
            try:
                self._task = self._directory.find(self._task_id)
            except HubUnreachable as away:
                self._away_until, self._away = self._clock() + ASK_AGAIN_S, away
                raise
        return self._task

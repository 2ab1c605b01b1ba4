"""A party's place in a task that is completed: the host listens again, collaborators find it, and no status changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from heterofed.errors import ConfigError, NotAllowed
from heterofed.metrics.progress import Progress
from heterofed.scheduler.doors import CollaboratorDoor, HostDoor
from heterofed.scheduler.launch import seat_in
from heterofed.scheduler.manifest import RunManifest
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.standing import Standing
from heterofed.tasks.guests import GuestList
from heterofed.tasks.model import PartyStatus, Task, TaskStatus
from heterofed.training.threads import use_threads
from heterofed.wire.keys import check_public_key

if TYPE_CHECKING:
    from heterofed.config import Settings
    from heterofed.scheduler.base import Scheduler
    from heterofed.scheduler.seat import Seat
    from heterofed.tasks.directory import Directory, HostAddress
    from heterofed.wire.transport import Transport

GONE_WITHIN_S = 3.0
"""How long the host of a session that is over may stay announced before it is taken for one that opens another."""

BACK_WITHIN_S = 5.0
"""How long a link may be down in a session for predictions, which is soon opened again."""

FAREWELL_S = 10.0
"""How long the last words of a session may take."""

Look = Callable[[], None]
"""Called now and then in every wait; may raise to end it."""


def prediction_seat(
    party: Scheduler,
    manifest: RunManifest,
    *,
    wait_s: float,
    look: Look = lambda: None,
    host_key: bytes | str | None = None,
) -> AbstractContextManager[Seat]:
    """Give a party its place in the task that its run was of.

    Args:
        party: which.
        manifest: of its run.
        wait_s: how long a collaborator waits for the host, in seconds; 0: for ever.
        look: see `Look`.
        host_key: the only public key that is the host, for a collaborator; None: the one that it had in the run.

    Raises:
        ConfigError: `host_key` is no key, or cannot be looked at without encryption; there is no such task here, it is
            not completed, or this party runs already.
    """
    given = None if host_key is None else _checked(host_key, party)
    use_threads(party.settings.threads)
    if manifest.role == "host":
        open_door: Any = _HostDoor
    else:
        known = manifest.host_key.encode("ascii") if party.settings.encryption else None
        open_door = partial(_CollaboratorDoor, wait_s=wait_s, known_key=known or None, given_key=given)
    return seat_in(
        manifest.task_id,
        party.feature_key,
        party.settings,
        host=manifest.role == "host",
        name=party.name,
        check=_check_completed,
        make_record=partial(_Record, looking=look),
        open_door=open_door,
    )


def _checked(host_key: bytes | str, party: Scheduler) -> bytes:
    """Return a public key that somebody gave.

    Raises:
        ConfigError: see `prediction_seat`.
    """
    if not party.settings.encryption:
        raise ConfigError(
            "a host_key is given, and encryption is off",
            party=party.feature_key,
            expected="encryption (HETEROFED_ENCRYPTION): without it nobody shows a key",
            advice="Set it at all parties, or leave the key out.",
        )
    return check_public_key(host_key if isinstance(host_key, str) else host_key.decode("ascii", "replace"))


def standing_of_run(manifest: RunManifest) -> Standing:
    """Return what a party says of the run that it has loaded."""
    return Standing(run=bytes.fromhex(manifest.run), points=(manifest.rounds,))


class _Record(StoreRecord):
    """Reads the task's record; says nothing there of predictions, whose session is none of the task's course."""

    def __init__(self, *args: Any, looking: Look, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._looking = looking

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        """Nothing: the task stays completed."""

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        """Nothing: this party has finished."""

    def lost(self, party: str, reason: str) -> None:
        """Nothing."""

    def look(self) -> None:
        """Raise what ends a wait."""
        self._looking()


class _HostDoor(HostDoor):
    """Lets parties in though the task is completed."""

    def _doorkeeper(self) -> GuestList:
        known = self._record.reporter.known
        return GuestList(self._directory, self._task.id, known=known, when_completed=True)


class _CollaboratorDoor(CollaboratorDoor):
    """Connects to the host of the run and to nobody else."""

    def __init__(
        self,
        directory: Directory,
        task: Task,
        feature_key: str,
        settings: Settings,
        progress: Progress,
        record: StoreRecord,
        *,
        wait_s: float,
        known_key: bytes | None,
        given_key: bytes | None,
    ) -> None:
        self._wait_s = wait_s
        self._left_at = -math.inf
        self._known_key = known_key
        self._given_key = given_key
        self._shown_key: bytes | None = None
        super().__init__(directory, task, feature_key, settings, progress, record)

    @property
    def _patience_s(self) -> float:
        return self._wait_s

    @property
    def _notice_every_s(self) -> float:
        return super()._notice_every_s if self._wait_s else math.inf

    def _look(self) -> None:
        self._record.look()

    def connect(self) -> tuple[str, Transport]:
        """Wait until the host is up, and connect; to the one before again only if it stays announced."""
        if self._address is not None:
            self._left_at = time.monotonic()
        return super().connect()

    def _find(self) -> HostAddress | None:
        found = super()._find()
        if found == self._address and time.monotonic() - self._left_at < GONE_WITHIN_S:
            return None
        return found

    def host_public_key(self) -> bytes | None:
        """Return the key of the host that was there last, whether it was the right one or not."""
        return self._shown_key

    def _check(self, address: HostAddress) -> None:
        self._shown_key = address.public_key
        if self._given_key is not None and address.public_key != self._given_key:
            raise NotAllowed(
                f"the host {address.feature_key} of task {self._task.id} comes with another key than the one given",
                party=self._me,
                expected="the key given as host_key (--host-key)",
                advice="Ask its people for its key (`heterofed keys show`).",
            )
        if self._given_key is None and self._known_key is not None and address.public_key != self._known_key:
            raise NotAllowed(
                f"the host {address.feature_key} of task {self._task.id} comes with another key than in the training",
                party=self._me,
                expected="the key that this run's host had",
                advice="If it really has a new key, ask its people for it (`heterofed keys show`) and give it as "
                "host_key (--host-key).",
            )


def _check_completed(task: Task, feature_key: str) -> None:
    task.party(feature_key)
    if task.status is not TaskStatus.COMPLETED:
        raise ConfigError(
            f"task {task.id} is {task.status.value}",
            party=feature_key,
            expected="one that is COMPLETED: predictions are made with what it has trained",
        )

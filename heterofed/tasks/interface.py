"""What can be done with tasks, wherever they are kept: the one interface of the local store and of a hub."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal

from heterofed.tasks.course import Event, LogEntry, Measured, Measurement, Notification, Output, ReportKind
from heterofed.tasks.model import PartyStatus, Role, Task, TaskStatus
from heterofed.tasks.options import TrainerOptions, UncertaintyName


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""The value of an argument that changes nothing (None clears)."""


class Tasks(ABC):
    """Tasks, their parties, their logs and their course. Safe to use from several threads.

    Every call raises `UnknownTask` for a task that is not there, and `ConfigError` for what cannot be. A store
    raises `OutputError` where its database fails; a hub's client `HubUnreachable` where the hub cannot be reached in
    time, and `NotAllowed` where its token does not permit the call.
    """

    @property
    @abstractmethod
    def where(self) -> str:
        """The file, or the URL without its password: what to call this place before people."""

    @abstractmethod
    def create(
        self,
        name: str,
        parties: Iterable[str],
        *,
        lives_for: timedelta | None = None,
        rounds: int | None = None,
        options: TrainerOptions | None = None,
        uncertainty: UncertaintyName | None = None,
    ) -> Task:
        """Create a task of a new, unguessable id.

        Args:
            name: what people call it; 1 to 200 printable characters.
            parties: 2 to 9 distinct feature keys.
            lives_for: after this time nobody new comes in; None: no end.
            rounds: how many rounds the host trains; None: as many as its own code says.
            options: win over the host's own; None: the host's.
            uncertainty: "swag": every party collects the moments of its weights; None: as their own code says.

        Raises:
            ConfigError: one of them cannot be, or the task would have expired already.
        """

    @abstractmethod
    def get(self, task_id: str) -> Task:
        """Return a task as it is now.

        Raises:
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def list(self) -> tuple[Task, ...]:
        """Return every task, the newest first."""

    @abstractmethod
    def move(self, task_id: str, status: TaskStatus, reason: str | None = None) -> Task:
        """Move a task on. To say again what it already is changes nothing, since two parties often say the same.

        Raises:
            ConfigError: its status cannot be followed by this one (see `model.MOVES`); nothing is changed.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def set_party(
        self,
        task_id: str,
        feature_key: str,
        *,
        status: PartyStatus | Literal[Keep.KEEP] = KEEP,
        reason: str | Literal[Keep.KEEP] | None = KEEP,
        role: Role | Literal[Keep.KEEP] | None = KEEP,
        public_key: bytes | Literal[Keep.KEEP] | None = KEEP,
        endpoint: str | Literal[Keep.KEEP] | None = KEEP,
    ) -> Task:
        """Change what is given of one party, in one step, and return the task; None clears.

        Raises:
            ConfigError: the task has no such party; it has another host; this is its running host and no
                collaborator; another party has this key; it is trusted under another key only; or a value is of the
                wrong type. Nothing is changed.
            UnknownTask: there is none of this id here.
        """

    def claim_host(self, task_id: str, feature_key: str) -> Task:
        """Make one party the host of a task; the host may claim again.

        Raises:
            ConfigError: another party is its host, or it has no such party.
            UnknownTask: there is none of this id here.
        """
        return self.set_party(task_id, feature_key, role="host")

    @abstractmethod
    def verify(self, task_id: str, feature_key: str, verified: bool, reason: str | None = None) -> Task:
        """Note the outcome of a party's data check; the task is VERIFIED when every party is.

        Raises:
            ConfigError: the task has no such party.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def trust(self, task_id: str, feature_key: str, public_key: bytes) -> Task:
        """Say which public key a party has: from now on that key, and no other that it announces, is this party.

        Raises:
            ConfigError: the task has no such party, or another party of it has this key.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def log(self, task_id: str, feature_key: str, text: str) -> None:
        """Append a line to a task's log; past 4000 characters it is cut.

        Raises:
            ConfigError: there is no text, or the task has no such party.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def logs(self, task_id: str, limit: int = 50) -> tuple[LogEntry, ...]:
        """Return the last `limit` lines of a task's log, oldest first.

        Raises:
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def start(self, task_id: str) -> Task:
        """Launch a task: everybody who listens (`heterofed agent`) is told to start its party.

        Raises:
            ConfigError: the task is over, was started and did not fail, or a party's data were refused.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def report(
        self, task_id: str, feature_key: str, kind: ReportKind, round: int, body: Mapping[str, Any] | None = None
    ) -> bool:
        """Say what a party did.

        Args:
            task_id: the task.
            feature_key: who says it.
            kind: what was done.
            round: the round it belongs to, from 1; for PARTY_LOST and TASK_FAILED 0 is before the first.
            body: what else there is to say, as plain JSON of at most 64 KiB.

        Returns:
            True: it counts; False: it was reported before, and nothing was changed.

        Raises:
            ConfigError: the party has not come in, is not the host for what only a host reports, the task is
                cancelled, or the round cannot be.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def begin_anew(self, task_id: str, feature_key: str, launch: str) -> bool:
        """Say that a party begins with the first round: what it said of an earlier run is forgotten, in one step.

        That is: its reports of rounds, tests and moments, its metric rows and its files; where the host says it, also
        how many rounds the task has finished. Each party says it for itself, before anything of the new run. So it does
        not matter whose word arrives first.

        Args:
            task_id: the task.
            feature_key: who says it.
            launch: which beginning of this party it is, for example a random text; 1 to 64 letters, digits, `_`, `-`.

        Returns:
            True: it is a new one; False: it was said before, and nothing was changed.

        Raises:
            ConfigError: the party has not come in, the task is cancelled, or its host says so of a completed one.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def events(self, task_id: str, *, after: int = 0, limit: int = 200) -> tuple[Event, ...]:
        """Return the next `limit` events of a task whose number is beyond `after`, oldest first.

        Raises:
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def put_metrics(self, task_id: str, feature_key: str, rows: Sequence[Measurement]) -> int:
        """Keep rows of a party's metric sets; a row that is there already stays as it is.

        Returns:
            How many were new.

        Raises:
            ConfigError: the task has no such party, or a row cannot be one; nothing is kept.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def metrics(self, task_id: str, *, after: int = 0) -> tuple[Measured, ...]:
        """Return every row whose number is beyond `after`, in order of arrival.

        Raises:
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def put_output(self, task_id: str, feature_key: str, name: str, data: bytes) -> None:
        """Keep a file of a party; one of this name is replaced.

        Args:
            task_id: the task.
            feature_key: whose file it is.
            name: 1 to 120 letters, digits, `_`, `.` or `-`; the first one no dot.
            data: at most as many bytes as the place takes, by default 64 MiB.

        Raises:
            ConfigError: the task has no such party, the name cannot be one, or the file is too large.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def outputs(self, task_id: str) -> tuple[Output, ...]:
        """Return what files there are, by party and name.

        Raises:
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def output(self, task_id: str, feature_key: str, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ConfigError: there is no such file, or no such party.
            UnknownTask: there is none of this id here.
        """

    @abstractmethod
    def follow(self, *, after: int = 0, stop: threading.Event) -> Iterator[Notification]:
        """Yield every notification whose number is beyond `after`, and then each new one until `stop` is set.

        A place that cannot be reached for a while is tried again; nothing is yielded twice.

        Raises:
            NotAllowed: the token is wrong or has expired.
        """

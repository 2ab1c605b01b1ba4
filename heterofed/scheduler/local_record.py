"""The record of a task whose parties run in one process: what they tell each other, and what is kept elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, TaskAborted, UnknownTask
from heterofed.metrics.progress import logger
from heterofed.metrics.tables import Cell
from heterofed.scheduler.record import StoreRecord
from heterofed.scheduler.seat import TaskRecord
from heterofed.tasks.directory import STORE_FILE, Directory, open_directory
from heterofed.tasks.joined import read_joined
from heterofed.tasks.model import PartyStatus, Role, Task, TaskStatus

NO_TASK = "local"
"""What a run is called that is no task."""


class SharedRecord:
    """The end of a run, good or bad, for the parties that could not be told over a link.

    Args:
        settings: where tasks are kept.
        task_id: of the run; if a task of that id is kept, its record is, too.
        parties: feature keys, host first.

    Raises:
        ConfigError: there is such a task, but it has other parties, or it is over.
    """

    def __init__(self, settings: Settings, task_id: str, parties: Sequence[str]) -> None:
        self.failed: dict[str, str] = {}
        self.completed = False
        self.task: Task | None = None
        """The task, if it is kept anywhere."""
        self._settings = settings
        self._records: list[StoreRecord] = []
        self._directory = _directory_of(settings, task_id)
        if self._directory is None:
            return
        self.task = self._directory.find(task_id)
        if sorted(self.task.feature_keys) != sorted(parties):
            raise ConfigError(
                f"task {task_id} is for {', '.join(self.task.feature_keys)}, not for {', '.join(parties)}",
                expected="the parties of the task, or a task_id that is none",
            )
        if why := self.task.why_over():
            raise ConfigError(f"task {task_id} {why}", advice="Create a new one with `heterofed task create`.")
        for party in parties:
            role: Role = "host" if party == parties[0] else "collaborator"
            self._directory.store.set_party(task_id, party, role=role)

    def of(self, party: str) -> TaskRecord:
        """Return one party's view of it."""
        if self._directory is None or self.task is None:
            return _Record(self, party, None)
        kept = StoreRecord(self._directory, self.task, party, upload=self._settings.upload)
        self._records.append(kept)
        return _Record(self, party, kept)

    def close(self) -> None:
        """Wait until everything is kept that the parties said."""
        for each in self._records:
            each.reporter.close()


def _directory_of(settings: Settings, task_id: str) -> Directory | None:
    """Return where a task is kept; None: nowhere. Nothing is created for that."""
    if task_id == NO_TASK:
        return None
    try:
        if not settings.hub and not (settings.home / STORE_FILE).exists() and task_id not in read_joined(settings.home):
            return None
        directory = open_directory(settings, task_id)
        directory.find(task_id)
    except UnknownTask:
        return None
    except HeterofedError as error:
        logger.warning("nothing of this run is kept with a task: %s", error)
        return None
    return directory


class _Record(TaskRecord):
    """One party's view of the shared record."""

    def __init__(self, shared: SharedRecord, feature_key: str, kept: StoreRecord | None) -> None:
        self._shared = shared
        self._me = feature_key
        self._kept = kept if kept is not None else TaskRecord()

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        """Keep that the task is completed, for a party that could not be told."""
        self._shared.completed = self._shared.completed or status is TaskStatus.COMPLETED
        self._kept.task_is(status, reason)

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        """Keep a failure for the others."""
        if status is PartyStatus.FAILED:
            self._shared.failed[self._me] = reason or "no reason given"
        self._kept.party_is(status, reason)

    def begins_anew(self) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.begins_anew()

    def log(self, text: str) -> None:
        """Keep a line."""
        self._kept.log(text)

    def round_finished(self, round_: int, figures: Mapping[str, Cell] | None = None) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.round_finished(round_, figures)

    def test_finished(self, round_: int, scores: Mapping[str, Cell]) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.test_finished(round_, scores)

    def swag_finished(self, round_: int) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.swag_finished(round_)

    def lost(self, party: str, reason: str) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.lost(party, reason)

    def measured(self, set_: str, row: int, round_: int | None, values: Mapping[str, Cell]) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.measured(set_, row, round_, values)

    def outputs(self, files: tuple[Path, ...], *, host: bool) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.outputs(files, host=host)

    def is_completed(self) -> bool:
        """Return whether the host has said so."""
        return self._shared.completed

    def look_for_cancel(self) -> None:
        """As `StoreRecord`, where the task is kept."""
        self._kept.look_for_cancel()

    def look(self) -> None:
        """Raise TaskAborted if another party failed, or the task was cancelled where it is kept."""
        for party, reason in self._shared.failed.items():
            if party != self._me:
                raise TaskAborted(f"ended the task: {reason}", party=party)
        self._kept.look()

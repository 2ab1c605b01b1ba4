"""A task's record as one party keeps it and reads it: its status, what it finished and measured, the end of others."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from heterofed.errors import HeterofedError, TaskAborted
from heterofed.metrics.progress import logger
from heterofed.scheduler.reporter import Reporter, Saying
from heterofed.scheduler.seat import TaskRecord
from heterofed.tasks.course import Measurement, ReportKind, Value
from heterofed.tasks.directory import Directory
from heterofed.tasks.interface import Tasks
from heterofed.tasks.model import PartyStatus, Task, TaskStatus

_STATUS = "the task's record was not updated"
_LOG = "the task's log was not written"
_LATEST_LINES = 20
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class StoreRecord(TaskRecord):
    """Keeps a task's course where the task is: in this machine's store, or on a hub.

    The record is for people: when it cannot be written, training goes on and a warning says so. Statuses are written to
    a store of this machine at once. Everything else, and everything for a hub, is queued (see `Reporter`).

    Args:
        directory: where the task is.
        task: the task as it was at the start.
        feature_key: this party.
        upload: what of its results this party gives to the record, as `Settings.upload` says.
    """

    def __init__(self, directory: Directory, task: Task, feature_key: str, *, upload: str = "metrics") -> None:
        self.reporter = Reporter(directory, task, feature_key, near=not directory.at_hub)
        self._tasks: Tasks = directory.store
        self._task_id = task.id
        self._me = feature_key
        self._upload = upload
        # What had failed before we started is old news: its people may be about to start it again.
        self._old_failures = {each.feature_key for each in task.parties if each.status is PartyStatus.FAILED}
        self._old_task_failure = task.status is TaskStatus.FAILED
        self._unreadable = False
        self._round = 0
        self._beginnings = 0
        self._told: dict[str, int] = {}

    @property
    def shows_metrics(self) -> bool:
        """Whether rows, scores and losses go into the record."""
        return self._upload != "nothing"

    # --- what is written ----------------------------------------------------------------------------------------------

    def task_is(self, status: TaskStatus, reason: str | None = None) -> None:
        """Note the status of the whole task; a failure is reported as the host's, too."""

        def move(tasks: Tasks) -> None:
            try:
                tasks.move(self._task_id, status, reason)
            except HeterofedError:
                if status is TaskStatus.FAILED and self._is(TaskStatus.CANCELLED, tasks):
                    return  # that is why it failed
                raise

        self._now_or_later(Saying(move, _STATUS))
        if status is TaskStatus.FAILED:
            self._report(ReportKind.TASK_FAILED, self._round, {"reason": reason})

    def party_is(self, status: PartyStatus, reason: str | None = None) -> None:
        """Note the status of this party."""
        self._now_or_later(
            Saying(lambda tasks: tasks.set_party(self._task_id, self._me, status=status, reason=reason), _STATUS)
        )

    def withdraw(self) -> None:
        """Note that this host listens no more."""
        self._now_or_later(
            Saying(
                lambda tasks: tasks.set_party(self._task_id, self._me, endpoint=None),
                "the host's address was not withdrawn",
            )
        )

    def begins_anew(self) -> None:
        """Have everything forgotten that this party told of an earlier run, or of the part of this one that is lost.

        Each beginning has a name of its own, so that one that is sent twice forgets nothing of what came after it.
        """
        self._beginnings += 1
        launch = f"{self.reporter.launch}-{self._beginnings}"
        self._told.clear()
        self._round = 0
        self.reporter.say(
            Saying(
                lambda tasks: tasks.begin_anew(self._task_id, self._me, launch),
                "the task's record still holds the run before",
            )
        )

    def log(self, text: str) -> None:
        """Keep a line with the task."""

        def again(tasks: Tasks) -> None:
            lines = tasks.logs(self._task_id, _LATEST_LINES)
            if not any(each.party == self._me and each.text == text for each in lines):
                tasks.log(self._task_id, self._me, text)

        self.reporter.say(
            Saying(lambda tasks: tasks.log(self._task_id, self._me, text), _LOG, again), may_be_left_out=True
        )

    def round_finished(self, round_: int, figures: Mapping[str, Value] | None = None) -> None:
        """Report that this party has closed a round."""
        self._round = max(self._round, round_)
        self._report(ReportKind.ROUND_FINISHED, round_, _plain(figures or {}) if self.shows_metrics else {})

    def test_finished(self, round_: int, scores: Mapping[str, Value]) -> None:
        """Report that the host has tested the model of a round."""
        self._report(ReportKind.TEST_FINISHED, round_, {"scores": _plain(scores)} if self.shows_metrics else {})

    def swag_finished(self, round_: int) -> None:
        """Report that this party has collected the moments of a round."""
        self._report(ReportKind.SWAG_FINISHED, round_, {})

    def lost(self, party: str, reason: str) -> None:
        """Report that the host waits for a party whose link is down."""
        self._report(ReportKind.PARTY_LOST, self._round, {"party": party, "reason": reason})

    def measured(self, set_: str, row: int, round_: int | None, values: Mapping[str, Value]) -> None:
        """Keep a row of a metric set; the same row again is no news."""
        if not self.shows_metrics or row < self._told.get(set_, 0):
            return
        self._told[set_] = row + 1
        self.reporter.measured(Measurement(_UNSAFE.sub("_", set_), row, round_, dict(values)))

    def output(self, path: Path) -> None:
        """Give a file of the results to the record, as it is now."""

        def give(tasks: Tasks) -> None:
            try:
                data = path.read_bytes()
            except OSError as error:
                logger.warning("%s was not given to the task's record: %s", path.name, error.strerror or error)
                return
            tasks.put_output(self._task_id, self._me, _UNSAFE.sub("_", path.name), data)

        self.reporter.say(Saying(give, f"{path.name} was not given to the task's record"))

    def outputs(self, files: tuple[Path, ...], *, host: bool) -> None:
        """Give those files of the results to the record that the settings let out.

        Tables and their archive with "metrics"; with "all" the models of a host besides. A collaborator's model never
        leaves it.
        """
        for path in files:
            model = path.suffix == ".pt" or path.name == "model.zip"
            if (self._upload == "all" and host) if model else (self.shows_metrics and path.suffix in (".csv", ".zip")):
                self.output(path)

    def _report(self, kind: ReportKind, round_: int, body: Mapping[str, Value | Mapping[str, Value]]) -> None:
        what = f"{kind.value} of round {round_} was not noted"
        self.reporter.say(Saying(lambda tasks: tasks.report(self._task_id, self._me, kind, round_, body), what))

    def _now_or_later(self, saying: Saying) -> None:
        if not self.reporter.near:
            self.reporter.say(saying)
            return
        try:
            saying.say(self._tasks)
        except HeterofedError as error:
            logger.warning("%s: %s", saying.what, error)

    # --- what is read -------------------------------------------------------------------------------------------------

    def is_completed(self) -> bool:
        """Return whether the record says that the task is completed."""
        return self._is(TaskStatus.COMPLETED)

    def _is(self, status: TaskStatus, tasks: Tasks | None = None) -> bool:
        try:
            return (tasks.get(self._task_id) if tasks is not None else self.reporter.look()).status is status
        except HeterofedError:
            return False

    def task(self) -> Task:
        """Return the task as it is, or lately was.

        Raises:
            HeterofedError: this machine's store cannot be read.
        """
        return self.reporter.look()

    def look_for_cancel(self) -> None:
        """Raise TaskAborted if the task was cancelled."""
        self._not_cancelled()

    def _not_cancelled(self) -> Task | None:
        """Return the task unless it was cancelled; None while it cannot be read."""
        try:
            task = self.reporter.look()
        except HeterofedError as error:
            if not self._unreadable:
                logger.warning("the task's record cannot be read: %s", error)
            self._unreadable = True
            return None
        self._unreadable = False
        if task.status is TaskStatus.CANCELLED:
            raise TaskAborted(f"task {task.id} was cancelled" + (f": {task.reason}" if task.reason else ""))
        return task

    def look(self) -> None:
        """Raise TaskAborted if another party failed since we started, or the task was cancelled."""
        task = self._not_cancelled()
        if task is None:
            return
        for party in task.parties:
            if party.status is not PartyStatus.FAILED:
                self._old_failures.discard(party.feature_key)
            elif party.feature_key not in self._old_failures and party.feature_key != self._me:
                raise TaskAborted(f"ended the task: {party.reason}", party=party.feature_key)
        if task.status is not TaskStatus.FAILED:
            self._old_task_failure = False
        elif not self._old_task_failure:
            raise TaskAborted(f"task {task.id} failed: {task.reason}")


def _plain(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return what JSON can hold of them."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in values.items()
    }

"""Tasks that a hub keeps, as its callers use them: the same operations as those of the local store, over HTTP."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx

from heterofed.errors import ConfigError, UnknownTask
from heterofed.tasks.checks import (
    MAX_OUTPUT_BYTES,
    check_body,
    check_launch,
    check_new_task,
    check_output,
    check_output_name,
    check_party_changes,
    check_public_key_bytes,
    check_report_round,
    check_rows,
)
from heterofed.tasks.course import Event, LogEntry, Measured, Measurement, Notification, Output, ReportKind
from heterofed.tasks.forms import (
    Form,
    measurement_form,
    options_form,
    read_event,
    read_field,
    read_log,
    read_measured,
    read_output,
    read_task,
    read_time,
)
from heterofed.tasks.hub_http import HubHttp
from heterofed.tasks.hub_stream import notifications
from heterofed.tasks.interface import KEEP, Keep, Tasks
from heterofed.tasks.model import FEATURE_KEY, PartyStatus, Role, Task, TaskStatus
from heterofed.tasks.options import TrainerOptions, UncertaintyName

ROWS_AT_ONCE, BYTES_AT_ONCE = 1000, 1 << 20
"""What one request with metric rows holds at most; a hub takes 4 MiB."""
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REPORTED_BEFORE = 409
T = TypeVar("T")


class HubClient(Tasks):
    """The tasks of a hub that its token's owner may see. Safe to use from several threads.

    Args:
        url: of the hub, for example http://hub.example:8080.
        token: of a user or a party. It is in no text of this object or its errors.
        timeout_s: how long a call may take with all its tries.
        retries: how many more tries there are after the first, where that can help.
        ca: a file with the certificate authority, where the system does not know it.
        transport: another way to the hub than the network, for tests.

    Raises:
        ConfigError: the URL is none, or the file holds no certificate.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout_s: float = 10.0,
        retries: int = 3,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = HubHttp(url, token, timeout_s=timeout_s, retries=retries, ca=ca, transport=transport)

    def __repr__(self) -> str:
        return f"HubClient({self.where!r})"

    @property
    def where(self) -> str:
        """The hub's URL."""
        return self._http.url

    def close(self) -> None:
        """Close the connections; afterwards it cannot be used."""
        self._http.close()

    # -- tasks and parties -------------------------------------------------------------------------------------------

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
        """Create a task; see `Tasks.create`."""
        keys = check_new_task(name, parties, lives_for, rounds, options, uncertainty)
        form = {
            "name": name,
            "parties": list(keys),
            "lives_for_s": None if lives_for is None else lives_for.total_seconds(),
            "rounds": rounds,
            "options": options_form(options),
            "uncertainty": uncertainty,
        }
        return self._task(self._http.call("POST", "/api/tasks", form=form, again=False))

    def get(self, task_id: str) -> Task:
        """Return a task as it is now; see `Tasks.get`."""
        return self._task(self._http.call("GET", self._path(task_id)))

    def list(self) -> tuple[Task, ...]:
        """Return the tasks that the token's owner may see, the newest first."""
        return self._many(self._http.call("GET", "/api/tasks"), "tasks", read_task)

    def move(self, task_id: str, status: TaskStatus, reason: str | None = None) -> Task:
        """Move a task on; see `Tasks.move`."""
        if not isinstance(status, TaskStatus):
            raise ConfigError("the status of a task is wrong", expected="a TaskStatus")
        if status is TaskStatus.CANCELLED:
            return self._task(self._http.call("POST", self._path(task_id, "/cancel"), form={"reason": reason}))
        form = {"status": status.value, "reason": reason}
        return self._task(self._http.call("PUT", self._path(task_id, "/status"), form=form))

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
        """Change what is given of one party; see `Tasks.set_party`."""
        form = check_party_changes(status, reason, role, public_key, endpoint)
        if isinstance(status, PartyStatus):
            form["status"] = status.value
        if isinstance(public_key, bytes):
            form["public_key"] = public_key.decode("ascii")
        return self._task(self._http.call("PATCH", self._party(task_id, feature_key), form=form))

    def verify(self, task_id: str, feature_key: str, verified: bool, reason: str | None = None) -> Task:
        """Note the outcome of a party's data check; see `Tasks.verify`."""
        form = {"verified": verified, "reason": reason}
        return self._task(self._http.call("POST", self._party(task_id, feature_key, "/verification"), form=form))

    def trust(self, task_id: str, feature_key: str, public_key: bytes) -> Task:
        """Say which public key a party has; see `Tasks.trust`."""
        form = {"public_key": check_public_key_bytes(public_key).decode("ascii")}
        return self._task(self._http.call("PUT", self._party(task_id, feature_key, "/trust"), form=form))

    def log(self, task_id: str, feature_key: str, text: str) -> None:
        """Append a line to a task's log; see `Tasks.log`."""
        if not isinstance(text, str) or not text:
            raise ConfigError("a line of the log is empty or no string", expected="some text")
        self._http.call("POST", self._party(task_id, feature_key, "/log"), form={"text": text}, again=False)

    def logs(self, task_id: str, limit: int = 50) -> tuple[LogEntry, ...]:
        """Return the last lines of a task's log; see `Tasks.logs`."""
        if limit < 1:
            self.get(task_id)
            return ()
        response = self._http.call("GET", self._path(task_id, "/log"), params={"limit": limit})
        return self._many(response, "log", read_log)

    # -- its course --------------------------------------------------------------------------------------------------

    def start(self, task_id: str) -> Task:
        """Launch a task; see `Tasks.start`."""
        return self._task(self._http.call("POST", self._path(task_id, "/start"), again=False))

    def report(
        self, task_id: str, feature_key: str, kind: ReportKind, round: int, body: Mapping[str, Any] | None = None
    ) -> bool:
        """Say what a party did; see `Tasks.report`."""
        kind, round = check_report_round(kind, round, None)
        form = {"kind": kind.value, "round": round, "body": check_body(body)}
        path = self._party(task_id, feature_key, "/reports")
        response = self._http.call("POST", path, form=form, missing_ok=frozenset({_REPORTED_BEFORE}))
        return response.status_code != _REPORTED_BEFORE

    def begin_anew(self, task_id: str, feature_key: str, launch: str) -> bool:
        """Say that a party begins with the first round; see `Tasks.begin_anew`."""
        form = {"launch": check_launch(launch)}
        response = self._http.call("POST", self._party(task_id, feature_key, "/beginning"), form=form)
        return self._read(response, lambda answer: bool(read_field(answer, "anew", bool)))

    def events(self, task_id: str, *, after: int = 0, limit: int = 200) -> tuple[Event, ...]:
        """Return the next events of a task; see `Tasks.events`."""
        if limit < 1:
            self.get(task_id)
            return ()
        params = {"after": after, "limit": limit}
        return self._many(self._http.call("GET", self._path(task_id, "/events"), params=params), "events", read_event)

    def put_metrics(self, task_id: str, feature_key: str, rows: Sequence[Measurement]) -> int:
        """Keep rows of a party's metric sets; see `Tasks.put_metrics`."""
        checked, path = check_rows(rows), self._party(task_id, feature_key, "/metrics")
        new = 0
        for part in _in_parts([measurement_form(row) for row in checked]):
            new += self._read(self._http.call("POST", path, form={"rows": part}), _read_new)
        return new

    def metrics(self, task_id: str, *, after: int = 0) -> tuple[Measured, ...]:
        """Return the rows that are new; see `Tasks.metrics`."""
        found: list[Measured] = []
        while True:
            response = self._http.call("GET", self._path(task_id, "/metrics"), params={"after": after})
            part = self._many(response, "metrics", read_measured)
            found += part
            if not part or not self._read(response, _read_more):
                return tuple(found)
            after = part[-1].number

    def put_output(self, task_id: str, feature_key: str, name: str, data: bytes) -> None:
        """Keep a file of a party; see `Tasks.put_output`."""
        path = self._party(task_id, feature_key, f"/outputs/{check_output_name(name)}")
        self._http.call("PUT", path, content=check_output(data, MAX_OUTPUT_BYTES))

    def outputs(self, task_id: str) -> tuple[Output, ...]:
        """Return what files there are; see `Tasks.outputs`."""
        return self._many(self._http.call("GET", self._path(task_id, "/outputs")), "outputs", read_output)

    def output(self, task_id: str, feature_key: str, name: str) -> bytes:
        """Return the bytes of a file; see `Tasks.output`."""
        path = self._party(task_id, feature_key, f"/outputs/{check_output_name(name)}")
        return self._http.call("GET", path).content

    def follow(self, *, after: int = 0, stop: threading.Event) -> Iterator[Notification]:
        """Yield what the hub notifies the token's owner of; see `Tasks.follow`."""
        return notifications(self._http, after, stop)

    # -- what only a hub has -----------------------------------------------------------------------------------------

    def me(self) -> dict[str, Any]:
        """Return what the hub knows of the token's owner: name, role, and more.

        Raises:
            NotAllowed: the token is wrong or has expired.
        """
        return self._read(self._http.call("GET", "/api/users/me"), _read_object)

    def invite(self, task_id: str, feature_key: str) -> tuple[str, datetime | None]:
        """Make an invitation for a party; return its text, and until when it can be used.

        Raises:
            NotAllowed: the token's owner may not invite to this task.
        """
        path = self._party(task_id, feature_key, "/invitation")
        return self._read(self._http.call("POST", path, form={}, again=False), _read_invitation)

    def table(self, task_id: str, feature_key: str, metric_set: str) -> bytes:
        """Return a metric set of a party as the CSV file that the party has too.

        Raises:
            ConfigError: there is none.
        """
        path = self._party(task_id, feature_key, f"/metrics/{quote(metric_set, safe='')}.csv")
        return self._http.call("GET", path).content

    # -- ------------------------------------------------------------------------------------------------------------

    def _path(self, task_id: object, rest: str = "") -> str:
        if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id):
            shown = repr(task_id[:40]) if isinstance(task_id, str) else f"of type {type(task_id).__name__}"
            raise UnknownTask(
                f"there is no task {shown} in {self.where}",
                advice="Look at `heterofed task list`, and see that HETEROFED_HUB is right.",
            )
        return f"/api/tasks/{task_id}{rest}"

    def _party(self, task_id: str, feature_key: object, rest: str = "") -> str:
        path = self._path(task_id)
        if not isinstance(feature_key, str) or not FEATURE_KEY.fullmatch(feature_key):
            self.get(task_id).party(feature_key)  # type: ignore[arg-type]  # no task has it: raises, with those it has
        return f"{path}/parties/{feature_key}{rest}"

    def _read(self, response: httpx.Response, read: Callable[[Any], T]) -> T:
        form = self._http.answer(response)
        try:
            return read(form)
        except ConfigError as error:
            raise self._http.strange() from error

    def _task(self, response: httpx.Response) -> Task:
        return self._read(response, read_task)

    def _many(self, response: httpx.Response, name: str, read: Callable[[Any], T]) -> tuple[T, ...]:
        return self._read(response, lambda form: tuple(read(each) for each in read_field(form, name, list)))


def _in_parts(forms: Sequence[Form]) -> Iterator[Sequence[Form]]:
    first = size = 0
    for number, form in enumerate(forms):
        size += len(json.dumps(form))
        if number > first and (size > BYTES_AT_ONCE or number - first >= ROWS_AT_ONCE):
            yield forms[first:number]
            first, size = number, len(json.dumps(form))
    yield forms[first:]


def _read_new(form: Any) -> int:
    return int(read_field(form, "new", int))


def _read_more(form: Any) -> bool:
    return bool(read_field(form, "more", bool, False))


def _read_object(form: Any) -> Form:
    if not isinstance(form, dict):
        raise ConfigError("what was sent is no object")
    return form


def _read_invitation(form: Any) -> tuple[str, datetime | None]:
    expires_at = read_field(form, "expires_at", str | None, None)
    return read_field(form, "invitation", str), None if expires_at is None else read_time(expires_at)

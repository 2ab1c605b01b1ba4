"""Celery workers, for hubs with a broker: `process_trainer_task` handles one event.

What crosses the broker is JSON that names an event; the event itself is a row of the database. So a broker that loses
everything loses nothing (the hub hands pending events out again), and one that is broken into can at most have events
handled that are due anyway.

    HETEROFED_HUB_DATABASE=… HETEROFED_HUB_BROKER=redis://… python -m heterofed.hub.coordinator

`heterofed hub --broker … --workers N` starts them by itself. More may run on other machines.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from celery import Celery, Task
from celery.exceptions import MaxRetriesExceededError, Retry
from kombu.exceptions import OperationalError

from heterofed.errors import ConfigError
from heterofed.hub.coordinator.rows import Work
from heterofed.hub.coordinator.work import process
from heterofed.hub.settings import HubSettings
from heterofed.tasks.database import Database

logger = logging.getLogger(__name__)

DATABASE_VARIABLE, BROKER_VARIABLE = "HETEROFED_HUB_DATABASE", "HETEROFED_HUB_BROKER"
PARENT_VARIABLE = "HETEROFED_HUB_PARENT"
"""A worker that a hub has started ends with that hub; this is its process id."""
QUEUE = "heterofed"
TIME_LIMIT_S = 30
"""Of one event."""
_MAX_RETRIES = 20
_LOOK_FOR_PARENT_EVERY_S = 1.0
_RESTART_AFTER_S = 1.0


def configure(app: Celery, broker: str) -> None:
    """Set a Celery app up for a broker: JSON only, nothing is acknowledged before it is done."""
    app.conf.update(
        broker_url=broker,
        task_serializer="json",
        accept_content=["json"],
        event_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=TIME_LIMIT_S,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # What a killed worker had is handed out again after this time, if the hub has not done so before.
        broker_transport_options={
            "visibility_timeout": 120,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
        },
    )


app = Celery("heterofed.hub", set_as_current=False)


# shared: Celery would register it on every other app of the process, too.
@app.task(bind=True, shared=False, name="heterofed.process_trainer_task", max_retries=_MAX_RETRIES)  # type: ignore[untyped-decorator]  # Celery has no types
def process_trainer_task(self: Task, training_uuid: str, event_name: str, payload: Mapping[str, Any]) -> str:
    """Handle one event of a training; returns what came of it, for the worker's log.

    Args:
        self: the Celery task.
        training_uuid: the task's id.
        event_name: name of a class of `events`.
        payload: {"round", "subject"}, which of the task's events of this name.
    """
    work = Work(str(training_uuid), str(event_name), dict(payload))
    result = process(_database(os.environ.get(DATABASE_VARIABLE, ""), os.getpid()), work)
    for each in result.works:
        hand_out(app, each)
    if result.again_in_s is not None:
        # Somebody is at it and needs some milliseconds, or was killed at it and frees the lock after some seconds.
        in_s = min(result.again_in_s * 1.5**self.request.retries, 10.0)
        try:
            raise self.retry(countdown=in_s)
        except MaxRetriesExceededError:
            logger.warning("task %s: %s is left to the hub", work.training_uuid, work.event_name)
        except Retry:
            raise
        except OperationalError as error:
            logger.warning("the broker cannot be reached; the hub will hand %s out again: %s", event_name, error)
    return str(result.outcome.value)


def hand_out(to: Celery, work: Work) -> bool:
    """Give an event to the broker; False: it cannot be reached, and the event's row waits for the sweeper."""
    try:
        to.send_task(
            process_trainer_task.name,
            args=[work.training_uuid, work.event_name, dict(work.payload)],
            queue=QUEUE,
            # Once more at once: the first attempt may only have found out that a connection is gone.
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        )
    except (OperationalError, OSError) as error:
        logger.warning("the broker cannot be reached, so %s waits: %s", work.event_name, error)
        return False
    return True


@lru_cache(maxsize=4)
def _database(where: str, process_id: int) -> Database:
    """Open the hub's database once in each process: a forked one must not use its parent's connections."""
    if not where:
        raise ConfigError("the worker does not know its hub's database", expected=f"{DATABASE_VARIABLE}")
    return Database(HubSettings(database=where).database, create=False)


class Workers:
    """Celery workers that this process has started, and starts again when they end by themselves.

    Args:
        database: the hub's, as a SQLAlchemy URL or the path of a SQLite file.
        broker: URL of a Redis.
        count: how many events they handle at once.
    """

    def __init__(self, database: str, broker: str, count: int) -> None:
        self._environment = {
            **os.environ,
            DATABASE_VARIABLE: database,
            BROKER_VARIABLE: broker,
            PARENT_VARIABLE: str(os.getpid()),
        }
        # Not on the command line, where every user of the machine could read the passwords.
        self._command = [sys.executable, "-m", "heterofed.hub.coordinator", "--concurrency", str(count)]
        self._stopped = threading.Event()
        self.process = self._start()
        self._watch = threading.Thread(target=self._keep_running, name="heterofed-hub-workers", daemon=True)
        self._watch.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL)  # noqa: S603 - ourselves

    def _keep_running(self) -> None:
        while True:
            code = self.process.wait()
            if self._stopped.wait(_RESTART_AFTER_S):
                return
            logger.warning("the workers ended with %d and are started again", code)
            self.process = self._start()

    def stop(self) -> None:
        """End them; what they are at is done first, if it takes no longer than some seconds."""
        self._stopped.set()
        if self.process.poll() is not None:
            self._watch.join(2 * _RESTART_AFTER_S)
        self.process.terminate()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10.0)


def start_workers(database: str, broker: str, count: int) -> Workers:
    """Start Celery workers beside the hub."""
    return Workers(database, broker, count)


def _end_with(parent: int) -> None:
    """End this worker when the hub that has started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_FOR_PARENT_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="heterofed-worker-parent", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Be a worker, until SIGTERM.

    Raises:
        ConfigError: a variable is missing.
    """
    broker = os.environ.get(BROKER_VARIABLE, "")
    if not broker or not os.environ.get(DATABASE_VARIABLE):
        raise ConfigError(
            "a worker needs a database and a broker", expected=f"{DATABASE_VARIABLE} and {BROKER_VARIABLE} to be set"
        )
    configure(app, broker)
    parent = os.environ.get(PARENT_VARIABLE, "")
    if parent.isdigit():
        _end_with(int(parent))
    name = f"heterofed-{os.getpid()}-{secrets.token_hex(3)}@%h"
    app.worker_main(["worker", "--loglevel", "WARNING", "--hostname", name, "--queues", QUEUE, *arguments])
